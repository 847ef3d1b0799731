"""Checking a data directory without opening it: nothing is written, no lock is kept.

Every batch with both CRCs, offsets without a gap, each index against its segment, the journal, checkpoint and
identity. A directory that a broker holds may be checked too. Each part is judged by the checkpoint; what looks wrong
is judged anew by a fresh one, and counts as wrong only when two looks in a row find the same: a broker moves on, damage
stays. What is half done in its journal is work under way, and no finding.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Struct, field

from zmqmq.batch import BatchHeader, check_body, check_stamp, parse_header, stamp_seed
from zmqmq.errors import CorruptLog, DataDirLocked, InvalidConfig, InvalidRecord, UnsupportedVersion, ZmqmqError
from zmqmq.model import PartitionId
from zmqmq.store import formats, index, replay
from zmqmq.store.cuts import Cuts, decode_truncate, find_cuts
from zmqmq.store.files import disk_error, read_file, read_range
from zmqmq.store.formats import INDEX_ENTRY_BYTES, IndexEntry, index_seed
from zmqmq.store.identity import load_identity
from zmqmq.store.jobs import MANIFEST_BYTES_MAX
from zmqmq.store.layout import (
    CHECKPOINT,
    DELETED,
    IDENTITY,
    JOURNAL,
    LOCK,
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
    from collections.abc import Callable, Collection, Iterator, Sequence

    from zmqmq.ports import Disk, File, Lock

T = TypeVar("T")

SCAN_BYTES: Final = 1 << 20
_INDEX_BYTES_MAX: Final = 16 << 20
UNTIL_END: Final = -1
"""For the position where a truncated log's newest segment ends, which only its batches tell."""
JUDGEMENTS_MAX: Final = 8
"""Looks at a part that a broker changes, before it is left unjudged."""


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
    is_in_use: bool = False
    """A broker held the directory, at the beginning or at the end."""

    @property
    def is_ok(self) -> bool:
        return _is_fine(self.findings)


class SegmentBatch(NamedTuple):
    """A batch with its place in a file."""

    position: int
    header: BatchHeader
    data: bytes
    """The whole batch."""


def verify_directory(disk: Disk, root: str, *, on_progress: Callable[[PartitionCheck], None] | None = None) -> Verification:
    """Check everything. Never raises for what it finds; raises InvalidConfig when nothing of zmqmq is there, and LogOffline
    when the disk cannot be read at all."""
    check_is_data_directory(disk, root)
    checker = _Checker(disk, root)
    try:
        return checker.run(on_progress)
    except OSError as error:
        raise disk_error(error, f"reading {root}") from error


def check_is_data_directory(disk: Disk, root: str) -> None:
    """Raises InvalidConfig."""
    if not any(disk.exists(join(root, name)) for name in (IDENTITY, CHECKPOINT, JOURNAL)):
        raise InvalidConfig(
            f"{root}: no zmqmq data directory there",
            hint="give the directory that 'zmqmq serve --data DIR' named; without --data it is ./zmqmq-data where serve was started",
        )


def is_held(disk: Disk, root: str) -> bool:
    """Whether a process has the directory open. Its lock is only tried: an owner keeps it, and without one it is free again
    at once. Where it may not be tried, nobody is taken to hold it."""
    path = join(root, LOCK)
    try:
        if disk.exists(path):
            disk.lock(path).close()
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


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

    Raises InvalidConfig, DataDirLocked, CorruptLog (a segment is damaged: no index can help), LogOffline, DiskFull.
    """
    check_is_data_directory(disk, root)
    try:
        lock = _lock_for_repair(disk, root)
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


def _lock_for_repair(disk: Disk, root: str) -> Lock:
    try:
        return lock_directory(disk, root)
    except DataDirLocked as error:
        raise DataDirLocked(
            f"{root} is held by a running broker, so its indexes cannot be built anew",
            hint="stop the broker first, or leave it: a broker mends a bad index by itself when it reads there",
        ) from error


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
        for number in sorted((name for name in _names_in(disk, join(root, LOGS, topic)) if name.isdecimal()), key=int):
            directory = join(root, LOGS, topic, number)
            bases = [base for name in _names_in(disk, directory) if (base := segment_base(name)) is not None]
            found.extend((PartitionId(topic_id, int(number)), segment_path(directory, base)) for base in bases)
    return found


def _names_in(disk: Disk, directory: str) -> list[str]:
    """A broker may have removed the directory meanwhile."""
    try:
        return disk.listdir(directory)
    except FileNotFoundError:
        return []


def _read_manifest(disk: Disk, root: str) -> tuple[Manifest, list[PartitionEntry]]:
    path = join(root, CHECKPOINT)
    try:
        manifest, entries = decode_manifest(read_file(disk, path, MANIFEST_BYTES_MAX), path)
    except FileNotFoundError as error:
        raise CorruptLog(f"{path} is missing", file=path, position=0) from error
    return manifest, [entry for entry, _ in entries]


def _is_fine(findings: Sequence[Finding]) -> bool:
    return all(finding.severity == "note" for finding in findings)


def without_cuts(entry: PartitionEntry, cuts: Cuts | None, bases: Sequence[int]) -> PartitionEntry:
    """What is left of a checkpoint's partition: files may be shorter than it says, or hold other records behind that."""
    if cuts is None:
        return entry
    if cuts.reset_start is not None:
        start = cuts.reset_start
        return PartitionEntry(*entry.partition_id, start, start, start, 0, 0, 0, -1, -1, -1)
    if cuts.bound >= entry.log_end:
        return entry
    base = max([base for base in bases if base <= entry.base and base < cuts.bound], default=cuts.bound)
    position = UNTIL_END if base < cuts.bound and cuts.bound > entry.log_start else 0
    return msgspec.structs.replace(entry, log_end=cuts.bound, base=base, position=position)


class _Checker:
    def __init__(self, disk: Disk, root: str) -> None:
        self.disk = disk
        self.result = Verification(root)
        self.root = root
        self.first_sequence = 0
        self.entries: dict[PartitionId, PartitionEntry] = {}
        """What the checkpoint says, as of the last look."""
        self.cuts: dict[PartitionId, Cuts] = {}
        """What the journal took back of that, as of the last look."""
        self.journal_ends: dict[PartitionId, int] = {}

    def run(self, on_progress: Callable[[PartitionCheck], None] | None) -> Verification:
        was_held = is_held(self.disk, self.root)
        self._check_identity()
        try:
            self._look_at_checkpoint()
        except ZmqmqError as error:
            self._add_error(error, join(self.root, CHECKPOINT))
            return self.result
        self._judge(self._check_journal)
        known = [*self.entries, *(partition for partition in self.journal_ends if partition not in self.entries)]
        self._check_strangers(set(known))
        for partition in known:
            check = self._judge(partial(self._check_partition, partition, was_known=partition in self.entries))
            if check is not None:
                self.result.partitions.append(check)
                if on_progress is not None:
                    on_progress(check)
        self.result.is_in_use = was_held or is_held(self.disk, self.root)
        return self.result

    def _judge(self, check: Callable[[], T]) -> T:
        """Look until nothing is wrong, or two looks find the same, which is what damage does. Without a broker one is enough."""
        earlier = self.result.findings
        before: list[Finding] = []
        try:
            for _ in range(JUDGEMENTS_MAX):
                found = self.result.findings = []
                outcome = check()
                if _is_fine(found) or found == before or not is_held(self.disk, self.root):
                    break
                before = found
                self._look_at_checkpoint()
            else:
                first = before[0]
                what = "could not be judged, because the broker changes it; stop the broker and verify again"
                found = [Finding("note", first.file, first.position, what)]
        finally:
            self.result.findings = earlier
        earlier += found
        return outcome

    def _look_at_checkpoint(self) -> None:
        manifest, entries = _read_manifest(self.disk, self.root)
        deleted = {topic_of_directory(name) for name in self.disk.listdir(join(self.root, LOGS)) if name.endswith(DELETED)}
        self.first_sequence = manifest.first_sequence
        self.entries = {entry.partition_id: entry for entry in entries if entry.topic_id not in deleted}
        self.cuts = self._look_for_cuts()

    def _look_for_cuts(self) -> dict[PartitionId, Cuts]:
        """None in a journal that is damaged, which another check tells."""
        names = [journal_path(self.root, slot) for slot in (0, 1)]
        with ExitStack() as stack:
            files: list[File] = []
            try:
                for name in names:
                    files.append(self.disk.open(name, write=False))
                    stack.callback(files[-1].close)
                return find_cuts(files, replay.scan(files, names, self.first_sequence).entries)
            except (FileNotFoundError, CorruptLog, ValueError):
                return {}

    def _check_strangers(self, known: Collection[PartitionId]) -> None:
        for partition, path in segment_paths(self.disk, self.root):
            if partition not in known:
                self._add_unless_held(
                    path, "belongs to no partition of the checkpoint or the journal; an open removes it or starts it anew"
                )

    def _add(self, severity: Literal["error", "index", "note"], file: str, position: int, what: str) -> None:
        self.result.findings.append(Finding(severity, file, position, what))

    def _add_unless_held(self, file: str, what: str, position: int = 0) -> None:
        """Worth a note of a directory at rest; a broker that holds it is about to finish this."""
        if not is_held(self.disk, self.root):
            self._add("note", file, position, what)

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

    def _check_journal(self) -> None:
        self.journal_ends = {}
        names = [journal_path(self.root, slot) for slot in (0, 1)]
        files: list[File] = []
        try:
            for name in names:
                try:
                    files.append(self.disk.open(name, write=False))
                except FileNotFoundError:
                    self._add("error", name, 0, f"{name} is missing")
                    return
            found = replay.scan(files, names, self.first_sequence)
            if found.torn is not None:
                torn = found.torn
                self._add_unless_held(names[torn.slot], f"a torn tail of {torn.size} bytes, never acknowledged", torn.position)
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
                elif item.kind == formats.ITEM_TRUNCATE:
                    self.journal_ends[item.partition] = decode_truncate(item)[0]
                elif item.kind == formats.ITEM_RESET:
                    self.journal_ends[item.partition] = formats.decode_cut(item)[0]
                elif item.kind not in {formats.ITEM_LOG_START, formats.ITEM_SAVED}:
                    raise ValueError(f"item of kind {item.kind}")
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

    def _check_partition(self, partition: PartitionId, *, was_known: bool) -> PartitionCheck | None:
        """None: the topic was deleted meanwhile."""
        entry = self.entries.get(partition)
        if entry is None and was_known:
            return None
        if entry is None:
            entry = PartitionEntry(*partition, 0, 0, 0, 0, 0, 0, -1, -1, -1)
        directory = partition_directory(self.root, partition)
        names = _names_in(self.disk, directory)
        bases = [base for name in names if (base := segment_base(name)) is not None]
        entry = without_cuts(entry, self.cuts.get(partition), bases)
        journal_end = max(entry.log_end, self.journal_ends.get(partition, 0))
        check = PartitionCheck(partition, entry.log_start, entry.log_end, journal_end)
        if entry.error:
            self._add("error", directory, 0, f"out of service: {entry.error}")
        for name in names:
            if name.endswith(RESCUE):
                self._add("note", join(directory, name), 0, "holds batches that could not go into their damaged segment")
        for base in bases:
            if base > entry.base:
                path = segment_path(directory, base)
                self._add_unless_held(path, "is younger than the checkpoint; the next open writes it again from the journal")
        kept = [base for base in bases if base < entry.base]
        while kept and (kept[1] if len(kept) > 1 else entry.base) <= entry.log_start:
            self._add_unless_held(segment_path(directory, kept.pop(0)), "lies before the log start and waits for its removal")
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
                size = entry.position if is_active and entry.position != UNTIL_END else size
                self._check_segment(file, path, check, entry, base, size=size, end=end)
            finally:
                file.close()

    def _check_segment(
        self, file: File, path: str, check: PartitionCheck, entry: PartitionEntry, base: int, *, size: int, end: int
    ) -> None:
        expected: list[IndexEntry] = []
        indexed, reached = 0, base
        seed = stamp_seed(check.partition)
        check.segment_count += 1
        is_cut = base == entry.base and entry.position == UNTIL_END
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
                if reached == end and is_cut:
                    break
        except CorruptLog as error:
            self._add_error(error, path)
            return
        if reached != end:
            self._add("error", path, size, f"{path} ends with offset {reached}, the log goes on at {end}: records are missing")
        count = len(expected) if is_cut else entry.index_entries if base == entry.base else None
        self._check_index(index_path(path), index_seed(check.partition, base), expected, count)
        check.index_entries += len(expected)

    def _check_index(self, path: str, seed: int, expected: list[IndexEntry], count: int | None) -> None:
        try:
            file = self.disk.open(path, write=False)
        except FileNotFoundError:
            data = b""
        else:
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
