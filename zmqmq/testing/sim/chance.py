"""Chance for a whole run, from one seed: a stream for each subsystem, and the last word on every fault.

Streams are independent, so that one more draw in one subsystem moves nothing in the others. A *class* of faults is drawn on or off
and its rate with it, for each seed anew (swarm testing: a fault that is everywhere hides others). Whether a single fault may strike
is asked here: ``Omissions`` let a shrinking run take classes and single faults away, and what programs do.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from zmqmq.ports import Random

CLASS_IS_ON: Final = 0.4
"""Chance of a class to be drawn on."""
NEVER: Final = (0.0, 0.0)
"""Rates of a class that is off."""


def log_uniform(random: Random, bounds: tuple[float, float]) -> float:
    """Between the least and the greatest; each order of magnitude is as likely as the next."""
    least, greatest = bounds
    return float(least * (greatest / least) ** random.random())


def draw_rates(random: Random, limits: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """A swarm's member: each class on or off, with a rate between its least and its greatest; 0 is off."""
    rates: dict[str, float] = {}
    for name, bounds in limits.items():
        is_on = random.random() < CLASS_IS_ON
        rate = log_uniform(random, bounds) if bounds != NEVER else 0.0
        rates[name] = rate if is_on else 0.0
    return rates


class Omissions(Struct, frozen=True):
    """What a run does without: whole classes of faults, and single things, by what they are and a number."""

    classes: frozenset[str] = frozenset()
    singles: frozenset[tuple[str, int]] = frozenset()

    def has(self, name: str, number: int) -> bool:
        return name in self.classes or (name, number) in self.singles


class Chance:
    """Belongs to one run. ``on_fault(class, number, detail)`` is told of each fault that strikes."""

    def __init__(self, seed: int, omissions: Omissions, on_fault: Callable[[str, int, str], None]) -> None:
        self.seed = seed
        self.is_quiet = False
        """No fault strikes any more: the cluster shall heal."""
        self.struck: Counter[str] = Counter()
        self.allowed: list[tuple[str, int]] = []
        """Every fault that was let strike, in order: what a shrinking run tries to do without."""
        self.steps: list[tuple[str, int]] = []
        """Every step of a program that was taken, in order: the same for what is no fault."""
        self._asked: Counter[str] = Counter()
        self._omissions = omissions
        self._on_fault = on_fault

    def stream(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}:{name}")

    def decide(self, name: str, number: int) -> bool:
        """May the fault of this class and number strike? Numbers are the same whatever the answers were."""
        may_strike = not self.is_quiet and not self._omissions.has(name, number)
        if may_strike:
            self.allowed.append((name, number))
        return may_strike

    def takes(self, name: str, number: int) -> bool:
        """Whether a step is taken: what is no fault, but may be left out of a run."""
        is_taken = not self._omissions.has(name, number)
        if is_taken:
            self.steps.append((name, number))
        return is_taken

    def strikes(self, name: str, detail: str) -> bool:
        """The same for a class that has no numbers of its own; a fault that may strike is counted and told of."""
        number = self._asked[name]
        self._asked[name] += 1
        if not self.decide(name, number):
            return False
        self.count(name, number, detail)
        return True

    def count(self, name: str, number: int, detail: str) -> None:
        self.struck[name] += 1
        self._on_fault(name, number, detail)


class Rates:
    """Dice for one subsystem: each class of faults on or off, with a rate between its least and its greatest."""

    def __init__(self, chance: Chance, stream: random.Random, limits: Mapping[str, tuple[float, float]]) -> None:
        self._chance = chance
        self._random = stream
        self.rates = draw_rates(stream, limits)

    def roll(self, name: str, detail: str) -> bool:
        """Takes one number from the stream, whatever the rate and what is left out."""
        drawn = self._random.random()
        return drawn < self.rates[name] and self._chance.strikes(name, detail)
