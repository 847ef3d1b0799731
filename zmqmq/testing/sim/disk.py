"""A disk in memory that forgets what was not synced, and fails on demand. Implements ``ports.Disk``.

It is crueler than a real one, within what POSIX allows. Until ``fdatasync``, the writes and truncations of a file are
only promised, and so are names until their directory was synced. There are two ends of a process:

- ``kill``, as by kill -9: open files and locks are gone; the page cache is not, so the next process sees everything,
  and what was unsynced still is.
- ``crash``, the power cut: of each file and directory it keeps what ``Loss`` says.

``fuse`` ends the process inside the n-th call from now: that call may be half done, and from then on every call raises
``PowerCut`` until ``kill`` or ``crash``. What else goes wrong, ``faults`` (exact) and ``swarm`` (by chance) say.

All chance comes from one stream, and how much of it a call takes does not depend on what goes wrong. Names are ordered,
nothing here depends on hashes, and one thread uses it at a time. The disk knows no time: who simulates it asks
``sync_delay_us`` how long a sync takes.
"""

from __future__ import annotations

import errno
import random as chance
from collections.abc import Callable, Mapping
from typing import Final

from zmqmq.ports import Random
from zmqmq.testing.sim.disk_faults import ERRNO_OF_CLASS, TORN_ONLY, Decide, DiskFaults, Fault, FaultSwarm, OnFault
from zmqmq.testing.sim.disk_handles import SimFile, SimLock
from zmqmq.testing.sim.disk_nodes import LOSSES, DirectoryNode, FileNode, Loss
from zmqmq.testing.sim.disk_tree import Tree, names_of, system_error

__all__ = ["CAPACITY_BYTES", "LOSSES", "DiskFaults", "Fault", "Loss", "PowerCut", "SimDisk", "SimFile", "SimLock"]

CAPACITY_BYTES: Final = 1 << 40
"""Of a disk that never is full."""
_SEED_MAX: Final = 1 << 62


class PowerCut(BaseException):
    """The machine is off, or the process dead. Not an ``Exception``: no code that runs on it may handle it."""


class SimDisk:
    """A file system of one simulated machine, on which one process at a time runs."""

    def __init__(
        self,
        random: Random,
        *,
        capacity_bytes: int = CAPACITY_BYTES,
        faults: DiskFaults = TORN_ONLY,
        decide: Decide | None = None,
        on_fault: OnFault | None = None,
    ) -> None:
        self.capacity_bytes = capacity_bytes
        """May be changed at any time, also below what is used."""
        self.swarm = FaultSwarm(random, faults, decide=decide, on_fault=on_fault)
        self.faults: list[Fault] = []
        self.fuse: int | None = None
        """Calls until the process ends inside one of them; None: it does not."""
        self.call_count = 0
        self.open_count = 0
        self.life_count = 0
        """Processes that ended."""
        self.locks: dict[FileNode, SimLock] = {}
        self.tree = Tree()
        self._random = random
        self._is_off = False

    @classmethod
    def of(cls, files: Mapping[str, bytes], random: Random) -> SimDisk:
        """A disk that durably holds these."""
        disk = cls(random)
        for path, content in files.items():
            disk.put(path, content)
        return disk

    def call(
        self,
        name: str,
        path: str,
        *,
        size: int = 0,
        half: Callable[[chance.Random], object] | None = None,
        failed: Callable[[chance.Random], object] | None = None,
    ) -> int:
        """Every call begins here: the process may end, which leaves the call ``half`` done, or it may fail, which does
        what ``failed`` does. Of ``size`` bytes, how many it may write."""
        if self._is_off:
            raise PowerCut
        self.call_count += 1
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                if half is not None:
                    half(self._branch())
                self._is_off = True
                raise PowerCut
        strike = self.swarm.roll_call(name, path, size)
        for fault in self.faults:
            if fault.strikes(name, path):
                if fault.short >= 0:
                    return min(size, fault.short)
                self._fail(fault.error, path, failed, self._random.random())
        if strike is None:
            return size
        kind, how = strike
        if kind != "short_write":
            self._fail(ERRNO_OF_CLASS[kind], path, failed, how)
        return 1 + int(how * (size - 1))

    def _fail(self, error: int, path: str, failed: Callable[[chance.Random], object] | None, how: float) -> None:
        if failed is not None:
            failed(chance.Random(how))
        raise system_error(error, path)

    def _branch(self) -> chance.Random:
        """A stream of its own for what takes an unknown number of draws; it costs the disk's stream one."""
        return chance.Random(self._random.randrange(0, _SEED_MAX))

    def kill(self) -> None:
        """End the process, as kill -9 does; a new one may begin. Everything written is there, synced or not."""
        self._is_off = False
        self.fuse = None
        self.locks = {}
        self.open_count = 0
        self.life_count += 1

    def crash(self, loss: Loss | None = None) -> None:
        """Cut the power and switch it on again. ``loss`` for all, or drawn for each file and directory."""
        may_tear = self.swarm.roll("torn", "crash") is not None
        random, losses = self._branch(), (loss,) if loss else LOSSES
        for directory in self.tree.directories():
            directory.crash(random.choice(losses), random)
        for _, node in self.tree.files():
            node.crash(random.choice(losses), random, may_tear=may_tear)
        self.kill()

    def drop_memory(self) -> None:
        """The page cache lets go of clean pages: those that a failed sync lost are seen no more."""
        for _, node in self.tree.files():
            node.drop_memory()

    def sync_delay_us(self) -> int:
        """How much longer the next sync takes than usual."""
        how = self.swarm.roll("sync_slow", "fdatasync")
        return 0 if how is None else int(how * self.swarm.faults.sync_slow_us)

    def flip(self, path: str, bit: int) -> None:
        """Turn one bit of a file over, on the disk and in memory."""
        node = self.tree.node(path)
        assert isinstance(node, FileNode)
        for version in (node.durable, node.content):
            if bit < version.size * 8:
                version.flip(bit)

    def flip_random(self, path_filter: Callable[[str], bool] | None = None) -> tuple[str, int] | None:
        """Turn over any bit of any durable file that passes the filter. Which one, or None where there is none."""
        return self._flip_any(path_filter, self._branch())

    def maybe_flip(self, path_filter: Callable[[str], bool] | None = None) -> tuple[str, int] | None:
        """``flip_random`` at the rate of the swarm. Who calls it knows what a cluster can survive."""
        how = self.swarm.roll("flip", "at rest")
        return None if how is None else self._flip_any(path_filter, chance.Random(how))

    def _flip_any(self, path_filter: Callable[[str], bool] | None, random: chance.Random) -> tuple[str, int] | None:
        passing = [(path, node) for path, node in self.tree.files() if node.durable.size and (path_filter is None or path_filter(path))]
        if not passing:
            return None
        path, node = random.choice(passing)
        bit = random.randrange(node.durable.size * 8)
        self.flip(path, bit)
        return path, bit

    def used_bytes(self) -> int:
        return sum(node.content.size for _, node in self.tree.files())

    def end_max(self, node: FileNode, wanted: int) -> int:
        """How far a file that shall reach ``wanted`` can grow."""
        size = node.content.size
        if wanted <= size or self.capacity_bytes >= CAPACITY_BYTES:
            return max(wanted, size)
        return size + max(0, self.capacity_bytes - self.used_bytes())

    def files(self) -> dict[str, bytes]:
        """Every file with its content."""
        return {path: bytes(node.content) for path, node in self.tree.files()}

    def put(self, path: str, content: bytes) -> None:
        """Make the file what somebody else wrote and synced, with the names on the way to it."""
        directory = self.tree.root
        *above, name = names_of(path)
        for each in above:
            if each not in directory.names:
                directory.put(each, DirectoryNode())
            directory.sync()
            child = directory.names[each]
            assert isinstance(child, DirectoryNode)
            directory = child
        directory.put(name, FileNode(content))
        directory.sync()

    def open(self, path: str, *, create: bool = False, write: bool = True) -> SimFile:
        self.call("open" if write else "open_read", path)
        node = self._file(path) if not create else self._file_or_new(path)
        self.open_count += 1
        return SimFile(self, path, node, can_write=write)

    def exists(self, path: str) -> bool:
        self.call("exists", path)
        try:
            self.tree.node(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def listdir(self, path: str) -> list[str]:
        self.call("listdir", path)
        return sorted(self.tree.directory(path).names)

    def mkdir(self, path: str) -> None:
        self.call("mkdir", path)
        directory = self.tree.root
        names = names_of(path)
        for depth, name in enumerate(names, 1):
            if name not in directory.names:
                self.call("create", path)
            if name not in directory.names:
                directory.put(name, DirectoryNode())
            child = directory.names[name]
            if not isinstance(child, DirectoryNode):
                raise system_error(errno.EEXIST if depth == len(names) else errno.ENOTDIR, path)
            directory = child

    def rename(self, source: str, target: str) -> None:
        self.call("rename", source)
        directory, old = self.tree.parent(source)
        other, new = self.tree.parent(target)
        assert directory is other  # a rename between directories is not one durable step
        if old not in directory.names:
            raise system_error(errno.ENOENT, source)
        if old != new:
            self._check_replaceable(directory.names[old], directory.names.get(new), target)
            directory.rename(old, new)

    def _check_replaceable(self, node: FileNode | DirectoryNode, there: FileNode | DirectoryNode | None, target: str) -> None:
        if there is None:
            return
        if isinstance(there, DirectoryNode):
            if not isinstance(node, DirectoryNode):
                raise system_error(errno.EISDIR, target)
            if there.names:
                raise system_error(errno.ENOTEMPTY, target)
        elif isinstance(node, DirectoryNode):
            raise system_error(errno.ENOTDIR, target)

    def unlink(self, path: str) -> None:
        self.call("unlink", path)
        self._file(path)
        directory, name = self.tree.parent(path)
        directory.remove(name)

    def rmdir(self, path: str) -> None:
        self.call("rmdir", path)
        if self.tree.directory(path).names:
            raise system_error(errno.ENOTEMPTY, path)
        directory, name = self.tree.parent(path)
        directory.remove(name)

    def sync_directory(self, path: str) -> None:
        self.call("sync_directory", path, failed=lambda random: self.tree.directory(path).fail_sync(random))
        self.tree.directory(path).sync()

    def lock(self, path: str) -> SimLock:
        self.call("lock", path)
        node = self._file_or_new(path)
        if node in self.locks:
            raise system_error(errno.EWOULDBLOCK, path)
        lock = self.locks[node] = SimLock(self, path, node)
        return lock

    def free_bytes(self, path: str) -> int:
        self.call("free_bytes", path)
        return max(0, self.capacity_bytes - self.used_bytes())

    def _file(self, path: str) -> FileNode:
        node = self.tree.node(path)
        if isinstance(node, DirectoryNode):
            raise system_error(errno.EISDIR, path)
        return node

    def _file_or_new(self, path: str) -> FileNode:
        directory, name = self.tree.parent(path)
        if name not in directory.names:
            self.call("create", path)
        if name not in directory.names:
            directory.put(name, FileNode())
        return self._file(path)

    def __repr__(self) -> str:
        return f"<SimDisk life={self.life_count} calls={self.call_count} open={self.open_count} {self.swarm!r}>"
