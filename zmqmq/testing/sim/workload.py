"""Programs that use the cluster as users do, and write down what they did and saw.

Producers send with keys and to partitions, one record or many, with all kinds of settings; readers read from the start, from the
end, or go back; a gardener makes and deletes topics and records. Each runs in a client of its own, comes again when it was
killed, and goes on after every error that the product names. What they did is a history for the checker.

A ``fsync`` topic is held to everything. Of a ``replicated`` topic with one replica a power cut takes what was not synced, so its
history is kept apart: it is held to everything as long as no power was lost.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import Any, Final

from zmqmq.model import Offset
from zmqmq.testing.sim.client import SimClient
from zmqmq.testing.sim.cluster import Cluster
from zmqmq.testing.sim.gardener import Garden, tend
from zmqmq.testing.sim.invariants import Violation
from zmqmq.testing.sim.notes import History, Notes
from zmqmq.testing.sim.programs import Program, Topic, number_of, produce, read, value_of

RESPAWN_US: Final = (10_000, 3_000_000)
WATCH_US: Final = 500_000
"""How often somebody looks whether a program ended."""
PROGRAM: Final = "program"
"""What may be left out of a run first: whole programs, then their steps."""
FINAL_S_MAX: Final = 60.0


class Workload:
    """``start`` it in a cluster that serves; ``stop`` asks everybody to end; ``read_all`` is the last word."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.strict = History(cluster.world)
        """Of the ``fsync`` topics."""
        self.lenient = History(cluster.world)
        self.garden = Garden()
        self.garden.is_sure = len(cluster.brokers) == 1
        self.unplaced: dict[str, list[int]] = {}
        """Values that were acknowledged without a word on their offsets, by ``fsync`` topic."""
        self.is_stopping = False
        self.running = 0
        dice = cluster.chance.stream("workload")
        self.topics = [_draw_topic(dice, number) for number in range(dice.randrange(1, 4))]
        self._value = 0
        self._programs: list[tuple[str, Callable[[Program], Coroutine[Any, Any, None]]]] = []
        for number in range(dice.randrange(1, 4)):
            self._programs.append((f"producer{number}", produce))
        for number in range(dice.randrange(1, 3)):
            self._programs.append((f"reader{number}", read))
        self._programs.append(("gardener", tend))
        self._lives: dict[str, int] = {}

    def start(self) -> None:
        maker = self.cluster.client("maker")
        self.cluster.run(maker, self._make_topics(maker))
        self.cluster.clients.pop("maker")
        for number, (name, _) in enumerate(self._programs):
            if self.cluster.chance.takes(PROGRAM, number):
                self._spawn(number, name)

    def stop(self) -> None:
        self.is_stopping = True

    def next_value(self) -> int:
        self._value += 1
        return self._value

    def read_all(self) -> None:
        """Read every topic from its first record to its last, with a client that knows nothing."""
        client = self.cluster.client("auditor", timeout=20.0)
        self.cluster.run(client, self._audit(client), FINAL_S_MAX)
        self.cluster.clients.pop("auditor")

    @property
    def acknowledged(self) -> int:
        return self.strict.acknowledged + self.lenient.acknowledged

    def notes(self, process: str, topic: Topic) -> Notes:
        return Notes(self.strict if topic.is_fsync else self.lenient, self.cluster.trace, process, topic.name)

    async def _make_topics(self, client: SimClient) -> None:
        async with client:
            for topic in self.topics:
                await client.admin.create_topic(topic.name, topic.partitions, config=topic.config, timeout=60.0)

    async def _audit(self, client: SimClient) -> None:
        self.garden.is_sure = True
        async with client:
            for topic in self.topics:
                for partition in range(topic.partitions):
                    await client.produce(topic.name, value_of(0, b""), partition=partition, timeout=20.0)  # it can be written to again
                notes = self.notes("auditor", topic)
                async with client.reader(topic.name, start=Offset.START, stop=Offset.END) as reader:
                    notes.begin_poll(final=True)
                    found = [message async for message in reader]
                    notes.end_poll(found, reader)
                self._check_unplaced(topic, {number_of(message) for message in found})
            await self.garden.audit(client)

    def _check_unplaced(self, topic: Topic, found: set[int]) -> None:
        missing = [value for value in self.unplaced.get(topic.name, ()) if value not in found]
        if missing:
            raise Violation(f"acknowledged records stay: {missing} of {topic.name} were acknowledged as duplicates, and are not there")

    def _spawn(self, number: int, name: str) -> None:
        if self.is_stopping:
            return
        life = self._lives[name] = self._lives.get(name, 0) + 1
        dice = self.cluster.chance.stream(f"{name} {life}")
        client = self.cluster.client(name, timeout=dice.uniform(1.0, 10.0))
        program = Program(self, client, dice, f"{name}.{life}")
        self.running += 1
        task = client.process.create_task(program.run(self._programs[number][1]))

        def look() -> None:
            """Whether it ended, or was killed."""
            if not task.done() and not client.process.is_dead:
                self.cluster.world.after(WATCH_US, look)
                return
            self.running -= 1
            if client.process.is_dead:
                program.notes_end()
                self.cluster.world.after(dice.randrange(*RESPAWN_US), self._spawn, number, name)
            else:
                task.result()

        self.cluster.world.after(WATCH_US, look)


def _draw_topic(dice: random.Random, number: int) -> Topic:
    config = {
        "durability": "fsync" if dice.random() < 0.7 else "replicated",
        "segment_bytes": str(dice.choice((4096, 20_000, 1 << 20))),
        "retention_ms": "unlimited",
        "compression": dice.choice(("zstd", "none")),
    }
    return Topic(f"t{number}", dice.randrange(1, 5), config)
