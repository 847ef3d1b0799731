"""What ``client.admin`` can do, as conversations: topics, offsets, brokers and statistics.

Every operation is one question, or one to each broker concerned, and ends within ``timeout`` (the client's, unless given).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from msgspec import Struct

from zmqmq.client.arguments import (
    Place,
    Seconds,
    check_partitions,
    config_of,
    count_of,
    flag_of,
    mapping_of,
    maybe_seconds_of,
    offset_of,
    partitions_of,
    texts_of,
    topic_of,
    whole_of,
)
from zmqmq.client.core import ANY_BROKER
from zmqmq.client.routing import NO_LEADER
from zmqmq.client.steps import Steps, ask, default_timeout, find_topic, in_core, metadata, monotonic, pause
from zmqmq.errors import BrokerUnavailable, NotLeader, TopicExists, ZmqmqError
from zmqmq.model import Offset
from zmqmq.topic_config import TopicConfig, describe_config, stored_config
from zmqmq.wire.framing import raised
from zmqmq.wire.replies import (
    BrokerInfo,
    DeleteRecordsReply,
    DeleteResult,
    DoneReply,
    Fault,
    ListOffsetsReply,
    OffsetResult,
    PingReply,
    StatsReply,
    TopicInfo,
    TopicReply,
)
from zmqmq.wire.requests import (
    LIST_END,
    LIST_START,
    LIST_TIME,
    AlterTopic,
    CreateTopic,
    DeleteEntry,
    DeleteRecords,
    DeleteTopic,
    GetStats,
    ListOffsets,
    OffsetQuery,
    Ping,
    Request,
)

T = TypeVar("T")
R = TypeVar("R", OffsetResult, DeleteResult)

LEADER_RETRY_S: Final = 0.05
TO_END: Final = -1


class Partition(Struct, frozen=True):
    """One partition of a described topic. ``error``: why it is out of service, or empty."""

    partition: int
    leader: int
    leader_epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    error: str = ""


class Topic(Struct, frozen=True):
    """A topic. ``config`` holds every setting; ``overrides`` those that were set."""

    name: str
    topic_id: bytes
    partitions: tuple[Partition, ...]
    config: dict[str, str]
    overrides: dict[str, str]
    settings: TopicConfig

    @property
    def partition_count(self) -> int:
        return len(self.partitions)

    @property
    def replication_factor(self) -> int:
        return max((len(partition.replicas) for partition in self.partitions), default=0)

    @property
    def under_replicated(self) -> int:
        """How many partitions have replicas that are not in sync."""
        return sum(len(partition.isr) < len(partition.replicas) for partition in self.partitions)


class Offsets(Struct, frozen=True):
    """Where a partition's log begins and ends. ``end`` is exclusive: the high watermark."""

    start: int
    end: int


class Pong(Struct, frozen=True):
    """One round trip."""

    node_id: int
    address: str
    seconds: float


class Cluster(Struct, frozen=True):
    cluster_id: str
    controller: int
    brokers: tuple[BrokerInfo, ...]


def create_topic(
    name: str,
    partitions: int = 0,
    replication_factor: int = 0,
    config: Mapping[str, Any] | None = None,
    *,
    exist_ok: bool = False,
    timeout: Seconds | None = None,
) -> Steps[Topic]:
    """Create a topic; 0 takes the cluster's defaults. With ``exist_ok`` an existing topic is returned as it is."""
    topic = topic_of(name, "name", is_new=True)
    count, replicas = count_of("partitions", partitions, 0), count_of("replication_factor", replication_factor, 0)
    settings = {} if config is None else config_of("config", config)
    may_exist = flag_of("exist_ok", exist_ok)

    def build(correlation_id: int, timeout_ms: int) -> Request:
        return CreateTopic(correlation_id, timeout_ms, topic, count, replicas, settings)

    try:
        return _topic((yield from _ask(TopicReply, build, "CreateTopic", timeout, is_safe=False)).topic)
    except TopicExists:
        if not may_exist:
            raise
        return (yield from describe_topic(topic, timeout=timeout))


def delete_topic(name: str, *, timeout: Seconds | None = None) -> Steps[None]:
    """Delete a topic and all its records, for good."""
    topic = topic_of(name, "name")

    def build(correlation_id: int, timeout_ms: int) -> Request:
        return DeleteTopic(correlation_id, timeout_ms, topic)

    yield from _ask(DoneReply, build, "DeleteTopic", timeout, is_safe=False)


def alter_topic(
    name: str, set: Mapping[str, Any] | None = None, unset: Iterable[str] = (), *, timeout: Seconds | None = None
) -> Steps[Topic]:
    """Set settings, and put others back to their defaults."""
    topic = topic_of(name, "name")
    changed = {} if set is None else config_of("set", set)
    removed = texts_of("unset", unset)

    def build(correlation_id: int, timeout_ms: int) -> Request:
        return AlterTopic(correlation_id, timeout_ms, topic, changed, removed)

    return _topic((yield from _ask(TopicReply, build, "AlterTopic", timeout)).topic)


def topics(*, internal: bool = False, timeout: Seconds | None = None) -> Steps[list[Topic]]:
    """All topics, by name."""
    reply = yield from metadata(None, internal=flag_of("internal", internal), timeout=maybe_seconds_of("timeout", timeout))
    return sorted((_topic(info) for info in reply.topics), key=lambda topic: topic.name)


def describe_topic(name: str, *, timeout: Seconds | None = None) -> Steps[Topic]:
    """One topic. Raises UnknownTopic, with ``similar`` names."""
    info, _ = yield from find_topic(topic_of(name, "name"), maybe_seconds_of("timeout", timeout))
    return _topic(info)


def offsets(
    topic: str, *, partitions: Sequence[int] | None = None, at: Place | None = None, timeout: Seconds | None = None
) -> Steps[dict[int, Offsets]]:
    """Start and end of each partition. With ``at`` (an Offset or a time), ``start`` is where that place is."""
    place = Offset.START if at is None else offset_of("at", at)
    numbers = None if partitions is None else partitions_of(partitions)
    kind, time_ms = (LIST_TIME, place.value) if place.kind == "time" else (LIST_START, 0)

    def request(entries: list[OffsetQuery]) -> Callable[[int, int], Request]:
        return lambda correlation_id, timeout_ms: ListOffsets(correlation_id, timeout_ms, entries)

    def at_leader(topic_id: bytes, node: int, numbers: list[int], seconds: float) -> Steps[list[OffsetResult]]:
        queries = [OffsetQuery(topic_id, number, wanted, at_ms) for number in numbers for wanted, at_ms in ((kind, time_ms), (LIST_END, 0))]
        reply = yield from ask(ListOffsetsReply, request(queries), "ListOffsets", timeout=seconds, node=node)
        return reply.results

    found: dict[int, list[int]] = {}
    for result in (yield from _at_leaders(topic_of(topic), numbers, at_leader, timeout)):
        found.setdefault(result.partition, []).append(result.offset)
    return {number: Offsets(_place(place, start, end), end) for number, (start, end) in sorted(found.items())}


def delete_records(topic: str, before: Mapping[int, int], *, timeout: Seconds | None = None) -> Steps[dict[int, int]]:
    """Remove the records before an offset of each partition (-1: all). The new starts."""
    ends = {
        whole_of("a partition in before", number): count_of(f"before[{number!r}]", offset, TO_END)
        for number, offset in mapping_of("before", before, "a mapping from partition to offset, as {0: 100}").items()
    }

    def request(entries: list[DeleteEntry]) -> Callable[[int, int], Request]:
        return lambda correlation_id, timeout_ms: DeleteRecords(correlation_id, timeout_ms, entries)

    def at_leader(topic_id: bytes, node: int, numbers: list[int], seconds: float) -> Steps[list[DeleteResult]]:
        entries = [DeleteEntry(topic_id, number, ends[number]) for number in numbers]
        reply = yield from ask(DeleteRecordsReply, request(entries), "DeleteRecords", timeout=seconds, node=node)
        return reply.results

    results = yield from _at_leaders(topic_of(topic), sorted(ends), at_leader, timeout)
    return {result.partition: result.log_start for result in results}


def _at_leaders(
    topic: str,
    partitions: Sequence[int] | None,
    at_leader: Callable[[bytes, int, list[int], float], Steps[list[R]]],
    timeout: Seconds | None,
) -> Steps[list[R]]:
    """Ask the leader of each partition; again, with fresh metadata, while a leader moves and the time lasts."""
    deadline = (yield from monotonic()) + (maybe_seconds_of("timeout", timeout) or (yield from default_timeout()))
    found: list[R] = []
    todo: list[int] | None = None if partitions is None else list(partitions)
    while True:
        left = max(0.001, deadline - (yield from monotonic()))
        info, _ = yield from find_topic(topic, left)
        leaders = {partition.partition: partition.leader for partition in info.partitions}
        check_partitions(todo or (), sorted(leaders), topic)
        again: dict[int, ZmqmqError] = {}
        for node, numbers in _by_leader(leaders, leaders if todo is None else todo).items():
            if node == NO_LEADER:
                again.update((number, BrokerUnavailable(f"partition {number} of {topic} has no leader")) for number in numbers)
                continue
            for result in (yield from at_leader(info.topic_id, node, numbers, left)):
                error = _error(result.error)
                if error is None:
                    found.append(result)
                elif isinstance(error, NotLeader):
                    again[result.partition] = error
                else:
                    raise error
        if not again:
            return found
        found = [result for result in found if result.partition not in again]  # it is asked for everything again
        todo = sorted(again)
        if (yield from monotonic()) + LEADER_RETRY_S >= deadline:
            raise again[todo[0]]
        yield from pause(LEADER_RETRY_S)


def cluster(*, timeout: Seconds | None = None) -> Steps[Cluster]:
    reply = yield from metadata([], timeout=maybe_seconds_of("timeout", timeout))
    return Cluster(reply.cluster_id, reply.controller, tuple(sorted(reply.brokers, key=lambda broker: broker.node_id)))


def brokers(*, timeout: Seconds | None = None) -> Steps[list[BrokerInfo]]:
    return list((yield from cluster(timeout=timeout)).brokers)


def stats(*, partitions: bool = True, timeout: Seconds | None = None) -> Steps[list[StatsReply]]:
    """The counters of each broker."""
    flag_of("partitions", partitions)

    def build(correlation_id: int, timeout_ms: int) -> Request:
        return GetStats(correlation_id, timeout_ms, partitions)

    found = []
    for broker in (yield from cluster(timeout=timeout)).brokers:
        found.append((yield from _ask(StatsReply, build, "GetStats", timeout, node=broker.node_id)))  # noqa: PERF401 - no "yield from" in a comprehension
    return found


def ping(*, timeout: Seconds | None = None) -> Steps[list[Pong]]:
    """One round trip to each broker."""
    pongs = []
    for broker in (yield from cluster(timeout=timeout)).brokers:
        yield from _ask(PingReply, Ping, "Ping", timeout, node=broker.node_id)  # connects, if it has to
        started = yield from monotonic()
        yield from _ask(PingReply, Ping, "Ping", timeout, node=broker.node_id)
        elapsed = (yield from monotonic()) - started
        nodes = yield from in_core(lambda core: core.ready_nodes())
        pongs.append(Pong(broker.node_id, nodes.get(broker.node_id, broker.endpoint), elapsed))
    return pongs


def _ask(
    kind: type[T], build: Callable[[int, int], Request], what: str, timeout: Seconds | None, *, node: int = ANY_BROKER, is_safe: bool = True
) -> Steps[T]:
    return ask(kind, build, what, timeout=maybe_seconds_of("timeout", timeout), node=node, is_safe=is_safe)


def _topic(info: TopicInfo) -> Topic:
    settings = stored_config(info.config)
    partitions = tuple(
        Partition(
            partition.partition,
            partition.leader,
            partition.leader_epoch,
            tuple(partition.replicas),
            tuple(partition.isr),
            "" if partition.error is None else partition.error.message,
        )
        for partition in sorted(info.partitions, key=lambda partition: partition.partition)
    )
    return Topic(info.name, info.topic_id, partitions, describe_config(settings), dict(info.config), settings)


def _by_leader(leaders: Mapping[int, int], numbers: Iterable[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for number in numbers:
        found.setdefault(leaders[number], []).append(number)
    return found


def _error(fault: Fault | None) -> ZmqmqError | None:
    return None if fault is None else raised(fault)


def _place(place: Offset, start: int, end: int) -> int:
    """What a named place is, between the log's start (or the answer of the query by time) and its end."""
    match place.kind:
        case "end":
            return end
        case "last":
            return max(start, end - place.value)
        case "after_start":
            return min(end, start + place.value)
        case "exact":
            return min(max(start, place.value), end)
        case "start" | "time":
            return start
