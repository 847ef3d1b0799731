"""The two jobs that block, made to run in another thread while the store's own thread goes on.

A job touches only what was handed to it: file handles of the journal, or paths that it opens itself.
``run`` raises OSError; the store learns of it through ``end_sync`` or ``end_checkpoint``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zmqmq.store.files import check_held, replace_file, sync_names, sync_path
from zmqmq.store.layout import CHECKPOINT, DELETED, LOGS, join
from zmqmq.store.manifest import PartitionEntry, encode_manifest, encode_partition

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zmqmq.model import PartitionId
    from zmqmq.ports import Disk, File, Lock

MANIFEST_BYTES_MAX: Final = 1 << 30


class SyncJob:
    """Make everything written so far durable: one sync of the journal, two while it changes files."""

    __slots__ = ("_files", "ends", "sequence")

    def __init__(self, files: Sequence[File], sequence: int, ends: dict[PartitionId, int]) -> None:
        self._files = files
        self.sequence = sequence
        self.ends = ends

    def run(self) -> None:
        for file in self._files:
            file.fdatasync()


class CheckpointJob:
    """Sync what was written, write the manifest, then remove what nothing speaks of any more.

    Files are opened by name for their sync: Linux reports a failed write-back to the first sync that
    follows, whatever descriptor it uses.
    """

    def __init__(
        self,
        disk: Disk,
        root: str,
        lock: Lock,
        *,
        first_sequence: int,
        partitions: Sequence[bytes | PartitionEntry],
        files: dict[str, None],
        directories: dict[str, None],
        doomed: dict[str, None],
        removed: dict[str, None],
        is_clean: bool,
    ) -> None:
        self._disk = disk
        self._root = root
        self._lock = lock
        self._first_sequence = first_sequence
        self._partitions = partitions
        self._is_clean = is_clean
        self.encoded: list[tuple[PartitionEntry, bytes]] = []
        """What ``run`` had to encode."""
        self.files = files
        self.directories = directories
        self.doomed = doomed
        self.removed = removed
        """Grows while the job runs: files that the store removed by itself, because a truncation made them superfluous."""

    def run(self) -> None:
        check_held(self._lock, self._root)
        for path in self.files:
            self._unless_deleted(path, lambda path: sync_path(self._disk, path))
        for path in self.directories:
            self._unless_deleted(path, lambda path: sync_names(self._disk, path))
        content = encode_manifest(self._first_sequence, list(map(self._encode, self._partitions)), is_clean=self._is_clean)
        check_held(self._lock, self._root)  # the syncs may have taken long
        replace_file(self._disk, join(self._root, CHECKPOINT), content)
        for path in self.doomed:
            self._unless_deleted(path, lambda path: remove_tree(self._disk, path))

    def _encode(self, partition: bytes | PartitionEntry) -> bytes:
        if isinstance(partition, bytes):
            return partition
        encoded = encode_partition(partition)
        self.encoded.append((partition, encoded))
        return encoded

    def _unless_deleted(self, path: str, action: Callable[[str], None]) -> None:
        """A topic may be deleted while the job runs; its files have another name then. Or a truncation removed the file."""
        try:
            action(path)
        except FileNotFoundError:
            if path in self.removed:
                return
            logs = join(self._root, LOGS)
            topic = path.removeprefix(logs + "/").partition("/")[0]
            if path == logs or not self._disk.exists(join(logs, topic + DELETED)):
                raise


def remove_tree(disk: Disk, path: str) -> None:
    """Remove a file, or a directory with all in it; nothing there is fine. Raises OSError."""
    try:
        names = disk.listdir(path)
    except NotADirectoryError:
        disk.unlink(path)
        return
    except FileNotFoundError:
        return
    for name in names:
        remove_tree(disk, join(path, name))
    disk.rmdir(path)
