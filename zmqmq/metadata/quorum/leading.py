"""The leader: appends, replicates, commits, and knows whether it still leads.

Promise: an entry is committed when a majority of voters has it on disk and it, or a later one, is of this term (paper 5.4.2).
Invariant: a leader never truncates its log; ``match_end`` of a follower never goes back within a term.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from zmqmq.errors import Fenced, InvalidConfig, OutcomeUnknown, Throttled, ZmqmqError
from zmqmq.metadata.log import APPEND_BYTES_MAX, Leader, Lost, Refused, Unknown
from zmqmq.metadata.quorum.effects import SnapshotWanted
from zmqmq.metadata.quorum.membership import check_change
from zmqmq.metadata.quorum.progress import Progress
from zmqmq.metadata.quorum.reads import Barriers
from zmqmq.metadata.quorum.sending import Sending
from zmqmq.metadata.quorum.state import Entry, records_bytes
from zmqmq.metadata.quorum.transfer import Transfer

if TYPE_CHECKING:
    from zmqmq.metadata.quorum.core import Core
    from zmqmq.metadata.quorum.messages import AppendReply, SnapshotReply
    from zmqmq.metadata.quorum.state import Configuration, Member

UNCOMMITTED_BYTES_MAX: Final = 16 << 20
"""Entries that wait for their majority; more are refused."""
RETRY_MS: Final = 50
PROMOTION_LAG_MAX: Final = 1_000
"""Records that a learner may be behind when it becomes a voter; else commits would wait for it (thesis 4.2.1)."""


class Leading:
    """See the module. ``lost`` is looked at after each fact: not empty means that it does not lead any more, and why."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.lost = ""
        self.followers: dict[Member, Progress] = {}
        self._proposals: deque[tuple[int, int, int]] = deque()
        """(end, proposal id, bytes) of what is not handed out."""
        self._waiting_bytes = 0
        self._is_told = False
        core.leader = core.me
        # Entries of older terms are committed by one of this term only, so there is one at once (paper 8, thesis 6.4).
        self._opened_end = core.log.end + 1
        self._sync_followers()
        core.append((Entry(core.log.end, core.term),))
        self._barriers = Barriers()
        self._transfer: Transfer | None = None
        self._sending = Sending(core, self.followers)

    def __repr__(self) -> str:
        return f"Leading({self.followers})"

    @property
    def deadline_ms(self) -> int:
        deadlines = [self._sending.heartbeat_at_ms]
        if self._core.settings.has_check_quorum and self._core.configurations.current.voters != (self._core.me,):
            deadlines.append(self._quorum_heard_ms() + self._core.settings.election_timeout_ms)
        if self._transfer is not None:
            deadlines.append(self._transfer.deadline_ms)
        return min(deadlines)

    @property
    def has_committed_own_entry(self) -> bool:
        return self._core.commit_end >= self._opened_end

    def on_time(self) -> None:
        core = self._core
        if core.settings.has_check_quorum and core.now_ms - self._quorum_heard_ms() >= core.settings.election_timeout_ms:
            self.lost = "no majority of the voters answers"  # thesis 6.2
            return
        if self._transfer is not None and core.now_ms >= self._transfer.deadline_ms:
            self._transfer = None  # thesis 3.10: the target did not take over in time; go on
        self._sending.on_time()

    def append(self, epoch: int, expected_index: int, proposal_id: int, records: tuple[bytes, ...]) -> None:
        error = self._refusal(epoch, expected_index) or _size_error(records) or self._room_error()
        if error is not None:
            self._core.tell(Refused(proposal_id, error))
            return
        self._propose(Entry(expected_index, epoch, records, proposal_id))

    def change(self, epoch: int, expected_index: int, proposal_id: int, configuration: Configuration) -> None:
        error = self._refusal(epoch, expected_index) or self._change_error(configuration)
        if error is not None:
            self._core.tell(Refused(proposal_id, error))
            return
        self._propose(Entry(expected_index, epoch, (), proposal_id, configuration))
        self._sync_followers()

    def transfer(self, target: Member) -> None:
        """Raises InvalidConfig if the target cannot lead."""
        core = self._core
        if target == core.me:
            return
        if target not in core.configurations.current.voters:
            raise InvalidConfig(f"{target} is no voter, so it cannot lead the metadata log", hint="choose one of the voters")
        self._transfer = Transfer(target, core.now_ms + core.settings.election_timeout_ms)

    def barrier(self, token: int) -> None:
        self._barriers.add(token, self._core)

    def on_append_reply(self, reply: AppendReply) -> None:
        progress = self.followers.get(reply.source)
        if progress is None:
            return
        progress.on_heard(reply.round, self._core.now_ms)
        if reply.is_accepted:
            progress.on_accepted(reply, self._core.log.end)
        else:
            progress.on_refused(reply, self._core.log)

    def on_snapshot_reply(self, reply: SnapshotReply) -> None:
        progress = self.followers.get(reply.source)
        if progress is None:
            return
        progress.on_heard(reply.round, self._core.now_ms)
        sender = progress.snapshot
        if sender is None or sender.meta.end != reply.snapshot_end:
            return
        if reply.is_damaged:
            self._core.is_snapshot_damaged = True
            self._core.tell(SnapshotWanted(f"{reply.source} was sent a damaged snapshot of index {reply.snapshot_end}"))
        sender.position = min(max(reply.position, 0), sender.meta.size_bytes)

    def pump(self) -> None:
        """The end of a round: commit what can be, say what there is to say. What a round brought goes in few messages."""
        core = self._core
        self._commit()
        voters = core.configurations.current.voters
        if core.me not in voters and core.applied_end >= core.configurations.end:
            self._resign()
            return
        if self.has_committed_own_entry and self._barriers.assign(core.commit_end, self._sending.round):
            self._sending.broadcast()
        self._sending.send()
        if self._transfer is not None:
            self._transfer.pump(core, self.followers)

    def after_apply(self) -> None:
        """What may be said when everything before was handed out."""
        core = self._core
        while self._proposals and self._proposals[0][0] <= core.applied_end:
            self._waiting_bytes -= self._proposals.popleft()[2]
        if not self._is_told and core.applied_end >= self._opened_end and core.applied_end == core.log.end:
            self._is_told = True
            core.tell(Leader(core.term, core.log.end))
        self._barriers.pass_on(core, self._quorum_round())

    def end(self, reason: str) -> None:
        """Tell what was promised to nobody: it may be in the log of the next leader, or not."""
        core = self._core
        for end, proposal_id, _ in self._proposals:
            if end > core.applied_end:
                error = OutcomeUnknown(
                    f"lost the lead of the metadata log: {reason}", hint="read on: (term, proposal id) tells", outcome="unknown"
                )
                core.tell(Unknown(proposal_id, error))
        self._barriers.lose(core, reason)
        if self._is_told:
            core.tell(Lost(reason))

    def _propose(self, entry: Entry) -> None:
        self._core.append((entry,))
        self._proposals.append((entry.end, entry.proposal_id, entry.size_bytes))
        self._waiting_bytes += entry.size_bytes

    def _refusal(self, epoch: int, expected_index: int) -> ZmqmqError | None:
        core = self._core
        if epoch != core.term:
            return Fenced(f"epoch {epoch} does not lead the metadata log, {core.term} does")
        if expected_index != core.log.end:
            return Fenced(f"index {expected_index} is not the next of the metadata log, {core.log.end} is")
        if self._transfer is not None:
            return Throttled(f"the lead of the metadata log goes to {self._transfer.target}", retry_after_ms=RETRY_MS)
        return None

    def _room_error(self) -> ZmqmqError | None:
        if self._waiting_bytes < UNCOMMITTED_BYTES_MAX:
            return None
        return Throttled(f"{self._waiting_bytes} bytes of changes wait for a majority of the voters", retry_after_ms=RETRY_MS)

    def _change_error(self, new: Configuration) -> ZmqmqError | None:
        core = self._core
        current = core.configurations.current
        # 2015: without an entry of the own term two leaders in a row can each change the quorum and share no majority.
        if not self.has_committed_own_entry or core.commit_end < core.configurations.end:
            return Throttled(
                "the quorum is changed when the change before it, and this leader's first entry, are committed", retry_after_ms=RETRY_MS
            )
        try:
            check_change(current, new)
        except InvalidConfig as error:
            return error
        for member in sorted(set(new.voters) - set(current.voters)):
            behind = core.commit_end - self.followers[member].match_end
            if behind > PROMOTION_LAG_MAX:
                return Throttled(f"{member} is {behind} records behind, a voter may be {PROMOTION_LAG_MAX}", retry_after_ms=RETRY_MS)
        return None

    def _sync_followers(self) -> None:
        core = self._core
        members = core.configurations.current.members
        for member in members:
            if member != core.me and member not in self.followers:
                self.followers[member] = Progress(core.log.end, core.now_ms, core.settings.in_flight_bytes_max)
        for member in [each for each in self.followers if each not in members]:
            del self.followers[member]

    def _commit(self) -> None:
        """By counting, and only at an entry of this term: those before come with it (paper 5.4.2, figure 8)."""
        core = self._core
        end = self._majority([core.log.persisted_end if voter == core.me else self.followers[voter].match_end for voter in self._voters()])
        if end > core.commit_end and core.log.term_at(end) == core.term:
            core.commit_to(end)

    def _voters(self) -> tuple[Member, ...]:
        return self._core.configurations.current.voters

    def _majority(self, values: list[int]) -> int:
        """The greatest value that a majority of the voters has reached."""
        return sorted(values, reverse=True)[self._core.configurations.current.majority - 1]

    def _quorum_heard_ms(self) -> int:
        core = self._core
        return self._majority([core.now_ms if voter == core.me else self.followers[voter].heard_ms for voter in self._voters()])

    def _quorum_round(self) -> int:
        return self._majority([self._sending.round if voter == self._core.me else self.followers[voter].round for voter in self._voters()])

    def _resign(self) -> None:
        """Its own removal is committed (thesis 4.2.2). The others learn that, and the best of them need not wait for its timeout."""
        self._sending.broadcast()
        self._sending.send()
        best = max(self._voters(), key=lambda voter: self.followers[voter].match_end)
        Transfer(best, self._core.now_ms).pump(self._core, self.followers)
        self.lost = "it was removed from the quorum"


def _size_error(records: tuple[bytes, ...]) -> ZmqmqError | None:
    if not records:
        return InvalidConfig("an append to the metadata log has no records")
    size = records_bytes(records)
    if size <= APPEND_BYTES_MAX:
        return None
    return InvalidConfig(
        f"the change takes {size} bytes in the metadata log, the limit is {APPEND_BYTES_MAX}", hint="ask for fewer partitions at once"
    )
