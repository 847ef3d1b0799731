"""Who leads what, and which partition a key belongs to.

``Routing`` is the client's metadata cache: it answers from the last metadata reply and says when a new one is
wanted. Invariant: a refresh is asked for at most once in ``REFRESH_MS_MIN``, and at least once in ``REFRESH_MS_MAX``
while somebody uses a topic.
"""

from __future__ import annotations

import functools
from typing import Final

from crc32c import crc32c
from msgspec import Struct

from zmqmq.model import SLOT_COUNT, partition_of_slot
from zmqmq.wire.replies import BrokerInfo, MetadataReply, TopicInfo

REFRESH_MS_MIN: Final = 100
REFRESH_MS_MAX: Final = 300_000
NO_LEADER: Final = -1
HINTS_MAX: Final = 1_024
"""Leaders told by errors since the last metadata reply."""
_SLOT_BYTES: Final = 2


class TopicRoute(Struct, frozen=True):
    """What a producer or reader has to know of a topic."""

    name: str
    topic_id: bytes
    table_version: int
    slots: tuple[int, ...]
    """The partition of each slot; empty when the topic has one partition."""
    leaders: dict[int, int]
    config: dict[str, str]

    @property
    def partition_count(self) -> int:
        return len(self.leaders)

    def partition_of(self, key: bytes) -> int:
        return self.slots[crc32c(key) % SLOT_COUNT] if self.slots else 0


def route_of(info: TopicInfo) -> TopicRoute:
    count = len(info.partitions)
    if count <= 1:
        slots: tuple[int, ...] = ()
    elif info.slot_table:
        slots = _read_table(info.slot_table)
    else:
        slots = _initial_table(count)
    leaders = {partition.partition: partition.leader for partition in info.partitions}
    return TopicRoute(info.name, info.topic_id, info.table_version, slots, leaders, info.config)


@functools.cache
def _initial_table(partition_count: int) -> tuple[int, ...]:
    return tuple(partition_of_slot(slot, partition_count) for slot in range(SLOT_COUNT))


def _read_table(table: bytes) -> tuple[int, ...]:
    """Two bytes per slot, little-endian."""
    return tuple(int.from_bytes(table[i : i + _SLOT_BYTES], "little") for i in range(0, len(table), _SLOT_BYTES))


class Sticky:
    """Where records without a key go: one partition per batch, each in its turn, so that batches grow full."""

    def __init__(self, start: int) -> None:
        self._turn = start

    def current(self, route: TopicRoute) -> int:
        """A partition that has a leader, if any has."""
        count = route.partition_count
        for step in range(count):
            partition = (self._turn + step) % count
            if route.leaders[partition] != NO_LEADER:
                return partition
        return self._turn % count

    def advance(self) -> None:
        self._turn += 1


class Hint(Struct, frozen=True):
    """A broker that does not lead a partition said who does."""

    partition: int
    leader: int
    endpoint: str


class Routing:
    """The metadata cache. Topics are those that somebody declared by ``use``."""

    def __init__(self) -> None:
        self.routes: dict[str, TopicRoute] = {}
        self.endpoints: dict[int, BrokerInfo] = {}
        self.cluster_id = ""
        self._users: dict[str, int] = {}
        self._hints: dict[tuple[str, int], int] = {}
        """Leaders that errors told, until the next reply."""
        self._wanted = False
        self._asking = False
        self._asked_ms: int | None = None

    def use(self, topic: str) -> None:
        self._users[topic] = self._users.get(topic, 0) + 1

    def release(self, topic: str) -> None:
        self._users[topic] -= 1
        if not self._users[topic]:
            del self._users[topic]
            self.routes.pop(topic, None)

    @property
    def topics(self) -> list[str]:
        """What the next refresh asks for."""
        return list(self._users)

    def leader(self, topic: str, partition: int) -> int:
        """The node id, or NO_LEADER when there is none or it is not known."""
        hinted = self._hints.get((topic, partition))
        if hinted is not None:
            return hinted
        route = self.routes.get(topic)
        return NO_LEADER if route is None else route.leaders.get(partition, NO_LEADER)

    def on_hint(self, topic: str, hint: Hint) -> None:
        """Believe it until the next reply; a wrong one costs one more round."""
        if hint.leader == NO_LEADER or not hint.endpoint or len(self._hints) >= HINTS_MAX:
            return
        self._hints[topic, hint.partition] = hint.leader
        if hint.leader not in self.endpoints:
            self.endpoints[hint.leader] = BrokerInfo(hint.leader, hint.endpoint)

    def want_refresh(self) -> None:
        """Something was found to be out of date."""
        self._wanted = True

    def refresh_due_ms(self) -> int | None:
        """When to ask next; None: not at all, or a request is under way."""
        if self._asking or not self._users:
            return None
        if self._asked_ms is None:
            return 0
        return self._asked_ms + (REFRESH_MS_MIN if self._wanted else REFRESH_MS_MAX)

    def on_asked(self, now_ms: int) -> None:
        self._asking, self._asked_ms, self._wanted = True, now_ms, False

    def on_failed(self) -> None:
        self._asking, self._wanted = False, True

    def on_reply(self, reply: MetadataReply, *, is_refresh: bool) -> None:
        """Take over what a reply says. A topic with an error keeps its old route: its users will hear from the leader."""
        if is_refresh:
            self._asking = False
        self._hints.clear()
        self.cluster_id = reply.cluster_id
        self.endpoints = {broker.node_id: broker for broker in reply.brokers}
        for info in reply.topics:
            if info.error is None and info.name in self._users:
                self.routes[info.name] = route_of(info)
                if any(leader == NO_LEADER for leader in self.routes[info.name].leaders.values()):
                    self._wanted = True
