"""What operators ask of a cluster, as conversations: how it is, what happened, leaders and replicas elsewhere, brokers that leave.

Any broker may be asked; what has to be decided goes on to the controller. What is so already succeeds and changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, TypeAlias, TypeVar

from zmqmq.client.arguments import (
    Seconds,
    count_of,
    items_of,
    mapping_of,
    maybe_seconds_of,
    refused,
    seconds_of,
    texts_of,
    topic_of,
)
from zmqmq.client.core import ANY_BROKER
from zmqmq.client.session import Build
from zmqmq.client.steps import Steps, ask, default_timeout
from zmqmq.wire.replies import ChangedReply, ClusterReply, EventsReply
from zmqmq.wire.requests import (
    DrainBroker,
    GetCluster,
    GetEvents,
    LeaderMove,
    MoveLeaders,
    Reassign,
    RemoveBroker,
    ReplicaMove,
    Request,
)

T = TypeVar("T")

PartitionName: TypeAlias = tuple[str, int]
"""A topic's name and the number of one of its partitions."""

NODE_ID_MAX: Final = (1 << 31) - 1
ALL_KNOWN: Final = -1
"""Events from the oldest that is known."""
_PLACE_RULE: Final = 'a topic and a partition, as ("orders", 0)'


def describe_cluster(*, node: int | None = None, timeout: Seconds | None = None) -> Steps[ClusterReply]:
    """Brokers, controller, quorum, and how many partitions lack a leader or replicas; as ``node`` knows it, or any broker."""
    return (yield from _ask(ClusterReply, GetCluster, "GetCluster", timeout, node=node))


def events(
    after: int = ALL_KNOWN,
    *,
    kinds: Collection[str] = (),
    wait: Seconds = 0.0,
    node: int | None = None,
    timeout: Seconds | None = None,
) -> Steps[EventsReply]:
    """What changed after the event of that number. Without any the broker answers after ``wait``, which comes on top of ``timeout``.

    Numbers mean the same on every broker: go on with ``last_number`` of the reply."""
    number, names = count_of("after", after, ALL_KNOWN), texts_of("kinds", kinds)
    waited = seconds_of("wait", wait)
    allowed = maybe_seconds_of("timeout", timeout) or (yield from default_timeout())

    def build(correlation_id: int, timeout_ms: int) -> Request:
        return GetEvents(correlation_id, timeout_ms, number, names, int(waited * 1000))

    return (yield from _ask(EventsReply, build, "GetEvents", allowed + waited, node=node))


def move_leaders(leaders: Mapping[PartitionName, int], *, timeout: Seconds | None = None) -> Steps[ChangedReply]:
    """Another leader for each of these partitions: ``{("orders", 0): 2}``. It must be in sync."""
    entries = [
        LeaderMove(*_place(place), _node(f"leaders[{place!r}]", node))
        for place, node in mapping_of("leaders", leaders, 'a mapping, as {("orders", 0): 2}').items()
    ]

    def build(correlation_id: int, timeout_ms: int) -> Request:
        return MoveLeaders(correlation_id, timeout_ms, entries)

    return (yield from _ask(ChangedReply, build, "MoveLeaders", timeout))


def balance_leaders(*, timeout: Seconds | None = None) -> Steps[ChangedReply]:
    """Each partition back to its preferred leader, its first replica, where that is in sync."""

    def build(correlation_id: int, timeout_ms: int) -> Request:
        return MoveLeaders(correlation_id, timeout_ms, balance=True)

    return (yield from _ask(ChangedReply, build, "MoveLeaders", timeout))


def reassign(replicas: Mapping[PartitionName, Sequence[int]], *, timeout: Seconds | None = None) -> Steps[ChangedReply]:
    """Begin to move partitions to these replicas, the preferred leader first: ``{("orders", 0): [1, 2, 3]}``.

    Old replicas stay until the new ones are in sync; ``describe_cluster().reassigning`` lists what moves."""
    entries = [
        ReplicaMove(*_place(place), [_node(f"replicas[{place!r}]", node) for node in items_of("replicas", nodes, "a list of node ids")])
        for place, nodes in mapping_of("replicas", replicas, 'a mapping, as {("orders", 0): [1, 2, 3]}').items()
    ]

    def build(correlation_id: int, timeout_ms: int) -> Request:
        return Reassign(correlation_id, timeout_ms, entries)

    return (yield from _ask(ChangedReply, build, "Reassign", timeout))


def cancel_reassign(partitions: Iterable[PartitionName] | None = None, *, timeout: Seconds | None = None) -> Steps[ChangedReply]:
    """Back to the replicas that were there before; of all partitions that move, when none are named."""
    places = [] if partitions is None else items_of("partitions", partitions, f"a list of places, each {_PLACE_RULE}")
    if partitions is not None and not places:
        raise refused("partitions", partitions, "at least one place, or None for all")
    entries = [ReplicaMove(*_place(place)) for place in places]

    def build(correlation_id: int, timeout_ms: int) -> Request:
        return Reassign(correlation_id, timeout_ms, entries, cancel=True)

    return (yield from _ask(ChangedReply, build, "Reassign", timeout))


def drain_broker(node: int, *, timeout: Seconds | None = None) -> Steps[ChangedReply]:
    """Move what a broker leads away; it leads nothing until it is started again."""
    node_id = _node("node", node)

    def build(correlation_id: int, timeout_ms: int) -> Request:
        return DrainBroker(correlation_id, timeout_ms, node_id)

    return (yield from _ask(ChangedReply, build, "DrainBroker", timeout))


def remove_broker(node: int, *, timeout: Seconds | None = None) -> Steps[ChangedReply]:
    """Forget a broker that was stopped and keeps no replicas."""
    node_id = _node("node", node)

    def build(correlation_id: int, timeout_ms: int) -> Request:
        return RemoveBroker(correlation_id, timeout_ms, node_id)

    return (yield from _ask(ChangedReply, build, "RemoveBroker", timeout, is_safe=False))


def _ask(kind: type[T], build: Build, what: str, timeout: Seconds | None, *, node: int | None = None, is_safe: bool = True) -> Steps[T]:
    wanted = ANY_BROKER if node is None else _node("node", node)
    return ask(kind, build, what, timeout=maybe_seconds_of("timeout", timeout), node=wanted, is_safe=is_safe)


def _node(name: str, value: object) -> int:
    return count_of(name, value, 0, NODE_ID_MAX)


def _place(place: object) -> PartitionName:
    if not isinstance(place, tuple) or len(place) != 2:
        raise refused("a partition", place, _PLACE_RULE)
    topic, number = place
    return topic_of(topic), count_of("a partition's number", number, 0)
