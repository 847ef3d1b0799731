"""Raft as a machine: facts in, effects out. One object is one member of the quorum, voter or learner.

The shell calls ``start``, and then again and again: facts (a message came, a Persist is done, time passed, somebody appends), then
``take_effects`` until nothing comes, each time with the monotonic time of its own clock; it sleeps until ``next_deadline_ms`` at most.
Nothing here raises because of what a peer said; only ``__init__`` raises for what the disk holds (CorruptLog).

Promise (paper, figure 3): at most one leader in a term; a leader never changes what it wrote; logs that share an entry share everything
before it; what is committed is in the log of every later leader; nobody applies another entry at the same index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from zmqmq.errors import NotLeader, ZmqmqError
from zmqmq.metadata.log import BarrierLost, Refused, SnapshotNeeded
from zmqmq.metadata.quorum import snapshot as snapshots
from zmqmq.metadata.quorum.campaigning import Campaigning, answer
from zmqmq.metadata.quorum.core import Core, Settings
from zmqmq.metadata.quorum.following import Following
from zmqmq.metadata.quorum.leading import Leading
from zmqmq.metadata.quorum.messages import (
    AppendEntries,
    AppendReply,
    InstallSnapshot,
    Message,
    RequestVote,
    SnapshotReply,
    TimeoutNow,
    Vote,
)

if TYPE_CHECKING:
    from zmqmq.metadata.quorum.effects import RaftEffect
    from zmqmq.metadata.quorum.state import Configuration, Entry, EntryStore, Member
    from zmqmq.ports import Random

Role: TypeAlias = Following | Campaigning | Leading


class Raft:
    """See the module. Belongs to one thread."""

    def __init__(self, me: Member, settings: Settings, store: EntryStore, random: Random) -> None:
        self._core = Core(me, settings, store, random)
        self._role: Role = Following(self._core)
        self.offline_error: ZmqmqError | None = None

    def __repr__(self) -> str:
        return f"Raft({self._core.me} {self._role!r} {self._core!r})"

    @property
    def is_leader(self) -> bool:
        return isinstance(self._role, Leading)

    @property
    def leader(self) -> Member | None:
        """Who leads this term, if it is known."""
        return self._core.leader

    @property
    def term(self) -> int:
        return self._core.term

    @property
    def commit_end(self) -> int:
        return self._core.commit_end

    @property
    def log_end(self) -> int:
        return self._core.log.end

    @property
    def configuration(self) -> Configuration:
        """The newest one in the log; it counts already, committed or not (thesis 4.1)."""
        return self._core.configurations.current

    @property
    def applied_end(self) -> int:
        """Everything before it was handed out."""
        return self._core.applied_end

    @property
    def is_configuration_committed(self) -> bool:
        return self._core.configurations.end <= self._core.commit_end

    def match_end(self, member: Member) -> int:
        """How far this leader knows the member's log to equal its own, and to be on disk; 0 for who is not followed."""
        if isinstance(self._role, Leading) and member in self._role.followers:
            return self._role.followers[member].match_end
        return 0

    def next_deadline_ms(self) -> int | None:
        """When ``on_time`` is to be called, if no fact comes before; None: nothing depends on time."""
        if self.offline_error is not None:
            return None
        if self._core.has_work:
            return self._core.now_ms
        if not isinstance(self._role, Leading) and not self._may_campaign:
            return None
        return self._role.deadline_ms

    def start(self, now_ms: int) -> None:
        """A quorum of one need not wait for anybody."""
        self._core.now_ms = now_ms
        self._follow()
        if self.configuration.voters == (self._core.me,):
            self._campaign(is_pre_vote=False)

    def on_time(self, now_ms: int) -> None:
        if not self._begin(now_ms):
            return
        if isinstance(self._role, Leading):
            self._role.on_time()
        elif now_ms >= self._role.deadline_ms and self._may_campaign:
            self._campaign(is_pre_vote=self._core.settings.has_pre_vote)
        self._settle()

    def on_death(self, node_id: int, now_ms: int) -> None:
        """A member's process is known to be dead. If it led, an election need not wait for a timeout: a leader that is dead cannot be
        disturbed, and what it had committed is protected by the votes as ever (paper 5.4.1)."""
        leader = self._core.leader
        if self._begin(now_ms) and isinstance(self._role, Following) and leader is not None and leader.node_id == node_id:
            self._role.hasten()

    def on_persisted(self, number: int, now_ms: int) -> None:
        """The Persist of this number, and so everything before it, is on disk."""
        if not self._begin(now_ms):
            return
        self._core.on_persisted(number)
        self._settle()

    def on_offline(self, error: ZmqmqError) -> None:
        """The disk refused a write or a sync: nothing is known about it any more, so this member is silent until it is opened anew."""
        if self.offline_error is None:
            self._leave(f"the disk failed: {error}")
            self._role = Following(self._core)
            self._core.leader = None
            self.offline_error = error

    def on_message(self, message: Message, now_ms: int) -> None:
        core = self._core
        if not self._begin(now_ms) or message.target != core.me:
            return
        if isinstance(message, RequestVote):
            self._on_request_vote(message)
        elif message.term > core.term:
            self._follow(message.term)
            self._dispatch(message)
        elif message.term == core.term or isinstance(message, Vote):
            self._dispatch(message)
        elif isinstance(message, AppendEntries | InstallSnapshot):
            # A leader of an older term learns that it is over (paper 5.1).
            core.send(AppendReply(core.me, message.source, core.term, is_accepted=False, prev_end=0, match_end=0, round=message.round))
        self._settle()

    def append(self, epoch: int, expected_index: int, proposal_id: int, records: tuple[bytes, ...], now_ms: int) -> None:
        """All of the encoded records or none, at ``expected_index``, if ``epoch`` still leads. Answered once: by Apply of an entry with
        this term and proposal id, by Refused, or by Unknown; after that, Apply may still tell."""
        if isinstance(self._role, Leading) and self._begin(now_ms):
            self._role.append(epoch, expected_index, proposal_id, records)
            self._settle()
        else:
            self._core.tell(Refused(proposal_id, self._not_leader()))

    def change(self, epoch: int, expected_index: int, proposal_id: int, configuration: Configuration, now_ms: int) -> None:
        """Another configuration, which differs in one voter at most; answered like ``append``."""
        if isinstance(self._role, Leading) and self._begin(now_ms):
            self._role.change(epoch, expected_index, proposal_id, configuration)
            self._settle()
        else:
            self._core.tell(Refused(proposal_id, self._not_leader()))

    def transfer(self, target: Member, now_ms: int) -> None:
        """Hand the lead over; Lost tells that it worked. After an election timeout without that, this one leads on. Raises NotLeader,
        and InvalidConfig if the target is no voter."""
        if not isinstance(self._role, Leading) or not self._begin(now_ms):
            raise self._not_leader()
        self._role.transfer(target)
        self._settle()

    def barrier(self, token: int, now_ms: int) -> None:
        """Answered by Passed when everything was handed out that was committed anywhere by now, or by BarrierLost."""
        if isinstance(self._role, Leading) and self._begin(now_ms):
            self._role.barrier(token)
            self._settle()
        else:
            self._core.tell(BarrierLost(token, self._not_leader()))

    def save_snapshot(self, end: int, data: bytes) -> None:
        """``data`` stands for everything that was applied before ``end``, which is where an entry ends. Entries before the snapshot
        before this one are forgotten then. Nothing happens if there is one of this end already, unless SnapshotWanted was told.
        Raises InvalidConfig for one that is too big."""
        core = self._core
        if self.offline_error is not None or not core.wants_snapshot(end):
            return
        assert end <= core.applied_end
        core.save_snapshot(snapshots.make(end, core.log.term_at(end), core.configurations.at(end), data))

    def read(self, start: int, bytes_max: int) -> tuple[Entry, ...] | SnapshotNeeded:
        """Committed entries from ``start`` on, which is where one begins."""
        core = self._core
        if start < core.log.start:
            return SnapshotNeeded(core.snapshot.end)
        return core.log.read(start, core.commit_end, bytes_max)

    def take_effects(self) -> list[RaftEffect]:
        if self.offline_error is not None:
            return list(self._core.take_events())
        if isinstance(self._role, Leading):
            self._role.pump()
            self._settle()
        effects = self._core.take_effects()
        if isinstance(self._role, Leading):
            self._role.after_apply()
            effects.extend(self._core.take_events())
        return effects

    @property
    def _may_campaign(self) -> bool:
        return self._core.configurations.may_campaign(self._core.me, self._core.commit_end)

    def _begin(self, now_ms: int) -> bool:
        self._core.now_ms = max(self._core.now_ms, now_ms)
        return self.offline_error is None

    def _on_request_vote(self, request: RequestVote) -> None:
        core = self._core
        if not request.is_transfer and self._hears_leader():
            return  # thesis 4.2.3: whoever does not hear the leader shall not end its term for all
        if not request.is_pre_vote and request.term > core.term:
            self._follow(request.term)
        if answer(core, request) and isinstance(self._role, Following):
            self._role.postpone()

    def _hears_leader(self) -> bool:
        core = self._core
        if isinstance(self._role, Leading):
            return core.settings.has_check_quorum
        return core.now_ms - core.heard_leader_ms < core.settings.election_timeout_ms

    def _dispatch(self, message: Message) -> None:
        role = self._role
        match message:
            case AppendEntries() | InstallSnapshot():
                if isinstance(role, Leading):
                    return  # a second leader in one term is an impostor: it had no majority, since this one has it
                if isinstance(role, Campaigning):
                    role = self._follow()
                if isinstance(message, AppendEntries):
                    role.on_append(message)
                else:
                    role.on_snapshot(message)
            case Vote() if isinstance(role, Campaigning):
                role.on_vote(message)
            case AppendReply() if isinstance(role, Leading):
                role.on_append_reply(message)
            case SnapshotReply() if isinstance(role, Leading):
                role.on_snapshot_reply(message)
            case TimeoutNow() if isinstance(role, Following) and self._may_campaign and message.source == self._core.leader:
                self._campaign(is_pre_vote=False, is_transfer=True)

    def _settle(self) -> None:
        """Roles end when what they are about has happened."""
        role = self._role
        if isinstance(role, Leading) and role.lost:
            self._follow(reason=role.lost)
        if isinstance(role, Campaigning) and role.is_won:
            if role.is_pre_vote:
                self._campaign(is_pre_vote=False)
            else:
                self._role = Leading(self._core)

    def _campaign(self, *, is_pre_vote: bool, is_transfer: bool = False) -> None:
        self._role = Campaigning(self._core, is_pre_vote=is_pre_vote, is_transfer=is_transfer)

    def _follow(self, term: int = 0, reason: str = "") -> Following:
        self._leave(reason or f"term {term} began")
        if term > self._core.term:
            self._core.set_hard_state(term, None)
        elif self.is_leader:
            self._core.leader = None
        self._role = following = Following(self._core)
        return following

    def _leave(self, reason: str) -> None:
        if isinstance(self._role, Leading):
            self._role.end(reason)

    def _not_leader(self) -> ZmqmqError:
        return NotLeader(
            f"{self._core.me} does not lead the metadata log", hint=f"ask {self._core.leader or 'again later: nobody is known to lead'}"
        )
