"""A member that asks for votes, and how votes are given.

First it asks whether it would be elected, without a new term (pre-vote, thesis 9.6): a member that was cut off, or that was removed,
disturbs nobody. Only a majority for that begins a real election (paper 5.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmqmq.metadata.quorum.messages import RequestVote, Vote

if TYPE_CHECKING:
    from zmqmq.metadata.quorum.core import Core
    from zmqmq.metadata.quorum.state import Member


class Campaigning:
    """See the module. ``is_won`` is looked at after each fact."""

    def __init__(self, core: Core, *, is_pre_vote: bool, is_transfer: bool = False) -> None:
        self._core = core
        self.is_pre_vote = is_pre_vote
        core.leader = None
        if is_pre_vote:
            self._ballot = core.term + 1
        else:
            core.set_hard_state(core.term + 1, core.me)
            self._ballot = core.term
        self._granted: set[Member] = set()
        self.deadline_ms = core.now_ms + core.random_timeout_ms()
        self._ask(is_transfer=is_transfer)

    def __repr__(self) -> str:
        return f"Campaigning({'pre-vote for ' if self.is_pre_vote else ''}term {self._ballot}, {len(self._granted)} votes)"

    @property
    def is_won(self) -> bool:
        """Its own vote counts when it is synced, like everybody's; only voters count, by the newest configuration (thesis 4.1)."""
        core = self._core
        if not core.is_hard_state_synced:
            return False
        voters = core.configurations.current.voters
        count = sum(member in self._granted or member == core.me for member in voters)
        return count >= core.configurations.current.majority

    def on_vote(self, vote: Vote) -> None:
        if vote.is_granted and vote.ballot == self._ballot and vote.is_pre_vote == self.is_pre_vote:
            self._granted.add(vote.source)

    def _ask(self, *, is_transfer: bool) -> None:
        core = self._core
        log = core.log
        for member in core.configurations.current.voters:
            if member != core.me:
                core.send(RequestVote(core.me, member, core.term, self._ballot, log.last_term, log.end, self.is_pre_vote, is_transfer))


def answer(core: Core, request: RequestVote) -> bool:
    """Vote, or say no; tells whether a real vote was given. Any member may vote, whatever its own configuration says: it may be too old
    to know the candidate (thesis 4.1)."""
    log = core.log
    is_up_to_date = (request.last_term, request.log_end) >= (log.last_term, log.end)  # paper 5.4.1
    if request.is_pre_vote:
        is_granted = is_up_to_date and request.ballot > core.term
    else:
        is_granted = is_up_to_date and request.ballot == core.term and core.hard_state.vote in (None, request.source)
        if is_granted and core.hard_state.vote is None:
            core.set_hard_state(core.term, request.source)
    core.send(Vote(core.me, request.source, core.term, request.ballot, is_granted, request.is_pre_vote))
    return is_granted and not request.is_pre_vote
