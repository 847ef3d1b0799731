"""The follower of one partition: takes its leader's batches, and nothing else, in the leader's order.

Pure. Facts come in by ``on_…``; what it wants done waits in ``take_effects``, and in the flags ``wants_fetch`` and ``wants_report``.

States: *comparing* (``is_validated`` is False) after every change of leader: it fetches until the leader answers in this epoch without
a parting, cutting its log (``Truncate``) or beginning anew (``Reset``) as told. *Following*: its log is a beginning of the leader's.
It takes batches, from the stream or from fetches, only where (end, epoch of the last batch) are those that the leader names; so none is
taken twice or out of order, whichever way it came. While it waits for its log to be cut it takes nothing.

Invariants: log_start <= high_watermark <= log_end <= next_offset; synced_end <= log_end. Only a validated follower reports.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeAlias

from msgspec import Struct

from zmqmq.batch import StampedBatch, check_body, check_stamp, parse_header, stamp_seed
from zmqmq.effects import Append, MoveLogStart
from zmqmq.errors import InvalidRecord, UnsupportedVersion
from zmqmq.facts import EpochStart, LogState
from zmqmq.marks import reached
from zmqmq.model import PartitionId
from zmqmq.ports import Buffer
from zmqmq.replication.epochs import NO_EPOCH, cut_at, end_of_epoch, last_epoch
from zmqmq.replication.messages import BeatEntry, ReplicaFetchEntry, ReplicaResult, ReportEntry, StreamHeader

HELD_MESSAGES_MAX: Final = 64
"""Stream messages of one partition kept while a fetch closes the gap before them."""
HELD_BYTES_MAX: Final = 1 << 20
"""The same in bytes."""


class Truncate(Struct, frozen=True, gc=False):
    """Cut the log at the batch boundary at or below ``end``, durably; answered by ``on_truncated``."""

    partition: PartitionId
    end: int


class Reset(Struct, frozen=True, gc=False):
    """Throw the log away and begin an empty one at ``log_start``, durably; answered by ``on_reset``."""

    partition: PartitionId
    log_start: int


FollowerEffect: TypeAlias = Truncate | Reset | Append | MoveLogStart


class PartitionFollower:
    """See the module. Belongs to one thread."""

    __slots__ = (
        "_effects",
        "_held",
        "_leader_start",
        "_leader_watermark",
        "_seed",
        "_start_asked",
        "_synced_start",
        "_written_epochs",
        "epochs",
        "held_bytes",
        "high_watermark",
        "is_corrupt",
        "is_cutting",
        "is_validated",
        "leader",
        "leader_epoch",
        "log_end",
        "log_start",
        "next_offset",
        "partition",
        "problem",
        "synced_end",
        "wants_fetch",
        "wants_report",
    )

    def __init__(self, partition: PartitionId, leader: int, leader_epoch: int, state: LogState, high_watermark: int = 0) -> None:
        """A log that is out of service (``state.error``) waits for ``heal``."""
        self.partition = partition
        self.epochs = list(state.epochs)
        self.log_start = self._synced_start = state.log_start
        self.log_end = self.next_offset = state.log_end
        self.synced_end = state.synced_end
        self.high_watermark = max(state.log_start, min(high_watermark, state.log_end))
        self.problem = ""
        """What was wrong with the last batches, until better ones come."""
        self.is_corrupt = self.is_cutting = bool(state.error)
        self.held_bytes = 0
        self._held: deque[tuple[StreamHeader, Buffer]] = deque()
        self._effects: list[FollowerEffect] = []
        self._seed = stamp_seed(partition)
        self._written_epochs = len(self.epochs)
        self._leader_start = self._start_asked = 0
        self.on_leader(leader, leader_epoch)

    def __repr__(self) -> str:
        ends = f"start={self.log_start} hw={self.high_watermark} synced={self.synced_end} end={self.log_end}"
        what = "cutting" if self.is_cutting else "following" if self.is_validated else "comparing"
        return f"PartitionFollower({self.partition} {what} {self.leader} epoch={self.leader_epoch} {ends})"

    @property
    def last_epoch(self) -> int:
        return last_epoch(self.epochs)

    def on_leader(self, leader: int, leader_epoch: int) -> None:
        """The metadata log names a leader. Whatever another one said is void, but what was known to be committed."""
        self.leader = leader
        self.leader_epoch = leader_epoch
        self.is_validated = False
        self.wants_fetch = True
        self.wants_report = False
        self._leader_watermark = self.high_watermark
        self._drop_held()

    def heal(self) -> None:
        """Throw a log that is out of service away; it comes again from the leader. Only when this broker cannot be elected any more,
        neither as a member of the in-sync set nor as an eligible replica: it knows nothing."""
        if self.is_corrupt:
            reached("corrupt replica begins anew")
            self.is_corrupt = False
            self._reset(0)

    def fetch_entry(self) -> ReplicaFetchEntry:
        return ReplicaFetchEntry(*self.partition, self.leader_epoch, self.next_offset, self.last_epoch)

    def report_entry(self) -> ReportEntry:
        return ReportEntry(*self.partition, self.leader_epoch, self.log_end, self.synced_end, self.high_watermark, self._synced_start)

    def take_effects(self) -> list[FollowerEffect]:
        effects, self._effects = self._effects, []
        return effects

    def on_stream(self, header: StreamHeader, data: Buffer, *, may_hold: bool = True) -> None:
        """Published batches. Those that do not follow ours at once are kept for a while if ``may_hold``, and fetched for."""
        if header.leader_epoch != self.leader_epoch or self.is_cutting:
            return
        if self.is_validated:
            batches = self._checked(data)
            if batches is None:
                return
            if self._take(header.previous_end, header.previous_epoch, batches) or batches[-1].header.end_offset <= self.next_offset:
                self._hear(header.high_watermark, header.log_start)
                return
            reached("gap in the stream")
        self.wants_fetch = True
        self._hold(header, data, may_hold=may_hold)

    def on_beat(self, entry: BeatEntry) -> None:
        """The leader's ends. What it published before the beat is here or lost, so a longer log means a gap."""
        if entry.leader_epoch != self.leader_epoch or self.is_cutting or not self.is_validated:
            return
        if entry.end > self.next_offset:
            reached("beat shows a lost tail")
            self.wants_fetch = True
        self._hear(entry.high_watermark, entry.log_start)
        self.wants_report = True

    def on_fetched(self, asked: ReplicaFetchEntry, result: ReplicaResult, data: Buffer) -> bool:
        """The leader's answer to ``asked``. False: it did not help, so ask again only after a while."""
        if asked.leader_epoch != self.leader_epoch or self.is_cutting:
            return True
        if result.fault is not None or result.leader_epoch != self.leader_epoch:
            return False
        is_here = (asked.end, asked.last_epoch) == (self.next_offset, self.last_epoch)
        if not is_here and not self.is_validated:
            return True
        if result.parting_end >= 0:
            return is_here and self._part(result)
        batches = self._checked(data) if result.frames else ()
        if batches is None:
            return False
        begin = _beginning(asked, result, batches)
        if begin >= 0 and not (is_here and self._is_blank and self.next_offset == begin):
            return is_here and self._begin_anew(begin, result)
        self._validate()
        if batches:
            self._take(*((begin, NO_EPOCH) if begin >= 0 else (asked.end, asked.last_epoch)), batches)
        self.wants_fetch = self.next_offset < result.log_end
        self._merge()
        self._hear(result.high_watermark, result.log_start)
        return True

    def on_written(self) -> None:
        """The batches of ``Append`` are in the log."""
        if self.log_end != self.next_offset:
            self.log_end = self.next_offset
            self._written_epochs = len(self.epochs)
            self.wants_report = self.is_validated
            self._hear(self._leader_watermark, self._leader_start)

    def on_append_failed(self) -> None:
        """None of the batches since the last ``on_written`` is in the log."""
        self.next_offset = self.log_end
        del self.epochs[self._written_epochs :]
        self.wants_fetch = True
        self._drop_held()

    def on_synced(self, end: int) -> None:
        end = min(end, self.log_end)
        if end > self.synced_end:
            self.synced_end = end
            self.wants_report = self.is_validated
        self._check()

    def on_truncated(self, end: int) -> None:
        """The log ends at ``end`` now, on disk too."""
        self.is_cutting = False
        self.epochs = cut_at(self.epochs, end)
        self._begin_at(self.log_start, end)

    def on_reset(self, log_start: int) -> None:
        """The log is empty now, on disk too."""
        self.is_cutting = False
        self.epochs = []
        self._start_asked = log_start
        self._begin_at(log_start, log_start)

    def on_start_moved(self, log_start: int) -> None:
        """The records before ``log_start`` are gone."""
        self.log_start = max(self.log_start, min(log_start, self.log_end))
        self.high_watermark = max(self.high_watermark, self.log_start)
        self._check()

    def on_start_synced(self, log_start: int) -> None:
        """A power cut does not bring the records before ``log_start`` back: only now it is reported."""
        self._synced_start = max(self._synced_start, min(log_start, self.log_start))
        self.wants_report = self.is_validated

    def _begin_at(self, log_start: int, end: int) -> None:
        self.log_start = self._synced_start = log_start
        self.log_end = self.next_offset = self.synced_end = end
        self.high_watermark = max(log_start, min(self.high_watermark, end))
        self._leader_watermark = self.high_watermark
        self._written_epochs = len(self.epochs)
        self.wants_fetch = True
        self._check()

    def _part(self, result: ReplicaResult) -> bool:
        """Cut back to where both logs may still be equal, and compare again."""
        _, own_end = end_of_epoch(self.epochs, result.parting_epoch, self.log_start, self.log_end)
        target = min(result.parting_end, own_end)
        if self.next_offset != self.log_end or target >= self.log_end > self.log_start:
            return False
        self.is_validated = False
        if target <= self.log_start:
            self._reset(result.log_start)
        else:
            reached("replica cut back")
            self._cut(Truncate(self.partition, target))
        return True

    def _begin_anew(self, begin: int, result: ReplicaResult) -> bool:
        """Nothing of ours is worth keeping when it is all below the leader's log start, or there is nothing. Else the answer is absurd."""
        if self.next_offset >= result.log_start and not self._is_blank:
            self.problem = f"broker {self.leader} sent {self.partition} from offset {begin} on, not from {self.next_offset}"
            return False
        self._reset(begin)
        return True

    @property
    def _is_blank(self) -> bool:
        """The log holds nothing, and never did."""
        return self.log_start == self.next_offset and not self.epochs

    def _reset(self, log_start: int) -> None:
        reached("replica begins anew at the log start")
        self.is_validated = False
        self._cut(Reset(self.partition, log_start))

    def _cut(self, effect: Truncate | Reset) -> None:
        self.is_cutting = True
        self.wants_fetch = self.wants_report = False
        self._drop_held()
        self._effects.append(effect)

    def _validate(self) -> None:
        if not self.is_validated:
            self.is_validated = True
            self.wants_report = True

    def _take(self, end: int, epoch: int, batches: tuple[StampedBatch, ...]) -> bool:
        """Append from the batch that follows ours; ``end`` and ``epoch`` are those before the first. False when none does."""
        for index, batch in enumerate(batches):
            if (end, epoch) == (self.next_offset, self.last_epoch) and epoch <= batch.header.leader_epoch:
                self._append(batches[index:])
                return True
            end, epoch = batch.header.end_offset, batch.header.leader_epoch
        return False

    def _append(self, batches: tuple[StampedBatch, ...]) -> None:
        for batch in batches:
            header = batch.header
            if header.leader_epoch != self.last_epoch:
                self.epochs.append(EpochStart(header.leader_epoch, header.base_offset))
            self.next_offset = header.end_offset
        self.problem = ""
        self._effects.append(Append(self.partition, batches))

    def _merge(self) -> None:
        """Take up the stream again."""
        held, self._held = self._held, deque()
        self.held_bytes = 0
        for header, data in held:
            self.on_stream(header, data)

    def _hold(self, header: StreamHeader, data: Buffer, *, may_hold: bool) -> None:
        if may_hold and len(self._held) < HELD_MESSAGES_MAX and self.held_bytes + len(data) <= HELD_BYTES_MAX:
            self._held.append((header, data))
            self.held_bytes += len(data)

    def _drop_held(self) -> None:
        self._held.clear()
        self.held_bytes = 0

    def _hear(self, high_watermark: int, log_start: int) -> None:
        """What the leader knows to be committed, and where its log starts."""
        self._leader_watermark = max(self._leader_watermark, high_watermark)
        self._leader_start = max(self._leader_start, log_start)
        self.high_watermark = max(self.high_watermark, min(self._leader_watermark, self.log_end))
        wanted = min(self._leader_start, self.high_watermark)
        if wanted > max(self._synced_start, self._start_asked):  # retention may have been there before, without a word in the journal
            self._start_asked = wanted
            self._effects.append(MoveLogStart(self.partition, wanted))
        self._check()

    def _checked(self, data: Buffer) -> tuple[StampedBatch, ...] | None:
        """Whole, unharmed batches of this partition in a possible order; else None, and ``problem`` says why."""
        try:
            return self._parsed(data)
        except (InvalidRecord, UnsupportedVersion) as error:
            reached("damaged batches refused")
            self.problem = f"batches of {self.partition} from broker {self.leader} were refused: {error}"
            self.wants_fetch = True
            return None

    def _parsed(self, data: Buffer) -> tuple[StampedBatch, ...]:
        batches = []
        position = end = 0
        epoch = NO_EPOCH
        view = memoryview(data)
        while position < len(view):
            header = parse_header(view, position)
            check_stamp(header, view, self._seed, position)
            check_body(header, view, position)
            if header.base_offset < end or not epoch <= header.leader_epoch <= self.leader_epoch:
                raise InvalidRecord(f"batch at offset {header.base_offset} of epoch {header.leader_epoch} is out of order")
            batches.append(StampedBatch(header, (view[position : position + header.length],)))
            position, end, epoch = position + header.length, header.end_offset, header.leader_epoch
        if not batches:
            raise InvalidRecord("there is no batch")
        return tuple(batches)

    def _check(self) -> None:
        assert self.log_start <= self.high_watermark
        assert self.high_watermark <= self.log_end
        assert self.log_end <= self.next_offset
        assert self.synced_end <= self.log_end


def _beginning(asked: ReplicaFetchEntry, result: ReplicaResult, batches: tuple[StampedBatch, ...]) -> int:
    """Where a log has to begin that takes this answer; -1 if it just goes on. The leader's log may start inside of a batch."""
    if not batches:
        return result.log_start if asked.end < result.log_start else -1
    base = batches[0].header.base_offset
    return base if asked.end < result.log_start or base < asked.end else -1
