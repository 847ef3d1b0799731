"""The cluster as the metadata log tells it: an immutable image, and the pure step from one to the next.

Law: the image is a function of the records and their indexes alone; applying them one by one, all at once,
or in any grouping gives equal images. Every broker that applied the same prefix holds the same image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from zmqmq.metadata.records import (
    BrokerRegistered,
    FeatureLevelSet,
    MetadataRecord,
    PartitionChanged,
    ProducerIdsAllocated,
    TopicAltered,
    TopicCreated,
    TopicDeleted,
)
from zmqmq.topic_config import TopicConfig, stored_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NO_LEADER: Final = -1


class BrokerImage(Struct, frozen=True):
    """``broker_epoch`` is the index of the broker's last registration."""

    node_id: int
    broker_epoch: int
    directory_id: str
    endpoint: str
    rack: str


class PartitionImage(Struct, frozen=True):
    """Who keeps a partition. ``isr`` is a subset of ``replicas``; ``leader`` is one of ``isr`` or NO_LEADER."""

    leader: int
    leader_epoch: int
    partition_epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    eligible: tuple[int, ...]


class TopicImage(Struct, frozen=True):
    """``config`` is what was set, ``settings`` all of it."""

    topic_id: bytes
    name: str
    partitions: tuple[PartitionImage, ...]
    config: dict[str, str]
    settings: TopicConfig
    table_version: int
    slot_table: bytes


class ClusterImage(Struct, frozen=True):
    """``index`` is the index of the next record."""

    index: int = 0
    brokers: dict[int, BrokerImage] = {}
    topics: dict[bytes, TopicImage] = {}
    names: dict[str, bytes] = {}
    features: dict[str, int] = {}
    producer_ids_end: int = 0
    partition_count: int = 0

    def topic(self, name: str) -> TopicImage | None:
        topic_id = self.names.get(name)
        return None if topic_id is None else self.topics[topic_id]

    def __repr__(self) -> str:
        return f"ClusterImage(index={self.index}, topics={sorted(self.names)}, brokers={sorted(self.brokers)})"


class _Draft:
    """An image while records are put into it; its maps are copies.

    ``raises`` holds leader epochs still to be raised, by leader: a log of many restarts would else rebuild every
    partition for each of them. It is empty before a partition is made or changed, and at the end.
    """

    def __init__(self, image: ClusterImage) -> None:
        self.raises: dict[int, int] = {}
        self.brokers = dict(image.brokers)
        self.topics = dict(image.topics)
        self.names = dict(image.names)
        self.features = dict(image.features)
        self.producer_ids_end = image.producer_ids_end
        self.partition_count = image.partition_count


def apply(image: ClusterImage, records: Iterable[MetadataRecord]) -> ClusterImage:
    """The image after ``records``, the first of which has the index ``image.index``."""
    draft = _Draft(image)
    index = image.index
    for record in records:
        _APPLY[type(record)](draft, record, index)
        index += 1
    _raise_epochs(draft)
    return ClusterImage(index, draft.brokers, draft.topics, draft.names, draft.features, draft.producer_ids_end, draft.partition_count)


def _register(draft: _Draft, record: BrokerRegistered, index: int) -> None:
    draft.brokers[record.node_id] = BrokerImage(record.node_id, index, record.directory_id, record.endpoint, record.rack)
    draft.raises[record.node_id] = draft.raises.get(record.node_id, 0) + 1


def _raise_epochs(draft: _Draft) -> None:
    """Give every partition of the brokers that registered a new leader epoch for each registration."""
    for topic in draft.topics.values() if draft.raises else ():
        if any(partition.leader in draft.raises for partition in topic.partitions):
            partitions = tuple(_raised(partition, draft.raises.get(partition.leader, 0)) for partition in topic.partitions)
            draft.topics[topic.topic_id] = msgspec.structs.replace(topic, partitions=partitions)
    draft.raises.clear()


def _raised(partition: PartitionImage, count: int) -> PartitionImage:
    if not count:
        return partition
    return PartitionImage(
        partition.leader, partition.leader_epoch + count, partition.partition_epoch + count,
        partition.replicas, partition.isr, partition.eligible,
    )  # fmt: skip


def _create(draft: _Draft, record: TopicCreated, _index: int) -> None:
    _raise_epochs(draft)
    draft.topics[record.topic_id] = TopicImage(
        topic_id=record.topic_id,
        name=record.name,
        partitions=tuple(PartitionImage(a.leader, 0, 0, a.replicas, a.isr, a.eligible) for a in record.partitions),
        config=record.config,
        settings=stored_config(record.config),
        table_version=record.table_version,
        slot_table=record.slot_table,
    )
    draft.names[record.name] = record.topic_id
    draft.partition_count += len(record.partitions)


def _alter(draft: _Draft, record: TopicAltered, _index: int) -> None:
    topic = draft.topics[record.topic_id]
    draft.topics[record.topic_id] = msgspec.structs.replace(topic, config=record.config, settings=stored_config(record.config))


def _delete(draft: _Draft, record: TopicDeleted, _index: int) -> None:
    topic = draft.topics.pop(record.topic_id)
    del draft.names[topic.name]
    draft.partition_count -= len(topic.partitions)


def _change(draft: _Draft, record: PartitionChanged, _index: int) -> None:
    _raise_epochs(draft)
    topic = draft.topics[record.topic_id]
    changed = PartitionImage(record.leader, record.leader_epoch, record.partition_epoch, record.replicas, record.isr, record.eligible)
    partitions = (*topic.partitions[: record.partition], changed, *topic.partitions[record.partition + 1 :])
    draft.topics[record.topic_id] = msgspec.structs.replace(topic, partitions=partitions)


def _allocate(draft: _Draft, record: ProducerIdsAllocated, _index: int) -> None:
    draft.producer_ids_end = record.end


def _set_feature(draft: _Draft, record: FeatureLevelSet, _index: int) -> None:
    draft.features[record.name] = record.level


_APPLY: Final[dict[type[MetadataRecord], Callable[..., None]]] = {
    BrokerRegistered: _register,
    TopicCreated: _create,
    TopicAltered: _alter,
    TopicDeleted: _delete,
    PartitionChanged: _change,
    ProducerIdsAllocated: _allocate,
    FeatureLevelSet: _set_feature,
}
