"""Steps over ``ports.Disk`` that take more than one system call, and the files kept open.

Promise: a write either is complete or raises; a small file is replaced whole or not at all.
"""

from __future__ import annotations

import errno
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from zmqmq.errors import DiskFull, LogOffline, Throttled, ZmqmqError
from zmqmq.marks import reached
from zmqmq.store.layout import ASIDE, parent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmqmq.ports import Buffer, Disk, File, Lock

_BUFFERS_MAX: Final = 512
"""Buffers of one ``pwritev``; the system's limit is 1,024."""

NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors after which the disk is well and only full."""
NO_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})
"""Errors of an open when the process, or the machine, has too many files open."""
PASSING: Final = NO_SPACE | NO_FILES
"""Errors that say nothing bad about the disk: the same call may succeed later. Never of a sync, see ``sync_path``."""
_RETRY_AFTER_MS: Final = 100


def disk_error(error: OSError, doing: str) -> ZmqmqError:
    """The error that a caller of the store sees for one of the system's."""
    reason = f"{doing}: {error.strerror or error}"
    if error.errno in NO_SPACE:
        reached("disk full")
        return DiskFull(reason, hint="free space, or shorten the retention of topics", outcome="not_written")
    if error.errno in NO_FILES:
        hint = "raise the broker's limit of open files (ulimit -n), or lower store.open_files_max"
        return Throttled(reason, retry_after_ms=_RETRY_AFTER_MS, hint=hint, outcome="not_written")
    return LogOffline(reason, hint="look at the disk and the system's log, then restart the broker", outcome="not_written")


def write_all(file: File, buffers: Sequence[Buffer], position: int) -> int:
    """Write everything, completing short writes. The position behind. Raises OSError."""
    for start in range(0, len(buffers), _BUFFERS_MAX):
        position = _write_some(file, buffers[start : start + _BUFFERS_MAX], position)
    return position


def _write_some(file: File, buffers: Sequence[Buffer], position: int) -> int:
    size = sum(map(len, buffers))
    written = file.pwritev(buffers, position)
    if written == size:
        return position + size
    rest = memoryview(b"".join(buffers))
    while written < size:
        count = file.pwritev((rest[written:],), position + written)
        if count <= 0:
            raise OSError(errno.EIO, "the disk takes no bytes and tells no error")
        written += count
    return position + size


def read_range(file: File, size: int, position: int) -> bytes:
    """``size`` bytes, fewer only at the end of the file. Raises OSError."""
    data = file.pread(size, position)
    if len(data) == size or not data:
        return data
    parts = [data]
    missing = size - len(data)
    while missing and (more := file.pread(missing, position + size - missing)):
        parts.append(more)
        missing -= len(more)
    return b"".join(parts)


def read_file(disk: Disk, path: str, bytes_max: int) -> bytes:
    """All of a small file. Raises OSError."""
    file = disk.open(path, write=False)
    try:
        return read_range(file, min(file.size(), bytes_max), 0)
    finally:
        file.close()


def replace_file(disk: Disk, path: str, content: bytes) -> None:
    """Write aside, sync, rename, sync the directory. Raises OSError; the old content is intact then."""
    aside = path + ASIDE
    file = disk.open(aside, create=True)
    try:
        file.truncate(0)
        write_all(file, (content,), 0)
        file.fdatasync()
    finally:
        file.close()
    disk.rename(aside, path)
    disk.sync_directory(parent(path))


def sync_path(disk: Disk, path: str) -> None:
    """Sync a file by its name. Raises OSError; what the sync itself raises is EIO, whatever the system called it: even
    after a mere lack of space nobody knows what is on disk, and a second sync would not tell."""
    file = disk.open(path)
    try:
        file.fdatasync()
    except OSError as error:
        raise _unsynced(path, error) from error
    finally:
        file.close()


def sync_names(disk: Disk, path: str) -> None:
    """Sync a directory. Raises OSError, as ``sync_path``."""
    try:
        disk.sync_directory(path)
    except OSError as error:
        if error.errno == errno.ENOENT or error.errno in NO_FILES:
            raise
        raise _unsynced(path, error) from error


def _unsynced(path: str, error: OSError) -> OSError:
    return OSError(errno.EIO, f"{path} could not be synced: {error.strerror or error}")


def check_held(lock: Lock, root: str) -> None:
    """Raises FileNotFoundError when the data directory was removed or replaced: what is there now belongs to another."""
    if not lock.is_held():
        raise FileNotFoundError(errno.ENOENT, "the data directory was removed or replaced", root)


class OpenFiles:
    """The files kept open, the least recently used closed first. Belongs to one thread.

    Those that were written stay open until they are synced: when a write-back fails, the kernel remembers it with
    the inode, and may forget both once nobody has the file open. So ``is_full`` says when to sync before writing on.
    """

    def __init__(self, disk: Disk, files_max: int) -> None:
        self._disk = disk
        self._files_max = files_max
        self._files: OrderedDict[str, File] = OrderedDict()
        self._pinned: dict[str, File] = {}

    def get(self, path: str, *, create: bool = False) -> File:
        """The open file. Raises OSError. Do not keep it: a later ``get`` may close it."""
        file = self._pinned.get(path)
        if file is not None:
            return file
        file = self._files.get(path)
        if file is not None:
            self._files.move_to_end(path)
            return file
        try:
            file = self._disk.open(path, create=create)
        except OSError as error:
            if error.errno not in NO_FILES or not self._files:
                raise
            self._forget_half()
            file = self._disk.open(path, create=create)
        self._files[path] = file
        self._close_oldest()
        return file

    def pin(self, path: str) -> None:
        """An open file was written."""
        if path not in self._pinned:
            self._pinned[path] = self._files.pop(path)

    def unpin(self, path: str) -> None:
        """It is synced, or nobody needs it any more."""
        file = self._pinned.pop(path, None)
        if file is not None:
            self._files[path] = file
            self._close_oldest()

    def is_pinned(self, path: str) -> bool:
        return path in self._pinned

    def pinned(self) -> list[str]:
        return list(self._pinned)

    @property
    def is_full(self) -> bool:
        """Too many wait for their sync to write more of them."""
        return len(self._pinned) >= self._files_max

    def _close_oldest(self) -> None:
        while len(self) > self._files_max and len(self._files) > 1:
            self._files.popitem(last=False)[1].close()

    def _forget_half(self) -> None:
        for path in list(self._files)[: (len(self._files) + 1) // 2]:
            self.forget(path)

    def forget(self, path: str) -> None:
        file = self._files.pop(path, None) or self._pinned.pop(path, None)
        if file is not None:
            file.close()

    def forget_below(self, directory: str) -> None:
        for path in [path for path in (*self._files, *self._pinned) if path.startswith(directory + "/")]:
            self.forget(path)

    def close(self) -> None:
        for path in (*self._files, *self._pinned):
            self.forget(path)

    def __contains__(self, path: str) -> bool:
        return path in self._files or path in self._pinned

    def __len__(self) -> int:
        return len(self._files) + len(self._pinned)
