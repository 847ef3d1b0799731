"""Barriers: knowing that one has seen everything that was committed, without writing (thesis 6.4, read index).

The leader notes its commit end, hears from a majority in a round that began later, and so was the leader at that moment; when
everything before the noted end is handed out the barrier is passed. No clock is believed for it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from zmqmq.errors import NotLeader, Throttled
from zmqmq.metadata.log import BarrierLost, Passed

if TYPE_CHECKING:
    from zmqmq.metadata.quorum.core import Core

BARRIERS_MAX: Final = 10_000


class Barriers:
    """Those of one leader."""

    def __init__(self) -> None:
        self._fresh: list[int] = []
        self._waiting: deque[tuple[int, int, int]] = deque()
        """(token, read end, round), the last two ascending."""

    def add(self, token: int, core: Core) -> None:
        if len(self._fresh) + len(self._waiting) >= BARRIERS_MAX:
            core.tell(BarrierLost(token, Throttled(f"{BARRIERS_MAX} barriers wait already", retry_after_ms=core.settings.heartbeat_ms)))
            return
        self._fresh.append(token)

    def assign(self, commit_end: int, round: int) -> bool:
        """Give the new ones their place, which the next round confirms; whether there were any. Only for a leader that committed an
        entry of its own term: an older commit end may not be the newest one."""
        if not self._fresh:
            return False
        self._waiting.extend((token, commit_end, round + 1) for token in self._fresh)
        self._fresh.clear()
        return True

    def pass_on(self, core: Core, quorum_round: int) -> None:
        while self._waiting and self._waiting[0][1] <= core.applied_end and self._waiting[0][2] <= quorum_round:
            core.tell(Passed(self._waiting.popleft()[0]))

    def lose(self, core: Core, reason: str) -> None:
        for token in [*(token for token, _, _ in self._waiting), *self._fresh]:
            core.tell(BarrierLost(token, NotLeader(f"lost the lead of the metadata log: {reason}", hint="ask the new leader")))
        self._waiting.clear()
        self._fresh.clear()
