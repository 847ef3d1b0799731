"""Performs the machines' effects on the store: appends, reads, look-ups, starts, deletions.

One call of ``append`` a round, whatever the number of partitions. A read that fails becomes that partition's
error; the rest of the answer is not touched.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from zmqmq.batch import end_offset_of
from zmqmq.broker.summary import SummaryCounter
from zmqmq.effects import AnswerFetch, AnswerOffsets, Append, CreateLog, DeleteTopicLogs, Effect, MoveLogStart, ReadRange
from zmqmq.errors import ZmqmqError
from zmqmq.facts import StartMoved
from zmqmq.model import PartitionId
from zmqmq.wire.framing import fault
from zmqmq.wire.replies import FetchReply, FetchResult, ListOffsetsReply, OffsetResult

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zmqmq.ports import Buffer, Clock
    from zmqmq.store.store import Store
    from zmqmq.wire.replies import Reply
    from zmqmq.wire.requests import OffsetQuery

    SendReply = Callable[[bytes, Reply, Sequence[Buffer]], None]
    OnFetched = Callable[[PartitionId, int, int], None]
    OnStartMoved = Callable[[StartMoved], None]

log: Final = logging.getLogger("zmqmq.broker")


class Storage:
    """See the module. Belongs to the loop's thread."""

    def __init__(self, store: Store, clock: Clock, send: SendReply, on_fetched: OnFetched, on_start_moved: OnStartMoved) -> None:
        self.fetch_latency = SummaryCounter()
        self._moved: list[StartMoved] = []
        self._failed_moves: list[tuple[PartitionId, ZmqmqError]] = []
        self._store = store
        self._now_us = clock.monotonic_us
        self._send = send
        self._on_fetched = on_fetched
        self._on_start_moved = on_start_moved

    def append(self, appends: Sequence[Append]) -> tuple[list[PartitionId], dict[PartitionId, ZmqmqError]]:
        """The partitions that were written, and the others with their errors."""
        errors = self._store.append(appends)
        return [append.partition for append in appends if append.partition not in errors], errors

    def take_moved_starts(self) -> list[StartMoved]:
        """New log starts, which the next sync makes durable."""
        moved, self._moved = self._moved, []
        return moved

    def take_failed_moves(self) -> list[tuple[PartitionId, ZmqmqError]]:
        """Those that the store refused."""
        failed, self._failed_moves = self._failed_moves, []
        return failed

    def perform(self, effect: Effect) -> None:
        match effect:
            case AnswerFetch():
                self._answer_fetch(effect)
            case AnswerOffsets():
                self._answer_offsets(effect)
            case CreateLog():
                self._store.create(effect.partition, effect.config)
            case MoveLogStart():
                self._move_start(effect)
            case DeleteTopicLogs():
                self._delete(effect.topic_id)
            case _:
                raise AssertionError(f"{type(effect).__name__} is not performed by the storage")

    def _move_start(self, effect: MoveLogStart) -> None:
        try:
            self._store.move_log_start(effect.partition, effect.log_start)
        except ZmqmqError as error:
            self._failed_moves.append((effect.partition, error))
        else:
            moved = StartMoved(effect.partition, effect.log_start)
            self._on_start_moved(moved)
            self._moved.append(moved)

    def _delete(self, topic_id: bytes) -> None:
        """The topic is gone already; files that stay behind are removed by the next open."""
        try:
            self._store.delete_topic(topic_id)
        except ZmqmqError as error:
            log.warning("files of topic %s stay until the next start: %s", topic_id.hex(), error)

    def _answer_fetch(self, effect: AnswerFetch) -> None:
        started_us = self._now_us()
        results = list(effect.results)
        payload: list[Buffer] = []
        room = effect.bytes_max
        for wanted in effect.ranges:
            if room <= 0:
                break
            result, data = self._read(wanted, room)
            results.append(result)
            if data:
                payload.append(data)
                room -= len(data)
        self._send(effect.target, FetchReply(effect.correlation_id, results), payload)
        self.fetch_latency.add(self._now_us() - started_us)

    def _read(self, wanted: ReadRange, room: int) -> tuple[FetchResult, bytes]:
        known = wanted.result
        error = None
        data = b""
        try:
            data = self._store.read(wanted.partition, wanted.offset, wanted.end, min(wanted.bytes_max, room))
        except ZmqmqError as raised:
            error = fault(raised)
        if data:
            self._on_fetched(wanted.partition, end_offset_of(data) - wanted.offset, len(data))
        result = FetchResult(
            known.topic_id, known.partition, known.high_watermark, known.log_start, known.leader_epoch, int(bool(data)), error
        )
        return result, data

    def _answer_offsets(self, effect: AnswerOffsets) -> None:
        results = [
            known if known is not None else self._find(query, bounds)
            for query, bounds, known in zip(effect.queries, effect.bounds, effect.results, strict=True)
        ]
        self._send(effect.target, ListOffsetsReply(effect.correlation_id, results), ())

    def _find(self, query: OffsetQuery, bounds: tuple[int, int, int]) -> OffsetResult:
        log_start, end, epoch = bounds
        try:
            found = self._store.find_time(PartitionId(query.topic_id, query.partition), query.time_ms, end)
        except ZmqmqError as error:
            return OffsetResult(query.topic_id, query.partition, -1, error=fault(error))
        if found is None:
            return OffsetResult(query.topic_id, query.partition, end, leader_epoch=epoch)
        return OffsetResult(query.topic_id, query.partition, max(found.offset, log_start), found.time_ms, epoch)
