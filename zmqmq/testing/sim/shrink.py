"""Makes a failing seed small: shorter trouble, fewer programs, fewer classes of faults, then fewer single faults and fewer steps of
the programs that are left, until nothing more can be taken away.

Each attempt runs the seed again without something, and is kept when it still fails in the same way. Chance does not shift when a
fault or a step is left out, but what follows it does: so each attempt is made, not computed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

from msgspec import Struct

from zmqmq.testing.sim.chance import Omissions
from zmqmq.testing.sim.run import TROUBLE_S, Result, run
from zmqmq.testing.sim.workload import PROGRAM

SHRINK_S_MAX: Final = 120.0
SHORTEST_S: Final = 1.0
_NUMBER: Final = re.compile(r"[0-9][0-9.]*")

Single = tuple[str, int]


class Shrunk(Struct, frozen=True):
    """The smallest run found, and what was taken away."""

    result: Result
    omissions: Omissions
    trouble_s: float
    runs: int

    @property
    def fault_count(self) -> int:
        return len(self.result.allowed)


def shrink(failed: Result, *, limit_s: float = SHRINK_S_MAX, say: Callable[[str], None] = lambda _: None) -> Shrunk:
    """``failed`` must be the result of ``run(seed)``. Ends after ``limit_s`` at the latest, with the best so far."""
    return _Shrinker(failed, limit_s, say).run()


class _Shrinker:
    def __init__(self, failed: Result, limit_s: float, say: Callable[[str], None]) -> None:
        self.best = failed
        self.omissions = Omissions()
        self.trouble_s = TROUBLE_S
        self.runs = 0
        self._kind = kind_of(failed.failure)
        self._deadline = monotonic() + limit_s
        self._say = say

    def run(self) -> Shrunk:
        before = None
        while before != (before := (self.omissions, self.trouble_s)) and not self._is_late:
            self._shorten()
            self._drop_programs()
            self._drop_classes()
            self._shorten()
            self._drop_halves(self._steps)  # each makes what follows faster, a fault does not
            self._drop_halves(self._faults)
        return Shrunk(self.best, self.omissions, self.trouble_s, self.runs)

    def _shorten(self) -> None:
        """Between the longest that does not fail and the shortest that does."""
        well_s = 0.0
        while self.trouble_s - well_s > SHORTEST_S and not self._is_late:
            middle_s = (self.trouble_s + well_s) / 2
            if not self._still_fails(self.omissions, middle_s):
                well_s = middle_s

    def _drop_programs(self) -> None:
        for single in [single for single in self.best.steps if single[0] == PROGRAM]:
            self._still_fails(self._without([single]), self.trouble_s)

    def _drop_classes(self) -> None:
        for name in sorted(self.best.struck):
            if name in self.best.struck:
                self._still_fails(Omissions(self.omissions.classes | {name}, self.omissions.singles), self.trouble_s)

    def _faults(self) -> Sequence[Single]:
        return self.best.allowed

    def _steps(self) -> Sequence[Single]:
        return [single for single in self.best.steps if single[0] != PROGRAM]

    def _drop_halves(self, candidates: Callable[[], Sequence[Single]]) -> None:
        """All, then halves, quarters, and so on; single ones for as long as that helps (delta debugging, Zeller 1999)."""
        size = max(1, len(candidates()))
        is_done = False
        while not is_done and not self._is_late:
            singles = list(candidates())
            has_shrunk = False
            for start in range(0, len(singles), size):
                has_shrunk |= self._still_fails(self._without(singles[start : start + size]), self.trouble_s)
            is_done = size == 1 and not has_shrunk
            size = max(1, size // 2)

    def _without(self, singles: Sequence[Single]) -> Omissions:
        return Omissions(self.omissions.classes, self.omissions.singles | set(singles))

    @property
    def _is_late(self) -> bool:
        return monotonic() >= self._deadline

    def _still_fails(self, omissions: Omissions, trouble_s: float) -> bool:
        """Then it is the new best."""
        if self._is_late:
            return False
        self.runs += 1
        result = run(self.best.seed, omissions, trouble_s=trouble_s)
        if kind_of(result.failure) != self._kind:
            return False
        self.best, self.omissions, self.trouble_s = result, omissions, trouble_s
        self._say(f"{self.runs} runs: {len(result.allowed)} faults in {trouble_s:g} s, {len(result.trace)} events")
        return True


def kind_of(failure: str) -> str:
    """What two failures of the same kind share: the name of the promise, or the error and how its text begins, without numbers."""
    return _NUMBER.sub("#", ":".join(failure.partition("(")[0].split(":")[:2]))
