"""A program that makes topics, writes to them, deletes records and topics, and what must then be true.

What was answered holds, whatever happens later: a topic that was made is there, one that was deleted is not; a log starts where it
was told to, at least, and ends behind the last acknowledged record. Who asked and got no clear answer knows nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from zmqmq.errors import DataLost, TimeoutError, TopicExists, UnknownTopic
from zmqmq.model import Offset
from zmqmq.testing.sim.invariants import Violation

if TYPE_CHECKING:
    from zmqmq.testing.sim.client import SimClient
    from zmqmq.testing.sim.programs import Program

PARTITIONS_MAX: Final = 3
RECORDS_MAX: Final = 8
RECORD_BYTES: Final = 2_000
SEGMENT_BYTES: Final = 4096
RETENTION: Final[tuple[dict[str, str], ...]] = ({}, {}, {"retention_bytes": "6000"}, {"retention_ms": "2000"})
LOST_S_MAX: Final = 5.0
"""Who asks for a deleted record has to hear of it within this."""
PAUSE_S_MEAN: Final = 3.0


class Garden:
    """What gardeners were told. Partitions are named (topic, partition)."""

    def __init__(self) -> None:
        self.made: dict[str, int] = {}
        """Topics that are there, with their numbers of partitions."""
        self.deleted: dict[str, None] = {}
        self.is_sure = True
        """Who is asked what there is knows it. In a cluster in trouble a broker may know what was."""
        self.starts: dict[tuple[str, int], int] = {}
        self.ends: dict[tuple[str, int], int] = {}

    def leave(self, topic: str) -> None:
        """Nobody knows any more what of it is there."""
        self.made.pop(topic, None)
        for known in (self.starts, self.ends):
            for key in [key for key in known if key[0] == topic]:
                del known[key]

    async def look(self, client: SimClient, topic: str) -> None:
        """Compare one topic that is there with what was told of it. Raises Violation, and whatever the client raises."""
        found = await _existing(client, topic)
        if topic not in self.made or not (found or self.is_sure):
            return  # its deletion was asked for meanwhile
        if found != self.made[topic]:
            raise Violation(f"a topic that was made is there: {topic} has {found} partitions, it was made with {self.made[topic]}")
        starts, ends = dict(self.starts), dict(self.ends)
        for partition, offsets in (await client.admin.offsets(topic)).items():
            start, end = starts.get((topic, partition), 0), ends.get((topic, partition), 0)
            if offsets.start < start:
                raise Violation(f"deleted records stay deleted: {topic}/{partition} starts at {offsets.start}, it was told {start}")
            if offsets.end < end:
                raise Violation(f"acknowledged records stay: {topic}/{partition} ends at {offsets.end}, {end} was acknowledged")
            if start:
                await _expect_lost(client, topic, partition, start - 1)

    async def look_for_deleted(self, client: SimClient) -> None:
        """Raises Violation, and whatever the client raises."""
        deleted = list(self.deleted)
        there = {topic.name for topic in await client.admin.topics()}
        for topic in deleted:
            if topic in there and self.is_sure:
                raise Violation(f"a deleted topic stays deleted: {topic} is there")

    async def audit(self, client: SimClient) -> None:
        """All of it."""
        await self.look_for_deleted(client)
        for topic in list(self.made):
            await self.look(client, topic)


async def tend(program: Program) -> None:
    """Makes a topic, writes to it, deletes some of it or all, and looks after what was done earlier; nobody else reads it."""
    dice, admin, garden = program.dice, program.client.admin, program.workload.garden
    name = f"scratch-{program.name}-{program.workload.next_value()}"
    partitions = dice.randrange(1, PARTITIONS_MAX + 1)
    if not program.takes_step():
        await asyncio.sleep(dice.expovariate(1.0 / PAUSE_S_MEAN))
        return
    try:
        await admin.create_topic(name, partitions, config={"segment_bytes": str(SEGMENT_BYTES), **dice.choice(RETENTION)})
        garden.made[name] = partitions
        await _grow(program, name)
        if dice.random() < 0.6:
            await _cut(program, name)
        if dice.random() < 0.6:
            garden.leave(name)
            await admin.delete_topic(name)
            garden.deleted[name] = None
    except (TopicExists, UnknownTopic) as error:  # the first try was carried out
        program.workload.cluster.trace.tell("gardener", f"{error}")
    await asyncio.sleep(dice.expovariate(1.0 / PAUSE_S_MEAN))
    try:
        await garden.look_for_deleted(program.client)
        if garden.made:
            await garden.look(program.client, dice.choice(list(garden.made)))
    except UnknownTopic:
        if garden.is_sure:
            raise


async def _grow(program: Program, topic: str) -> None:
    dice, ends = program.dice, program.workload.garden.ends
    for _ in range(dice.randrange(0, RECORDS_MAX)):
        delivery = await program.client.produce(topic, dice.randbytes(dice.randrange(RECORD_BYTES)), key=b"%d" % dice.randrange(0, 9))
        if delivery.offset is not None:
            ends[topic, delivery.partition] = max(ends.get((topic, delivery.partition), 0), delivery.offset + 1)


async def _cut(program: Program, topic: str) -> None:
    """Delete all records of a partition that has some, or some of them."""
    dice, garden = program.dice, program.workload.garden
    ends = [(partition, end) for (name, partition), end in garden.ends.items() if name == topic]
    if not ends:
        return
    partition, end = dice.choice(ends)
    wanted = dice.choice((-1, dice.randrange(end + 1)))
    starts = await program.client.admin.delete_records(topic, {partition: wanted})
    if starts[partition] < (end if wanted == -1 else wanted):
        raise Violation(f"records are deleted up to where it was asked: {topic}/{partition} now starts at {starts[partition]}")
    garden.starts[topic, partition] = starts[partition]


async def _existing(client: SimClient, topic: str) -> int:
    """How many partitions the topic has; 0 when it is not there."""
    try:
        return (await client.admin.describe_topic(topic)).partition_count
    except UnknownTopic:
        return 0


async def _expect_lost(client: SimClient, topic: str, partition: int, offset: int) -> None:
    async with client.reader(topic, partitions=[partition], start=Offset.exact(offset)) as reader:
        try:
            found = await reader.poll(timeout=LOST_S_MAX)
        except DataLost:
            return
    if found is None:
        raise TimeoutError(
            f"nobody said within {LOST_S_MAX:g} s that {topic}/{partition} has lost offset {offset}", hint="look at the trace"
        )
    raise Violation(f"deleted records are not read: {topic}/{partition} gave offset {found.offset}, {offset + 1} was told to be the first")
