"""Topics, offsets, brokers and statistics: ``client.admin``.

Every call is one question, or one to each broker concerned, and ends within ``timeout`` (the client's, unless given).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from msgspec import Struct

from zmqmq.client.arguments import Place, Seconds, check_partitions, maybe_seconds_of, offset_of
from zmqmq.client.asking import Asker
from zmqmq.client.routing import NO_LEADER
from zmqmq.errors import BrokerUnavailable, InvalidConfig, NotLeader, TopicExists, ZmqmqError
from zmqmq.model import Offset, check_topic_name
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


class Admin:
    """See the module. Safe to use from many threads."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    # -- topics -------------------------------------------------------------------------------------

    def create_topic(
        self,
        name: str,
        partitions: int = 0,
        replication_factor: int = 0,
        config: Mapping[str, Any] | None = None,
        *,
        exist_ok: bool = False,
        timeout: Seconds | None = None,
    ) -> Topic:
        """Create a topic; 0 takes the cluster's defaults. With ``exist_ok`` an existing topic is returned as it is."""
        check_topic_name(name)
        settings = {key: str(value) for key, value in (config or {}).items()}
        if min(partitions, replication_factor) < 0:
            raise InvalidConfig(f"partitions {partitions} and replication_factor {replication_factor} must not be negative")

        def build(correlation_id: int, timeout_ms: int) -> Request:
            return CreateTopic(correlation_id, timeout_ms, name, partitions, replication_factor, settings)

        try:
            return _topic(self._ask(TopicReply, build, "CreateTopic", timeout, is_safe=False).topic)
        except TopicExists:
            if not exist_ok:
                raise
            return self.describe_topic(name, timeout=timeout)

    def delete_topic(self, name: str, *, timeout: Seconds | None = None) -> None:
        """Delete a topic and all its records, for good."""

        def build(correlation_id: int, timeout_ms: int) -> Request:
            return DeleteTopic(correlation_id, timeout_ms, name)

        self._ask(DoneReply, build, "DeleteTopic", timeout, is_safe=False)

    def alter_topic(
        self, name: str, set: Mapping[str, Any] | None = None, unset: Iterable[str] = (), *, timeout: Seconds | None = None
    ) -> Topic:
        """Set settings, and put others back to their defaults."""
        changed = {key: str(value) for key, value in (set or {}).items()}
        removed = list(unset)

        def build(correlation_id: int, timeout_ms: int) -> Request:
            return AlterTopic(correlation_id, timeout_ms, name, changed, removed)

        return _topic(self._ask(TopicReply, build, "AlterTopic", timeout).topic)

    def topics(self, *, internal: bool = False, timeout: Seconds | None = None) -> list[Topic]:
        """All topics, by name."""
        reply = self._asker.metadata(None, internal=internal, timeout=maybe_seconds_of("timeout", timeout))
        return sorted((_topic(info) for info in reply.topics), key=lambda topic: topic.name)

    def describe_topic(self, name: str, *, timeout: Seconds | None = None) -> Topic:
        """One topic. Raises UnknownTopic, with ``similar`` names."""
        return _topic(self._asker.topic(name, maybe_seconds_of("timeout", timeout))[0])

    # -- offsets ------------------------------------------------------------------------------------

    def offsets(
        self, topic: str, *, partitions: Sequence[int] | None = None, at: Place | None = None, timeout: Seconds | None = None
    ) -> dict[int, Offsets]:
        """Start and end of each partition. With ``at`` (an Offset or a time), ``start`` is where that place is."""
        place = Offset.START if at is None else offset_of(at)
        kind, time_ms = (LIST_TIME, place.value) if place.kind == "time" else (LIST_START, 0)

        def request(entries: list[OffsetQuery]) -> Callable[[int, int], Request]:
            return lambda correlation_id, timeout_ms: ListOffsets(correlation_id, timeout_ms, entries)

        def ask(topic_id: bytes, node: int, numbers: list[int], seconds: float) -> list[OffsetResult]:
            queries = [
                OffsetQuery(topic_id, number, wanted, at_ms) for number in numbers for wanted, at_ms in ((kind, time_ms), (LIST_END, 0))
            ]
            return self._asker.ask(ListOffsetsReply, request(queries), "ListOffsets", timeout=seconds, node=node).results

        found: dict[int, list[int]] = {}
        for result in self._at_leaders(topic, partitions, ask, timeout):
            found.setdefault(result.partition, []).append(result.offset)
        return {number: Offsets(_place(place, start, end), end) for number, (start, end) in sorted(found.items())}

    def delete_records(self, topic: str, before: Mapping[int, int], *, timeout: Seconds | None = None) -> dict[int, int]:
        """Remove the records before an offset of each partition (-1: all). The new starts."""

        def request(entries: list[DeleteEntry]) -> Callable[[int, int], Request]:
            return lambda correlation_id, timeout_ms: DeleteRecords(correlation_id, timeout_ms, entries)

        def ask(topic_id: bytes, node: int, numbers: list[int], seconds: float) -> list[DeleteResult]:
            entries = [DeleteEntry(topic_id, number, before[number]) for number in numbers]
            return self._asker.ask(DeleteRecordsReply, request(entries), "DeleteRecords", timeout=seconds, node=node).results

        return {result.partition: result.log_start for result in self._at_leaders(topic, sorted(before), ask, timeout)}

    def _at_leaders(
        self, topic: str, partitions: Sequence[int] | None, ask: Callable[[bytes, int, list[int], float], list[R]], timeout: Seconds | None
    ) -> list[R]:
        """Ask the leader of each partition; again, with fresh metadata, while a leader moves and the time lasts."""
        deadline = time.monotonic() + (maybe_seconds_of("timeout", timeout) or self._asker.timeout)
        found: list[R] = []
        todo: list[int] | None = None if partitions is None else list(partitions)
        while True:
            left = max(0.001, deadline - time.monotonic())
            info, _ = self._asker.topic(topic, left)
            leaders = {partition.partition: partition.leader for partition in info.partitions}
            check_partitions(todo or (), sorted(leaders), topic)
            again: dict[int, ZmqmqError] = {}
            for node, numbers in _by_leader(leaders, leaders if todo is None else todo).items():
                if node == NO_LEADER:
                    again.update((number, BrokerUnavailable(f"partition {number} of {topic} has no leader")) for number in numbers)
                    continue
                for result in ask(info.topic_id, node, numbers, left):
                    error = _error(result.error)
                    if error is None:
                        found.append(result)
                    elif isinstance(error, NotLeader):
                        again[result.partition] = error
                    else:
                        raise error
            if not again:
                return found
            todo = sorted(again)
            if time.monotonic() + LEADER_RETRY_S >= deadline:
                raise again[todo[0]]
            time.sleep(LEADER_RETRY_S)

    # -- brokers ------------------------------------------------------------------------------------

    def cluster(self, *, timeout: Seconds | None = None) -> Cluster:
        reply = self._asker.metadata([], timeout=maybe_seconds_of("timeout", timeout))
        return Cluster(reply.cluster_id, reply.controller, tuple(sorted(reply.brokers, key=lambda broker: broker.node_id)))

    def brokers(self, *, timeout: Seconds | None = None) -> list[BrokerInfo]:
        return list(self.cluster(timeout=timeout).brokers)

    def stats(self, *, partitions: bool = True, timeout: Seconds | None = None) -> list[StatsReply]:
        """The counters of each broker."""

        def build(correlation_id: int, timeout_ms: int) -> Request:
            return GetStats(correlation_id, timeout_ms, partitions)

        return [self._ask(StatsReply, build, "GetStats", timeout, node=broker.node_id) for broker in self.cluster(timeout=timeout).brokers]

    def ping(self, *, timeout: Seconds | None = None) -> list[Pong]:
        """One round trip to each broker."""
        pongs = []
        for broker in self.cluster(timeout=timeout).brokers:
            self._ask(PingReply, Ping, "Ping", timeout, node=broker.node_id)  # connects, if it has to
            started = time.perf_counter()
            self._ask(PingReply, Ping, "Ping", timeout, node=broker.node_id)
            elapsed = time.perf_counter() - started
            address = self._asker.in_io(lambda core: core.ready_nodes()).get(broker.node_id, broker.endpoint)
            pongs.append(Pong(broker.node_id, address, elapsed))
        return pongs

    def _ask(
        self,
        kind: type[T],
        build: Callable[[int, int], Request],
        what: str,
        timeout: Seconds | None,
        *,
        node: int = -1,
        is_safe: bool = True,
    ) -> T:
        return self._asker.ask(kind, build, what, timeout=maybe_seconds_of("timeout", timeout), node=node, is_safe=is_safe)


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
