"""Who does bad things to real processes: actions that begin and end, drawn one after the other.

An action knows its victim; a cluster gives each of its brokers a set of them (``actions_on``), and actions on several victims at once
are those of each. ``Nemesis`` ends what it began, whatever happens in between.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from network import Direction, Host


class Victim(Protocol):
    """A broker's process, as far as it can be hurt."""

    def signal(self, how: signal.Signals) -> None: ...

    def kill(self) -> None: ...

    def restart(self) -> None: ...


class Action(NamedTuple):
    """``seconds_max``: how long it lasts at most; how long it can last without a promise being meant to break."""

    name: str
    begin: Callable[[], None]
    end: Callable[[], None]
    seconds_max: float = 2.0
    seconds_min: float = 0.1


def pause(victim: Victim) -> Action:
    """Longer than the heartbeats, so that clients give the connection up."""
    return Action("SIGSTOP", lambda: victim.signal(signal.SIGSTOP), lambda: victim.signal(signal.SIGCONT), seconds_max=6.0)


def kill(victim: Victim) -> Action:
    return Action("kill -9", victim.kill, victim.restart, seconds_max=0.5)


def partition(host: Host, direction: Direction) -> Action:
    words = {"in": "requests vanish", "out": "answers vanish", "both": "cut off"}
    return Action(words[direction], lambda: host.drop(direction), host.heal, seconds_max=6.0)


def reset(host: Host) -> Action:
    return Action("connections reset", host.reject, host.heal)


def unplug(host: Host) -> Action:
    return Action("cable out", host.unplug, host.plug, seconds_max=4.0)


def slow(host: Host) -> Action:
    return Action("slow network", lambda: host.slow("2mbit"), host.fast, seconds_max=4.0)


def actions_on(victim: Victim, host: Host) -> list[Action]:
    """All that this machine can do to one broker."""
    found = [kill(victim), pause(victim), partition(host, "both"), unplug(host)]
    if shutil.which("nft") is not None:
        found += [partition(host, "in"), partition(host, "out"), reset(host)]
    if shutil.which("tc") is not None:
        found.append(slow(host))
    return found


class Nemesis:
    """Deals the actions like cards, so that a short run meets all of them."""

    def __init__(self, actions: Sequence[Action], chance: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._actions = list(actions)
        self._deck: list[Action] = []
        self._chance = chance
        self._never = threading.Event()

    def draw(self) -> Action:
        if not self._deck:
            self._deck = list(self._actions)
            self._chance.shuffle(self._deck)
        return self._deck.pop()

    def strike(self) -> str:
        """One action from its beginning to its end. What it was."""
        action = self.draw()
        with self.during(action):
            self._never.wait(self._chance.uniform(action.seconds_min, action.seconds_max))
        return action.name

    @contextlib.contextmanager
    def during(self, action: Action) -> Iterator[None]:
        self.done[action.name] += 1
        try:
            action.begin()
            yield
        finally:
            action.end()
