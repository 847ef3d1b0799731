"""A cluster of the mind: brokers and partitions as an image, and the logs that the replicas would hold.

Decisions are applied at once. After each step the laws of ``docs/spec/metadata.md`` are checked, the one that counts
among them: whoever leads holds everything that was ever committed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from zmqmq.metadata.controller import ClusterLimits, Controller
from zmqmq.metadata.decisions import membership, partitions
from zmqmq.metadata.decisions.decision import Decision
from zmqmq.metadata.decisions.internal import raise_internal
from zmqmq.metadata.image import NO_LEADER, ClusterImage, PartitionImage, TopicImage
from zmqmq.metadata.messages import PartitionProposal, RegisterBroker
from zmqmq.metadata.records import Assignment, MetadataRecord, TopicCreated
from zmqmq.wire.requests import AlterTopic, CreateTopic

INTERNAL = TopicCreated(b"i" * 16, "__internal", [Assignment((0,), (0,), 0), Assignment((0,), (0,), 0)])


def registration(
    node_id: int, *, is_intact: bool = True, start: int = 0, directory: str = "", settings: str = "s", rack: str = ""
) -> RegisterBroker:
    directory = directory or f"dir{node_id}"
    return RegisterBroker(node_id, directory, start.to_bytes(4, "big"), f"tcp://h:{node_id}", "", "", "", rack, "v", is_intact, settings)


def create(name: str, partition_count: int = 1, replicas: int = 3, **config: str) -> CreateTopic:
    return CreateTopic(1, 1000, name, partition_count, replicas, config)


@dataclass
class Copies:
    """What the replicas of one partition hold, and what of it was ever committed."""

    logs: dict[int, list[int]] = field(default_factory=dict)
    committed: list[int] = field(default_factory=list)

    def log(self, node_id: int) -> list[int]:
        return self.logs.setdefault(node_id, [])


class World:
    def __init__(self, brokers: int = 3) -> None:
        self.controller = Controller(ClusterLimits(), random.Random(1))
        self.starts = 0
        self.copies: dict[tuple[str, int], Copies] = {}
        self._entry = 0
        for node_id in range(brokers):
            self.register(node_id)

    @property
    def image(self) -> ClusterImage:
        return self.controller.committed

    def partition(self, name: str = "t", number: int = 0) -> PartitionImage:
        return self.topic(name).partitions[number]

    def topic(self, name: str = "t") -> TopicImage:
        topic = self.image.topic(name)
        assert topic is not None
        return topic

    def take(self, decision: Decision, cut: int | None = None, vouched: tuple[int, ...] = ()) -> Decision:
        """Commit the decision; with ``cut`` only so many records of it, and then what a new controller repairs. ``vouched``: who
        counted for the watermark already, as the leader proposed them."""
        assert decision.error is None, decision.error
        before = self.image
        records = decision.records if cut is None else decision.records[:cut]
        self._commit(records)
        unclean = decision.unclean
        if cut is not None:
            repaired = membership.repaired(self.image)
            self._commit(repaired.records)
            unclean += repaired.unclean
        self.check(before, {(self.image.topics[p.topic_id].name, p.partition) for p in unclean}, vouched)
        return decision

    def _commit(self, records: tuple[MetadataRecord, ...]) -> None:
        self.controller.on_proposed(1, records)
        self.controller.on_committed(1, records)

    def create(self, request: CreateTopic) -> None:
        self.take(self.controller.decide(request))

    def register(self, node_id: int, *, is_intact: bool = True, kept: int | None = None, cut: int | None = None) -> None:
        """``kept``: how much of each log under ``durability=replicated`` outlived the power cut."""
        self.starts += 1
        if kept is not None:
            self._lose(node_id, kept)
        self.take(membership.register(registration(node_id, is_intact=is_intact, start=self.starts), self.image), cut)
        if cut is not None:
            self.take(membership.register(registration(node_id, is_intact=is_intact, start=self.starts), self.image))

    def _lose(self, node_id: int, kept: int) -> None:
        for place, copies in self.copies.items():
            if self.topic(place[0]).settings.durability == "replicated":
                del copies.log(node_id)[kept:]
                partition = self.partition(*place)
                if not [n for n in (*partition.isr, *partition.eligible) if n != node_id]:
                    del copies.committed[kept:]  # nobody else had it: all replicas lost power

    def fence(self, *nodes: int, cut: int | None = None) -> None:
        self.take(membership.fence(nodes, self.image), cut)

    def alter_min(self, name: str, minimum: int) -> None:
        replica_counts = [len(partition.replicas) for partition in self.topic(name).partitions]
        if minimum <= min(replica_counts):
            self.take(self.controller.decide(AlterTopic(1, 1000, name, {"min_insync_replicas": str(minimum)})))

    def propose(self, name: str, number: int, isr: tuple[int, ...], **stale: int) -> Decision:
        topic, partition = self.topic(name), self.partition(name, number)
        leader = self.image.brokers[partition.leader]
        proposal = PartitionProposal(
            topic.topic_id,
            number,
            stale.get("leader_epoch", partition.leader_epoch),
            stale.get("partition_epoch", partition.partition_epoch),
            [(n, stale.get("broker_epoch", self.image.brokers[n].broker_epoch)) for n in isr],
        )
        return partitions.alter_partition(leader.node_id, leader.broker_epoch, proposal, self.image)

    def write(self, name: str, number: int) -> None:
        partition, copies = self.partition(name, number), self._copies(name, number)
        if partition.leader != NO_LEADER:
            self._entry += 1
            copies.log(partition.leader).append(self._entry)
            self._advance(name, number)

    def replicate(self, name: str, number: int, node_id: int) -> None:
        """The follower cuts its log back to what it shares with its leader's, and copies the rest."""
        partition, copies = self.partition(name, number), self._copies(name, number)
        if partition.leader != NO_LEADER and node_id in partition.replicas and not self.image.brokers[node_id].is_fenced:
            copies.logs[node_id] = list(copies.log(partition.leader))
            self._advance(name, number)

    def flow(self, name: str, number: int) -> None:
        """A record that reaches everybody who can be reached, and they are in sync after it."""
        self.write(name, number)
        for node_id in self.partition(name, number).replicas:
            self.replicate(name, number, node_id)
        self.change_isr(name, number, set(self.image.brokers))

    def _advance(self, name: str, number: int) -> None:
        partition, copies = self.partition(name, number), self._copies(name, number)
        if len(partition.isr) >= self.topic(name).settings.min_insync_replicas:
            led = copies.log(partition.leader)
            end = min(shared(led, copies.log(n)) for n in partition.isr)
            if end > len(copies.committed):
                copies.committed = led[:end]

    def change_isr(self, name: str, number: int, wanted: set[int]) -> None:
        """The leader proposes those of ``wanted`` that hold everything committed."""
        partition, copies = self.partition(name, number), self._copies(name, number)
        if partition.leader == NO_LEADER:
            return
        holding = (n for n in partition.replicas if shared(copies.log(n), copies.committed) == len(copies.committed))
        isr = tuple(n for n in holding if n == partition.leader or (n in wanted and self.image.brokers[n].is_active))
        decision = self.propose(name, number, isr)
        if decision.error is None:
            self.take(decision, vouched=isr)

    def grow(self) -> None:
        self.take(raise_internal(self.image))

    def _copies(self, name: str, number: int) -> Copies:
        return self.copies.setdefault((name, number), Copies())

    def check(self, before: ClusterImage, unclean: set[tuple[str, int]], vouched: tuple[int, ...] = ()) -> None:
        for topic in self.image.topics.values():
            old = before.topics.get(topic.topic_id)
            for number, partition in enumerate(topic.partitions):
                check_partition(partition, self.image, topic)
                copies = self._copies(topic.name, number)
                if (topic.name, number) in unclean:
                    copies.committed = list(copies.log(partition.leader))
                if partition.leader != NO_LEADER:
                    assert copies.log(partition.leader)[: len(copies.committed)] == copies.committed
                if old is not None:
                    check_step(old.partitions[number], partition, vouched, is_unclean=(topic.name, number) in unclean)


def check_partition(partition: PartitionImage, image: ClusterImage, topic: TopicImage) -> None:
    assert partition.isr
    assert set(partition.isr) | set(partition.eligible) | set(partition.adding) | set(partition.removing) <= set(partition.replicas)
    assert not set(partition.isr) & set(partition.eligible)
    assert not partition.eligible or len(partition.isr) < topic.settings.min_insync_replicas
    assert len(set(partition.replicas)) == len(partition.replicas)
    if partition.leader != NO_LEADER:
        assert partition.leader in partition.isr
        assert not image.brokers[partition.leader].is_fenced
        assert not any(image.brokers[n].is_fenced for n in partition.isr)


def check_step(before: PartitionImage, after: PartitionImage, vouched: tuple[int, ...], *, is_unclean: bool) -> None:
    assert after.leader_epoch >= before.leader_epoch
    assert after.partition_epoch > before.partition_epoch or after == before
    if after.leader != before.leader:
        assert after.leader_epoch > before.leader_epoch
        assert is_unclean or after.leader in (*before.isr, *before.eligible, *vouched, NO_LEADER)


def shared(one: list[int], other: list[int]) -> int:
    """How many entries both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
