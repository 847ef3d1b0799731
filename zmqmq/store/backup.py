"""Copying a data directory while a broker writes to it, or when none does, purely by reading its files.

Promises: the copy opens to everything that was acknowledged before the backup began and to a prefix, in journal order,
of what came after; it is verified and on disk before the call returns; a copy that is not whole is removed, and one
that was cut short by a power cut has no identity and does not open.

What changes underneath, and why that does no harm:

- The *checkpoint* is replaced whole. As long as it is the one that was read, no entry of the journal that it needs is
  overwritten. So checkpoint, journal and checkpoint again are read, until the two readings are the same.
- The *journal* grows. Its whole entries are taken up to the first one that is being written; the rest came later.
- A *segment* is only ever appended to. Just the part that the checkpoint speaks of is taken.
- A log is *truncated* or reset: its segments are cut and written again. The journal says so before that happens, so after
  the copying the truncations are counted once more; a partition with a new one is copied anew in another round.
- Segments and topics are *removed*. What the checkpoint names and is not there makes the copy begin again with a newer
  checkpoint; what was copied already is kept, so each round is shorter. A deleted topic gets its mark in the copy: its
  deletion is in the journal that is read after the mark was seen.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from zmqmq.errors import CorruptLog, DiskFull, InvalidConfig, Throttled
from zmqmq.store import replay
from zmqmq.store.cuts import Cuts, find_cuts
from zmqmq.store.files import disk_error, read_file, replace_file, sync_names, sync_path, write_all
from zmqmq.store.formats import INDEX_ENTRY_BYTES
from zmqmq.store.identity import IDENTITY_BYTES_MAX
from zmqmq.store.jobs import MANIFEST_BYTES_MAX, remove_tree
from zmqmq.store.layout import (
    CHECKPOINT,
    DELETED,
    IDENTITY,
    JOURNAL,
    LOGS,
    RESCUE,
    index_path,
    join,
    journal_path,
    parent,
    partition_directory,
    segment_base,
    segment_path,
    topic_of_directory,
)
from zmqmq.store.manifest import Manifest, PartitionEntry, decode_manifest
from zmqmq.store.verify import UNTIL_END, Verification, check_is_data_directory, verify_directory, without_cuts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from zmqmq.model import PartitionId
    from zmqmq.ports import Disk, File

    OnProgress = Callable[[int, int], None]

ROUNDS_MAX: Final = 20
"""Times that the copy begins again because something was removed meanwhile."""
SNAPSHOTS_MAX: Final = 100
"""Times that checkpoint and journal are read in a round until no checkpoint came between."""
CHUNK_BYTES: Final = 4 << 20
_RETRY_AFTER_MS: Final = 60_000


class BackupReport(Struct, frozen=True):
    """``verification`` is that of the copy; ``rounds`` and ``snapshots`` say how often something changed underneath."""

    partitions: int
    bytes: int
    rounds: int
    snapshots: int
    verification: Verification


def backup_directory(disk: Disk, source: str, target: str, *, on_progress: OnProgress | None = None) -> BackupReport:
    """Copy ``source`` into ``target``, which must be empty or not there. ``on_progress(bytes_done, bytes_in_all)``.

    Raises InvalidConfig, CorruptLog (the source is damaged: no backup of it would be one), DiskFull, LogOffline, Throttled
    (the directory changes faster than it can be read).
    """
    source, target = source.rstrip("/"), target.rstrip("/")
    try:
        check_is_data_directory(disk, source)
        _check_target(disk, source, target)
        making = _Backup(disk, source, target, on_progress)
        try:
            return making.run()
        except BaseException:
            making.remove()
            raise
    except OSError as error:
        raise disk_error(error, f"copying {source} to {target}") from error


def _check_target(disk: Disk, source: str, target: str) -> None:
    if f"{target}/".startswith(f"{source}/") or f"{source}/".startswith(f"{target}/"):
        raise InvalidConfig(f"{target}: the copy of {source} cannot lie in it, nor around it", hint="name a directory elsewhere")
    try:
        names = disk.listdir(target)
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise InvalidConfig(f"{target} is not a directory", hint="name an empty directory, or one that does not exist") from error
    if names:
        raise InvalidConfig(f"{target} is not empty", hint="name an empty directory, or one that does not exist")


class _Moved(Exception):
    """What the checkpoint named is not there (any more): ``path``, below the data directory."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class _Snapshot(Struct, frozen=True):
    """A checkpoint with the journal that belongs to it, which is in the target already."""

    checkpoint: bytes
    entries: list[PartitionEntry]
    cuts: dict[PartitionId, Cuts]
    """Those in the journal."""

    def cut_counts(self) -> dict[PartitionId, int]:
        """Of each partition, the truncations and resets ever made."""
        return {
            entry.partition_id: entry.cut_count + (cuts.count if (cuts := self.cuts.get(entry.partition_id)) is not None else 0)
            for entry in self.entries
        }


class _Part(Struct, frozen=True):
    """A file, or the beginning of one, to be copied."""

    path: str
    """Below the data directory."""
    size: int


class _Backup:
    """One call of ``backup_directory``."""

    def __init__(self, disk: Disk, source: str, target: str, on_progress: OnProgress | None) -> None:
        self._disk = disk
        self._source = source
        self._target = target
        self._on_progress = on_progress
        self._copied: dict[str, int] = {}
        """Bytes of each file that are in the target; they do not change any more."""
        self._snapshots = 0

    def run(self) -> BackupReport:
        self._make_directories()
        moved: tuple[str, bytes] | None = None
        for rounds in range(1, ROUNDS_MAX + 1):
            deleted = self._deleted_topics()
            snapshot = self._snapshot()
            try:
                parts = self._parts(snapshot, deleted)
                self._copy(parts)
            except _Moved as missing:
                if moved == (missing.path, snapshot.checkpoint):
                    raise self._missing(missing.path) from None  # nobody removed it just now
                moved = missing.path, snapshot.checkpoint
                self._forget_cut(snapshot)
                continue
            if self._forget_cut(snapshot):
                continue
            self._remove_all_but(parts)
            self._mark_deleted(deleted)
            return self._finish(snapshot, rounds)
        raise self._too_busy("files were removed in every round")

    def _forget_cut(self, copied: _Snapshot) -> bool:
        """Whether a partition was cut since its snapshot; what was copied of it does not count then."""
        before = copied.cut_counts()
        after = self._snapshot(is_copied=False).cut_counts()
        changed = [partition for partition, count in before.items() if after.get(partition, count) != count]
        for partition in changed:
            directory = partition_directory("", partition)[1:]
            for path in [path for path in self._copied if parent(path) == directory]:
                self._disk.unlink(join(self._target, path))
                del self._copied[path]
        return bool(changed)

    def remove(self) -> None:
        """Leave the target empty, as far as the disk lets."""
        with suppress(OSError):
            for name in (IDENTITY, CHECKPOINT, JOURNAL, LOGS):
                remove_tree(self._disk, join(self._target, name))

    def _snapshot(self, *, is_copied: bool = True) -> _Snapshot:
        for _ in range(SNAPSHOTS_MAX):
            self._snapshots += is_copied
            before = self._read_checkpoint()
            manifest, entries = decode_manifest(before, join(self._source, CHECKPOINT))
            found = self._read_journal(manifest, is_copied=is_copied)
            if self._read_checkpoint() == before:
                if isinstance(found, CorruptLog):
                    raise found
                return _Snapshot(before, [entry for entry, _ in entries], found)
        raise self._too_busy("there was a checkpoint in the middle of every reading of the journal")

    def _read_checkpoint(self) -> bytes:
        path = join(self._source, CHECKPOINT)
        try:
            return read_file(self._disk, path, MANIFEST_BYTES_MAX)
        except FileNotFoundError:
            raise self._missing(CHECKPOINT) from None

    def _missing(self, path: str) -> CorruptLog:
        found = join(self._source, path)
        return CorruptLog(f"{found} is missing", file=found, position=0, hint=f"look at the whole:  zmqmq log verify {self._source}")

    def _read_journal(self, manifest: Manifest, *, is_copied: bool) -> dict[PartitionId, Cuts] | CorruptLog:
        """Copy it, if wanted, and tell what it truncates.

        Damage may be nothing but a journal that was begun anew while it was read: then the checkpoint has changed.
        """
        names = [journal_path(self._source, slot) for slot in (0, 1)]
        with ExitStack() as stack:
            files: list[File] = []
            for slot in (0, 1):
                try:
                    files.append(self._open(journal_path("", slot)[1:]))
                except _Moved as missing:
                    return self._missing(missing.path)
                stack.callback(files[-1].close)
            try:
                ends = replay.whole_ends(files, names, manifest.first_sequence)
            except CorruptLog as damage:
                return damage
            if is_copied:
                for slot, (file, end) in enumerate(zip(files, ends, strict=True)):
                    self._copy_file(file, journal_path(self._target, slot), 0, end)
                    files[slot] = self._disk.open(journal_path(self._target, slot), write=False)
                    stack.callback(files[slot].close)
            try:
                return find_cuts(files, replay.scan(files, names, manifest.first_sequence).entries)
            except CorruptLog as damage:
                return damage
            except ValueError as error:
                return CorruptLog(f"{names[0]} does not decode: {error}", file=names[0], position=0)

    def _deleted_topics(self) -> frozenset[bytes]:
        """Those whose deletion is in the journal that is read after this."""
        names = self._disk.listdir(join(self._source, LOGS))
        return frozenset(topic_id for name in names if name.endswith(DELETED) and (topic_id := topic_of_directory(name)) is not None)

    def _parts(self, snapshot: _Snapshot, deleted: frozenset[bytes]) -> list[_Part]:
        return [part for entry in snapshot.entries if entry.topic_id not in deleted for part in self._parts_of(entry, snapshot.cuts)]

    def _parts_of(self, entry: PartitionEntry, cuts: Mapping[PartitionId, Cuts]) -> Iterator[_Part]:
        directory = partition_directory("", entry.partition_id)[1:]
        try:
            names = self._disk.listdir(join(self._source, directory))
        except FileNotFoundError:
            names = []
        bases = [base for name in names if (base := segment_base(name)) is not None]
        entry = without_cuts(entry, cuts.get(entry.partition_id), bases)
        if not names:
            if (entry.position or entry.sealed_bytes) and not entry.error:
                raise _Moved(directory) from None
            return
        bases = [base for base in bases if base < entry.base]
        ends = [*bases, entry.base][1:]
        if min([*bases, entry.base]) > entry.log_start and not entry.error:
            raise _Moved(segment_path(directory, entry.log_start))
        for base, end in zip(bases, ends, strict=True):
            if end > entry.log_start:
                path = segment_path(directory, base)
                yield from self._whole(path)
                yield from self._whole(index_path(path), is_needed=False)
        if entry.position == UNTIL_END:
            path = segment_path(directory, entry.base)
            yield from self._whole(path)
            yield from self._whole(index_path(path), is_needed=False)
        elif entry.position:
            path = segment_path(directory, entry.base)
            if entry.error:  # what there is of it
                yield from self._whole(path, is_needed=False, size_max=entry.position)
            else:
                yield _Part(path, entry.position)
            yield from self._whole(index_path(path), is_needed=False, size_max=entry.index_entries * INDEX_ENTRY_BYTES)
        for name in names:
            if name.endswith(RESCUE):
                yield from self._whole(join(directory, name))

    def _whole(self, path: str, *, is_needed: bool = True, size_max: int | None = None) -> Iterator[_Part]:
        try:
            size = self._size(path)
        except _Moved:
            if is_needed:
                raise
            return
        yield _Part(path, size if size_max is None else min(size, size_max))

    def _size(self, path: str) -> int:
        file = self._open(path)
        try:
            return file.size()
        finally:
            file.close()

    def _open(self, path: str) -> File:
        try:
            return self._disk.open(join(self._source, path), write=False)
        except FileNotFoundError:
            raise _Moved(path) from None

    def _copy(self, parts: list[_Part]) -> None:
        missing = {part.path: part.size - self._copied.get(part.path, 0) for part in parts}
        total, done = sum(missing.values()), 0
        self._check_room(total)
        for part in parts:
            if missing[part.path] or part.path not in self._copied:
                file = self._open(part.path)
                try:
                    self._disk.mkdir(join(self._target, parent(part.path)))
                    self._copy_file(file, join(self._target, part.path), self._copied.get(part.path, 0), part.size)
                finally:
                    file.close()
                self._copied[part.path] = part.size
                done += missing[part.path]
            if self._on_progress is not None:
                self._on_progress(done, total)

    def _copy_file(self, file: File, path: str, start: int, end: int) -> None:
        """What the target has behind ``end`` is cut. A source that is shorter is found by the verification."""
        target = self._disk.open(path, create=True)
        try:
            target.truncate(start)
            while start < end and (data := file.pread(min(CHUNK_BYTES, end - start), start)):
                start = write_all(target, (data,), start)
        finally:
            target.close()

    def _check_room(self, size: int) -> None:
        free = self._disk.free_bytes(self._target)
        if free < size:
            raise DiskFull(f"{self._target}: {size} bytes are to be copied, {free} are free there", hint="choose a larger disk")

    def _make_directories(self) -> None:
        above, names = self._target, []
        while not self._disk.exists(above):
            names.append(above)
            above = parent(above)
        for name in ("", JOURNAL, LOGS):
            self._disk.mkdir(join(self._target, name) if name else self._target)
        for name in names:
            self._disk.sync_directory(parent(name))

    def _remove_all_but(self, parts: list[_Part]) -> None:
        """An earlier round may have copied what is gone since."""
        wanted = {part.path for part in parts}
        for path in [path for path in self._copied if path not in wanted]:
            self._disk.unlink(join(self._target, path))
            del self._copied[path]
        directories = {parent(parent(path)) for path in wanted}
        for name in self._disk.listdir(join(self._target, LOGS)):
            if join(LOGS, name) not in directories:
                remove_tree(self._disk, join(self._target, LOGS, name))

    def _mark_deleted(self, deleted: frozenset[bytes]) -> None:
        for topic_id in sorted(deleted):
            self._disk.mkdir(join(self._target, LOGS, topic_id.hex() + DELETED))

    def _finish(self, snapshot: _Snapshot, rounds: int) -> BackupReport:
        """Sync everything, then make it a data directory, then see whether it is a good one."""
        disk, target = self._disk, self._target
        for path in self._copied:
            sync_path(disk, join(target, path))
        for slot in (0, 1):
            sync_path(disk, journal_path(target, slot))
        for directory in self._target_directories():
            sync_names(disk, directory)
        replace_file(disk, join(target, CHECKPOINT), snapshot.checkpoint)
        identity = read_file(disk, join(self._source, IDENTITY), IDENTITY_BYTES_MAX)
        replace_file(disk, join(target, IDENTITY), identity)
        verification = verify_directory(disk, target)
        known = {partition_directory(target, entry.partition_id) for entry in snapshot.entries if entry.error}
        for finding in verification.findings:
            if finding.severity == "error" and not any(f"{finding.file}/".startswith(f"{path}/") for path in known):
                raise CorruptLog(
                    f"the copy does not verify: {finding.what}",
                    file=finding.file,
                    position=finding.position,
                    hint=f"look for the damage in the source:  zmqmq log verify {self._source}",
                )
        return BackupReport(len(snapshot.entries), sum(self._copied.values()), rounds, self._snapshots, verification)

    def _target_directories(self) -> Iterator[str]:
        logs = join(self._target, LOGS)
        yield join(self._target, JOURNAL)
        for topic in self._disk.listdir(logs):
            for number in self._disk.listdir(join(logs, topic)):
                yield join(logs, topic, number)
            yield join(logs, topic)
        yield logs
        yield self._target

    def _too_busy(self, why: str) -> Throttled:
        return Throttled(
            f"{self._source} changes faster than it can be copied: {why}",
            retry_after_ms=_RETRY_AFTER_MS,
            hint="try again when its broker has less to do, or stop the broker",
        )
