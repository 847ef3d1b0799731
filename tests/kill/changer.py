"""A process that creates, fills, reads and deletes topics, and trims one, while the broker dies.

    python changer.py <url> <testimony> <seed> <topic to trim>

It is the only one that changes topics, so it knows exactly which there have to be: what it was told is done stays done, and a
change whose answer was lost is looked up once and may not change its mind afterwards.

    did <what>     a change that was confirmed, for the figures
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

from party import Testimony, stopping
from values import identity_of, value_of

import zmqmq
from zmqmq.errors import RetriableError, TopicExists, UnknownTopic, ZmqmqError

PAUSE_SECONDS_MAX = 0.01
PREFIX = "churn-"
NAMES_MAX = 4
PARTITIONS_MAX = 3
RECORDS_MAX = 12
KEEP_MIN = 50
"""Records that a trim leaves."""
CALL_SECONDS = 5.0
CONFIG = {"segment_bytes": "4KiB", "compression": "none"}


class Churned:
    """A topic of the changer's, and what was acknowledged in it: value by partition and offset."""

    def __init__(self, topic_id: bytes) -> None:
        self.topic_id = topic_id
        self.acked: dict[tuple[int, int], bytes] = {}
        self.refused: set[bytes] = set()
        self.was_mistaken = False


class Changer:
    def __init__(self, client: zmqmq.Client, testimony: Testimony, chance: random.Random, trimmed: str, stop: Any) -> None:
        self._client = client
        self._testimony = testimony
        self._chance = chance
        self._trimmed = trimmed
        self._stop = stop
        self._topics: dict[str, Churned] = {}
        self._log_starts: dict[int, int] = {}
        self._trims_asked: dict[int, int] = {}
        self._number = 0

    def turn(self) -> None:
        steps = [self._create, self._create, self._delete, self._fill, self._fill, self._read, self._trim, self._trim, self._look]
        self._chance.choice(steps)()

    def finish(self) -> None:
        """With the broker up: look at everything once more."""
        self._look()
        for name in list(self._topics):
            self._read_one(name)
            self._testimony.give([f"topic {name} {self._topics[name].topic_id.hex()}"])

    def _did(self, what: str) -> None:
        self._testimony.give([f"did {what}"])

    def _some(self) -> str | None:
        return self._chance.choice(sorted(self._topics)) if self._topics else None

    def _create(self) -> None:
        name = f"{PREFIX}{self._chance.randrange(NAMES_MAX)}"
        if name in self._topics:
            return
        try:
            topic = self._client.admin.create_topic(name, partitions=self._chance.randint(1, PARTITIONS_MAX), config=CONFIG)
        except RetriableError:
            self._settle(name)
        except TopicExists as error:
            self._testimony.accuse(f"{name} was deleted, or never created, and is there: {error}")
            self._settle(name)
        else:
            self._topics[name] = Churned(topic.topic_id)
            self._did("create")

    def _delete(self) -> None:
        name = self._some()
        if name is None:
            return
        try:
            self._client.admin.delete_topic(name)
        except RetriableError:
            known = self._topics.pop(name)
            self._settle(name)
            if name in self._topics:
                if self._topics[name].topic_id != known.topic_id:
                    self._testimony.accuse(f"{name} has another id after a delete without an answer")
                self._topics[name] = known
        except UnknownTopic as error:
            self._testimony.accuse(f"{name} was created and is gone: {error}")
            del self._topics[name]
        else:
            del self._topics[name]
            self._did("delete")

    def _settle(self, name: str) -> None:
        """Nobody told what became of a change: look it up, for good."""
        while not self._stop.is_set():
            try:
                self._topics[name] = Churned(self._client.admin.describe_topic(name).topic_id)
            except RetriableError:
                continue
            except UnknownTopic:
                self._topics.pop(name, None)
            return

    def _fill(self) -> None:
        name = self._some()
        if name is None:
            return
        topic = self._topics[name]
        for _ in range(self._chance.randint(1, RECORDS_MAX)):
            value = value_of(name, self._number)
            self._number += 1
            try:
                receipt = self._client.produce(name, value, timeout=CALL_SECONDS)
            except RetriableError as error:
                if error.outcome == "not_written":
                    topic.refused.add(value)
                continue
            except ZmqmqError as error:
                self._on_refused(name, topic, value, error)
                continue
            if receipt.offset is not None:
                topic.acked[receipt.partition, receipt.offset] = value

    def _on_refused(self, name: str, topic: Churned, value: bytes, error: ZmqmqError) -> None:
        """The client still knew a deleted topic of the same name; it may say so once."""
        topic.refused.add(value)
        if not isinstance(error, UnknownTopic) or error.outcome != "not_written" or topic.was_mistaken:
            self._testimony.accuse(f"{name}: a produce got {type(error).__name__} ({error.outcome}): {error}")
        topic.was_mistaken = True

    def _read(self) -> None:
        name = self._some()
        if name is not None:
            self._read_one(name)

    def _read_one(self, name: str) -> None:
        """All that was acknowledged is there; nothing is there twice, and nothing that was refused."""
        topic = self._topics[name]
        try:
            with self._client.reader(name, stop=zmqmq.Offset.END) as reader:
                found = {(message.partition, message.offset): message.raw_value for message in reader}
        except RetriableError:
            return
        except ZmqmqError as error:
            self._testimony.accuse(f"{name}: reading it got {type(error).__name__}: {error}")
            return
        for place, value in topic.acked.items():
            if found.get(place) != value:
                self._testimony.accuse(f"{name}-{place[0]}@{place[1]}: {value[:16]!r} was acknowledged, {found.get(place)!r:.30} is there")
        if len(set(found.values())) != len(found):
            self._testimony.accuse(f"{name} holds a record twice")
        if topic.refused & set(found.values()):
            self._testimony.accuse(f"{name} holds a record that was reported as not written")
        if not all(map(identity_of, found.values())):
            self._testimony.accuse(f"{name} holds a value that was never sent")
        self._did("read")

    def _trim(self) -> None:
        try:
            offsets = self._client.admin.offsets(self._trimmed)
            self._watch(offsets)
            partition = self._chance.choice(sorted(offsets))
            start, end = offsets[partition].start, offsets[partition].end - KEEP_MIN
            if start >= end:
                return
            before = self._chance.randint(start, end)
            self._trims_asked[partition] = max(before, self._trims_asked.get(partition, 0))
            found = self._client.admin.delete_records(self._trimmed, {partition: before})
        except RetriableError:
            return
        self._log_starts[partition] = max(found[partition], self._log_starts.get(partition, 0))
        if found[partition] < before:
            self._testimony.accuse(f"{self._trimmed}-{partition}: asked to start at {before}, it starts at {found[partition]}")
        self._did("trim")

    def _watch(self, offsets: Any) -> None:
        for partition, found in offsets.items():
            if found.start < self._log_starts.get(partition, 0):
                self._testimony.accuse(f"{self._trimmed}-{partition} starts at {found.start}, before it was {self._log_starts[partition]}")
            if found.start > self._trims_asked.get(partition, 0):
                self._testimony.accuse(f"{self._trimmed}-{partition} starts at {found.start}, nobody asked for that")

    def _look(self) -> None:
        """The topics are those that were confirmed, with their ids: none came back, none is gone."""
        try:
            found = {topic.name: topic.topic_id for topic in self._client.admin.topics() if topic.name.startswith(PREFIX)}
        except RetriableError:
            return
        wanted = {name: topic.topic_id for name, topic in self._topics.items()}
        if found != wanted:
            told = ", ".join(f"{name}={topic_id.hex()[:8]}" for name, topic_id in sorted(found.items()))
            self._testimony.accuse(f"topics are {told}, expected were {sorted(wanted)}")
        self._did("look")


def main(url: str, path: str, seed: str, trimmed: str) -> None:
    stop = stopping()
    chance = random.Random(seed)
    with zmqmq.Client(url, timeout=CALL_SECONDS) as client:
        changer = Changer(client, Testimony(Path(path)), chance, trimmed, stop)
        while not stop.wait(chance.random() * PAUSE_SECONDS_MAX):
            changer.turn()
        changer.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
