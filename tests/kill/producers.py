"""A process that produces on several lanes and swears to every receipt.

    python producers.py <url> <testimony> <seed> <lanes as JSON>

A *patient* lane has a delivery timeout longer than any outage of the run: each of its records has to be delivered.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
from party import Testimony, stopping
from values import value_of

import zmqmq
from zmqmq.errors import DeliveryFailed

WINDOW_RECORDS = 60
"""Unanswered records of a lane."""
PAUSE_SECONDS_MAX = 0.012
PATIENCE_SECONDS = 30.0
LATE_SECONDS = 60.0
KEYS = 13


class Lane(msgspec.Struct, frozen=True):
    name: str
    topic: str
    acks: Any = "all"
    idempotent: bool = True
    keyed: bool = False
    linger: float = 0.0
    burst_max: int = 5
    delivery_timeout: float = PATIENCE_SECONDS

    @property
    def is_patient(self) -> bool:
        return self.idempotent and self.delivery_timeout >= PATIENCE_SECONDS


class Sending:
    """A lane at work."""

    def __init__(self, client: zmqmq.Client, lane: Lane, testimony: Testimony) -> None:
        self.lane = lane
        self.number = 0
        self.waiting: deque[tuple[int, Any]] = deque()
        topic = client.admin.describe_topic(lane.topic)
        self._topic = lane.topic
        self._is_fsync = topic.settings.durability == "fsync"
        self._testimony = testimony
        self._producer = client.producer(
            lane.topic, acks=lane.acks, idempotent=lane.idempotent, linger=lane.linger, delivery_timeout=lane.delivery_timeout,
            batch_bytes=2048,
        )  # fmt: skip

    def burst(self, count: int) -> None:
        name = self.lane.name
        for number in range(self.number, self.number + count):
            key = b"%s%d" % (name.encode(), number % KEYS) if self.lane.keyed else None
            self.waiting.append((number, self._producer.send(value_of(name, number), key=key)))
        self.number += count

    def settle(self) -> None:
        """Swear to what is decided."""
        lines = []
        while self.waiting and self.waiting[0][1].done():
            lines += self._outcome(*self.waiting.popleft())
        self._testimony.give(lines)

    def finish(self) -> None:
        while self.waiting:
            number, handle = self.waiting.popleft()
            self._testimony.give(self._outcome(number, handle))
        with contextlib.suppress(DeliveryFailed):  # each failure is in the testimony
            self._producer.close()

    def _outcome(self, number: int, handle: Any) -> list[str]:
        name = self.lane.name
        try:
            receipt = handle.result(LATE_SECONDS)
        except zmqmq.ZmqmqError as error:
            lines = [f"fail {name} {number} {error.outcome} {type(error).__name__}"]
            if self.lane.is_patient:
                lines.append(f"wrong {name}#{number} was not delivered: {error}")
            return lines
        offset = -1 if receipt.offset is None else receipt.offset
        lines = [f"ack {self._topic} {receipt.partition} {offset} {receipt.leader_epoch} {name} {number}"]
        if offset >= 0 and (receipt.replicas != 1 or (self._is_fsync and receipt.synced != 1)):
            lines.append(f"wrong the receipt of {name}#{number} says replicas={receipt.replicas} synced={receipt.synced}")
        return lines


def main(url: str, path: str, seed: str, lanes: str) -> None:
    chance = random.Random(seed)
    stop = stopping()
    testimony = Testimony(Path(path))
    with zmqmq.Client(url, timeout=PATIENCE_SECONDS) as client:
        sendings = [Sending(client, lane, testimony) for lane in msgspec.json.decode(lanes, type=list[Lane])]
        while not stop.wait(chance.random() * PAUSE_SECONDS_MAX):
            for sending in sendings:
                if len(sending.waiting) < WINDOW_RECORDS:
                    sending.burst(chance.randint(1, sending.lane.burst_max))
                sending.settle()
        for sending in sendings:
            sending.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
