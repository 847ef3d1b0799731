"""A disk in memory that forgets what was not synced, and fails on demand. Implements ``ports.Disk``.

It is crueler than a real one, within what POSIX allows. Until ``fdatasync``, the writes and truncations of a
file are only promised, and so are names until their directory was synced. ``crash`` is the power cut: for each
file it keeps nothing of what was unsynced, or a prefix of its writes (the last one torn), or any subset of its
pages; for each directory it keeps a prefix of what happened to its names. The same ``Random`` gives the same
crash. ``fuse`` cuts the power inside the n-th call from now: that call may be half done, and from then on every
call raises ``PowerCut`` until ``crash``.

Names are ordered, nothing here depends on hashes, and one thread uses it at a time.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypeVar

from msgspec import Struct

if TYPE_CHECKING:
    import random

    from zmqmq.ports import Buffer

PAGE_BYTES: Final = 4096
CAPACITY_BYTES: Final = 1 << 40

Loss: TypeAlias = Literal["all", "prefix", "pages", "nothing"]
LOSSES: Final[tuple[Loss, ...]] = ("all", "prefix", "pages", "nothing")


class PowerCut(BaseException):
    """The machine is off. Not an ``Exception``: no code that runs on it may handle it."""


class Fault(Struct):
    """The ``nth`` call (1 is the next) named ``call`` on a path that contains ``path`` fails with ``error``,
    or, with ``short`` set, writes only so many bytes. It happens ``times`` times, -1: from then on."""

    call: str
    error: int = errno.EIO
    path: str = ""
    nth: int = 1
    times: int = 1
    short: int = -1

    def strikes(self, call: str, path: str) -> bool:
        if call != self.call or self.path not in path or self.times == 0:
            return False
        self.nth -= 1
        if self.nth > 0:
            return False
        self.nth = 1
        self.times -= 1
        return True


class _Write(Struct, frozen=True):
    position: int
    data: bytes


class _Truncate(Struct, frozen=True):
    size: int


class _FileNode:
    """``durable`` is what a power cut leaves for sure; ``content`` what the process sees; ``unsynced`` the way between."""

    __slots__ = ("content", "durable", "unsynced")

    def __init__(self) -> None:
        self.durable = bytearray()
        self.content = bytearray()
        self.unsynced: list[_Write | _Truncate] = []

    def apply(self, change: _Write | _Truncate) -> None:
        _apply(self.content, change)
        self.unsynced.append(change)

    def sync(self) -> None:
        if self.unsynced:
            for change in self.unsynced:
                _apply(self.durable, change)
            self.unsynced = []

    def crash(self, loss: Loss, random: random.Random) -> None:
        if loss == "nothing":
            self.sync()
        elif loss == "prefix":
            self._keep_prefix(random)
        elif loss == "pages":
            self._keep_pages(random)
        self.content = bytearray(self.durable)
        self.unsynced = []

    def _keep_prefix(self, random: random.Random) -> None:
        count = random.randrange(0, len(self.unsynced) + 1)
        for change in self.unsynced[:count]:
            _apply(self.durable, change)
        if count < len(self.unsynced):
            torn = self.unsynced[count]
            if isinstance(torn, _Write):
                _apply(self.durable, _Write(torn.position, torn.data[: random.randrange(0, len(torn.data) + 1)]))

    def _keep_pages(self, random: random.Random) -> None:
        changed: dict[int, None] = {}
        for change in self.unsynced:
            if isinstance(change, _Write):
                pages = range(change.position // PAGE_BYTES, (change.position + len(change.data) + PAGE_BYTES - 1) // PAGE_BYTES)
                changed.update(dict.fromkeys(pages))
        if random.random() < 0.5:  # the new size made it, or it did not
            _apply(self.durable, _Truncate(len(self.content)))
        for page in changed:
            start = page * PAGE_BYTES
            if random.random() < 0.5 and start < len(self.content):
                _apply(self.durable, _Write(start, bytes(self.content[start : start + PAGE_BYTES])))


def _apply(content: bytearray, change: _Write | _Truncate) -> None:
    if isinstance(change, _Truncate):
        if change.size < len(content):
            del content[change.size :]
        else:
            content.extend(bytes(change.size - len(content)))
        return
    if change.position > len(content) and change.data:
        content.extend(bytes(change.position - len(content)))
    content[change.position : change.position + len(change.data)] = change.data


_Names: TypeAlias = "dict[str, _FileNode | _DirectoryNode]"


class _DirectoryNode:
    """Names, with what happened to them since the last sync. One change of names is atomic."""

    __slots__ = ("durable", "names", "unsynced")

    def __init__(self) -> None:
        self.durable: _Names = {}
        self.names: _Names = {}
        self.unsynced: list[Callable[[_Names], None]] = []

    def apply(self, change: Callable[[_Names], None]) -> None:
        change(self.names)
        self.unsynced.append(change)

    def sync(self) -> None:
        for change in self.unsynced:
            change(self.durable)
        self.unsynced = []

    def crash(self, loss: Loss, random: random.Random) -> None:
        count = {"all": 0, "nothing": len(self.unsynced)}.get(loss, -1)
        for change in self.unsynced[: count if count >= 0 else random.randrange(0, len(self.unsynced) + 1)]:
            change(self.durable)
        self.names = dict(self.durable)
        self.unsynced = []


_Node: TypeAlias = _FileNode | _DirectoryNode
N = TypeVar("N", _FileNode, _DirectoryNode)


class SimFile:
    """An open file; it goes on working after its name is gone."""

    def __init__(self, disk: SimDisk, path: str, node: _FileNode, boot: int) -> None:
        self._disk = disk
        self._path = path
        self._node = node
        self._boot = boot
        self._is_open = True

    def _call(self, name: str, half: Callable[[], object] | None = None) -> Fault | None:
        if not self._is_open or self._boot != self._disk.boot_count:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self._path)
        return self._disk.call(name, self._path, half)

    def pread(self, size: int, position: int) -> bytes:
        self._call("pread")
        return bytes(self._node.content[position : position + size])

    def pwritev(self, buffers: Sequence[Buffer], position: int) -> int:
        data = b"".join(buffers)
        fault = self._call("pwritev", lambda: self._write(data[: self._disk.random.randrange(0, len(data) + 1)], position))
        if fault is not None:
            data = data[: fault.short]
        room = self._disk.room_for(self._node, position + len(data))
        if room == 0 and data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        return self._write(data[:room] if room >= 0 else data, position)

    def _write(self, data: bytes, position: int) -> int:
        self._node.apply(_Write(position, data))
        return len(data)

    def fdatasync(self) -> None:
        self._call("fdatasync")
        self._node.sync()

    def truncate(self, size: int) -> None:
        self._call("truncate")
        self._node.apply(_Truncate(size))

    def allocate(self, position: int, size: int) -> None:
        self._call("allocate")
        if self._disk.room_for(self._node, position + size) >= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        if position + size > len(self._node.content):
            self._node.apply(_Truncate(position + size))

    def size(self) -> int:
        self._call("size")
        return len(self._node.content)

    def close(self) -> None:
        if self._is_open and self._boot == self._disk.boot_count:
            self._disk.open_count -= 1
        self._is_open = False


class SimLock:
    """Held until closed, or until the power is cut."""

    def __init__(self, disk: SimDisk, path: str, node: _FileNode) -> None:
        self._disk = disk
        self._path = path
        self._node = node

    def is_held(self) -> bool:
        self._disk.call("is_held", self._path)
        return self._node in self._disk.locks and self._disk.is_at(self._node, self._path)

    def close(self) -> None:
        self._disk.locks.pop(self._node, None)


class SimDisk:
    """A file system of one simulated machine."""

    def __init__(self, random: random.Random, *, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self.random = random
        self.capacity_bytes = capacity_bytes
        self.faults: list[Fault] = []
        self.fuse: int | None = None
        """Calls until the power is cut inside one of them; None: not."""
        self.call_count = 0
        self.open_count = 0
        self.boot_count = 0
        self.locks: dict[_FileNode, None] = {}
        self._root = _DirectoryNode()
        self._is_off = False

    def call(self, name: str, path: str, half: Callable[[], object] | None = None) -> Fault | None:
        """Every call begins here: the power may go, or a fault may strike. A ``short`` fault is returned."""
        if self._is_off:
            raise PowerCut
        self.call_count += 1
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                if half is not None:
                    half()
                self._is_off = True
                raise PowerCut
        for fault in self.faults:
            if fault.strikes(name, path):
                if fault.short >= 0:
                    return fault
                raise OSError(fault.error, os.strerror(fault.error), path)
        return None

    def crash(self, loss: Loss | None = None) -> None:
        """Cut the power and switch it on again. ``loss`` for all, or drawn for each file and directory."""
        self._crash(self._root, (loss,) if loss else LOSSES)
        self._is_off = False
        self.fuse = None
        self.locks = {}
        self.open_count = 0
        self.boot_count += 1

    def _crash(self, directory: _DirectoryNode, losses: tuple[Loss, ...]) -> None:
        directory.crash(self.random.choice(losses), self.random)
        for name in sorted(directory.names):
            node = directory.names[name]
            if isinstance(node, _DirectoryNode):
                self._crash(node, losses)
            else:
                node.crash(self.random.choice(losses), self.random)

    def room_for(self, node: _FileNode, end: int) -> int:
        """-1: the file may grow to ``end``; else how many of the new bytes there is room for."""
        grown = end - len(node.content)
        if grown <= 0 or self.capacity_bytes >= CAPACITY_BYTES:
            return -1
        free = self.capacity_bytes - self.used_bytes()
        return -1 if grown <= free else max(0, free)

    def used_bytes(self) -> int:
        return sum(len(node.content) for _, node in self._files(self._root, ""))

    def _files(self, directory: _DirectoryNode, path: str) -> list[tuple[str, _FileNode]]:
        found: list[tuple[str, _FileNode]] = []
        for name in sorted(directory.names):
            node = directory.names[name]
            if isinstance(node, _DirectoryNode):
                found.extend(self._files(node, f"{path}/{name}"))
            else:
                found.append((f"{path}/{name}", node))
        return found

    def files(self) -> dict[str, bytes]:
        """Every file with its content."""
        return {path: bytes(node.content) for path, node in self._files(self._root, "")}

    def put(self, path: str, content: bytes) -> None:
        """Make the file durably what somebody else wrote."""
        directory, name = self._parent(path, make=True)
        node = _FileNode()
        node.durable, node.content = bytearray(content), bytearray(content)
        directory.names[name] = directory.durable[name] = node

    def is_at(self, node: _FileNode, path: str) -> bool:
        """Whether the name leads to this very file."""
        try:
            return self._node(path) is node
        except (FileNotFoundError, NotADirectoryError):
            return False

    @classmethod
    def of(cls, files: dict[str, bytes], random: random.Random) -> SimDisk:
        """A disk that holds just these files."""
        disk = cls(random)
        for path, content in files.items():
            disk.put(path, content)
        return disk

    # ports.Disk -----------------------------------------------------------------------------------

    def open(self, path: str, *, create: bool = False, write: bool = True) -> SimFile:
        self.call("open" if write else "open_read", path)
        directory, name = self._parent(path)
        node = directory.names.get(name)
        if node is None:
            if not create:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            node = self._add(directory, name, _FileNode())
        if isinstance(node, _DirectoryNode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        self.open_count += 1
        return SimFile(self, path, node, self.boot_count)

    def exists(self, path: str) -> bool:
        self.call("exists", path)
        try:
            self._node(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def listdir(self, path: str) -> list[str]:
        self.call("listdir", path)
        return sorted(self._directory(path).names)

    def mkdir(self, path: str) -> None:
        self.call("mkdir", path)
        node = self._root
        for name in _names(path):
            child = node.names.get(name)
            if child is None:
                child = self._add(node, name, _DirectoryNode())
            if not isinstance(child, _DirectoryNode):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            node = child

    def rename(self, source: str, target: str) -> None:
        self.call("rename", source)
        directory, old = self._parent(source)
        other, new = self._parent(target)
        assert directory is other  # a rename between directories is not one durable step
        if old not in directory.names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
        node = directory.names[old]

        def change(names: _Names) -> None:
            names.pop(old, None)
            names[new] = node

        directory.apply(change)

    def unlink(self, path: str) -> None:
        self.call("unlink", path)
        if isinstance(self._node(path), _DirectoryNode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        self._remove(path)

    def rmdir(self, path: str) -> None:
        self.call("rmdir", path)
        if self._directory(path).names:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        self._remove(path)

    def sync_directory(self, path: str) -> None:
        self.call("sync_directory", path)
        self._directory(path).sync()

    def lock(self, path: str) -> SimLock:
        self.call("lock", path)
        directory, name = self._parent(path)
        node = directory.names.get(name)
        if node is None:
            node = self._add(directory, name, _FileNode())
        if isinstance(node, _DirectoryNode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if node in self.locks:
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), path)
        self.locks[node] = None
        return SimLock(self, path, node)

    def free_bytes(self, path: str) -> int:
        self.call("free_bytes", path)
        return max(0, self.capacity_bytes - self.used_bytes())

    def _add(self, directory: _DirectoryNode, name: str, node: N) -> N:
        directory.apply(lambda names: names.__setitem__(name, node))
        return node

    def _remove(self, path: str) -> None:
        directory, name = self._parent(path)

        def change(names: _Names) -> None:
            names.pop(name, None)

        directory.apply(change)

    def _node(self, path: str) -> _Node:
        node: _Node = self._root
        for name in _names(path):
            if not isinstance(node, _DirectoryNode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            if name not in node.names:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            node = node.names[name]
        return node

    def _directory(self, path: str) -> _DirectoryNode:
        node = self._node(path)
        if not isinstance(node, _DirectoryNode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return node

    def _parent(self, path: str, *, make: bool = False) -> tuple[_DirectoryNode, str]:
        *above, name = _names(path)
        directory = self._root
        for each in above:
            if make and each not in directory.names:
                directory.names[each] = directory.durable[each] = _DirectoryNode()
            child = directory.names.get(each)
            if child is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            if not isinstance(child, _DirectoryNode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            directory = child
        return directory, name


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in {"", "."}]
