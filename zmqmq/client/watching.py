"""Something that somebody waits for: a batch's outcome, space in a buffer, news for a reader.

Whoever waits leaves a function, which is called once: by ``notify`` in whatever thread that happens, or at once when it
has happened already. How to sleep meanwhile is the waiting side's own affair (``waiting`` for threads, ``aio.waiting``
for tasks).
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable


class Watched:
    """``watch``, ``unwatch`` and ``notify`` may be called from any thread."""

    __slots__ = ("watchers",)

    def __init__(self) -> None:
        self.watchers: deque[Callable[[], None]] = deque()

    @property
    def is_ready(self) -> bool:
        """What is waited for is there. Set before ``notify`` is called."""
        raise NotImplementedError

    def watch(self, watcher: Callable[[], None]) -> None:
        self.watchers.append(watcher)
        if self.is_ready:
            self.notify()

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """It waits no longer; no matter if it was called meanwhile."""
        with contextlib.suppress(ValueError):
            self.watchers.remove(watcher)

    def notify(self) -> None:
        while self.watchers:
            try:
                watcher = self.watchers.popleft()
            except IndexError:  # another thread took the last one
                return
            watcher()
