"""What programs of the workload do: send, read, and note what they did and saw."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Literal

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
    NotEnoughReplicas,
    NotLeader,
    OffsetOutOfRange,
    OutcomeUnknown,
    Throttled,
    TimeoutError,
    UnknownTopic,
    ZmqmqError,
)
from zmqmq.model import SLOT_COUNT, Delivery, Offset, partition_of_slot
from zmqmq.testing.history import Send
from zmqmq.testing.sim.client import SimClient
from zmqmq.testing.sim.invariants import Violation
from zmqmq.testing.sim.notes import Notes

if TYPE_CHECKING:
    from zmqmq.testing.sim.workload import Workload

UNSEEN_MS_MAX: Final = 5_000
"""A batch that became visible after its time was looked up may be so much older: it waited for the disk."""
PAUSE_S_MAX: Final = 1.0
RECORDS_MAX: Final = 30
VALUE_BYTES_MAX: Final = 6_000
AGE_MS_MAX: Final = 30_000
"""How far back who reads since a time begins."""
TROUBLE: Final = (BrokerUnavailable, BufferFull, DeliveryFailed, DiskFull, LogOffline, OutcomeUnknown, Throttled, TimeoutError)
"""What a program has to expect from a cluster in trouble. Any other error is a finding."""
ALONE: Final = (NotEnoughReplicas, NotLeader, UnknownTopic)
"""And from one of several brokers that do not reach each other; it may know only what was."""
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
                except (*TROUBLE, *ALONE, *ROT) as error:
                    cluster = self.workload.cluster
                    if isinstance(error, ROT) and not cluster.chance.struck["segment rots"]:
                        raise
                    if isinstance(error, ALONE) and len(cluster.brokers) == 1:
                        raise
                    cluster.trace.tell("trouble", f"{self.name}: {type(error).__name__}: {error}")
                    await self.pause()

    async def pause(self) -> None:
        await asyncio.sleep(self.dice.random() * PAUSE_S_MAX)


async def produce(program: Program) -> None:
    """One producer, until something goes wrong or it has had enough."""
    dice = program.dice
    topic = dice.choice(program.workload.topics)
    notes = program.notes(topic)
    pace_s = 10 ** dice.uniform(-1.7, 0.5)
    acks: Literal["all", 1] = dice.choice(("all", "all", "all", 1))
    producer: AsyncProducer[bytes] = program.client.producer(
        topic.name,
        acks=acks,
        linger=dice.choice((0.0, 0.001, 0.005, 0.1)),
        compression=dice.choice((None, "zstd", "none")),
        batch_bytes=dice.choice((500, 5_000, 256 << 10)),
        delivery_timeout=dice.uniform(1.0, 20.0),
    )
    async with producer:
        for _ in range(dice.randrange(5, 60)):
            if program.is_stopping:
                break
            await send_some(program, producer, topic, notes, is_firm=acks == "all" or len(program.workload.cluster.brokers) == 1)
            await asyncio.sleep(dice.expovariate(1.0 / pace_s))


async def send_some(program: Program, producer: AsyncProducer[bytes], topic: Topic, notes: Notes, *, is_firm: bool) -> None:
    """``is_firm``: what is acknowledged stays. A record that only its leader took may go with it."""
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
            if delivery.offset is None and topic.is_fsync and is_firm:
                program.workload.unplaced.setdefault(topic.name, []).append(int(send.value))
            assert delivery.partition == partition, f"{delivery} is not in partition {partition}"
            results.append(delivery)
        except ZmqmqError as error:
            results.append(error)
    notes.end_send(sends, results, is_firm=is_firm)
    for result in results:
        if isinstance(result, ZmqmqError):
            raise result


async def read(program: Program) -> None:
    """One reader, until something goes wrong or it has had enough."""
    dice = program.dice
    topic = dice.choice(program.workload.topics)
    notes = program.notes(topic)
    chance = program.workload.cluster.chance
    is_alone = len(program.workload.cluster.brokers) == 1
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
                # Healing sets clocks right; and each leader of a cluster has a clock of its own.
                is_timely = start is since and not chance.struck["clock jumped"] and not chance.is_quiet and is_alone
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
