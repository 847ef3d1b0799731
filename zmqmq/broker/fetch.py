"""Fetch: whole batches of many partitions, up to the high watermark, with long polling.

A fetch that finds nothing waits in the purgatory, under each of its partitions, until a watermark moves or
its deadline comes. Invariants: a waiting fetch stands under all of its partitions or under none; their
number, and that of their entries, is bounded in all and per connection.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final, TypeVar

from zmqmq.broker.connections import Connection
from zmqmq.broker.dispatch import Dispatch, Now
from zmqmq.broker.limits import RETRY_AFTER_MS, BrokerLimits
from zmqmq.broker.partitions import Partitions
from zmqmq.effects import AnswerFetch, ReadRange
from zmqmq.errors import RemoteProtocolError, Throttled, ZmqmqError
from zmqmq.marks import reached
from zmqmq.model import BATCH_BYTES_MAX
from zmqmq.wire.framing import fault
from zmqmq.wire.replies import FetchReply, FetchResult
from zmqmq.wire.requests import Fetch, FetchEntry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zmqmq.model import PartitionId

FETCH_BYTES_MAX: Final = 16 << 20
"""Of one answer, whatever the request allows."""
_STALE_MIN: Final = 64

K = TypeVar("K")


class _Waiting:
    __slots__ = ("connection", "deadline_ms", "is_done", "number", "request", "started_us")

    def __init__(self, number: int, connection: Connection, request: Fetch, deadline_ms: int, started_us: int) -> None:
        self.number = number
        self.connection = connection
        self.request = request
        self.deadline_ms = deadline_ms
        self.started_us = started_us
        self.is_done = False


class FetchDesk:
    """See the module."""

    def __init__(self, limits: BrokerLimits, partitions: Partitions, dispatch: Dispatch) -> None:
        self._limits = limits
        self._partitions = partitions
        self._dispatch = dispatch
        self._number = 0
        self._waiting: dict[int, _Waiting] = {}
        self._entries_waiting = 0
        self._by_partition: dict[tuple[bytes, int], dict[int, _Waiting]] = {}
        self._by_source: dict[bytes, dict[int, _Waiting]] = {}
        self._deadlines: list[tuple[int, int, _Waiting]] = []

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    def fetch(self, connection: Connection, request: Fetch, now: Now) -> None:
        """Raises when the whole request is refused."""
        if len(request.entries) > self._limits.entries_max:
            raise RemoteProtocolError(f"Fetch has {len(request.entries)} entries, the limit is {self._limits.entries_max}")
        ranges, results, is_enough = self._plan(request)
        if is_enough or results or request.wait_ms_max <= 0:
            self._answer(connection, request, ranges, results, now.ms)
        else:
            self._park(connection, request, now)

    def on_advanced(self, partitions: Iterable[PartitionId], now: Now) -> None:
        """High watermarks advanced, or partitions are gone."""
        for partition in partitions:
            for waiting in list(self._by_partition.get(partition, {}).values()):
                ranges, results, is_enough = self._plan(waiting.request)
                if is_enough or results:
                    self._release(waiting)
                    self._answer(waiting.connection, waiting.request, ranges, results, now.ms)

    def on_tick(self, now: Now) -> None:
        while self._deadlines and (self._deadlines[0][0] <= now.ms or self._deadlines[0][2].is_done):
            waiting = heapq.heappop(self._deadlines)[2]
            if not waiting.is_done:
                self._release(waiting)
                ranges, results, _ = self._plan(waiting.request)
                self._answer(waiting.connection, waiting.request, ranges, results, now.ms)

    def on_gone(self, source: bytes) -> None:
        """The peer will read no answer."""
        for waiting in list(self._by_source.get(source, {}).values()):
            self._release(waiting)

    def next_deadline_ms(self) -> int | None:
        return self._deadlines[0][0] if self._deadlines else None

    def _plan(self, request: Fetch) -> tuple[list[ReadRange], list[FetchResult], bool]:
        """What there is to read, what there is to say without reading, and whether that is enough to answer."""
        ranges: list[ReadRange] = []
        errors: list[FetchResult] = []
        available = 0
        for entry in request.entries:
            try:
                found = self._range(entry)
            except ZmqmqError as error:
                self._dispatch.count(error)
                errors.append(FetchResult(entry.topic_id, entry.partition, -1, -1, -1, 0, fault(error)))
                continue
            if found is not None:
                ranges.append(found)
                if request.bytes_min > 1:
                    available += self._partitions.find(entry.topic_id, entry.partition).bytes_from(entry.offset)
        return ranges, errors, bool(ranges) and (request.bytes_min <= 1 or available >= request.bytes_min)

    def _range(self, entry: FetchEntry) -> ReadRange | None:
        leader = self._partitions.find(entry.topic_id, entry.partition)
        leader.check_position(entry.offset, entry.last_epoch)
        if entry.offset >= leader.high_watermark:
            return None
        return ReadRange(
            leader.partition,
            entry.offset,
            leader.high_watermark,
            min(max(entry.bytes_max, 1), BATCH_BYTES_MAX),
            FetchResult(entry.topic_id, entry.partition, leader.high_watermark, leader.log_start, leader.leadership.epoch),
        )

    def _answer(self, connection: Connection, request: Fetch, ranges: list[ReadRange], errors: list[FetchResult], now_ms: int) -> None:
        if not ranges:
            self._dispatch.reply(connection.source, FetchReply(request.correlation_id, errors))
            return
        # Each answer begins at another partition, so that a full one does not starve those behind it.
        first = request.correlation_id % len(ranges)
        self._dispatch.effects.append(
            AnswerFetch(
                connection.source,
                request.correlation_id,
                (*ranges[first:], *ranges[:first]),
                tuple(errors),
                min(max(request.bytes_max, 1), FETCH_BYTES_MAX),
                now_ms,
            )
        )

    def _park(self, connection: Connection, request: Fetch, now: Now) -> None:
        self._check_room(connection, len(request.entries))
        limits = self._limits
        self._number += 1
        deadline_ms = now.ms + min(request.wait_ms_max, limits.fetch_wait_ms_max)
        reached("fetch waited")
        waiting = self._waiting[self._number] = _Waiting(self._number, connection, request, deadline_ms, now.us)
        self._by_source.setdefault(connection.source, {})[self._number] = waiting
        connection.fetches_waiting += 1
        connection.entries_waiting += len(request.entries)
        self._entries_waiting += len(request.entries)
        for entry in request.entries:
            self._by_partition.setdefault((entry.topic_id, entry.partition), {})[waiting.number] = waiting
        heapq.heappush(self._deadlines, (deadline_ms, waiting.number, waiting))

    def _check_room(self, connection: Connection, entry_count: int) -> None:
        """One fetch may wait on a connection that has none, whatever its size."""
        limits = self._limits
        if (
            connection.fetches_waiting >= limits.connection_fetches_waiting_max
            or len(self._waiting) >= limits.fetches_waiting_max
            or (connection.fetches_waiting and connection.entries_waiting + entry_count > limits.connection_entries_waiting_max)
            or (self._waiting and self._entries_waiting + entry_count > limits.entries_waiting_max)
        ):
            raise Throttled(
                f"{connection.fetches_waiting} fetches for {connection.entries_waiting} partitions of the connection, and "
                f"{len(self._waiting)} for {self._entries_waiting} in all, wait already",
                retry_after_ms=RETRY_AFTER_MS,
                hint="wait for answers before fetching again",
            )

    def _release(self, waiting: _Waiting) -> None:
        waiting.is_done = True
        waiting.connection.fetches_waiting -= 1
        waiting.connection.entries_waiting -= len(waiting.request.entries)
        self._entries_waiting -= len(waiting.request.entries)
        del self._waiting[waiting.number]
        _remove(self._by_source, waiting.connection.source, waiting.number)
        for entry in waiting.request.entries:
            _remove(self._by_partition, (entry.topic_id, entry.partition), waiting.number)
        if len(self._deadlines) > 2 * len(self._waiting) + _STALE_MIN:
            self._deadlines = [item for item in self._deadlines if not item[2].is_done]
            heapq.heapify(self._deadlines)
        self._check()

    def _check(self) -> None:
        assert len(self._waiting) <= len(self._deadlines)
        assert len(self._waiting) <= self._limits.fetches_waiting_max


def _remove(shelves: dict[K, dict[int, _Waiting]], key: K, number: int) -> None:
    """Take a fetch off a shelf, if it stands there, and the shelf away once it is empty."""
    shelf = shelves.get(key)
    if shelf is not None:
        shelf.pop(number, None)
        if not shelf:
            del shelves[key]
