"""Delete-records and look-ups of offsets: what is asked about a log's ends rather than its records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmqmq.broker.dispatch import Dispatch
from zmqmq.broker.limits import BrokerLimits
from zmqmq.broker.partitions import Partitions
from zmqmq.effects import AnswerOffsets, MoveLogStart
from zmqmq.errors import NotLeader, OffsetOutOfRange, RemoteProtocolError, ZmqmqError
from zmqmq.wire.framing import fault
from zmqmq.wire.replies import DeleteRecordsReply, DeleteResult, ListOffsetsReply, OffsetResult
from zmqmq.wire.requests import LIST_END, LIST_START, LIST_TIME, DeleteEntry, DeleteRecords, ListOffsets, OffsetQuery

if TYPE_CHECKING:
    from zmqmq.broker.connections import Connection
    from zmqmq.facts import StartMoved
    from zmqmq.model import PartitionId
    from zmqmq.replication.leader import PartitionLeader

_NOWHERE = (-1, -1, -1)


class _Pending:
    """A delete-records whose new log starts are on their way to the disk."""

    def __init__(self, source: bytes, request: DeleteRecords) -> None:
        self.source = source
        self.correlation_id = request.correlation_id
        self.results: list[DeleteResult | None] = [None] * len(request.entries)
        self.remaining = len(request.entries)


class EndsDesk:
    """See the module. A new log start shows as soon as the store has it, and is answered when it is on disk and every in-sync follower
    has it too: whoever leads next, what was deleted stays deleted."""

    def __init__(self, limits: BrokerLimits, partitions: Partitions, dispatch: Dispatch) -> None:
        self._limits = limits
        self._partitions = partitions
        self._dispatch = dispatch
        self._waiting: dict[PartitionId, list[tuple[int, _Pending, int]]] = {}
        self._spreading: dict[PartitionId, list[tuple[int, _Pending, int]]] = {}
        """On disk here, but not yet at all followers."""

    def delete(self, connection: Connection, request: DeleteRecords) -> None:
        if not 0 < len(request.entries) <= self._limits.entries_max:
            raise RemoteProtocolError(f"DeleteRecords has {len(request.entries)} entries, 1 to {self._limits.entries_max} are allowed")
        self._partitions.check_writable()
        pending = _Pending(connection.source, request)
        for index, entry in enumerate(request.entries):
            try:
                self._delete_one(pending, index, entry)
            except ZmqmqError as error:
                self._dispatch.count(error)
                self._done(pending, index, DeleteResult(entry.topic_id, entry.partition, -1, fault(error)))

    def list_offsets(self, connection: Connection, request: ListOffsets) -> None:
        if len(request.queries) > self._limits.entries_max:
            raise RemoteProtocolError(f"ListOffsets has {len(request.queries)} queries, the limit is {self._limits.entries_max}")
        found = [self._look_up(query) for query in request.queries]
        results = [result for result, _ in found if result is not None]
        if len(results) == len(found):
            self._dispatch.reply(connection.source, ListOffsetsReply(request.correlation_id, results))
            return
        self._dispatch.effects.append(
            AnswerOffsets(
                connection.source,
                request.correlation_id,
                tuple(request.queries),
                tuple(bounds for _, bounds in found),
                tuple(result for result, _ in found),
            )
        )

    def on_start_moved(self, moved: StartMoved) -> None:
        leader = self._partitions.opened(moved.partition)
        if leader is not None:
            leader.move_start(moved.log_start)

    def on_start_synced(self, moved: StartMoved) -> None:
        """A log start that was asked for is on disk. Retention's never come this way: nobody waits for them."""
        waiting = self._waiting.pop(moved.partition, [])
        for target, pending, index in waiting:
            shelf = self._spreading if target <= moved.log_start else self._waiting
            shelf.setdefault(moved.partition, []).append((target, pending, index))
        self.look()

    def look(self) -> None:
        """Answer those whose new log start every in-sync follower has by now."""
        spreading, self._spreading = self._spreading, {}
        for partition, asked in spreading.items():
            leader = self._partitions.opened(partition)
            for target, pending, index in asked:
                if leader is None:
                    error = NotLeader(f"{partition} got another leader while its records were deleted")
                    self._done(pending, index, DeleteResult(*partition, -1, fault(error)))
                elif leader.has_spread_start(target):
                    self._done(pending, index, DeleteResult(*partition, leader.log_start))
                else:
                    self._spreading.setdefault(partition, []).append((target, pending, index))

    def on_start_failed(self, partition: PartitionId, error: ZmqmqError) -> None:
        """The store did not take a new log start."""
        for _, pending, index in self._waiting.pop(partition, []):
            self._done(pending, index, DeleteResult(*partition, -1, fault(error)))

    def on_offline(self, error: ZmqmqError) -> None:
        waiting, self._waiting = self._waiting, {}
        for partition, asked in waiting.items():
            for _, pending, index in asked:
                self._done(pending, index, DeleteResult(*partition, -1, fault(error)))

    def _delete_one(self, pending: _Pending, index: int, entry: DeleteEntry) -> None:
        leader = self._partitions.find(entry.topic_id, entry.partition)
        target = leader.high_watermark if entry.before_offset == -1 else entry.before_offset
        if not 0 <= target <= leader.high_watermark:
            raise OffsetOutOfRange(
                f"records before offset {target} cannot be deleted, readers see up to {leader.high_watermark}",
                log_start=leader.log_start, log_end=leader.log_end, hint="name an offset up to the high watermark, or -1 for all",
            )  # fmt: skip
        target = max(target, leader.log_start)
        self._waiting.setdefault(leader.partition, []).append((target, pending, index))
        self._dispatch.effects.append(MoveLogStart(leader.partition, target))
        self._dispatch.wants_sync = True

    def _done(self, pending: _Pending, index: int, result: DeleteResult) -> None:
        pending.results[index] = result
        pending.remaining -= 1
        if not pending.remaining:
            results = [result for result in pending.results if result is not None]
            self._dispatch.reply(pending.source, DeleteRecordsReply(pending.correlation_id, results))

    def _look_up(self, query: OffsetQuery) -> tuple[OffsetResult | None, tuple[int, int, int]]:
        try:
            leader = self._partitions.find(query.topic_id, query.partition)
            if query.kind != LIST_START and not leader.is_settled:
                raise NotLeader(f"the new leader of {leader.partition} does not know yet what is committed")
            return _result(query, leader), (leader.log_start, leader.high_watermark, leader.leadership.epoch)
        except ZmqmqError as error:
            self._dispatch.count(error)
            return OffsetResult(query.topic_id, query.partition, -1, error=fault(error)), _NOWHERE


def _result(query: OffsetQuery, leader: PartitionLeader) -> OffsetResult | None:
    """None: only the store can tell."""
    epoch = leader.leadership.epoch
    if query.kind == LIST_START:
        return OffsetResult(query.topic_id, query.partition, leader.log_start, leader_epoch=epoch)
    if query.kind == LIST_END:
        return OffsetResult(query.topic_id, query.partition, leader.high_watermark, leader_epoch=epoch)
    if query.kind == LIST_TIME:
        return None
    raise RemoteProtocolError(f"ListOffsets has a query of kind {query.kind}")
