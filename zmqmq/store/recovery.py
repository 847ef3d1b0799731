"""Opening a data directory, which always is recovering it: there is no clean path.

Lock, identity, checkpoint, journal. Partitions that the journal names are cut to the checkpoint's end and
written again from the journal; no other partition is touched, so the cost is that of the journal. What was
written again is synced, and a checkpoint says so, before anything counts. Doing it twice does no harm: until
the new checkpoint is in place the old one and the journal are untouched.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from zmqmq.batch import StampedBatch, check_stamp, parse_header
from zmqmq.errors import CorruptLog, DataDirLocked, InvalidRecord, UnsupportedVersion, ZmqmqError
from zmqmq.marks import reached
from zmqmq.model import PartitionId
from zmqmq.store import formats, replay, truncation
from zmqmq.store.cuts import NOTHING, UNBOUNDED, Cuts, decode_truncate, find_cuts
from zmqmq.store.files import check_held, read_file, read_range, replace_file, write_all
from zmqmq.store.identity import Identity, load_identity, new_identity, save_identity
from zmqmq.store.jobs import MANIFEST_BYTES_MAX, CheckpointJob, remove_tree
from zmqmq.store.layout import (
    CHECKPOINT,
    DELETED,
    IDENTITY,
    JOURNAL,
    LOCK,
    LOGS,
    RESCUE,
    join,
    journal_path,
    parent,
    segment_path,
    topic_directory,
    topic_of_directory,
)
from zmqmq.store.manifest import PartitionEntry, decode_manifest
from zmqmq.store.partition_log import PartitionLog
from zmqmq.store.segment import corrupt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmqmq.ports import Disk, File, Lock, Random
    from zmqmq.store.volume import Volume

REPLAY_BYTES: Final = 4 << 20
"""Gathered from the journal before they are written to their segments."""
TORN_COPY_BYTES_MAX: Final = 16 << 20
TORN_COPIES_MAX: Final = 4
_FIRST_SEQUENCE: Final = 1


class RecoveryReport(Struct, frozen=True):
    """What an open found and did. ``torn`` is the copy of a torn journal tail, or empty."""

    replayed_batches: int = 0
    replayed_bytes: int = 0
    torn: str = ""
    out_of_service: tuple[tuple[PartitionId, str], ...] = ()
    was_clean: bool = False
    elapsed_ms: int = 0


class Recovered(Struct, frozen=True):
    """What the store goes on with."""

    identity: Identity
    logs: dict[PartitionId, PartitionLog]
    journal_files: tuple[File, File]
    next_sequence: int
    report: RecoveryReport


def lock_directory(disk: Disk, root: str) -> Lock:
    """Raises DataDirLocked and OSError."""
    disk.mkdir(root)
    if not disk.exists(join(root, IDENTITY)):  # else its name was synced before the identity was written
        with suppress(PermissionError):  # who may not read the directory above did not make this one in it
            disk.sync_directory(parent(root))
    try:
        lock = disk.lock(join(root, LOCK))
    except BlockingIOError as error:
        raise DataDirLocked(
            f"{root} is open in another process", hint="stop the other broker, or give this one a directory of its own"
        ) from error
    try:
        check_held(lock, root)  # else it was removed just before
    except OSError:
        lock.close()
        raise
    return lock


def recover(volume: Volume, random: Random, *, node_id: int, allocate_bytes: int) -> Recovered:
    """Bring the directory into a state where everything in it counts. Raises ZmqmqError and OSError."""
    disk, root = volume.disk, volume.root
    identity = load_identity(disk, root)
    if identity is None:
        identity = _initialise(volume, random, node_id, allocate_bytes)
    path = join(root, CHECKPOINT)
    if not disk.exists(path):
        raise CorruptLog(f"{path} is missing", file=path, position=0, hint="restore the whole directory from a backup, or use an empty one")
    manifest, entries = decode_manifest(read_file(disk, path, MANIFEST_BYTES_MAX), path)
    files = _open_journal(disk, root)
    try:
        return _Recovery(volume, identity, entries, files).run(manifest.first_sequence, was_clean=manifest.is_clean)
    except (OSError, ZmqmqError):
        for file in files:
            file.close()
        raise


def _initialise(volume: Volume, random: Random, node_id: int, allocate_bytes: int) -> Identity:
    """Make an empty directory a data directory. The identity comes last: a crash before it starts anew."""
    disk, root = volume.disk, volume.root
    logs = join(root, LOGS)
    if disk.exists(logs) and disk.listdir(logs):
        path = join(root, IDENTITY)
        raise CorruptLog(f"{path} is missing beside existing logs", file=path, position=0, hint="restore the file from a backup")
    disk.mkdir(logs)
    disk.mkdir(join(root, JOURNAL))
    for slot in (0, 1):
        file = disk.open(journal_path(root, slot), create=True)
        try:
            file.truncate(0)
            if slot == 0:
                file.allocate(0, allocate_bytes)
            file.fdatasync()
        finally:
            file.close()
    disk.sync_directory(join(root, JOURNAL))
    _checkpoint(volume, next_sequence=_FIRST_SEQUENCE).run()
    identity = new_identity(random, node_id)
    save_identity(disk, root, identity)
    return identity


def _open_journal(disk: Disk, root: str) -> tuple[File, File]:
    opened: list[File] = []
    for slot in (0, 1):
        path = journal_path(root, slot)
        try:
            opened.append(disk.open(path))
        except FileNotFoundError as error:
            raise CorruptLog(
                f"{path} is missing", file=path, position=0, hint="acknowledged records may be in it: restore the directory from a backup"
            ) from error
    return opened[0], opened[1]


def _checkpoint(volume: Volume, *, next_sequence: int) -> CheckpointJob:
    return CheckpointJob(
        volume.disk, volume.root, volume.lock,
        first_sequence=next_sequence, partitions=(), files={}, directories={}, doomed={}, removed={}, is_clean=False,
    )  # fmt: skip


class _Recovery:
    """One open, from the checkpoint on."""

    def __init__(self, volume: Volume, identity: Identity, entries: list[tuple[PartitionEntry, bytes]], files: tuple[File, File]) -> None:
        self.volume = volume
        self.identity = identity
        self.files = files
        self.deleted = self._deleted_topics()
        self.logs = {
            entry.partition_id: PartitionLog.from_entry(volume, entry, encoded)
            for entry, encoded in entries
            if entry.topic_id not in self.deleted
        }
        self.pending: dict[PartitionId, list[StampedBatch]] = {}
        self.pending_bytes = 0
        self.ends: dict[PartitionId, int] = {}
        self.cuts: dict[PartitionId, Cuts] = {}
        self.batches = 0
        self.bytes = 0

    def run(self, first_sequence: int, *, was_clean: bool) -> Recovered:
        volume, root = self.volume, self.volume.root
        names = [journal_path(root, slot) for slot in (0, 1)]
        found = replay.scan(self.files, names, first_sequence)
        torn = self._keep_torn(found.torn) if found.torn is not None else ""
        broken = [log for log in self.logs.values() if log.error]
        self._cut(found.entries, names)
        for log in broken:
            if log.id not in self.cuts:
                self._try_again(log)
        for entry in found.entries:
            self._replay_entry(entry, names[entry.slot])
        self._write_pending()
        job = CheckpointJob(
            volume.disk,
            root,
            volume.lock,
            first_sequence=found.next_sequence,
            partitions=[log.encoded or log.entry() for log in self.logs.values()],
            files=volume.dirty,
            directories=volume.dirty_directories,
            doomed=volume.doomed,
            removed=volume.removed,
            is_clean=False,
        )
        volume.dirty, volume.dirty_directories, volume.doomed, volume.removed = {}, {}, {}, {}
        job.run()
        volume.synced(job.files)
        for log in self.logs.values():
            log.synced_end = log.log_end
        bad = tuple((log.id, log.error) for log in self.logs.values() if log.error)
        report = RecoveryReport(self.batches, self.bytes, torn, bad, was_clean)
        return Recovered(self.identity, self.logs, self.files, found.next_sequence, report)

    def _deleted_topics(self) -> frozenset[bytes]:
        logs = join(self.volume.root, LOGS)
        deleted = []
        if not self.volume.disk.exists(logs):
            raise CorruptLog(f"{logs} is missing", file=logs, position=0, hint="restore the whole directory from a backup")
        for name in self.volume.disk.listdir(logs):
            topic_id = topic_of_directory(name)
            if topic_id is not None and name.endswith(DELETED):
                deleted.append(topic_id)
                self.volume.doomed[join(logs, name)] = None
        return frozenset(deleted)

    def _cut(self, entries: Sequence[replay.FoundEntry], names: Sequence[str]) -> None:
        """Before anything is replayed: take from the checkpoint's logs what later entries took."""
        try:
            self.cuts = find_cuts(self.files, entries)
        except ValueError as error:
            raise _undecodable(names[0], 0, error) from error
        for partition, cuts in self.cuts.items():
            if partition.topic_id in self.deleted:
                continue
            log = self._log_of(partition)
            cut_count = log.cut_count + cuts.count
            if cuts.reset_start is not None:
                self._cut_log(log, truncation.reset(cuts.reset_start))
            elif cuts.bound < log.log_end:
                self._truncate(log, cuts.bound)
            log.cut_count = cut_count
            log.encoded = None

    def _truncate(self, log: PartitionLog, end: int) -> None:
        """The checkpoint's part of a log that ends at ``end`` since. What is below it was never touched."""
        self.ends[log.id] = end
        try:
            log.check_in_service()
            plan = truncation.plan(log, end)
            if plan is None or plan.end != end:
                found = plan.end if plan is not None else log.log_end
                raise corrupt(log.directory, 0, f"it was truncated to {end}, and its batches end at {found}")
            self._cut_log(log, plan)
        except CorruptLog as error:
            log.fail(error)

    def _cut_log(self, log: PartitionLog, plan: truncation.Plan) -> None:
        if self.volume.files.is_full:
            self.volume.sync_pinned()
        truncation.apply(log, plan)
        truncation.cut_files(log, plan)

    def _log_of(self, partition: PartitionId) -> PartitionLog:
        log = self.logs.get(partition)
        if log is None:
            log = self.logs[partition] = PartitionLog(self.volume, partition)
        return log

    def _try_again(self, log: PartitionLog) -> None:
        """A partition was out of service; somebody may have restored its files since."""
        log.error, log.encoded = "", None
        try:
            log.prepare()
        except CorruptLog as error:
            log.fail(error)

    def _replay_entry(self, entry: replay.FoundEntry, name: str) -> None:
        data = replay.read_entry(self.files[entry.slot], entry)
        try:
            for item in formats.items_of(data, entry.header):
                self._replay_item(item, entry.header.sequence)
        except (ValueError, InvalidRecord, UnsupportedVersion) as error:
            raise _undecodable(name, entry.position, error) from error
        if self.pending_bytes >= REPLAY_BYTES:
            self._write_pending()

    def _replay_item(self, item: formats.Item, sequence: int) -> None:
        if item.partition.topic_id in self.deleted:
            reached("deleted topic skipped in replay")
            return
        log = self._log_of(item.partition)
        if item.kind == formats.ITEM_SAVED:
            log.saved, log.encoded = bytes(item.body), None
            return
        cuts = self.cuts.get(item.partition)
        bound = cuts.bound_of(sequence) if cuts is not None else UNBOUNDED
        if item.kind in formats.CUTS:
            if bound != NOTHING and item.kind == formats.ITEM_TRUNCATE:
                self._write_pending()
                truncation.learn(log, *decode_truncate(item))
        elif item.kind == formats.ITEM_APPEND:
            self._gather(log, item.body, bound)
        elif item.kind == formats.ITEM_LOG_START:
            if bound != NOTHING:
                self._write_pending()
                self._move_log_start(log, formats.decode_log_start(item.body))
        else:
            raise ValueError(f"item of kind {item.kind}")

    def _move_log_start(self, log: PartitionLog, log_start: int) -> None:
        try:
            log.check_in_service()
            log.move_log_start(min(log_start, log.log_end))
        except CorruptLog as error:
            log.fail(error)

    def _gather(self, log: PartitionLog, body: memoryview, bound: int) -> None:
        """The batches that still count: none that ends behind ``bound``."""
        position = 0
        batches = self.pending.setdefault(log.id, [])
        expected = self.ends.get(log.id, log.log_end)
        while position < len(body):
            header = parse_header(body, position)
            check_stamp(header, body, log.seed, position)
            if header.end_offset > bound:
                break
            if header.base_offset != expected:
                raise ValueError(f"{log.id} goes on at offset {header.base_offset}, its end is {expected}")
            batches.append(StampedBatch(header, (body[position : position + header.length],)))
            position += header.length
            expected = header.end_offset
            self.batches += 1
        self.ends[log.id] = expected
        self.bytes += position
        self.pending_bytes += position

    def _write_pending(self) -> None:
        if self.pending:
            reached("journal entries replayed")
        for partition, batches in self.pending.items():
            if self.volume.files.is_full:
                self.volume.sync_pinned()
            log = self.logs[partition]
            try:
                log.check_in_service()
                log.prepare()
            except CorruptLog as error:
                log.fail(error)
                self._rescue(log, batches)
                continue
            mark = log.mark()
            log.write(batches)
            log.commit(batches, mark)
        self.pending = {}
        self.pending_bytes = 0

    def _rescue(self, log: PartitionLog, batches: list[StampedBatch]) -> None:
        """The journal is recycled; what it alone holds of a damaged partition is kept beside it."""
        path = segment_path(log.directory, log.base) + RESCUE
        volume = self.volume
        volume.disk.mkdir(log.directory)
        volume.made(path, up_to=join(volume.root, LOGS))
        file = volume.files.get(path, create=True)
        position = file.size() if path in volume.dirty else 0
        write_all(file, [buffer for batch in batches for buffer in batch.buffers], position)
        volume.wrote(path)

    def _keep_torn(self, torn: replay.TornTail) -> str:
        """Keep a copy of the torn tail, the newest few of them. Its name."""
        reached("torn journal tail cut")
        disk = self.volume.disk
        directory = join(self.volume.root, JOURNAL)
        prefix = f"{torn.slot}.journal.torn-"
        numbers = sorted(
            (int(rest), name)
            for name in disk.listdir(directory)
            if ".journal.torn-" in name and (rest := name.rpartition("-")[2]).isdigit()
        )
        for _, name in numbers[: max(0, len(numbers) - TORN_COPIES_MAX + 1)]:
            disk.unlink(join(directory, name))
        path = join(directory, f"{prefix}{numbers[-1][0] + 1 if numbers else 1}")
        size = min(torn.size, TORN_COPY_BYTES_MAX)
        replace_file(disk, path, read_range(self.files[torn.slot], size, torn.position))
        return path


def _undecodable(name: str, position: int, error: Exception) -> CorruptLog:
    return CorruptLog(
        f"{name} holds an entry at {position} that does not decode: {error}",
        file=name,
        position=position,
        hint="was it written by a newer version? Else restore the directory from a backup",
    )


def remove_deleted(disk: Disk, root: str, topic_id: bytes) -> str | None:
    """Give a topic's directory its deleted name, durably. The new name, or None if there is none. Raises OSError."""
    path = topic_directory(root, topic_id)
    if not disk.exists(path):
        return None
    target = path + DELETED
    if disk.exists(target):
        remove_tree(disk, target)
    disk.rename(path, target)
    disk.sync_directory(join(root, LOGS))
    return target
