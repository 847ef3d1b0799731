"""What a waiting command watches: its brokers, so that nobody sits before a silent terminal, and whoever reads its output."""

from __future__ import annotations

import os
import select
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from zmqmq.errors import ZmqmqError

if TYPE_CHECKING:
    from zmqmq import Client
    from zmqmq_cli.output import Output

SILENCE_S: Final = 2.0
"""How long no broker may be there before it is said; once for each time it goes away."""
_LOOK_S: Final = 0.25
_JOIN_S: Final = 1.0
_OBSTACLE: Final = "no broker answers: "


@contextmanager
def told(client: Client, output: Output) -> Iterator[None]:
    """Within the block a note on stderr says when the client waits for its brokers."""
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(client, output, ended), name="zmqmq-waiting", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join(_JOIN_S)


def _watch(client: Client, output: Output, ended: threading.Event) -> None:
    away_since: float | None = time.monotonic()
    is_told = False
    while not ended.wait(_LOOK_S):
        try:
            obstacle = client.stats().obstacle
        except ZmqmqError:  # the client ends, and its own error says why
            return
        if not obstacle:
            if is_told:
                output.note("a broker answers again")
            away_since, is_told = None, False
        elif away_since is None:
            away_since = time.monotonic()
        elif not is_told and time.monotonic() - away_since >= SILENCE_S and not ended.is_set():
            output.note(f"waiting for {obstacle.removeprefix(_OBSTACLE)} … (Ctrl-C to stop)")
            is_told = True


@contextmanager
def while_read(stops: Sequence[Callable[[], None]]) -> Iterator[None]:
    """Within the block each of ``stops`` is called, from a thread, once nobody reads stdout any more; only a pipe or a socket tells.
    Without it a command that has nothing to print would never learn that ``head`` went away."""
    fd = _stdout_pipe()
    if fd is None:
        yield
        return
    ended = threading.Event()
    watcher = threading.Thread(target=_watch_reader, args=(fd, stops, ended), name="zmqmq-stdout", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join(_JOIN_S)


def _stdout_pipe() -> int | None:
    try:
        fd = sys.stdout.fileno()
        mode = os.fstat(fd).st_mode
    except (OSError, ValueError):  # closed, or no file at all
        return None
    return fd if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else None


def _watch_reader(fd: int, stops: Sequence[Callable[[], None]], ended: threading.Event) -> None:
    poll = select.poll()
    poll.register(fd, 0)  # errors and hang-ups are always told
    while not ended.is_set():
        if poll.poll(_LOOK_S * 1000):
            for stop in stops:
                stop()
            return
