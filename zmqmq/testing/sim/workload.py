"""Programs that use the cluster as users do, and write down what they did and saw.

Producers send with keys and to partitions, one record or many, with all kinds of settings; readers read from the start, from the
end, or go back; a gardener makes and deletes topics and records. Each runs in a client of its own, comes again when it was
killed, and goes on after every error that the product names. What they did is a history for the checker.

A ``fsync`` topic is held to everything. Of a ``replicated`` topic with one replica a power cut takes what was not synced, so its
history is kept apart: it is held to everything as long as no power was lost.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final

from crc32c import crc32c
from msgspec import Struct

from zmqmq.client.aio.producer import AsyncProducer
from zmqmq.client.aio.reader import AsyncReader
from zmqmq.client.message import Message
from zmqmq.errors import (
    BrokerUnavailable,
    BufferFull,
    CorruptLog,
    DeliveryFailed,
    DiskFull,
    InvalidRecord,
    LogOffline,
    OffsetOutOfRange,
    OutcomeUnknown,
    Throttled,
    TimeoutError,
    ZmqmqError,
)
from zmqmq.model import SLOT_COUNT, Delivery, Offset, partition_of_slot
from zmqmq.testing.history import Send
from zmqmq.testing.sim.client import SimClient
from zmqmq.testing.sim.cluster import Cluster
from zmqmq.testing.sim.gardener import Garden, tend
from zmqmq.testing.sim.invariants import Violation
from zmqmq.testing.sim.notes import History, Notes

UNSEEN_MS_MAX: Final = 5_000
"""A batch that became visible after its time was looked up may be so much older: it waited for the disk."""
RESPAWN_US: Final = (10_000, 3_000_000)
WATCH_US: Final = 500_000
"""How often somebody looks whether a program ended."""
PAUSE_S_MAX: Final = 1.0
RECORDS_MAX: Final = 30
VALUE_BYTES_MAX: Final = 6_000
PROGRAM: Final = "program"
"""What may be left out of a run first: whole programs, then their steps."""
AGE_MS_MAX: Final = 30_000
"""How far back who reads since a time begins."""
FINAL_S_MAX: Final = 60.0
TROUBLE: Final = (BrokerUnavailable, BufferFull, DeliveryFailed, DiskFull, LogOffline, OutcomeUnknown, Throttled, TimeoutError)
"""What a program has to expect from a cluster in trouble. Any other error is a finding."""
ROT: Final = (CorruptLog, InvalidRecord)
"""And from one whose segments rot."""


class Topic(Struct, frozen=True):
    name: str
    partitions: int
    config: dict[str, str]

    @property
    def is_fsync(self) -> bool:
        return self.config["durability"] == "fsync"

    def key(self, partition: int) -> str:
        return f"{self.name}/{partition}"


class Workload:
    """``start`` it in a cluster that serves; ``stop`` asks everybody to end; ``read_all`` is the last word."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.strict = History(cluster.world)
        """Of the ``fsync`` topics."""
        self.lenient = History(cluster.world)
        self.garden = Garden()
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


class Program:
    """One life of one program."""

    def __init__(self, workload: Workload, client: SimClient, dice: random.Random, name: str) -> None:
        self.workload = workload
        self.client = client
        self.dice = dice
        self.name = name
        self._notes: list[Notes] = []
        self._step_count = 0

    @property
    def is_stopping(self) -> bool:
        return self.workload.is_stopping

    def takes_step(self) -> bool:
        """False: the next step is left out of this run. All of its chance is drawn nevertheless, so that the others do not move."""
        self._step_count += 1
        return self.workload.cluster.chance.takes(f"step of {self.name}", self._step_count)

    def notes(self, topic: Topic) -> Notes:
        made = self.workload.notes(f"{self.name}.{len(self._notes)}", topic)
        self._notes.append(made)
        return made

    def notes_end(self) -> None:
        """It was killed: nobody knows what became of what was under way."""
        for notes in self._notes:
            notes.give_up()

    async def run(self, main: Callable[[Program], Coroutine[Any, Any, None]]) -> None:
        async with self.client:
            while not self.is_stopping:
                try:
                    await main(self)
                except (*TROUBLE, *ROT) as error:
                    if isinstance(error, ROT) and not self.workload.cluster.chance.struck["segment rots"]:
                        raise
                    self.workload.cluster.trace.tell("trouble", f"{self.name}: {type(error).__name__}: {error}")
                    await self.pause()

    async def pause(self) -> None:
        await asyncio.sleep(self.dice.random() * PAUSE_S_MAX)


async def produce(program: Program) -> None:
    """One producer, until something goes wrong or it has had enough."""
    dice = program.dice
    topic = dice.choice(program.workload.topics)
    notes = program.notes(topic)
    pace_s = 10 ** dice.uniform(-1.7, 0.5)
    producer: AsyncProducer[bytes] = program.client.producer(
        topic.name,
        acks=dice.choice(("all", "all", "all", 1)),
        linger=dice.choice((0.0, 0.001, 0.005, 0.1)),
        compression=dice.choice((None, "zstd", "none")),
        batch_bytes=dice.choice((500, 5_000, 256 << 10)),
        delivery_timeout=dice.uniform(1.0, 20.0),
    )
    async with producer:
        for _ in range(dice.randrange(5, 60)):
            if program.is_stopping:
                break
            await send_some(program, producer, topic, notes)
            await asyncio.sleep(dice.expovariate(1.0 / pace_s))


async def send_some(program: Program, producer: AsyncProducer[bytes], topic: Topic, notes: Notes) -> None:
    dice = program.dice
    count = 1 if dice.random() < 0.5 else dice.randrange(2, RECORDS_MAX)
    is_keyed = dice.random() < 0.5
    partition = dice.randrange(0, topic.partitions)
    size = int(VALUE_BYTES_MAX ** dice.random())
    key = b"k%d" % dice.randrange(0, 50) if is_keyed else None
    if key is not None:
        partition = partition_of_slot(crc32c(key) % SLOT_COUNT, topic.partitions)
    sends = [Send(topic.key(partition), program.workload.next_value()) for _ in range(count)]
    values = [value_of(int(send.value), dice.randbytes(size // 2)) for send in sends]
    if not program.takes_step():
        return
    handles: list[Any] = []
    notes.begin_send(sends)
    results: list[Delivery | ZmqmqError] = []
    for value in values:
        try:
            handles.append(await producer.send(value, key=key, partition=None if is_keyed else partition))
        except ZmqmqError as error:
            error.outcome = error.outcome or "not_written"
            handles.append(error)
    for send, handle in zip(sends, handles, strict=True):
        if isinstance(handle, ZmqmqError):
            results.append(handle)
            continue
        try:
            delivery = await handle
            if delivery.offset is None and topic.is_fsync:
                program.workload.unplaced.setdefault(topic.name, []).append(int(send.value))
            assert delivery.partition == partition, f"{delivery} is not in partition {partition}"
            results.append(delivery)
        except ZmqmqError as error:
            results.append(error)
    notes.end_send(sends, results)
    for result in results:
        if isinstance(result, ZmqmqError):
            raise result


async def read(program: Program) -> None:
    """One reader, until something goes wrong or it has had enough."""
    dice = program.dice
    topic = dice.choice(program.workload.topics)
    notes = program.notes(topic)
    chance = program.workload.cluster.chance
    since_ms = program.workload.cluster.clock("b0").wall_ms() - dice.randrange(0, AGE_MS_MAX)
    since = Offset.at(dt.datetime.fromtimestamp(since_ms / 1000, dt.UTC))
    start = dice.choice((Offset.START, Offset.START, Offset.END, Offset.last(5), Offset.last(dice.randrange(1, 500)), since))
    reader: AsyncReader[bytes] = program.client.reader(topic.name, start=start)
    try:
        async with reader:
            begins = await reader.position() if dice.random() < 0.5 else {}
            for _ in range(dice.randrange(3, 60)):
                if program.is_stopping:
                    break
                count, timeout_s = dice.choice((1, 10, 500)), dice.choice((0.0, 0.2, 2.0))
                found = list[Message[bytes]]()
                if program.takes_step():
                    notes.begin_poll()
                    found = await reader.batch(count, timeout=timeout_s)
                    notes.end_poll(found, reader)
                is_timely = start is since and not chance.struck["clock jumped"] and not chance.is_quiet  # which sets clocks right
                for message in found:
                    number_of(message)
                    if message.offset < begins.get(message.partition, 0):
                        raise Violation(f"a reader gets nothing before its place: {message!r} is before {begins}")
                    if is_timely and message.batch.append_time_ms < since.value - UNSEEN_MS_MAX:
                        raise Violation(f"who reads since a time gets nothing older: {message!r} is from {message.batch.append_time_ms}")
                await asyncio.sleep(dice.random() * 0.5)
    except OffsetOutOfRange as error:
        if topic.is_fsync or not program.workload.cluster.has_lost_power:
            raise
        program.workload.cluster.trace.tell("loss", f"{program.name} {topic.name}: {error}")
    finally:
        notes.give_up()


def value_of(number: int, filler: bytes) -> bytes:
    """What a program sends: its number, and enough to see that it arrives unchanged."""
    text = filler.hex().encode()
    return b"%d %08x %s" % (number, crc32c(text), text)


def number_of(message: Message[bytes]) -> int:
    """Raises Violation when the value is not one that was sent."""
    number, checksum, text = (message.raw_value or b"").split(b" ", 2)
    if int(checksum, 16) != crc32c(text):
        raise Violation(f"records are never changed: {message!r} is not what was sent")
    return int(number)


def _draw_topic(dice: random.Random, number: int) -> Topic:
    config = {
        "durability": "fsync" if dice.random() < 0.7 else "replicated",
        "segment_bytes": str(dice.choice((4096, 20_000, 1 << 20))),
        "retention_ms": "unlimited",
        "compression": dice.choice(("zstd", "none")),
    }
    return Topic(f"t{number}", dice.randrange(1, 5), config)
