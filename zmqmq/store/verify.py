"""Checking a data directory without opening it: nothing is written, no lock is taken.

Every batch with both CRCs, offsets without a gap, each index against its segment, the journal, checkpoint and
identity. A directory in use may be checked too: what moves on meanwhile is judged by the checkpoint read first,
and what lies behind that is the journal's to vouch for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from msgspec import Struct, field

from zmqmq.batch import BatchHeader, check_body, check_stamp, parse_header, stamp_seed
from zmqmq.errors import CorruptLog, InvalidConfig, InvalidRecord, UnsupportedVersion, ZmqmqError
from zmqmq.model import PartitionId
from zmqmq.store import formats, index, replay
from zmqmq.store.files import disk_error, read_file, read_range
from zmqmq.store.formats import INDEX_ENTRY_BYTES, IndexEntry, index_seed
from zmqmq.store.identity import load_identity
from zmqmq.store.jobs import MANIFEST_BYTES_MAX
from zmqmq.store.layout import (
    CHECKPOINT,
    DELETED,
    IDENTITY,
    LOGS,
    RESCUE,
    index_path,
    join,
    journal_path,
    partition_directory,
    segment_base,
    segment_path,
    topic_of_directory,
)
from zmqmq.store.manifest import Manifest, PartitionEntry, decode_manifest
from zmqmq.store.recovery import lock_directory
from zmqmq.store.segment import walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zmqmq.ports import Disk, File

SCAN_BYTES: Final = 1 << 20
_INDEX_BYTES_MAX: Final = 16 << 20


class Finding(Struct, frozen=True):
    """``error``: data that should be there is not, or is not what was written. ``index``: the next lookup, or
    ``rebuild_indexes``, makes it good. ``note``: worth knowing, nothing is lost."""

    severity: Literal["error", "index", "note"]
    file: str
    position: int
    what: str


class PartitionCheck(Struct):
    """What was found of one partition, in its segments; ``journal_end`` is where the journal goes on to."""

    partition: PartitionId
    log_start: int = 0
    log_end: int = 0
    journal_end: int = 0
    segment_count: int = 0
    batch_count: int = 0
    record_count: int = 0
    bytes: int = 0
    uncompressed_bytes: int = 0
    index_entries: int = 0


class Verification(Struct):
    """The whole result. ``is_ok``: no error and no bad index."""

    root: str
    findings: list[Finding] = field(default_factory=list)
    partitions: list[PartitionCheck] = field(default_factory=list)
    journal_entries: int = 0

    @property
    def is_ok(self) -> bool:
        return all(finding.severity == "note" for finding in self.findings)


class SegmentBatch(NamedTuple):
    """A batch with its place in a file."""

    position: int
    header: BatchHeader
    data: bytes
    """The whole batch."""


def verify_directory(disk: Disk, root: str, *, on_progress: Callable[[PartitionCheck], None] | None = None) -> Verification:
    """Check everything. Never raises for what it finds; raises LogOffline when the disk cannot be read at all."""
    checker = _Checker(disk, root)
    try:
        return checker.run(on_progress)
    except OSError as error:
        raise disk_error(error, f"reading {root}") from error


def verify_segment(disk: Disk, path: str) -> list[Finding]:
    """Check one segment file alone, by the partition and offset that its path tells."""
    try:
        for _ in batches_of(disk, path):
            pass
    except CorruptLog as error:
        return [Finding("error", error.file, error.position, str(error))]
    return []


def batches_of(disk: Disk, path: str) -> Iterator[SegmentBatch]:
    """Every batch of a segment file, checked in full. Raises CorruptLog at the first that is not whole."""
    partition, base = partition_of_path(path)
    try:
        file = disk.open(path, write=False)
    except OSError as error:
        raise disk_error(error, f"opening {path}") from error
    try:
        places = walk(file, path, stamp_seed(partition), position=0, end=file.size(), offset=base, with_bodies=True, chunk_bytes=SCAN_BYTES)
        for place in places:
            yield SegmentBatch(place.position, parse_header(place.data, place.at), place.data[place.at : place.at + place.header.length])
    except OSError as error:
        raise disk_error(error, f"reading {path}") from error
    finally:
        file.close()


def partition_of_path(path: str) -> tuple[PartitionId, int]:
    """Partition and base offset by the last three parts of a segment's path. Raises InvalidConfig."""
    *_, topic, number, name = ("", "", "", *path.split("/"))
    topic_id, base = topic_of_directory(topic), segment_base(name)
    if topic_id is None or base is None or not number.isdecimal():
        raise InvalidConfig(f"{path} is not a segment's path", hint="it ends in <topic id>/<partition>/<20 digits>.log")
    return PartitionId(topic_id, int(number)), base


def rebuild_indexes(disk: Disk, root: str) -> int:
    """Make every index of a directory that no broker has open anew. Their number.

    Raises DataDirLocked, CorruptLog (a segment is damaged: no index can help), LogOffline, DiskFull.
    """

    try:
        lock = lock_directory(disk, root)
        try:
            entries = {entry.partition_id: entry for entry in _read_manifest(disk, root)[1]}
            paths = [(partition, path) for partition, path in segment_paths(disk, root) if partition in entries]
            for partition, path in paths:
                _rebuild(disk, entries[partition], path)
            return len(paths)
        finally:
            lock.close()
    except OSError as error:
        raise disk_error(error, f"rebuilding the indexes of {root}") from error


def _rebuild(disk: Disk, entry: PartitionEntry, path: str) -> None:
    base = partition_of_path(path)[1]
    file = disk.open(path)
    target = disk.open(index_path(path), create=True)
    try:
        size = entry.position if base == entry.base else file.size()
        found = index.make(file, path, stamp_seed=stamp_seed(entry.partition_id), base=base, size=size)
        index.write(target, index_seed(entry.partition_id, base), found)
        target.fdatasync()
    finally:
        file.close()
        target.close()


def segment_paths(disk: Disk, root: str) -> list[tuple[PartitionId, str]]:
    """Every segment file on disk, in order. Raises OSError."""
    found: list[tuple[PartitionId, str]] = []
    for topic in disk.listdir(join(root, LOGS)):
        topic_id = topic_of_directory(topic)
        if topic_id is None or topic.endswith(DELETED):
            continue
        for number in sorted((name for name in disk.listdir(join(root, LOGS, topic)) if name.isdecimal()), key=int):
            directory = join(root, LOGS, topic, number)
            bases = [base for name in disk.listdir(directory) if (base := segment_base(name)) is not None]
            found.extend((PartitionId(topic_id, int(number)), segment_path(directory, base)) for base in bases)
    return found


def _read_manifest(disk: Disk, root: str) -> tuple[Manifest, list[PartitionEntry]]:
    path = join(root, CHECKPOINT)
    try:
        manifest, entries = decode_manifest(read_file(disk, path, MANIFEST_BYTES_MAX), path)
    except FileNotFoundError as error:
        raise CorruptLog(f"{path} is missing", file=path, position=0) from error
    return manifest, [entry for entry, _ in entries]


class _Checker:
    def __init__(self, disk: Disk, root: str) -> None:
        self.disk = disk
        self.result = Verification(root)
        self.root = root
        self.journal_ends: dict[PartitionId, int] = {}

    def run(self, on_progress: Callable[[PartitionCheck], None] | None) -> Verification:
        self._check_identity()
        try:
            manifest, entries = _read_manifest(self.disk, self.root)
        except ZmqmqError as error:
            self._add_error(error, join(self.root, CHECKPOINT))
            return self.result
        self._check_journal(manifest.first_sequence)
        deleted = {topic_of_directory(name) for name in self.disk.listdir(join(self.root, LOGS)) if name.endswith(DELETED)}
        known = {entry.partition_id: entry for entry in entries if entry.topic_id not in deleted}
        for partition in self.journal_ends:
            known.setdefault(partition, PartitionEntry(*partition, 0, 0, 0, 0, 0, 0, -1, -1, -1))
        for partition, path in segment_paths(self.disk, self.root):
            if partition not in known:
                self._add("note", path, 0, "belongs to no partition of the checkpoint or the journal; an open removes it or starts it anew")
        for entry in known.values():
            check = self._check_partition(entry)
            self.result.partitions.append(check)
            if on_progress is not None:
                on_progress(check)
        return self.result

    def _add(self, severity: Literal["error", "index", "note"], file: str, position: int, what: str) -> None:
        self.result.findings.append(Finding(severity, file, position, what))

    def _add_error(self, error: ZmqmqError, file: str) -> None:
        at = error.position if isinstance(error, CorruptLog) else 0
        self._add("error", (error.file if isinstance(error, CorruptLog) else "") or file, at, str(error))

    def _check_identity(self) -> None:
        path = join(self.root, IDENTITY)
        try:
            if load_identity(self.disk, self.root) is None:
                self._add("error", path, 0, f"{path} is missing")
        except ZmqmqError as error:
            self._add_error(error, path)

    # The journal --------------------------------------------------------------------------------

    def _check_journal(self, first_sequence: int) -> None:
        names = [journal_path(self.root, slot) for slot in (0, 1)]
        files: list[File] = []
        try:
            for name in names:
                try:
                    files.append(self.disk.open(name, write=False))
                except FileNotFoundError:
                    self._add("error", name, 0, f"{name} is missing")
                    return
            found = replay.scan(files, names, first_sequence)
            if found.torn is not None:
                torn = found.torn
                self._add("note", names[torn.slot], torn.position, f"a torn tail of {torn.size} bytes, never acknowledged")
            for entry in found.entries:
                self._check_entry(files[entry.slot], entry, names[entry.slot])
            self.result.journal_entries = len(found.entries)
        except CorruptLog as error:
            self._add_error(error, names[0])
        finally:
            for file in files:
                file.close()

    def _check_entry(self, file: File, entry: replay.FoundEntry, name: str) -> None:
        try:
            for item in formats.items_of(replay.read_entry(file, entry), entry.header):
                if item.kind == formats.ITEM_APPEND:
                    self._check_item(item)
        except (ValueError, InvalidRecord, UnsupportedVersion) as error:
            self._add("error", name, entry.position, f"the entry there does not decode: {error}")

    def _check_item(self, item: formats.Item) -> None:
        position, seed = 0, stamp_seed(item.partition)
        while position < len(item.body):
            header = parse_header(item.body, position)
            check_stamp(header, item.body, seed, position)
            check_body(header, item.body, position)
            position += header.length
            self.journal_ends[item.partition] = header.end_offset

    # Partitions ---------------------------------------------------------------------------------

    def _check_partition(self, entry: PartitionEntry) -> PartitionCheck:
        partition = entry.partition_id
        check = PartitionCheck(partition, entry.log_start, entry.log_end, self.journal_ends.get(partition, entry.log_end))
        directory = partition_directory(self.root, partition)
        if entry.error:
            self._add("error", directory, 0, f"out of service: {entry.error}")
        names = self.disk.listdir(directory) if self.disk.exists(directory) else []
        bases = [base for name in names if (base := segment_base(name)) is not None]
        for name in names:
            if name.endswith(RESCUE):
                self._add("note", join(directory, name), 0, "holds batches that could not go into their damaged segment")
        for base in bases:
            if base > entry.base:
                path = segment_path(directory, base)
                self._add("note", path, 0, "is younger than the checkpoint; the next open writes it again from the journal")
        kept = [base for base in bases if base < entry.base]
        while kept and (kept[1] if len(kept) > 1 else entry.base) <= entry.log_start:
            self._add("note", segment_path(directory, kept.pop(0)), 0, "lies before the log start and waits for its removal")
        self._check_segments(entry, check, directory, [*kept, entry.base])
        return check

    def _check_segments(self, entry: PartitionEntry, check: PartitionCheck, directory: str, bases: list[int]) -> None:
        if bases[0] > entry.log_start:
            path = segment_path(directory, entry.log_start)
            self._add("error", path, 0, f"{directory} begins at offset {bases[0]}, its log at {entry.log_start}: a segment is missing")
        for number, base in enumerate(bases):
            is_active = base == entry.base
            if is_active and not entry.position:
                continue
            path = segment_path(directory, base)
            end = entry.log_end if is_active else bases[number + 1]
            try:
                file = self.disk.open(path, write=False)
            except FileNotFoundError:
                self._add("error", path, 0, f"{path} is missing")
                continue
            try:
                size = file.size()
                if is_active and size < entry.position:
                    self._add("error", path, size, f"{path} ends at {size}, {entry.position} bytes of it were synced")
                    continue
                self._check_segment(file, path, check, entry, base, size=entry.position if is_active else size, end=end)
            finally:
                file.close()

    def _check_segment(
        self, file: File, path: str, check: PartitionCheck, entry: PartitionEntry, base: int, *, size: int, end: int
    ) -> None:
        expected: list[IndexEntry] = []
        indexed, reached = 0, base
        seed = stamp_seed(check.partition)
        check.segment_count += 1
        try:
            for place in walk(file, path, seed, position=0, end=size, offset=base, with_bodies=True, chunk_bytes=SCAN_BYTES):
                header = parse_header(place.data, place.at)
                if index.is_due(place.position, indexed):
                    expected.append(IndexEntry(header.base_offset - base, place.position, header.append_time_ms))
                    indexed = place.position
                check.batch_count += 1
                check.record_count += header.record_count
                check.bytes += header.length
                check.uncompressed_bytes += header.uncompressed_bytes
                reached = header.end_offset
        except CorruptLog as error:
            self._add_error(error, path)
            return
        if reached != end:
            self._add("error", path, size, f"{path} ends with offset {reached}, the log goes on at {end}: records are missing")
        count = entry.index_entries if base == entry.base else None
        self._check_index(index_path(path), index_seed(check.partition, base), expected, count)
        check.index_entries += len(expected)

    def _check_index(self, path: str, seed: int, expected: list[IndexEntry], count: int | None) -> None:
        data = b""
        if self.disk.exists(path):
            file = self.disk.open(path, write=False)
            try:
                data = read_range(file, min(file.size(), _INDEX_BYTES_MAX), 0)
            finally:
                file.close()
        if count is not None:
            data = data[: count * INDEX_ENTRY_BYTES]
        if len(data) != len(expected) * INDEX_ENTRY_BYTES:
            self._add("index", path, len(data), f"{path} has {len(data) // INDEX_ENTRY_BYTES} entries instead of {len(expected)}")
            return
        for number, entry in enumerate(expected):
            at = number * INDEX_ENTRY_BYTES
            if formats.decode_index_entry(data[at : at + INDEX_ENTRY_BYTES], seed) != entry:
                self._add("index", path, at, f"{path} does not match its segment at entry {number}")
                return
