"""The metadata log of a cluster: Raft behind ``metadata.log.MetadataLog``, driven by its shell like the ``local`` engine.

One round of the shell: ``on_time``; facts (``on_message``, ``append``, ``barrier`` …); then until nothing comes: ``take_writes``, perform
them in order, answer by ``on_written`` or ``on_append_failed``; ``take_events``; at last ``take_messages``. Whenever a sync begins it calls
``on_sync_begun``, and ``on_synced`` when the store reports the metadata partition.

Promise: each proposal is answered once, after APPEND_MS_MAX at the latest; Committed comes in the same order everywhere; a write that the
disk refused for a passing reason is tried again, and until then this member takes no proposals and, if it can, hands the lead over.
After any other failure of the disk it is silent until it is opened anew.

The log is never cut at its start, so nobody is ever sent a snapshot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from zmqmq.errors import CorruptLog, DiskFull, InvalidConfig, NotLeader, OutcomeUnknown, Throttled, ZmqmqError
from zmqmq.marks import reached
from zmqmq.metadata.log import REPLAYED, Committed, LogEvent, Refused, SnapshotNeeded, Unknown
from zmqmq.metadata.quorum.changing import FIRST_ID, Changing
from zmqmq.metadata.quorum.core import Settings
from zmqmq.metadata.quorum.disk import Batches, Writes
from zmqmq.metadata.quorum.effects import Apply, Persist, Restore, SendMessage, SnapshotWanted
from zmqmq.metadata.quorum.format import decode_saved
from zmqmq.metadata.quorum.machine import Raft
from zmqmq.metadata.quorum.messages import AppendEntries, InstallSnapshot
from zmqmq.metadata.records import MetadataRecord, decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zmqmq.facts import LogState
    from zmqmq.metadata.quorum.changing import Aim, ChangeDone
    from zmqmq.metadata.quorum.disk import ReadBatches, Write
    from zmqmq.metadata.quorum.effects import RaftEffect
    from zmqmq.metadata.quorum.messages import Message
    from zmqmq.metadata.quorum.state import Configuration, Entry, Member
    from zmqmq.ports import Random

APPEND_MS_MAX: Final = 5_000
"""From a proposal to its answer."""
APPENDS_MAX: Final = 10_000
"""Proposals without an answer."""
BACKLOG_BYTES_MAX: Final = 32 << 20
"""Entries that the disk has not taken; a follower takes no more then."""
RETRY_MS: Final = 200
"""Until a write is tried again that the disk refused for a passing reason."""
HANDOVER_MS: Final = 500
"""A leader whose disk takes nothing for so long lets another one lead."""
READ_BYTES: Final = 1 << 20
"""Read at once for ``read``."""


class _Proposal(NamedTuple):
    term: int
    records: tuple[MetadataRecord, ...]
    deadline_ms: int


class QuorumLog:
    """See the module. Raises CorruptLog or UnsupportedVersion for what the disk holds; ``saved`` is what ``forming`` made at first."""

    def __init__(
        self, me: Member, state: LogState, saved: bytes, read: ReadBatches, random: Random, *, settings: Settings | None = None
    ) -> None:
        if state.error:
            raise CorruptLog(f"the metadata log is out of service: {state.error}", hint="restore the data directory from a backup")
        if state.log_start:
            raise CorruptLog(f"the metadata log begins at index {state.log_start}, not at 0", hint="restore this broker's disk")
        self.me = me
        self.now_ms = self.wall_ms = 0
        self._settings = settings or Settings()
        found = decode_saved(saved)
        self._raft = Raft(me, self._settings, Batches(found, state.log_end, read), random)
        self.base = found.base
        self._writes = Writes(found)
        self._changing = Changing(self._settings)
        self._proposals: dict[int, _Proposal] = {}
        """By id, in the order of their deadlines."""
        self._events: list[LogEvent] = []
        self._messages: list[Message] = []
        self._stall: ZmqmqError | None = None
        """Why the disk takes no writes now."""
        self._handover_at_ms: int | None = None

    def __repr__(self) -> str:
        return f"QuorumLog({self._raft!r})"

    @property
    def is_leader(self) -> bool:
        """In Raft's sense; whether it may decide is said by Leader and Lost."""
        return self._raft.is_leader

    @property
    def leader_node(self) -> int | None:
        return None if self._raft.leader is None else self._raft.leader.node_id

    @property
    def epoch(self) -> int:
        return self._raft.term

    @property
    def configuration(self) -> Configuration:
        return self._raft.configuration

    @property
    def committed_end(self) -> int:
        return self._raft.commit_end

    @property
    def applied_end(self) -> int:
        """The next index that will be handed out."""
        return self._raft.applied_end

    @property
    def log_end(self) -> int:
        return self._raft.log_end

    @property
    def offline_error(self) -> ZmqmqError | None:
        return self._raft.offline_error

    @property
    def stall(self) -> ZmqmqError | None:
        """Why the disk takes no writes at the moment, if it does not."""
        return self._stall

    def match_end(self, node_id: int) -> int:
        """The leader's knowledge of a member's log; 0 if it has none."""
        return max((self._raft.match_end(member) for member in self.configuration.members if member.node_id == node_id), default=0)

    def start(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self._raft.start(now_ms)
        self._settle()

    def on_message(self, message: Message, now_ms: int) -> None:
        """Whoever calls has checked that ``message.source`` is who sent it."""
        self.now_ms = max(self.now_ms, now_ms)
        if isinstance(message, InstallSnapshot):
            return  # nobody cuts a log, so nobody has one to send
        if isinstance(message, AppendEntries) and message.entries and self._writes.backlog_bytes > BACKLOG_BYTES_MAX:
            reached("metadata entries dropped before a full disk")
            return
        self._raft.on_message(message, self.now_ms)
        self._settle()

    def on_death(self, node_id: int, now_ms: int) -> None:
        """There is evidence that a member's process is dead."""
        self.now_ms = max(self.now_ms, now_ms)
        self._raft.on_death(node_id, self.now_ms)
        self._settle()

    def on_time(self, now_ms: int) -> None:
        self.now_ms = max(self.now_ms, now_ms)
        self._raft.on_time(self.now_ms)
        self._give_up_waiting()
        self._maybe_hand_over()
        self._settle()

    def next_deadline_ms(self) -> int | None:
        if self.offline_error is not None:
            return None
        oldest = next(iter(self._proposals.values()), None)
        candidates = (
            self._raft.next_deadline_ms(),
            oldest.deadline_ms if oldest else None,
            self._writes.retry_at_ms,
            self._handover_at_ms,
            self._changing.next_deadline_ms,
        )
        return min((each for each in candidates if each is not None), default=None)

    def append(self, epoch: int, expected_index: int, proposal_id: int, records: tuple[MetadataRecord, ...]) -> None:
        """``proposal_id`` is not negative, and is not that of one that waits for its answer."""
        assert proposal_id >= 0
        assert proposal_id not in self._proposals
        if self._stall is not None:
            self._events.append(Refused(proposal_id, self._stall))
            return
        if len(self._proposals) >= APPENDS_MAX:
            self._events.append(Refused(proposal_id, Throttled(f"{APPENDS_MAX} changes of the metadata wait", retry_after_ms=RETRY_MS)))
            return
        self._proposals[proposal_id] = _Proposal(epoch, records, self.now_ms + APPEND_MS_MAX)
        self._raft.append(epoch, expected_index, proposal_id, tuple(encode(record) for record in records), self.now_ms)
        self._settle()

    def read(self, start: int) -> Iterator[Committed] | SnapshotNeeded:
        """Raises CorruptLog and what else the store raises, while it is read."""
        return self._committed(start)

    def barrier(self, token: int) -> None:
        self._raft.barrier(token, self.now_ms)
        self._settle()

    def change(self, token: int, member: Member, aim: Aim) -> None:
        """Make the member a learner, a voter (a learner first, until it has caught up) or none, as the leader; one change at a time.
        Answered by ``take_changes``."""
        self._changing.start(token, member, aim, self.now_ms)
        self._settle()

    def take_changes(self) -> list[ChangeDone]:
        return self._changing.take()

    def transfer(self, node_id: int) -> None:
        """Hand the lead over; Lost tells that it worked. Raises NotLeader, and InvalidConfig if the node does not vote."""
        target = next((voter for voter in self.configuration.voters if voter.node_id == node_id), None)
        if target is None:
            raise InvalidConfig(f"node {node_id} is no voter, so it cannot lead the metadata log", hint="choose one of the voters")
        self._raft.transfer(target, self.now_ms)
        self._settle()

    def take_events(self) -> list[LogEvent]:
        events, self._events = self._events, []
        return events

    def take_messages(self) -> list[Message]:
        """To be sent to ``message.target``; any may be lost."""
        messages, self._messages = self._messages, []
        return messages

    def take_writes(self) -> tuple[Write, ...]:
        """To be performed in order and answered once, for all; with a sync soon. Nothing while the last answer is missing."""
        if self.offline_error is not None:
            return ()
        try:
            return self._writes.take(self.now_ms, self.wall_ms)
        except ZmqmqError as error:
            self.on_offline(error)
            return ()

    def on_written(self) -> None:
        if self.offline_error is None:
            self._writes.on_written()
            self._stall = self._handover_at_ms = None

    def on_append_failed(self, error: ZmqmqError) -> None:
        """One of the writes was refused, and those behind it were not tried. Of the batches nothing is written, or, if the error's
        outcome says so, nobody knows."""
        if self.offline_error is not None:
            return
        if error.outcome == "unknown" or not isinstance(error, DiskFull | Throttled):
            self.on_offline(error)
            return
        if self._stall is None:
            self._handover_at_ms = self.now_ms + HANDOVER_MS
        self._stall = error
        self._writes.on_refused(self.now_ms + RETRY_MS)

    def on_sync_begun(self) -> None:
        """A sync began; it will hold everything that was written."""
        self._writes.on_sync_begun()

    def on_synced(self, end: int, now_ms: int) -> None:
        """The sync is done. ``end`` is the log's, for the record: what counts is what was written when the sync began, since the log
        may have been cut meanwhile."""
        del end
        self.now_ms = max(self.now_ms, now_ms)
        number = self._writes.on_synced()
        if number:
            self._raft.on_persisted(number, self.now_ms)
            self._settle()

    def on_offline(self, error: ZmqmqError) -> None:
        """Nothing is written any more."""
        self._raft.on_offline(error)
        self._messages.clear()
        self._settle()
        for proposal_id in list(self._proposals):
            self._answer(Unknown(proposal_id, error))

    def _settle(self) -> None:
        """Everything that follows from the last fact. What the store or a record of the future raises ends this member."""
        try:
            self._turn()
        except ZmqmqError as error:
            self.on_offline(error)

    def _turn(self) -> None:
        while True:
            effects = self._raft.take_effects()
            if not effects:
                self._changing.pump(self._raft, self.now_ms)
                effects = self._raft.take_effects()
            if not effects:
                return
            for effect in effects:
                self._take(effect)

    def _take(self, effect: RaftEffect) -> None:
        match effect:
            case Persist():
                self._writes.add(effect)
            case SendMessage(message):
                self._messages.append(message)
            case Apply(entries):
                for entry in entries:
                    self._apply(entry)
            case Refused() | Unknown():
                self._answer(effect)
            case Restore() | SnapshotWanted():
                raise AssertionError("a snapshot, of a log that is never cut")
            case _:
                self._events.append(effect)

    def _apply(self, entry: Entry) -> None:
        if entry.configuration is not None:
            self._changing.on_committed(entry.proposal_id, self.now_ms)
        proposal = self._proposals.get(entry.proposal_id)
        if proposal is not None and proposal.term == entry.term:
            del self._proposals[entry.proposal_id]
            self._events.append(Committed(entry.proposal_id, entry.index, proposal.records))
        else:
            self._events.append(_replayed(entry))

    def _answer(self, event: Refused | Unknown) -> None:
        if event.proposal_id <= FIRST_ID:
            self._changing.on_failed(event.proposal_id, event.error, self.now_ms)
        elif self._proposals.pop(event.proposal_id, None) is not None:
            self._events.append(event)

    def _give_up_waiting(self) -> None:
        while self._proposals:
            proposal_id, proposal = next(iter(self._proposals.items()))
            if self.now_ms < proposal.deadline_ms:
                return
            reached("metadata append timed out")
            hint = "read on; are a majority of the voters, and their disks, well?"
            self._answer(Unknown(proposal_id, OutcomeUnknown(f"not committed within {APPEND_MS_MAX} ms", hint=hint, outcome="unknown")))

    def _maybe_hand_over(self) -> None:
        """A leader that cannot write decides nothing; another voter may."""
        if self._handover_at_ms is None or self.now_ms < self._handover_at_ms:
            return
        self._handover_at_ms = self.now_ms + 2 * self._settings.election_timeout_ms
        others = [voter for voter in self.configuration.voters if voter != self.me]
        if self._raft.is_leader and others:
            reached("lead handed over for want of disk space")
            try:
                self._raft.transfer(max(others, key=self._raft.match_end), self.now_ms)
            except (NotLeader, InvalidConfig):  # it was removed, or lost the lead, at this very moment
                return

    def _committed(self, start: int) -> Iterator[Committed]:
        index = start
        while index < self.committed_end:
            found = self._raft.read(index, READ_BYTES)
            if isinstance(found, SnapshotNeeded) or not found:
                raise CorruptLog(
                    f"the metadata log ends at index {index}, {self.committed_end} is expected", hint="restore this broker's disk"
                )
            yield from map(_replayed, found)
            index = found[-1].end


def _replayed(entry: Entry) -> Committed:
    """Raft's own entries too, without records: so whoever counts on knows how far the log is."""
    return Committed(REPLAYED, entry.index, tuple(decode(record) for record in entry.records))
