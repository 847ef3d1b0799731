"""After ``fork()`` the child's use of anything made before it raises ClosedError and touches nothing of the parent's."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable
from typing import Protocol

from zmqmq.errors import ClosedError


class Forked(Protocol):
    """What has to know of a fork."""

    def locks(self) -> Iterable[threading.Lock]:
        """None of them may be held by a thread that will not exist in the child."""

    def on_forked(self, error: ClosedError) -> None:
        """In the child: nothing of the parent's is used any more, and nobody waits for it."""


_watched: weakref.WeakSet[Forked] = weakref.WeakSet()
_held: list[threading.Lock] = []


def tell_of_forks(forked: Forked) -> None:
    _watched.add(forked)


def _before() -> None:
    for forked in list(_watched):
        for lock in forked.locks():
            lock.acquire()
            _held.append(lock)


def _after() -> None:
    while _held:
        _held.pop().release()


def _after_in_child() -> None:
    _after()
    error = ClosedError("the client was made before fork(); only the parent may use it", hint="make a client in each process")
    for forked in list(_watched):
        forked.on_forked(error)


os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after_in_child)
