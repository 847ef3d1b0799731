"""A client among several: it produces and reads at once and writes down what it tried and saw, as a history (docs/history.md).

    python swarm.py <urls> <file> <name> <seed> <topic>:<partitions> …

Invocations are written before the calls. Ends when its standard input does, after everything that is under way is decided. The files of
all clients of a machine make one history: their times are of one clock.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

sys.path[:0] = [str(Path(__file__).parent.parent / "kill")]

from party import stopping  # noqa: E402 - the path comes first

import zmqmq  # noqa: E402
from zmqmq.errors import DeliveryFailed, RetriableError, ZmqmqError  # noqa: E402
from zmqmq.testing.history import Batch, Operation, Poll, Seen, Send  # noqa: E402

LANES: Final = ((20.0, 1), (20.0, 4), (4.0, 2))
"""Delivery timeout and records of an operation at most."""
TURN_SECONDS_MIN, TURN_SECONDS_MAX = 0.01, 0.06
LATE_SECONDS: Final = 40.0
"""A receipt has to come within this, whatever its delivery timeout."""
MESSAGES_MAX: Final = 1_000


class Pen:
    """Operations that leave this process as soon as they are written."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, process: str, kind: Any, f: Any, steps: Sequence[Any] | None, time_ns: int | None = None) -> None:
        value = None if steps is None else list(steps)
        operation = Operation(0, process, kind, f, time.monotonic_ns() if time_ns is None else time_ns, value)
        os.write(self._fd, msgspec.json.encode(operation) + b"\n")


class Lane:
    """Sends operation after operation, each to one partition; one at a time."""

    def __init__(self, name: str, producers: dict[str, zmqmq.Producer[bytes]], keys: Sequence[tuple[str, int]], burst_max: int) -> None:
        self._name = name
        self._life = 0
        self._number = 0
        self._producers = producers
        self._keys = keys
        self._burst_max = burst_max
        self._sends: list[Send] = []
        self._handles: list[Any] = []
        self._topic = ""

    @property
    def is_busy(self) -> bool:
        return bool(self._sends)

    @property
    def process(self) -> str:
        return f"{self._name}.{self._life}"

    def begin(self, pen: Pen, chance: random.Random) -> None:
        topic, partition = chance.choice(self._keys)
        count = chance.randint(1, self._burst_max)
        names = [f"{self._name}#{self._number + position}" for position in range(count)]
        self._number += count
        self._sends = [Send(f"{topic}-{partition}", name) for name in names]
        pen.write(self.process, "invoke", "send", self._sends)
        for name in names:
            try:
                self._handles.append(self._producers[topic].send(name.encode(), partition=partition))
            except ZmqmqError as error:
                error.outcome = "not_written"
                self._handles.append(error)

    def settle(self, pen: Pen, wait_seconds: float = 0.0) -> None:
        """Write down the end, if there is one."""
        if not wait_seconds and not all(isinstance(handle, ZmqmqError) or handle.done() for handle in self._handles):
            return
        found = [self._outcome(send, handle, wait_seconds) for send, handle in zip(self._sends, self._handles, strict=True)]
        outcomes = {outcome for outcome, _ in found}
        kind = outcomes.pop() if len(outcomes) == 1 else "info"
        pen.write(self.process, kind, "send", None if kind == "fail" else [send for _, send in found])
        self._life += kind == "info"
        self._sends, self._handles = [], []

    def _outcome(self, send: Send, handle: Any, wait_seconds: float) -> tuple[str, Send]:
        try:
            if isinstance(handle, ZmqmqError):
                raise handle
            receipt = handle.result(wait_seconds)
        except ZmqmqError as error:
            return "fail" if error.outcome == "not_written" else "info", send
        return "ok", Send(send.key, send.value, receipt.offset, receipt.leader_epoch)


class Reading:
    """Tails one topic."""

    def __init__(self, name: str, client: zmqmq.Client, topic: str) -> None:
        self._process = f"{name}-{topic}"
        self._topic = topic
        self._reader = client.reader(topic)

    def turn(self, pen: Pen) -> None:
        started = time.monotonic_ns()
        try:
            messages = self._reader.batch(MESSAGES_MAX, timeout=0)
        except RetriableError:
            return
        if messages:
            pen.write(self._process, "invoke", "poll", [Poll()], started)
            pen.write(self._process, "ok", "poll", [polled(self._topic, messages)])


def polled(topic: str, messages: Sequence[zmqmq.Message[bytes]]) -> Poll:
    records: dict[str, list[tuple[int, Any]]] = {}
    batches: dict[str, list[Batch]] = {}
    for message in messages:
        key = f"{topic}-{message.partition}"
        assert message.raw_value is not None
        records.setdefault(key, []).append((message.offset, message.raw_value.decode()))
        batches.setdefault(key, []).append(Batch(message.offset, 1, message.leader_epoch))
    return Poll(records, {key: Seen(batches=tuple(found)) for key, found in batches.items()})


def main(urls: str, path: str, name: str, seed: str, *topics: str) -> None:
    chance, stop, pen = random.Random(seed), stopping(), Pen(Path(path))
    counts = {topic: int(count) for topic, _, count in (words.partition(":") for words in topics)}
    keys = [(topic, partition) for topic, count in counts.items() for partition in range(count)]
    with contextlib.closing(zmqmq.Client(urls, timeout=LATE_SECONDS)) as client:
        lanes = []
        for number, (seconds, burst_max) in enumerate(LANES):
            producers = {topic: client.producer(topic, linger=0.0, delivery_timeout=seconds) for topic in counts}
            lanes.append(Lane(f"{name}/{number}", producers, keys, burst_max))
        readings = [Reading(name, client, topic) for topic in counts]
        while not stop.wait(chance.uniform(TURN_SECONDS_MIN, TURN_SECONDS_MAX)):
            for lane in lanes:
                if lane.is_busy:
                    lane.settle(pen)
                else:
                    lane.begin(pen, chance)
            for reading in readings:
                reading.turn(pen)
        for lane in lanes:
            if lane.is_busy:
                lane.settle(pen, LATE_SECONDS)
        with contextlib.suppress(DeliveryFailed):  # each failure has been written down
            client.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
