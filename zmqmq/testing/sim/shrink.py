"""Makes a failing seed small: shorter trouble, fewer programs, fewer classes of faults, then fewer single faults.

Each step is tried by running the seed again without something, and kept when it still fails in the same way. Chance does not shift
when a fault is left out, but what follows it does: so each step is tried, not computed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

from msgspec import Struct

from zmqmq.testing.sim.chance import Verdict
from zmqmq.testing.sim.run import TROUBLE_S, Result, run

SHRINK_S_MAX: Final = 120.0
SHORTEST_S: Final = 1.0
PROGRAMS_MAX: Final = 8
_NUMBER: Final = re.compile(r"[0-9][0-9.]*")
PROGRAM: Final = "program"


class Shrunk(Struct, frozen=True):
    """The smallest run found, and what was taken away."""

    result: Result
    verdict: Verdict
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
        self.verdict = Verdict()
        self.trouble_s = TROUBLE_S
        self.runs = 0
        self._kind = kind_of(failed.failure)
        self._deadline = monotonic() + limit_s
        self._say = say

    def run(self) -> Shrunk:
        self._shorten()
        self._drop_programs()
        self._drop_classes()
        self._shorten()
        self._drop_faults()
        self._shorten()
        return Shrunk(self.best, self.verdict, self.trouble_s, self.runs)

    def _shorten(self) -> None:
        """Between the longest that does not fail and the shortest that does."""
        well_s = 0.0
        while self.trouble_s - well_s > SHORTEST_S and not self._is_late:
            middle_s = (self.trouble_s + well_s) / 2
            if not self._still_fails(self.verdict, middle_s):
                well_s = middle_s

    def _drop_programs(self) -> None:
        for number in range(PROGRAMS_MAX):
            self._still_fails(self._without([(PROGRAM, number)]), self.trouble_s)

    def _drop_classes(self) -> None:
        for name in sorted(self.best.struck):
            if name in self.best.struck:
                self._still_fails(Verdict(self.verdict.classes | {name}, self.verdict.faults), self.trouble_s)

    def _drop_faults(self) -> None:
        """Halves first, then quarters, and so on down to single faults (delta debugging, Zeller 1999)."""
        size = max(1, len(self.best.allowed) // 2)
        while not self._is_late:
            faults = list(self.best.allowed)
            has_shrunk = False
            for start in range(0, len(faults), size):
                has_shrunk |= self._still_fails(self._without(faults[start : start + size]), self.trouble_s)
            if not has_shrunk and size == 1:
                return
            size = max(1, size // 2) if not has_shrunk else min(size, max(1, len(self.best.allowed) // 2))

    def _without(self, faults: Sequence[tuple[str, int]]) -> Verdict:
        return Verdict(self.verdict.classes, self.verdict.faults | set(faults))

    @property
    def _is_late(self) -> bool:
        return monotonic() >= self._deadline

    def _still_fails(self, verdict: Verdict, trouble_s: float) -> bool:
        """Then it is the new best."""
        if self._is_late:
            return False
        self.runs += 1
        result = run(self.best.seed, verdict, trouble_s=trouble_s)
        if kind_of(result.failure) != self._kind:
            return False
        self.best, self.verdict, self.trouble_s = result, verdict, trouble_s
        self._say(f"{self.runs} runs: {len(result.allowed)} faults in {trouble_s:g} s, {len(result.trace)} events")
        return True


def kind_of(failure: str) -> str:
    """What two failures of the same kind share: the name of the promise, or the error and how its text begins, without numbers."""
    return _NUMBER.sub("#", ":".join(failure.partition("(")[0].split(":")[:2]))
