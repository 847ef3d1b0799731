"""The real disk with faults on demand, for a broker that runs in this process."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from zmqmq.ports import Buffer
from zmqmq.store.disk import RealDisk, RealFile


class FailingDisk(RealDisk):
    """``faults`` maps a call and a part of a path to an errno; set them from the test's thread, for as long as they stand.
    ``room``: bytes by which files may still grow, None: any number."""

    def __init__(self) -> None:
        self.faults: dict[tuple[str, str], int] = {}
        self.struck: list[tuple[str, str]] = []
        self.room: int | None = None

    def check(self, call: str, path: str) -> None:
        for (failing, part), error in list(self.faults.items()):
            if failing == call and part in path:
                self.struck.append((call, path))
                raise OSError(error, os.strerror(error), path)

    def take_room(self, grown: int, path: str) -> None:
        if self.room is not None and grown > 0:
            if grown > self.room:
                self.struck.append(("room", path))
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            self.room -= grown

    def open(self, path: str, *, create: bool = False, write: bool = True) -> RealFile:
        self.check("open" if write else "open_read", path)
        if create and not self.exists(path):
            self.check("create", path)
        file = super().open(path, create=create, write=write)
        failing = FailingFile(file._fd, self, path)
        file._fd = -1
        return failing

    def listdir(self, path: str) -> list[str]:
        self.check("listdir", path)
        return super().listdir(path)

    def mkdir(self, path: str) -> None:
        self.check("mkdir", path)
        super().mkdir(path)

    def rename(self, source: str, target: str) -> None:
        self.check("rename", target)
        super().rename(source, target)

    def unlink(self, path: str) -> None:
        self.check("unlink", path)
        super().unlink(path)

    def sync_directory(self, path: str) -> None:
        self.check("sync_directory", path)
        super().sync_directory(path)


class FailingFile(RealFile):
    __slots__ = ("_disk", "_path")

    def __init__(self, fd: int, disk: FailingDisk, path: str) -> None:
        super().__init__(fd)
        self._disk = disk
        self._path = path

    def pread(self, size: int, position: int) -> bytes:
        self._disk.check("pread", self._path)
        return super().pread(size, position)

    def pwritev(self, buffers: Sequence[Buffer], position: int) -> int:
        self._disk.check("pwritev", self._path)
        self._disk.take_room(position + sum(map(len, buffers)) - self.size(), self._path)
        return super().pwritev(buffers, position)

    def allocate(self, position: int, size: int) -> None:
        self._disk.check("allocate", self._path)
        self._disk.take_room(position + size - self.size(), self._path)
        super().allocate(position, size)

    def truncate(self, size: int) -> None:
        self._disk.check("truncate", self._path)
        super().truncate(size)

    def fdatasync(self) -> None:
        self._disk.check("fdatasync", self._path)
        super().fdatasync()
