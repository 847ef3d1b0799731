"""The leader of one partition: gives batches their place, knows how far they are safe, answers for it.

Pure. Its followers' reports come in by ``on_report``; ``isr_change`` says whom it would have in sync, and ``set_leadership`` who is.
Batches get their offsets in ``append``; the shell writes them in the same round and says
``on_written`` or ``on_append_failed``, later ``on_synced``. Receipts come out of ``take_receipts``.

Three ends: ``next_offset`` (given out), ``log_end`` (written), ``synced_end`` (on this broker's disk), and the
high watermark: what every in-sync replica holds, on disk under ``fsync``, and so what readers may see. It moves only while
the committed in-sync set has ``min_insync_replicas`` members, and never back.

Invariant: log_start <= high_watermark <= log_end <= next_offset, and synced_end <= log_end.
"""

from __future__ import annotations

import bisect
from collections import deque
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from msgspec import Struct

from zmqmq.batch import BatchHeader, StampedBatch, stamp, stamp_seed
from zmqmq.errors import DataLost, DuplicateSequence, LogTruncated, NotEnoughReplicas, OffsetOutOfRange, ZmqmqError
from zmqmq.facts import EpochStart, LogState
from zmqmq.marks import reached
from zmqmq.model import PartitionId
from zmqmq.ports import Buffer
from zmqmq.producer_state import ProducerEntry, ProducerStates
from zmqmq.replication.epochs import end_of_epoch, last_epoch
from zmqmq.replication.insync import Growth, InSyncSet, Leadership, Progress
from zmqmq.topic_config import TopicConfig
from zmqmq.wire.replies import ProduceResult
from zmqmq.wire.requests import ACKS_ALL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zmqmq.replication.messages import ReportEntry

TAIL_BATCHES_MAX: Final = 32
"""Batches whose sizes are remembered, to tell a waiting reader how many bytes there are."""
PLENTY_BYTES: Final = 1 << 40

Ticket: TypeAlias = Any
"""What the asker gave to ``append``; comes back with the receipt."""
Receipt: TypeAlias = "tuple[Ticket, ProduceResult | ZmqmqError]"


class _Waiting(Struct, frozen=True, gc=False):
    end: int
    ticket: Ticket
    base_offset: int
    leader_epoch: int
    append_time_ms: int
    error: ZmqmqError | None = None


_end_of: Final = attrgetter("end")


class PartitionLeader:
    """See the module. Belongs to one thread."""

    __slots__ = (
        "_committed",
        "_is_fsync",
        "_receipts",
        "_seed",
        "_synced",
        "_tail",
        "_undo_producers",
        "_undo_time_ms",
        "_written",
        "bytes_in",
        "bytes_out",
        "config",
        "epoch_start",
        "epochs",
        "followers",
        "growth",
        "high_watermark",
        "in_sync",
        "last_append_ms",
        "leadership",
        "log_end",
        "log_start",
        "messages_in",
        "messages_out",
        "next_offset",
        "node_id",
        "partition",
        "producers",
        "synced_end",
    )  # fmt: skip

    def __init__(
        self,
        partition: PartitionId,
        node_id: int,
        leadership: Leadership,
        config: TopicConfig,
        state: LogState,
        *,
        high_watermark: int = 0,
    ) -> None:
        """``high_watermark`` is what this broker knew as a follower."""
        self.partition = partition
        self.node_id = node_id
        self.leadership = leadership
        self.in_sync = InSyncSet(leadership)
        self.growth = Growth()
        self.followers: dict[int, Progress] = {}
        self.epochs = list(state.epochs)
        self.producers = ProducerStates(state.producers)
        self.log_start = state.log_start
        self.log_end = self.next_offset = state.log_end
        self.synced_end = state.synced_end
        self.last_append_ms = state.last_append_ms
        self.epoch_start = state.log_end
        known_end = state.synced_end if config.durability == "fsync" else state.log_end
        self.high_watermark = max(state.log_start, min(high_watermark, known_end))
        self.messages_in = self.bytes_in = self.messages_out = self.bytes_out = 0
        self._seed = stamp_seed(partition)
        self._written: list[_Waiting] = []
        self._synced: list[_Waiting] = []
        self._committed: list[_Waiting] = []
        self._receipts: list[Receipt] = []
        self._tail: deque[tuple[int, int, int]] = deque(maxlen=TAIL_BATCHES_MAX)
        self._undo_producers: dict[int, ProducerEntry | None] = {}
        self._undo_time_ms = self.last_append_ms
        self.set_config(config)

    def __repr__(self) -> str:
        ends = f"start={self.log_start} hw={self.high_watermark} synced={self.synced_end} end={self.log_end}"
        return f"PartitionLeader({self.partition} epoch={self.leadership.epoch} {ends})"

    def set_config(self, config: TopicConfig) -> bool:
        """Tells whether the high watermark moved."""
        self.config = config
        self._is_fsync = config.durability == "fsync"
        return self._advance()

    def append(self, header: BatchHeader, data: Buffer, acks: int, ticket: Ticket, wall_ms: int) -> StampedBatch | None:
        """The batch with its place, to be written; None when it is there already, and its receipt is on the way.

        The batch was checked. Raises what ``ProducerStates.check`` and ``check_room`` raise, and NotEnoughReplicas.
        """
        if len(self.leadership.isr) < self.config.min_insync_replicas:
            raise NotEnoughReplicas(
                f"{self.partition} has {len(self.leadership.isr)} in-sync replicas, writes need {self.config.min_insync_replicas}",
                outcome="not_written",
            )
        if self._is_duplicate(header, acks, ticket):
            return None
        time_ms = max(wall_ms, self.last_append_ms)
        self.producers.check_room(header.producer_id, time_ms)
        epoch = self.leadership.epoch
        stamped = stamp(header, data, seed=self._seed, base_offset=self.next_offset, leader_epoch=epoch, append_time_ms=time_ms)
        self._wait(acks, _Waiting(stamped.header.end_offset, ticket, self.next_offset, epoch, time_ms))
        self.producers.apply(stamped.header, self._undo_producers)
        self._tail.append((self.next_offset, stamped.header.end_offset, header.length))
        self.next_offset = stamped.header.end_offset
        self.last_append_ms = time_ms
        self.messages_in += header.record_count
        self.bytes_in += header.length
        return stamped

    def on_written(self) -> bool:
        """Everything given out is written. Tells whether the high watermark moved."""
        if self.next_offset > self.log_end:
            epoch = self.leadership.epoch
            if not self.epochs or self.epochs[-1].epoch < epoch:
                self.epochs.append(EpochStart(epoch, self.log_end))
        self.log_end = self.next_offset
        self._undo_producers.clear()
        self._undo_time_ms = self.last_append_ms
        return self._advance()

    def on_append_failed(self, error: ZmqmqError) -> None:
        """Nothing given out since the last ``on_written`` is in the log: take it all back."""
        self.producers.restore(self._undo_producers)
        self._undo_producers.clear()
        self.last_append_ms = self._undo_time_ms
        self.next_offset = self.log_end
        while self._tail and self._tail[-1][1] > self.log_end:
            self._tail.pop()
        for waits in (self._written, self._synced, self._committed):
            cut = bisect.bisect_right(waits, self.log_end, key=_end_of)
            self._receipts.extend((waiting.ticket, error) for waiting in waits[cut:])
            del waits[cut:]
        self._check()

    def on_synced(self, end: int) -> bool:
        """This broker's disk has everything before ``end``. Tells whether the high watermark moved."""
        self.synced_end = max(self.synced_end, end)
        return self._advance()

    def fail_waiting(self, error: ZmqmqError) -> None:
        """No promise can be kept any more: the disk failed a sync, or leadership ended. The records may be in the log."""
        for waits in (self._written, self._synced, self._committed):
            self._receipts.extend((waiting.ticket, error) for waiting in waits)
            waits.clear()

    def take_receipts(self) -> list[Receipt]:
        receipts, self._receipts = self._receipts, []
        return receipts

    def check_position(self, offset: int, last_epoch: int) -> None:
        """Raises unless a reader that stands at ``offset``, after a record of ``last_epoch``, can read on from here.

        LogTruncated: it saw records that are gone. DataLost: retention overtook it. OffsetOutOfRange: it never was right.
        A position between high watermark and log end is no error: the reader waits.
        """
        if offset < self.log_start:
            raise DataLost(
                f"offset {offset} of {self.partition} was removed, the log starts at {self.log_start}",
                log_start=self.log_start, log_end=self.log_end,
                hint="read on from log_start, and lengthen retention_ms or retention_bytes",
            )  # fmt: skip
        if last_epoch >= 0:
            parted = self._parting(offset, last_epoch)
            if parted is not None:
                reached("truncation noticed")
                raise LogTruncated(
                    f"the record before offset {offset} of {self.partition} (epoch {last_epoch}) is no longer in the log",
                    log_start=self.log_start, log_end=parted, hint=f"the histories part at offset {parted}; read on from there",
                )  # fmt: skip
        if offset > self.log_end:
            raise OffsetOutOfRange(
                f"offset {offset} of {self.partition} is beyond the log's end {self.log_end}",
                log_start=self.log_start, log_end=self.log_end,
                hint="read on from log_end",
            )  # fmt: skip

    def end_of_epoch(self, epoch: int) -> tuple[int, int]:
        """The largest epoch <= ``epoch`` that the log holds, and its end; (-1, log start) if there is none."""
        return end_of_epoch(self.epochs, epoch, self.log_start, self.log_end)

    def bytes_from(self, offset: int) -> int:
        """At least how many bytes a reader at ``offset`` would get; PLENTY_BYTES when it is far behind."""
        total = 0
        for base, end, size in reversed(self._tail):
            if end <= offset:
                return total
            if end <= self.high_watermark:
                total += size
            if base <= offset:
                return total
        return PLENTY_BYTES if offset < self.high_watermark else 0

    @property
    def last_epoch(self) -> int:
        return last_epoch(self.epochs)

    @property
    def is_settled(self) -> bool:
        """Everything that was in the log at the election is known to be committed. Before, nobody can say where the log ends."""
        return self.high_watermark >= self.epoch_start

    def on_report(self, node: int, report: ReportEntry, broker_epoch: int = -1) -> bool:
        """How far a follower is, in its own words; the caller saw to it that they are its newest. Tells whether the high watermark moved.

        Words of another leader epoch, of a stranger, or about a log that is longer than ours are dropped."""
        is_member = node in self.leadership.replicas and node != self.node_id
        if report.leader_epoch != self.leadership.epoch or not is_member or report.end > self.log_end:
            return False
        self.followers[node] = Progress(report.end, report.synced_end, report.high_watermark, report.log_start, broker_epoch)
        return self._advance()

    def forget(self, node: int) -> None:
        """A follower began anew: nothing that it said before is true any more."""
        self.followers.pop(node, None)

    def set_leadership(self, leadership: Leadership) -> bool:
        """What the metadata log says now, of the same leader epoch; who waits for a receipt goes on waiting. Tells whether the high
        watermark moved."""
        assert leadership.epoch == self.leadership.epoch
        if leadership.partition_epoch < self.leadership.partition_epoch:
            return False
        self.leadership = leadership
        self.in_sync.commit(leadership)
        for node in [node for node in self.followers if node not in leadership.replicas]:
            del self.followers[node]
        return self._advance()

    def isr_change(self, now_ms: int, alive: Mapping[int, int] | None = None) -> tuple[int, ...] | None:
        """The in-sync set to ask the controller for, if it should be another one. It counts from now on. Only brokers of ``alive`` (node to
        broker epoch; None: all) can join."""
        self.growth.note(now_ms, self.log_end)
        due = self.growth.due_end(now_ms)
        isr = self.leadership.isr
        members = self.leadership.replicas or isr
        return self.in_sync.propose(
            tuple(
                node
                for node in members
                if node == self.node_id or (self._keeps_up(node, due) if node in isr else self.may_join(node, alive))
            ),
            now_ms,
        )

    def may_join(self, node: int, alive: Mapping[int, int] | None = None) -> bool:
        """It holds, as safely as the topic asks, all that is committed, and all that was here when this epoch began."""
        progress = self.followers.get(node)
        if progress is None or (alive is not None and alive.get(node) != progress.broker_epoch):
            return False
        return self._safe_end(node) >= max(self.high_watermark, self.epoch_start)

    def overdue_ms(self) -> int | None:
        """When the first of the in-sync followers will have to leave unless it hears more; None while all have everything."""
        times = [self.growth.overdue_ms(self._safe_end(node)) for node in self.leadership.isr if node != self.node_id]
        return min((time for time in times if time is not None), default=None)

    def differs(self, node: int) -> bool:
        """A follower's last report is not the whole truth: it has to hear where the log ends, or to report again."""
        progress = self.followers.get(node)
        if progress is None or (self._is_fsync and progress.synced_end != self.log_end):
            return True
        return (progress.end, progress.high_watermark, progress.log_start) != (self.log_end, self.high_watermark, self.log_start)

    def has_spread_start(self, log_start: int) -> bool:
        """Every in-sync follower said that its log begins there, or later."""
        others = [self.followers.get(node) for node in self.leadership.isr if node != self.node_id]
        return all(progress is not None and progress.log_start >= log_start for progress in others)

    def move_start(self, log_start: int) -> None:
        """Records before ``log_start`` are gone."""
        self.log_start = max(self.log_start, log_start)
        self._check()

    def _keeps_up(self, node: int, due_end: int) -> bool:
        progress = self.followers.get(node)
        if progress is None:
            return due_end < 0
        return self._safe_end(node) >= due_end and progress.end >= self.high_watermark

    def _parting(self, offset: int, epoch: int) -> int | None:
        """Where the reader's history leaves ours, None if it does not."""
        if not self.epochs or epoch < self.epochs[0].epoch:
            return None if not self.epochs or offset <= self.epochs[0].offset else self.epochs[0].offset
        found, end = self.end_of_epoch(epoch)
        if found == epoch and offset <= end:
            return None
        return max(self.log_start, min(end, offset))

    def _is_duplicate(self, header: BatchHeader, acks: int, ticket: Ticket) -> bool:
        try:
            original = self.producers.check(header)
        except DuplicateSequence as error:
            # Written before the oldest batch that is remembered; said only when that place is as safe as was asked for.
            place = self.producers.entries[header.producer_id].batches[0].base_offset
            self._wait_again(acks, _Waiting(place, ticket, -1, -1, -1, error))
            return True
        if original is None:
            return False
        self._wait_again(acks, _Waiting(original.end_offset, ticket, original.base_offset, original.leader_epoch, original.append_time_ms))
        return True

    def _waits(self, acks: int) -> list[_Waiting]:
        if acks == ACKS_ALL:
            return self._committed
        return self._synced if acks and self._is_fsync else self._written

    def _wait(self, acks: int, waiting: _Waiting) -> None:
        self._waits(acks).append(waiting)

    def _wait_again(self, acks: int, waiting: _Waiting) -> None:
        """As ``_wait`` for an older place: the list stays in order of ends."""
        waits = self._waits(acks)
        bisect.insort_right(waits, waiting, key=_end_of)
        self._resolve()
        if any(one is waiting for one in waits):
            reached("duplicate waits for its original")

    def _advance(self) -> bool:
        """Move the high watermark as far as it may go, and answer who waited for it."""
        before = self.high_watermark
        if len(self.leadership.isr) >= self.config.min_insync_replicas:
            self.high_watermark = max(before, min(self._safe_end(member) for member in self.in_sync.counted))
        self._resolve()
        self._check()
        return self.high_watermark > before

    def _safe_end(self, member: int) -> int:
        if member == self.node_id:
            return self.synced_end if self._is_fsync else self.log_end
        progress = self.followers.get(member)
        if progress is None:
            return self.log_start
        return progress.synced_end if self._is_fsync else progress.end

    def _resolve(self) -> None:
        for waits, bound in ((self._written, self.log_end), (self._synced, self.synced_end), (self._committed, self.high_watermark)):
            count = 0
            for waiting in waits:
                if waiting.end > bound:
                    break
                self._receipts.append((waiting.ticket, waiting.error or self._receipt(waiting)))
                count += 1
            del waits[:count]

    def _receipt(self, waiting: _Waiting) -> ProduceResult:
        """What is known at this moment, no more."""
        held = int(self.log_end >= waiting.end)
        synced = int(self.synced_end >= waiting.end)
        for member in self.leadership.isr:
            progress = self.followers.get(member)
            if member != self.node_id and progress is not None:
                held += progress.end >= waiting.end
                synced += progress.synced_end >= waiting.end
        return ProduceResult(waiting.base_offset, waiting.leader_epoch, waiting.append_time_ms, held, synced)

    def _check(self) -> None:
        assert self.log_start <= self.high_watermark
        assert self.high_watermark <= self.log_end
        assert self.synced_end <= self.log_end
        assert self.log_end <= self.next_offset
