"""The cluster as the metadata log tells it: an immutable image, and the pure step from one to the next.

Law: the image is a function of the records and their indexes alone; applying them one by one, all at once,
or in any grouping gives equal images. Every broker that applied the same prefix holds the same image.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from zmqmq.metadata.records import (
    BrokerChanged,
    BrokerRegistered,
    BrokerRemoved,
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
    """``broker_epoch`` is the index of the broker's last registration. The addresses are those of its record."""

    node_id: int
    broker_epoch: int
    directory_id: str
    endpoint: str
    rack: str
    is_fenced: bool = False
    is_draining: bool = False
    replication: str = ""
    stream: str = ""
    control: str = ""
    software: str = ""
    settings: str = ""
    incarnation: bytes = b""

    @property
    def is_active(self) -> bool:
        """It may be given partitions to lead and to keep in sync."""
        return not self.is_fenced and not self.is_draining


class PartitionImage(Struct, frozen=True):
    """Who keeps a partition. ``isr`` is a subset of ``replicas`` and never empty; ``leader`` is one of ``isr`` or NO_LEADER.

    ``eligible``: replicas outside the in-sync set that hold everything committed, because nothing could be committed
    since they left. ``adding`` and ``removing``: the replicas that come and go, empty when none move.
    """

    leader: int
    leader_epoch: int
    partition_epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    eligible: tuple[int, ...]
    adding: tuple[int, ...] = ()
    removing: tuple[int, ...] = ()


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

    ``changing`` holds the partitions of the topics that change, so that a record costs its own partition only.
    ``raises`` names the brokers that registered, in order, and ``seen`` how many of them a topic has been told of: its
    leader epochs are raised when somebody looks, since a log of many restarts would else rebuild every partition for each.
    """

    def __init__(self, image: ClusterImage) -> None:
        self.brokers = dict(image.brokers)
        self.topics = dict(image.topics)
        self.names = dict(image.names)
        self.features = dict(image.features)
        self.producer_ids_end = image.producer_ids_end
        self.partition_count = image.partition_count
        self.changing: dict[bytes, list[PartitionImage]] = {}
        self.raises: list[int] = []
        self.seen: dict[bytes, int] = {}
        self._counts: dict[int, Counter[int]] = {}

    def partitions(self, topic_id: bytes) -> list[PartitionImage]:
        """Those of a topic, to be changed in place."""
        partitions = self.changing.get(topic_id)
        if partitions is None:
            partitions = self.changing[topic_id] = list(self.topics[topic_id].partitions)
        counts = self._raises_since(self.seen.get(topic_id, 0))
        if counts:
            partitions[:] = [_raised(partition, counts.get(partition.leader, 0)) for partition in partitions]
            self.seen[topic_id] = len(self.raises)
        return partitions

    def register(self, node_id: int) -> None:
        self.raises.append(node_id)
        self._counts.clear()

    def finish(self) -> None:
        leaders = set(self.raises)
        for topic_id, topic in self.topics.items() if leaders else ():
            partitions = self.changing.get(topic_id, topic.partitions)
            if any(partition.leader in leaders for partition in partitions):
                self.partitions(topic_id)
        for topic_id, changed in self.changing.items():
            self.topics[topic_id] = msgspec.structs.replace(self.topics[topic_id], partitions=tuple(changed))

    def _raises_since(self, seen: int) -> Counter[int]:
        counts = self._counts.get(seen)
        if counts is None:
            counts = self._counts[seen] = Counter(self.raises[seen:])
        return counts


def apply(image: ClusterImage, records: Iterable[MetadataRecord]) -> ClusterImage:
    """The image after ``records``, the first of which has the index ``image.index``."""
    draft = _Draft(image)
    index = image.index
    for record in records:
        _APPLY[type(record)](draft, record, index)
        index += 1
    draft.finish()
    return ClusterImage(index, draft.brokers, draft.topics, draft.names, draft.features, draft.producer_ids_end, draft.partition_count)


def _register(draft: _Draft, record: BrokerRegistered, index: int) -> None:
    draft.brokers[record.node_id] = BrokerImage(
        node_id=record.node_id,
        broker_epoch=index,
        directory_id=record.directory_id,
        endpoint=record.endpoint,
        rack=record.rack,
        replication=record.replication,
        stream=record.stream,
        control=record.control,
        software=record.software,
        settings=record.settings,
        incarnation=record.incarnation,
    )
    draft.register(record.node_id)


def _change_broker(draft: _Draft, record: BrokerChanged, _index: int) -> None:
    broker = draft.brokers.get(record.node_id)
    if broker is not None and broker.broker_epoch == record.broker_epoch:
        draft.brokers[record.node_id] = msgspec.structs.replace(broker, is_fenced=record.is_fenced, is_draining=record.is_draining)


def _remove_broker(draft: _Draft, record: BrokerRemoved, _index: int) -> None:
    draft.brokers.pop(record.node_id, None)


def _raised(partition: PartitionImage, count: int) -> PartitionImage:
    if not count:
        return partition
    return PartitionImage(
        partition.leader, partition.leader_epoch + count, partition.partition_epoch + count,
        partition.replicas, partition.isr, partition.eligible, partition.adding, partition.removing,
    )  # fmt: skip


def _create(draft: _Draft, record: TopicCreated, _index: int) -> None:
    draft.seen[record.topic_id] = len(draft.raises)
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
    draft.changing.pop(record.topic_id, None)
    del draft.names[topic.name]
    draft.partition_count -= len(topic.partitions)


def _change(draft: _Draft, record: PartitionChanged, _index: int) -> None:
    draft.partitions(record.topic_id)[record.partition] = PartitionImage(
        record.leader, record.leader_epoch, record.partition_epoch,
        record.replicas, record.isr, record.eligible, record.adding, record.removing,
    )  # fmt: skip


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
    BrokerChanged: _change_broker,
    BrokerRemoved: _remove_broker,
}
