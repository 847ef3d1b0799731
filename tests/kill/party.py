"""What the processes around the broker share: an append-only file of testimony, and the wish to end.

A party ends when its standard input does, so none outlives the runner.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path


class Testimony:
    """Lines that leave this process as soon as they are given; the broker never touches them."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def give(self, lines: Iterable[str]) -> None:
        data = "".join([f"{line}\n" for line in lines]).encode()
        while data:
            data = data[os.write(self._fd, data) :]

    def accuse(self, words: str) -> None:
        self.give([f"wrong {words}"])


def stopping() -> threading.Event:
    """Set when the runner wants this process to end, or is gone."""
    event = threading.Event()

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        event.set()

    threading.Thread(target=wait, daemon=True).start()
    return event


class Witness:
    """The runner's side of a testimony: the whole lines that came since the last time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def lines(self) -> list[str]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._at)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._at += len(whole) + len(newline)
        return whole.decode().splitlines()
