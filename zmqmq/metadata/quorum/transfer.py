"""Handing the lead over (thesis 3.10): take no more appends, bring the target up to date, tell it to stand for election at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmqmq.metadata.quorum.messages import TimeoutNow

if TYPE_CHECKING:
    from zmqmq.metadata.quorum.core import Core
    from zmqmq.metadata.quorum.progress import Progress
    from zmqmq.metadata.quorum.state import Member


class Transfer:
    """Ends with the leadership, or at ``deadline_ms``: then the leader goes on."""

    def __init__(self, target: Member, deadline_ms: int) -> None:
        self.target = target
        self.deadline_ms = deadline_ms
        self._is_sent = False

    def pump(self, core: Core, followers: dict[Member, Progress]) -> None:
        progress = followers.get(self.target)
        if progress is not None and progress.match_end == core.log.end and not self._is_sent:
            self._is_sent = True
            core.send_early(TimeoutNow(core.me, self.target, core.term))
