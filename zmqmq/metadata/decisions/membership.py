"""Brokers come, fall silent, come back, are sent away. Each decision says what is known of the broker, then settles its partitions.

Order within a decision: what must not be forgotten comes first. A broker is fenced before its partitions move, and the
replicas that it lost are taken off its account before it is registered again.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec

from zmqmq.errors import InvalidConfig, Throttled, ZmqmqError
from zmqmq.metadata.decisions.decision import Decision
from zmqmq.metadata.decisions.settling import Changes
from zmqmq.metadata.image import NO_LEADER, BrokerImage, ClusterImage, PartitionImage, TopicImage, apply
from zmqmq.metadata.messages import FENCE_MS, RegisterBroker
from zmqmq.metadata.records import BrokerChanged, BrokerRegistered, BrokerRemoved, MetadataRecord
from zmqmq.model import PartitionId

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

_NAMES_SHOWN_MAX: Final = 3


def register(request: RegisterBroker, image: ClusterImage, *, is_alive: bool = False, is_known: bool = True) -> Decision:
    """``is_alive``: another process of this node id was heard of lately. ``is_known``: the node id belongs to the cluster."""
    error = _objection(request, image, is_alive, is_known)
    if error is not None:
        return Decision(error=error)
    records: list[MetadataRecord] = []
    unclean: tuple[PartitionId, ...] = ()
    if not request.is_intact and request.node_id in image.brokers:
        lost = _set_apart(image, request.node_id)
        records.extend(lost.records)
        image, unclean = apply(image, lost.records), lost.unclean
    registered = _registered(request)
    revived = _settle(
        apply(image, (registered,)), lambda partition: partition.leader == NO_LEADER and request.node_id in partition.replicas
    )
    return Decision((*records, registered, *revived.records), unclean=(*unclean, *revived.unclean))


def fence(nodes: Iterable[int], image: ClusterImage) -> Decision:
    """Those of ``nodes`` that are not fenced yet lose what somebody else can lead and keep in sync."""
    return _change(image, [n for n in nodes if n in image.brokers and not image.brokers[n].is_fenced], is_fenced=True)


def unfence(node_id: int, image: ClusterImage) -> Decision:
    """It may lead again, and does where nobody led."""
    return _change(image, [node_id] if image.brokers[node_id].is_fenced else [], is_fenced=False)


def drain(node_id: int, image: ClusterImage) -> Decision:
    """Leaders move away, and it leaves each in-sync set that has another living member. Until it registers again."""
    if node_id not in image.brokers:
        return Decision(error=_unknown(node_id, image))
    return _change(image, [] if image.brokers[node_id].is_draining else [node_id], is_draining=True)


def remove(node_id: int, image: ClusterImage) -> Decision:
    """Forget the broker. Refused while it keeps replicas, or runs."""
    broker = image.brokers.get(node_id)
    if broker is None:
        return Decision(error=_unknown(node_id, image))
    kept = list(islice((f"{topic.name}/{number}" for topic, number in _keeps(image, node_id)), _NAMES_SHOWN_MAX + 1))
    if kept:
        more = ", …" if len(kept) > _NAMES_SHOWN_MAX else ""
        said = f"broker {node_id} keeps replicas of {', '.join(kept[:_NAMES_SHOWN_MAX])}{more}"
        return Decision(error=InvalidConfig(said, hint=f"move them first with: zmqmq cluster reassign plan --from {node_id}"))
    if not broker.is_fenced:
        return Decision(error=InvalidConfig(f"broker {node_id} is running", hint="stop it first"))
    return Decision((BrokerRemoved(node_id),))


def repaired(image: ClusterImage) -> Decision:
    """What a controller before may have left undone: every partition is settled."""
    return _decided((), _settle(image, lambda _partition: True))


def may_stop(node_id: int, image: ClusterImage) -> bool:
    """It leads nothing that somebody else in sync could lead."""
    return not any(
        partition.leader == node_id and any(n != node_id and n in image.brokers and image.brokers[n].is_active for n in partition.isr)
        for topic in image.topics.values()
        for partition in topic.partitions
    )


def _objection(request: RegisterBroker, image: ClusterImage, is_alive: bool, is_known: bool) -> ZmqmqError | None:
    node_id = request.node_id
    if not is_known:
        return InvalidConfig(
            f"broker {node_id} is not one of this cluster's", hint="name it in `peers` of every broker, then start it again"
        )
    before = image.brokers.get(node_id)
    if before is not None and before.directory_id != request.directory_id:
        return InvalidConfig(
            f"broker {node_id} is registered with data directory {before.directory_id}, this one is {request.directory_id}",
            hint=f"give the new broker another node id, or forget the old one with: zmqmq cluster remove {node_id}",
        )
    if before is not None and is_alive and before.incarnation != request.incarnation:
        return Throttled(
            f"another process runs as broker {node_id}, at {before.endpoint or 'no address'}",
            retry_after_ms=FENCE_MS,
            hint="two brokers must not share a node id; if the other one has just ended, wait",
        )
    others = (broker for broker in image.brokers.values() if broker.node_id != node_id and not broker.is_fenced and broker.settings)
    other = next((broker for broker in others if broker.settings != request.settings), None)
    if other is not None:
        return InvalidConfig(
            f"broker {node_id} has cluster settings {request.settings!r}, broker {other.node_id} has {other.settings!r}",
            hint="give all brokers the same cluster settings; to change them, stop all brokers first",
        )
    return None


def _registered(request: RegisterBroker) -> BrokerRegistered:
    return BrokerRegistered(
        request.node_id,
        request.directory_id,
        request.endpoint,
        request.rack,
        request.software,
        request.replication,
        request.stream,
        request.control,
        request.settings,
        request.incarnation,
    )


def _set_apart(image: ClusterImage, node_id: int) -> Decision:
    """Fenced, and out of every in-sync and eligible set whose records it may have lost, but for those that nobody else is in."""
    fenced, brokers = _flagged(image, [node_id], is_fenced=True)
    changes = Changes(brokers)
    changes.settle_all(image, _held_by({node_id}), lambda topic: _losers(topic, node_id))
    return _decided(fenced, changes)


def _losers(topic: TopicImage, node_id: int) -> Container[int]:
    """Under ``fsync`` nothing counted that was not on the disk."""
    return (node_id,) if topic.settings.durability == "replicated" else ()


def _change(image: ClusterImage, nodes: list[int], *, is_fenced: bool | None = None, is_draining: bool | None = None) -> Decision:
    if not nodes:
        return Decision()
    flagged, brokers = _flagged(image, nodes, is_fenced, is_draining)
    changes = Changes(brokers)
    changes.settle_all(image, _held_by(set(nodes)))
    return _decided(flagged, changes)


def _flagged(
    image: ClusterImage, nodes: list[int], is_fenced: bool | None = None, is_draining: bool | None = None
) -> tuple[list[BrokerChanged], dict[int, BrokerImage]]:
    brokers = dict(image.brokers)
    records = []
    for node_id in nodes:
        before = brokers[node_id]
        broker = brokers[node_id] = msgspec.structs.replace(
            before,
            is_fenced=before.is_fenced if is_fenced is None else is_fenced,
            is_draining=before.is_draining if is_draining is None else is_draining,
        )
        if broker != before:
            records.append(BrokerChanged(node_id, broker.broker_epoch, broker.is_fenced, broker.is_draining))
    return records, brokers


def _settle(image: ClusterImage, concerns: Callable[[PartitionImage], bool]) -> Changes:
    changes = Changes(image.brokers)
    changes.settle_all(image, concerns)
    return changes


def _decided(before: Iterable[MetadataRecord], changes: Changes) -> Decision:
    return Decision((*before, *changes.records), unclean=tuple(changes.unclean))


def _held_by(nodes: set[int]) -> Callable[[PartitionImage], bool]:
    return lambda partition: not nodes.isdisjoint(partition.replicas)


def _keeps(image: ClusterImage, node_id: int) -> Iterable[tuple[TopicImage, int]]:
    return (
        (topic, number)
        for topic in image.topics.values()
        for number, partition in enumerate(topic.partitions)
        if node_id in partition.replicas
    )


def _unknown(node_id: int, image: ClusterImage) -> ZmqmqError:
    return InvalidConfig(f"broker {node_id} is not registered", hint=f"registered are: {', '.join(map(str, sorted(image.brokers)))}")
