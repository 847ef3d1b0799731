"""Open files and locks of a simulated disk. They belong to one life of a process and are dead in the next."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zmqmq.testing.sim.disk_tree import system_error

if TYPE_CHECKING:
    from zmqmq.ports import Buffer
    from zmqmq.testing.sim.disk import SimDisk
    from zmqmq.testing.sim.disk_nodes import FileNode


class SimFile:
    """An open file; it goes on working after its name is gone."""

    __slots__ = ("_can_write", "_disk", "_is_open", "_life", "_node", "_path")

    def __init__(self, disk: SimDisk, path: str, node: FileNode, *, can_write: bool) -> None:
        self._disk = disk
        self._path = path
        self._node = node
        self._life = disk.life_count
        self._can_write = can_write
        self._is_open = True

    def _check(self, *, writes: bool = False, refusal: int = errno.EBADF) -> None:
        if not self._is_open or self._life != self._disk.life_count:
            raise system_error(errno.EBADF, self._path)
        if writes and not self._can_write:
            raise system_error(refusal, self._path)

    def pread(self, size: int, position: int) -> bytes:
        self._check()
        self._disk.call("pread", self._path)
        return self._node.content.read(size, position)

    def pwritev(self, buffers: Sequence[Buffer], position: int) -> int:
        self._check(writes=True)
        data, node = b"".join(buffers), self._node
        size = self._disk.call(
            "pwritev",
            self._path,
            size=len(data),
            half=lambda random: node.write(data[: random.randrange(0, len(data) + 1)], position),
        )
        if not data:
            return 0
        size = min(size, self._disk.end_max(node, position + size) - position)
        if size <= 0:
            raise system_error(errno.ENOSPC, self._path)
        node.write(data[:size], position)
        return size

    def fdatasync(self) -> None:
        self._check()
        self._disk.call("fdatasync", self._path, failed=self._node.fail_sync)
        self._node.sync()

    def truncate(self, size: int) -> None:
        self._check(writes=True, refusal=errno.EINVAL)
        self._disk.call("truncate", self._path)
        self._node.resize(size)

    def allocate(self, position: int, size: int) -> None:
        self._check(writes=True)
        self._disk.call("allocate", self._path)
        end = position + size
        if self._disk.end_max(self._node, end) < end:
            raise system_error(errno.ENOSPC, self._path)
        if end > self._node.content.size:
            self._node.resize(end)

    def size(self) -> int:
        self._check()
        self._disk.call("size", self._path)
        return self._node.content.size

    def close(self) -> None:
        if self._is_open and self._life == self._disk.life_count:
            self._disk.open_count -= 1
        self._is_open = False

    def __repr__(self) -> str:
        return f"<SimFile {self._path} {'open' if self._is_open else 'closed'} {self._node.content!r}>"


class SimLock:
    """Held until closed, or until the process or the machine dies."""

    __slots__ = ("_disk", "_node", "_path")

    def __init__(self, disk: SimDisk, path: str, node: FileNode) -> None:
        self._disk = disk
        self._path = path
        self._node = node

    def is_held(self) -> bool:
        self._disk.call("is_held", self._path)
        return self._disk.locks.get(self._node) is self and self._disk.tree.is_at(self._node, self._path)

    def close(self) -> None:
        if self._disk.locks.get(self._node) is self:
            del self._disk.locks[self._node]

    def __repr__(self) -> str:
        return f"<SimLock {self._path}>"
