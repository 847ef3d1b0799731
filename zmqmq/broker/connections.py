"""Who is connected, and how much each of them has under way.

A peer is known from its Hello until the transport says that it is gone. That of an inproc peer shows only when
an answer finds nobody, so the least recently heard ones make room when there are too many. Who was forgotten
says Hello again.
"""

from __future__ import annotations

from zmqmq.broker.limits import CONNECTION_IDLE_MS, RETRY_AFTER_MS, BrokerLimits
from zmqmq.errors import RemoteProtocolError, Throttled


class Connection:
    """One peer. ``in_flight_bytes``: produced batches without an answer; ``fetches_waiting``: its parked fetches,
    ``entries_waiting``: the partitions in them."""

    __slots__ = ("client_id", "entries_waiting", "fetches_waiting", "in_flight_bytes", "seen_ms", "software", "source")

    def __init__(self, source: bytes, client_id: str, software: str) -> None:
        self.source = source
        self.client_id = client_id
        self.software = software
        self.in_flight_bytes = 0
        self.fetches_waiting = 0
        self.entries_waiting = 0
        self.seen_ms = 0

    def __repr__(self) -> str:
        return f"Connection({self.source.hex()} {self.client_id!r} in_flight={self.in_flight_bytes})"


class Connections:
    """Ordered by when they were last heard. Invariant: ``len(self) <= connections_max``."""

    def __init__(self, limits: BrokerLimits) -> None:
        self._limits = limits
        self._by_source: dict[bytes, Connection] = {}

    def __len__(self) -> int:
        return len(self._by_source)

    def heard(self, source: bytes, now_ms: int) -> Connection:
        """The connection of a request. Raises RemoteProtocolError if it did not begin with Hello."""
        connection = self._by_source.get(source)
        if connection is None:
            raise RemoteProtocolError("the first request of a connection must be Hello", hint="say Hello, then send the request again")
        if connection.seen_ms != now_ms:
            connection.seen_ms = now_ms
            del self._by_source[source]
            self._by_source[source] = connection
        return connection

    def open(self, source: bytes, client_id: str, software: str, now_ms: int) -> Connection:
        """A Hello came. Raises Throttled when there are too many connections and all of them are in use."""
        connection = self._by_source.pop(source, None) or Connection(source, client_id, software)
        if len(self._by_source) >= self._limits.connections_max:
            self._evict(now_ms)
        connection.seen_ms = now_ms
        self._by_source[source] = connection
        return connection

    def gone(self, source: bytes) -> None:
        self._by_source.pop(source, None)

    def _evict(self, now_ms: int) -> None:
        oldest = next(iter(self._by_source.values()))
        if now_ms - oldest.seen_ms < CONNECTION_IDLE_MS:
            raise Throttled(
                f"the broker has {len(self._by_source)} connections, its limit",
                retry_after_ms=RETRY_AFTER_MS,
                hint="close clients, or raise limits.connections_max of the broker",
            )
        del self._by_source[oldest.source]
