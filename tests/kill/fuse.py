"""A disk that kills its process with SIGKILL at the n-th system call of a kind: before, in the middle of, or after it.

A kill from outside hits a checkpoint or a recovery by luck; this one does not miss. What the process did until then is real: real
files, real calls.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from zmqmq.ports import Buffer
from zmqmq.store.disk import RealDisk, RealFile

BEFORE, MIDDLE, AFTER = "before", "middle", "after"
STDOUT = 1


class Fuse(msgspec.Struct):
    """Burns at the ``calls``-th call whose text (``<call> <path below the data directory>``) ``pattern`` is found in."""

    pattern: str
    calls: int
    moment: str = BEFORE
    is_armed: bool = False
    """Counts from the first call on; else from the first turn of the broker's loop on, when it is ready."""

    def is_due(self, call: str) -> bool:
        if not self.is_armed or not re.search(self.pattern, call):
            return False
        self.calls -= 1
        return self.calls == 0


class FusedDisk(RealDisk):
    """Calls that change nothing are not counted."""

    def __init__(self, root: str, fuse: Fuse) -> None:
        self._root = root + "/"
        self._fuse = fuse

    def around(self, call: str, path: str, act: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        text = f"{call} {path.removeprefix(self._root)}"
        if not self._fuse.is_due(text):
            return act()
        if self._fuse.moment == MIDDLE and half is not None:
            half()
        elif self._fuse.moment != BEFORE:
            act()
        os.write(STDOUT, f"burned {self._fuse.moment} {text}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("SIGKILL does not return")

    def open(self, path: str, *, create: bool = False, write: bool = True) -> Any:
        opened = super().open
        if create and not self.exists(path):
            return FusedFile(self, path, self.around("create", path, lambda: opened(path, create=create, write=write)))
        return FusedFile(self, path, opened(path, create=create, write=write))

    def mkdir(self, path: str) -> None:
        made = super().mkdir
        if not self.exists(path):
            self.around("mkdir", path, lambda: made(path))

    def rename(self, source: str, target: str) -> None:
        renamed = super().rename
        self.around("rename", target, lambda: renamed(source, target))

    def unlink(self, path: str) -> None:
        removed = super().unlink
        self.around("unlink", path, lambda: removed(path))

    def rmdir(self, path: str) -> None:
        removed = super().rmdir
        self.around("rmdir", path, lambda: removed(path))

    def sync_directory(self, path: str) -> None:
        synced = super().sync_directory
        self.around("syncdir", path, lambda: synced(path))


class FusedFile:
    """A real file under a fused disk."""

    def __init__(self, disk: FusedDisk, path: str, file: RealFile) -> None:
        self._disk = disk
        self._path = path
        self._file = file
        self.pread = file.pread
        self.size = file.size
        self.close = file.close

    def pwritev(self, buffers: Sequence[Buffer], position: int) -> int:
        def half() -> int:
            data = b"".join(buffers)
            return self._file.pwritev((data[: len(data) // 2],), position)

        written: int = self._disk.around("write", self._path, lambda: self._file.pwritev(buffers, position), half)
        return written

    def fdatasync(self) -> None:
        self._disk.around("sync", self._path, self._file.fdatasync)

    def truncate(self, size: int) -> None:
        self._disk.around("truncate", self._path, lambda: self._file.truncate(size))

    def allocate(self, position: int, size: int) -> None:
        self._disk.around("allocate", self._path, lambda: self._file.allocate(position, size))
