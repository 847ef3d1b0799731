"""Changes of the quorum, one at a time: a learner is added, becomes a voter when it has caught up, or a member is removed.

Catching up goes in rounds (thesis 4.2.1): each copies what the log had when it began. A learner is ready when a round took no longer than
an election timeout, for then it will not hold up commits for longer than a change of leaders does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from msgspec import Struct

from zmqmq.errors import NotLeader, OutcomeUnknown, Throttled, ZmqmqError
from zmqmq.marks import reached
from zmqmq.metadata.quorum.state import Configuration, Member

if TYPE_CHECKING:
    from zmqmq.metadata.quorum.core import Settings
    from zmqmq.metadata.quorum.machine import Raft

CHANGE_MS_MAX: Final = 60_000
"""For a whole change, its catching up included."""
ROUNDS_MAX: Final = 10
"""In which a learner may catch up; one that is always behind is too slow to vote."""
RETRY_MS: Final = 50
FIRST_ID: Final = -2
"""Changes propose under descending ids from here, so that they meet no proposal of the log's user."""

Aim: TypeAlias = Literal["learner", "voter", "removed"]


class ChangeDone(Struct, frozen=True):
    """The answer to a change; without an error it is committed."""

    token: int
    error: ZmqmqError | None = None


class _Change(Struct):
    token: int
    member: Member
    aim: Aim
    deadline_ms: int
    next_ms: int = 0
    proposal_id: int | None = None
    """Of the step that is under way."""
    round: int = 0
    round_end: int = 0
    round_began_ms: int = 0


class Changing:
    """See the module. Driven by the engine: ``pump`` after each fact."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._change: _Change | None = None
        self._next_id = FIRST_ID
        self._done: list[ChangeDone] = []

    @property
    def next_deadline_ms(self) -> int | None:
        if self._change is None:
            return None
        return min(self._change.deadline_ms, max(self._change.next_ms, 0)) if self._change.proposal_id is None else self._change.deadline_ms

    def start(self, token: int, member: Member, aim: Aim, now_ms: int) -> None:
        if self._change is not None:
            error = Throttled(f"the quorum is being changed for {self._change.member}; one change at a time", retry_after_ms=RETRY_MS)
            self._done.append(ChangeDone(token, error))
            return
        self._change = _Change(token, member, aim, now_ms + CHANGE_MS_MAX, now_ms)

    def take(self) -> list[ChangeDone]:
        done, self._done = self._done, []
        return done

    def pump(self, raft: Raft, now_ms: int) -> None:
        change = self._change
        if change is None:
            return
        if not raft.is_leader:
            self._end(NotLeader("this broker does not lead the metadata log any more", hint="ask the new leader; the change may be done"))
        elif now_ms >= change.deadline_ms:
            self._end(OutcomeUnknown(f"the change for {change.member} took more than {CHANGE_MS_MAX} ms", hint="is a majority up?"))
        elif change.proposal_id is None and now_ms >= change.next_ms:
            self._step(change, raft, now_ms)

    def on_committed(self, proposal_id: int, now_ms: int) -> None:
        if self._change is not None and self._change.proposal_id == proposal_id:
            self._change.proposal_id, self._change.next_ms = None, now_ms

    def on_failed(self, proposal_id: int, error: ZmqmqError, now_ms: int) -> None:
        if self._change is None or self._change.proposal_id != proposal_id:
            return
        if isinstance(error, Throttled):
            self._change.proposal_id, self._change.next_ms = None, now_ms + RETRY_MS
        else:
            self._end(error)

    def _step(self, change: _Change, raft: Raft, now_ms: int) -> None:
        change.next_ms = now_ms + RETRY_MS
        if not raft.is_configuration_committed:
            return
        wanted = _next_configuration(raft.configuration, change.member, change.aim)
        if wanted is None:
            self._end(None)
            return
        if change.member in wanted.voters and change.member not in raft.configuration.voters and not self._is_ready(change, raft, now_ms):
            return
        change.proposal_id = self._next_id
        self._next_id -= 1
        raft.change(raft.term, raft.log_end, change.proposal_id, wanted, now_ms)

    def _is_ready(self, change: _Change, raft: Raft, now_ms: int) -> bool:
        if not change.round:
            change.round, change.round_end, change.round_began_ms = 1, raft.log_end, now_ms
        if raft.match_end(change.member) < change.round_end:
            return False
        if now_ms - change.round_began_ms <= self._settings.election_timeout_ms:
            reached("learner caught up")
            return True
        if change.round == ROUNDS_MAX:
            self._end(Throttled(f"{change.member} did not catch up in {ROUNDS_MAX} rounds", retry_after_ms=CHANGE_MS_MAX))
        change.round, change.round_end, change.round_began_ms = change.round + 1, raft.log_end, now_ms
        return False

    def _end(self, error: ZmqmqError | None) -> None:
        assert self._change is not None
        self._done.append(ChangeDone(self._change.token, error))
        self._change = None


def _next_configuration(now: Configuration, member: Member, aim: Aim) -> Configuration | None:
    """One step nearer to the aim; None when it is reached."""
    voters, learners = now.voters, now.learners
    if aim == "removed":
        if member not in now.members:
            return None
        return Configuration(tuple(each for each in voters if each != member), tuple(each for each in learners if each != member))
    if member in voters or (aim == "learner" and member in learners):
        return None
    if member not in learners:
        return Configuration(voters, (*learners, member))
    return Configuration((*voters, member), tuple(each for each in learners if each != member))
