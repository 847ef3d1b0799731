"""A process that tails partitions and swears to every record it was given.

    python follower.py <url> <testimony> <topics that may lose records to retention> <topic>:<partition> …

It catches by itself: an offset skipped, a high watermark that goes back, a record taken back, loss where nothing is removed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from party import Testimony, stopping
from values import identity_of

import zmqmq
from zmqmq.errors import DataLost, RetriableError

TURN_SECONDS = 0.02
IDLE_TURNS_AT_END = 5
MESSAGES_MAX = 2_000


class Following:
    """One partition."""

    def __init__(self, client: zmqmq.Client, topic: str, partition: int, *, may_lose: bool, testimony: Testimony) -> None:
        self.place = f"{topic} {partition}"
        self.partition = partition
        self.is_over = False
        self._reader = client.reader(topic, partitions=[partition])
        self._may_lose = may_lose
        self._testimony = testimony
        self._next = -1
        self._high_watermark = -1

    def turn(self) -> bool:
        """Take what is there; whether anything was."""
        try:
            messages = self._reader.batch(MESSAGES_MAX, timeout=TURN_SECONDS)
        except DataLost as lost:
            if not self._may_lose:
                self._testimony.accuse(f"{self.place}: a reader at {self._next} lost records of a topic that keeps all: {lost}")
            self._next = lost.log_start
            self._reader.seek(zmqmq.Offset.exact(lost.log_start))
            return True
        except RetriableError:
            return False
        except zmqmq.ZmqmqError as error:
            self._testimony.accuse(f"{self.place}: a reader at {self._next} got {type(error).__name__}: {error}")
            self.is_over = True
            return False
        self._testimony.give([self._swear(message) for message in messages])
        self._watch_watermark()
        return bool(messages)

    def close(self) -> None:
        self._reader.close()

    def _swear(self, message: zmqmq.Message[bytes]) -> str:
        if self._next not in {-1, message.offset}:
            self._testimony.accuse(f"{self.place}: a reader got offset {message.offset} instead of {self._next}")
        self._next = message.offset + 1
        identity = identity_of(message.raw_value)
        if identity is None:
            return f"wrong {self.place}@{message.offset}: a reader got a value that was never sent"
        return f"saw {self.place} {message.offset} {message.leader_epoch} {identity.lane} {identity.number}"

    def _watch_watermark(self) -> None:
        found = self._reader.high_watermarks()[self.partition]
        if found < self._high_watermark:
            self._testimony.accuse(f"{self.place}: the high watermark went from {self._high_watermark} to {found}")
        self._high_watermark = max(found, self._high_watermark)


def main(url: str, path: str, losing: str, *places: str) -> None:
    stop = stopping()
    testimony = Testimony(Path(path))
    with zmqmq.Client(url, timeout=30.0) as client:
        followings = []
        for place in places:
            topic, _, partition = place.partition(":")
            followings.append(Following(client, topic, int(partition), may_lose=topic in losing.split(","), testimony=testimony))
        idle = 0
        while not stop.is_set() or idle < IDLE_TURNS_AT_END:
            turns = [following.turn() for following in followings if not following.is_over]
            idle = 0 if any(turns) else idle + 1
        for following in followings:
            following.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
