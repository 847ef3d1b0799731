"""Topics of zmqmq itself grow with the cluster: up to three replicas, then a majority of them in sync for each write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from zmqmq.metadata.decisions.decision import Decision
from zmqmq.metadata.decisions.placement import spread
from zmqmq.metadata.decisions.settling import Changes
from zmqmq.metadata.records import TopicAltered
from zmqmq.model import INTERNAL_PREFIX

if TYPE_CHECKING:
    from zmqmq.metadata.image import ClusterImage, TopicImage
    from zmqmq.metadata.records import MetadataRecord

REPLICATION_DEFAULT_MAX: Final = 3


def majority(replica_count: int) -> int:
    return replica_count // 2 + 1


def raise_internal(image: ClusterImage) -> Decision:
    """One step; decide again when it is committed, until nothing comes. Nothing that exists is taken away."""
    internal = [topic for topic in image.topics.values() if topic.name.startswith(INTERNAL_PREFIX)]
    racks = {node: broker.rack for node, broker in image.brokers.items() if broker.is_active}
    loads = dict.fromkeys(racks, 0)
    for topic in internal:
        for partition in topic.partitions:
            for node in partition.replicas:
                loads[node] = loads.get(node, 0) + 1
    changes = Changes(image.brokers)
    for topic in internal:
        _add_replicas(topic, racks, loads, changes)
    settings: list[MetadataRecord] = [altered for topic in internal if (altered := _altered(topic)) is not None]
    return Decision((*changes.records, *settings), unclean=tuple(changes.unclean))


def _add_replicas(topic: TopicImage, racks: dict[int, str], loads: dict[int, int], changes: Changes) -> None:
    for number, partition in enumerate(topic.partitions):
        missing = min(REPLICATION_DEFAULT_MAX, len(racks)) - len(partition.replicas)
        if missing <= 0 or partition.adding or partition.removing:
            continue
        added = tuple(spread(partition.replicas, sorted(racks), missing, racks, loads))
        for node in added:
            loads[node] += 1
        changes.settle(topic, number, msgspec.structs.replace(partition, replicas=(*partition.replicas, *added), adding=added))


def _altered(topic: TopicImage) -> TopicAltered | None:
    """Only when each partition has the members for it, so that no write is refused because of it."""
    wanted = min(majority(len(partition.replicas)) for partition in topic.partitions)
    if topic.settings.min_insync_replicas >= wanted or any(len(p.isr) < wanted or p.adding for p in topic.partitions):
        return None
    return TopicAltered(topic.topic_id, topic.config | {"min_insync_replicas": str(wanted)})
