"""What the partitions of one store share: the disk, the open files, and what the next checkpoint has to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmqmq.store.files import OpenFiles, check_held, sync_path
from zmqmq.store.layout import index_path, parent, segment_base, segment_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zmqmq.ports import Disk, Lock


class Volume:
    """Belongs to the thread that appends. The dicts are ordered sets."""

    def __init__(self, disk: Disk, root: str, lock: Lock, *, files_max: int) -> None:
        self.disk = disk
        self.root = root
        self.lock = lock
        self.files = OpenFiles(disk, files_max)
        self.dirty: dict[str, None] = {}
        """Files written since the last checkpoint began."""
        self.dirty_directories: dict[str, None] = {}
        """Directories that got new names since then."""
        self.doomed: dict[str, None] = {}
        """Files and topic directories to remove once a checkpoint no longer speaks of them."""
        self.removing: dict[str, None] = {}
        """Those that the running checkpoint removes."""
        self.removed: dict[str, None] = {}
        """Files that were removed at once since the last checkpoint began: it may look for them in vain."""

    def made(self, path: str, *, up_to: str) -> None:
        """A name was made: it and the directories above it, up to ``up_to``, have to be synced."""
        directory = parent(path)
        while directory not in self.dirty_directories:
            self.dirty_directories[directory] = None
            if directory == up_to:
                break
            directory = parent(directory)

    def check_held(self) -> None:
        """Raises FileNotFoundError: nothing may be written by its name any more."""
        check_held(self.lock, self.root)

    def wrote(self, path: str) -> None:
        """A file that is open was written: the next checkpoint syncs it."""
        self.dirty[path] = None
        self.files.pin(path)

    def sealed(self, path: str) -> None:
        """A segment's length is final, and what gave it that length may be unsynced although nothing was written since:
        a process that was killed. The next checkpoint syncs it."""
        self.dirty[path] = None

    def synced(self, paths: Iterable[str]) -> None:
        """A checkpoint synced the files; those that were written since wait for the next."""
        for path in paths:
            if path not in self.dirty:
                self.files.unpin(path)

    def sync_pinned(self) -> None:
        """Make room for more dirty files, in a thread that may wait. Raises OSError."""
        for path in self.files.pinned():
            sync_path(self.disk, path)
            self.files.unpin(path)

    def forget_written(self, path: str) -> None:
        """A segment is taken back: nothing of it has to be synced."""
        for each in (path, index_path(path)):
            self.dirty.pop(each, None)
            self.files.unpin(each)

    def doom_segment(self, path: str) -> None:
        self.forget_written(path)
        for each in (path, index_path(path)):
            self.files.forget(each)
            self.doomed[each] = None

    def remove_segment(self, path: str) -> None:
        """Remove at once what nothing needs any more, the index first: alone nobody would see that it is left over.
        Raises OSError."""
        self.forget_written(path)
        for each in (index_path(path), path):
            self.files.forget(each)
            self.doomed.pop(each, None)
            self.removed[each] = None
            if self.disk.exists(each):
                self.disk.unlink(each)

    def removes_from(self, directory: str, base: int) -> bool:
        """Whether the running checkpoint removes a segment of the directory that begins at ``base`` or later."""
        return any(
            parent(path) == directory and (found := segment_base(path.rpartition("/")[2])) is not None and found >= base
            for path in self.removing
        )

    def keep_from(self, directory: str, base: int) -> None:
        """A log begins anew at ``base``: its files from there on are its own again, whatever lies in them."""
        for path in list(self.doomed):
            if parent(path) == directory and path >= index_path(segment_path(directory, base)):
                del self.doomed[path]

    def forget_directory(self, directory: str) -> None:
        """The directory is gone: nothing in it can or need be synced."""
        self.files.forget_below(directory)
        prefix = directory + "/"
        for names in (self.dirty, self.dirty_directories, self.doomed):
            for path in [path for path in names if path == directory or path.startswith(prefix)]:
                del names[path]
