"""What an operator is told of the cluster: the image, counted. Pure.

Law: the answer is a function of the image and of the arguments; a partition that has no leader, too few in-sync replicas or fewer
than it has replicas is counted, whatever the reason.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from zmqmq.metadata.image import NO_LEADER, ClusterImage, PartitionImage, TopicImage
from zmqmq.metadata.records import MetadataRecord, PartitionChanged
from zmqmq.wire.replies import BrokerStatus, ChangedReply, ClusterReply, PartitionStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LISTED_MAX: Final = 1_000
"""Partitions named in one answer; all are counted."""


class Quorum(Struct, frozen=True):
    """Who decides, as far as this broker knows. ``controller`` is -1 when it knows of none."""

    controller: int
    controller_epoch: int
    voters: tuple[int, ...]
    observers: tuple[int, ...] = ()


class _Tally:
    """Partitions counted and, up to the bound, named."""

    def __init__(self) -> None:
        self.leads: Counter[int] = Counter()
        self.keeps: Counter[int] = Counter()
        self.in_sync: Counter[int] = Counter()
        self.under_replicated = self.under_min = self.leaderless = self.moving = self.not_preferred = 0
        self.troubled: list[PartitionStatus] = []
        self.reassigning: list[PartitionStatus] = []

    def add(self, topic: TopicImage, number: int, partition: PartitionImage) -> None:
        self.leads[partition.leader] += 1
        self.keeps.update(partition.replicas)
        self.in_sync.update(partition.isr)
        is_leaderless = partition.leader == NO_LEADER
        is_under_min = len(partition.isr) < topic.settings.min_insync_replicas
        is_under_replicated = not set(partition.isr).issuperset(_staying(partition))
        self.leaderless += is_leaderless
        self.under_min += is_under_min
        self.under_replicated += is_under_replicated
        self.not_preferred += not is_leaderless and partition.leader != partition.replicas[0]
        if (is_leaderless or is_under_min or is_under_replicated) and len(self.troubled) < LISTED_MAX:
            self.troubled.append(partition_status(topic, number, partition))
        if partition.adding or partition.removing:
            self.moving += 1
            if len(self.reassigning) < LISTED_MAX:
                self.reassigning.append(partition_status(topic, number, partition))


def cluster_reply(correlation_id: int, image: ClusterImage, *, cluster_id: str, node_id: int, quorum: Quorum) -> ClusterReply:
    tally = _Tally()
    for topic in sorted(image.topics.values(), key=lambda each: each.name):
        for number, partition in enumerate(topic.partitions):
            tally.add(topic, number, partition)
    return ClusterReply(
        correlation_id,
        cluster_id,
        node_id,
        quorum.controller,
        quorum.controller_epoch,
        image.index,
        list(quorum.voters),
        list(quorum.observers),
        list(_brokers(image, tally)),
        len(image.topics),
        image.partition_count,
        tally.under_replicated,
        tally.under_min,
        tally.leaderless,
        tally.moving,
        tally.not_preferred,
        tally.troubled,
        tally.reassigning,
    )


def changed_reply(correlation_id: int, records: Iterable[MetadataRecord], image: ClusterImage) -> ChangedReply:
    """The answer to an operator's request that was decided into ``records``, with the image after them."""
    changed = {(record.topic_id, record.partition): None for record in records if isinstance(record, PartitionChanged)}
    found = [
        partition_status(topic, number, topic.partitions[number])
        for topic_id, number in list(changed)[:LISTED_MAX]
        if (topic := image.topics.get(topic_id)) is not None
    ]
    return ChangedReply(correlation_id, len(changed), found)


def partition_status(topic: TopicImage, number: int, partition: PartitionImage) -> PartitionStatus:
    return PartitionStatus(
        topic.name,
        number,
        partition.leader,
        partition.leader_epoch,
        list(partition.replicas),
        list(partition.isr),
        topic.settings.min_insync_replicas,
        list(partition.adding),
        list(partition.removing),
    )


def _brokers(image: ClusterImage, tally: _Tally) -> Iterator[BrokerStatus]:
    for node_id, broker in sorted(image.brokers.items()):
        yield BrokerStatus(
            node_id,
            broker.endpoint,
            broker.control,
            broker.rack,
            broker.software,
            broker.broker_epoch,
            broker.is_fenced,
            broker.is_draining,
            tally.leads[node_id],
            tally.keeps[node_id],
            tally.in_sync[node_id],
        )


def _staying(partition: PartitionImage) -> list[int]:
    """Replicas that are expected to be in sync: those that come are behind for a while, and those that go may be."""
    return [node for node in partition.replicas if node not in partition.adding and node not in partition.removing]
