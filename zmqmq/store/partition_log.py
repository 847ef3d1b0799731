"""One partition's log: its segments, where its end is, and what a checkpoint says of it.

Theory: a log that was not written since the store opened is *cold*: a few numbers, no open file. The first
change makes it *warm* (``prepare``): the active segment and its index are cut to the known end, and leftovers
of writes that never counted are removed. ``write`` moves the end tentatively; ``commit`` makes it count and
learns epochs and producers; ``restore`` takes it back and leaves the log cold, so that the next write cuts.

Invariant: ``log_start <= synced_end <= log_end``; sealed segments are contiguous, end at ``base`` (the active
segment's) and never change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from zmqmq.batch import BatchHeader, stamp_seed
from zmqmq.errors import CorruptLog, ZmqmqError
from zmqmq.facts import EpochStart, LogState
from zmqmq.marks import reached
from zmqmq.producer_state import ProducerStates
from zmqmq.store import index
from zmqmq.store.files import write_all
from zmqmq.store.formats import INDEX_ENTRY_BYTES, RELATIVE_OFFSET_MAX, IndexEntry, encode_index_entry, index_seed
from zmqmq.store.layout import LOG_SUFFIX, LOGS, index_path, join, partition_directory, segment_base, segment_path
from zmqmq.store.manifest import DEFAULT_CONFIG, PartitionEntry
from zmqmq.store.segment import corrupt, walk
from zmqmq.store.undo import ProducerUndo
from zmqmq.topic_config import TopicConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmqmq.batch import StampedBatch
    from zmqmq.model import PartitionId
    from zmqmq.ports import Buffer, File
    from zmqmq.store.volume import Volume

UNKNOWN: Final = -1
CURSORS_MAX: Final = 8
"""Readers of one log whose place is remembered."""


class Sealed(Struct, gc=False):
    """A segment that will not change. ``size`` and ``newest_ms`` are UNKNOWN until they are needed."""

    base: int
    size: int = UNKNOWN
    newest_ms: int = UNKNOWN


class Mark(Struct, frozen=True, gc=False):
    """Everything that ``write`` changes."""

    log_end: int
    base: int
    position: int
    index_entries: int
    indexed_position: int
    first_append_ms: int
    last_append_ms: int
    sealed_bytes: int
    sealed_count: int


class PartitionLog:
    """A partition's log. Belongs to the thread that appends."""

    __slots__ = (
        "active_path", "base", "config", "cursors", "cut_count", "encoded", "epochs", "error",
        "first_append_ms", "id", "index_entries", "indexed_position",
        "is_prepared", "last_append_ms", "log_end", "log_start", "needs_size_check", "offline", "oldest_ms", "position",
        "producers", "saved", "scheduled_ms", "sealed", "sealed_bytes", "seed", "synced_end", "undo", "volume",
    )  # fmt: skip

    def __init__(self, volume: Volume, partition: PartitionId, config: TopicConfig = DEFAULT_CONFIG) -> None:
        self.volume = volume
        self.id = partition
        self.seed = stamp_seed(partition)
        self.config = config
        self.log_start = 0
        self.log_end = 0
        self.synced_end = 0
        self.base = 0
        """Base offset of the active segment; its file may not exist yet while ``position`` is 0."""
        self.active_path = ""
        """Its file's name, while the log is warm."""
        self.position = 0
        self.index_entries = 0
        self.indexed_position = 0
        self.first_append_ms = UNKNOWN
        self.last_append_ms = UNKNOWN
        self.oldest_ms = UNKNOWN
        """Newest append time of the oldest sealed segment."""
        self.sealed: list[Sealed] | None = []
        """None: not listed yet."""
        self.sealed_bytes = 0
        self.epochs: tuple[EpochStart, ...] = ()
        self.producers: ProducerStates | None = None
        self.undo: ProducerUndo | None = None
        """None: no producer wrote since the store opened."""
        self.saved = b""
        self.cut_count = 0
        self.error = ""
        """Out of service: neither read nor written."""
        self.offline = ""
        """Not written any more, but read."""
        self.is_prepared = False
        self.scheduled_ms: int | None = None
        """When the store looks at it next."""
        self.needs_size_check = True
        self.encoded: bytes | PartitionEntry | None = None
        """The partition's entry in the checkpoint, while it has not changed; encoded once a checkpoint did that."""
        self.cursors: dict[int, tuple[int, int]] | None = None
        """Offset to (segment base, position): where readers stopped, and the end before the last append."""

    @classmethod
    def from_entry(cls, volume: Volume, entry: PartitionEntry, encoded: bytes) -> PartitionLog:
        """A cold log, as the checkpoint knows it."""
        is_default = entry.segment_bytes == DEFAULT_CONFIG.segment_bytes
        log = cls(volume, entry.partition_id, DEFAULT_CONFIG if is_default else TopicConfig(segment_bytes=entry.segment_bytes))
        log.log_start = entry.log_start
        log.log_end = log.synced_end = entry.log_end
        log.base, log.position, log.index_entries = entry.base, entry.position, entry.index_entries
        log.first_append_ms, log.last_append_ms, log.oldest_ms = entry.first_append_ms, entry.last_append_ms, entry.oldest_ms
        log.sealed = None if entry.sealed_bytes else []
        log.sealed_bytes = entry.sealed_bytes
        log.epochs = entry.epochs
        log.producers = ProducerStates(entry.producers) if entry.producers else None
        log.error = entry.error
        log.saved, log.cut_count = entry.saved, entry.cut_count
        log.encoded = encoded
        return log

    @property
    def directory(self) -> str:
        return partition_directory(self.volume.root, self.id)

    @property
    def size_bytes(self) -> int:
        return self.sealed_bytes + self.position

    def entry(self) -> PartitionEntry:
        """The partition's entry in the next checkpoint, which encodes it: of many producers that takes milliseconds."""
        producers = dict(self.producers.entries) if self.producers is not None else {}
        self.encoded = entry = PartitionEntry(
            self.id.topic_id, self.id.partition, self.log_start, self.log_end, self.base, self.position,
            self.index_entries, self.sealed_bytes, self.first_append_ms, self.last_append_ms, self.oldest_ms,
            self.epochs, producers, self.error, self.config.segment_bytes, self.saved, self.cut_count,
        )  # fmt: skip
        return entry

    def state(self) -> LogState:
        producers = dict(self.producers.entries) if self.producers is not None else {}
        return LogState(
            self.log_start,
            self.log_end,
            self.synced_end,
            self.epochs,
            producers,
            self.size_bytes,
            self.last_append_ms,
            self.error or self.offline,
        )

    def check_in_service(self) -> None:
        """Raises CorruptLog when the partition is out of service."""
        if self.error:
            raise CorruptLog(self.error, file=self.directory, hint="restore the partition from a backup or a replica")

    def _check(self) -> None:
        assert self.log_start <= self.log_end
        assert self.synced_end <= self.log_end
        assert self.base <= self.log_end

    def prepare(self) -> None:
        """Make the log ready to be changed. Raises OSError, and CorruptLog when its end is missing."""
        if self.is_prepared:
            return
        self._list_segments(remove_leftovers=True)
        path = self.active_path = segment_path(self.directory, self.base)
        try:
            file = self._open_or_make(path)
            size = file.size()
        except FileNotFoundError:
            file, size = None, 0
        if not self.position:
            self._made(path)  # maybe by a process that was killed before it synced the name
        if size < self.position or file is None:
            error = corrupt(path, size, f"the file ends there, {self.position} bytes were synced")
            self.fail(error)
            raise error
        if size > self.position:
            file.truncate(self.position)
            self.volume.wrote(path)
        self._prepare_index(path)
        self.is_prepared = True

    def mark(self) -> Mark:
        assert self.sealed is not None
        return Mark(
            self.log_end,
            self.base,
            self.position,
            self.index_entries,
            self.indexed_position,
            self.first_append_ms,
            self.last_append_ms,
            self.sealed_bytes,
            len(self.sealed),
        )

    def restore(self, mark: Mark) -> None:
        """Take back everything written since ``mark``; the files are cut before the next write."""
        assert self.sealed is not None
        for base in (self.base, *(each.base for each in self.sealed[mark.sealed_count :])):
            if base != mark.base:
                self.volume.forget_written(segment_path(self.directory, base))
        self.log_end, self.base, self.position = mark.log_end, mark.base, mark.position
        self.index_entries, self.indexed_position = mark.index_entries, mark.indexed_position
        self.first_append_ms, self.last_append_ms = mark.first_append_ms, mark.last_append_ms
        self.sealed_bytes = mark.sealed_bytes
        del self.sealed[mark.sealed_count :]
        self.is_prepared = False
        self._check()

    def write(self, batches: Sequence[StampedBatch]) -> None:
        """Write batches behind the end, rolling where the next would not fit. Raises OSError: then ``restore``."""
        assert self.is_prepared
        buffers: list[Buffer] = []
        entries: list[IndexEntry] = []
        position = self.position
        for stamped in batches:
            header = stamped.header
            assert header.base_offset == self.log_end
            if position and not self._fits(position, header):
                self._flush(buffers, entries)
                buffers, entries = [], []
                self._roll()
                position = 0
            if position == 0:
                self.first_append_ms = header.append_time_ms
            elif index.is_due(position, self.indexed_position):
                entries.append(IndexEntry(header.base_offset - self.base, position, header.append_time_ms))
                self.indexed_position = position
            buffers.extend(stamped.buffers)
            position += header.length
            self.log_end = header.end_offset
            self.last_append_ms = header.append_time_ms
        self._flush(buffers, entries)

    def commit(self, batches: Sequence[StampedBatch], mark: Mark) -> None:
        """What ``write`` wrote since ``mark`` is in the journal: it counts."""
        for stamped in batches:
            header = stamped.header
            if not self.epochs or header.leader_epoch > self.epochs[-1].epoch:
                self.epochs = (*self.epochs, EpochStart(header.leader_epoch, header.base_offset))
            if header.producer_id >= 0:
                if self.producers is None:
                    self.producers = ProducerStates()
                if self.undo is None:
                    self.undo = ProducerUndo(header.base_offset)
                self.undo.apply(self.producers, header)
        self.remember(mark.log_end, mark.base, mark.position)
        self.encoded = None
        self._check()

    def roll(self) -> None:
        """Seal the active segment. Raises OSError."""
        self.prepare()
        if self.position:
            self._roll()
            self.encoded = None

    def move_log_start(self, log_start: int) -> None:
        """Records before ``log_start`` are gone; whole segments of them are doomed. Raises OSError."""
        if log_start <= self.log_start:
            return
        assert log_start <= self.log_end
        if log_start == self.log_end:
            self.roll()
        try:
            segments = self._list_segments()  # first: listed later, what lies below the new start would pass for already doomed
        finally:
            self._raise_log_start(log_start)
        while segments and self._end_of(segments, 0) <= log_start:
            self._doom_oldest(segments)

    def _raise_log_start(self, log_start: int) -> None:
        self.log_start = max(self.log_start, log_start)
        while len(self.epochs) > 1 and self.epochs[1].offset <= self.log_start:
            self.epochs = self.epochs[1:]
        self.encoded = None

    def _fits(self, position: int, header: BatchHeader) -> bool:
        return position + header.length <= self.config.segment_bytes and header.end_offset - self.base <= RELATIVE_OFFSET_MAX

    def _flush(self, buffers: Sequence[Buffer], entries: Sequence[IndexEntry]) -> None:
        if not buffers:
            return
        path = self.active_path
        self.position = write_all(self._open_or_make(path), buffers, self.position)
        self.volume.wrote(path)
        if entries:
            seed = index_seed(self.id, self.base)
            data = b"".join([encode_index_entry(entry, seed) for entry in entries])
            path = index_path(path)
            write_all(self._open_or_make(path), (data,), self.index_entries * INDEX_ENTRY_BYTES)
            self.volume.wrote(path)
            self.index_entries += len(entries)

    def _roll(self) -> None:
        assert self.sealed is not None
        reached("segment rolled")
        self.volume.sealed(self.active_path)
        self.sealed.append(Sealed(self.base, self.position, self.last_append_ms))
        if len(self.sealed) == 1:
            self.oldest_ms = self.last_append_ms
        self.sealed_bytes += self.position
        self.base = self.log_end
        self.active_path = segment_path(self.directory, self.base)
        self.position = self.index_entries = self.indexed_position = 0
        self.first_append_ms = UNKNOWN
        self.needs_size_check = True

    def _open_or_make(self, path: str) -> File:
        if path not in self.volume.files:
            self.volume.check_held()
        try:
            return self.volume.files.get(path)
        except FileNotFoundError:
            if self.position and path.endswith(LOG_SUFFIX):
                raise
        self.volume.disk.mkdir(self.directory)
        self._made(path)
        return self.volume.files.get(path, create=True)

    def _made(self, path: str) -> None:
        self.volume.made(path, up_to=join(self.volume.root, LOGS))

    def _prepare_index(self, segment: str) -> None:
        path = index_path(segment)
        expected = self.index_entries * INDEX_ENTRY_BYTES
        if not expected and not self.volume.disk.exists(path):
            self.indexed_position = 0
            return
        file = self._open_or_make(path)
        if not expected:
            self._made(path)
        if file.size() > expected:
            file.truncate(expected)
            self.volume.wrote(path)
        try:
            last = self.index_entries - 1
            self.indexed_position = index.read_entry(file, index_seed(self.id, self.base), last).position if last >= 0 else 0
        except index.BadIndex:
            reached("index rebuilt")
            self.rebuild_index(self.base)

    def rebuild_index(self, base: int) -> int:
        """Make a segment's index anew. The number of its entries. Raises CorruptLog and OSError."""
        path = segment_path(self.directory, base)
        file = self.volume.files.get(path)
        size = self.size_of(base)
        entries = index.make(file, path, stamp_seed=self.seed, base=base, size=size)
        index.write(self._open_or_make(index_path(path)), index_seed(self.id, base), entries)
        self.volume.wrote(index_path(path))
        if base == self.base:
            self.index_entries = len(entries)
            self.indexed_position = entries[-1].position if entries else 0
            self.encoded = None
        return len(entries)

    def _list_segments(self, *, remove_leftovers: bool = False) -> list[Sealed]:
        """The sealed segments, oldest first. Raises OSError."""
        if self.sealed is not None and not remove_leftovers:
            return self.sealed
        try:
            names = self.volume.disk.listdir(self.directory)
        except FileNotFoundError:
            names = []
        bases = [base for name in names if (base := segment_base(name)) is not None]
        sealed = [base for base in bases if base < self.base]
        while len(sealed) > 1 and sealed[1] <= self.log_start:
            del sealed[0]
        if len(sealed) == 1 and self.base <= self.log_start:
            del sealed[0]
        if remove_leftovers:
            for base in bases:
                path = segment_path(self.directory, base)
                if base > self.base:
                    self.volume.remove_segment(path)
                elif base < self.base and base not in sealed:
                    self.volume.doom_segment(path)  # the checkpoint on disk may still begin with it
        if self.sealed is None:
            self.sealed = [Sealed(base) for base in sealed]
        return self.sealed

    def segments(self) -> list[int]:
        """Base offsets, oldest first, the active one last. Raises OSError."""
        return [*(each.base for each in self._list_segments()), self.base]

    def size_of(self, base: int) -> int:
        """Bytes of a segment that count. Raises OSError."""
        if base == self.base:
            return self.position
        sealed = next(each for each in self._list_segments() if each.base == base)
        if sealed.size == UNKNOWN:
            sealed.size = self.volume.files.get(segment_path(self.directory, base)).size()
        return sealed.size

    def _end_of(self, segments: list[Sealed], number: int) -> int:
        return segments[number + 1].base if number + 1 < len(segments) else self.base

    def _doom_oldest(self, segments: list[Sealed]) -> None:
        oldest = segments[0]
        size = self.size_of(oldest.base)
        self.volume.doom_segment(segment_path(self.directory, oldest.base))
        del segments[0]
        self.cursors = None
        self.sealed_bytes = max(0, self.sealed_bytes - size) if segments else 0
        self.oldest_ms = self._newest_ms(segments[0]) if segments else UNKNOWN
        self.encoded = None

    def _newest_ms(self, sealed: Sealed) -> int:
        if sealed.newest_ms == UNKNOWN:
            path = segment_path(self.directory, sealed.base)
            size = self.size_of(sealed.base)
            start = self._last_indexed(sealed.base)
            places = walk(self.volume.files.get(path), path, self.seed, position=start, end=size)
            sealed.newest_ms = max((place.header.append_time_ms for place in places), default=0)
        return sealed.newest_ms

    def _last_indexed(self, base: int) -> int:
        path = index_path(segment_path(self.directory, base))
        try:
            file = self.volume.files.get(path)
            count = file.size() // INDEX_ENTRY_BYTES
            return index.read_entry(file, index_seed(self.id, base), count - 1).position if count else 0
        except (FileNotFoundError, index.BadIndex):
            return 0

    def due_ms(self) -> int | None:
        """When ``maintain`` may next have something to do; None: not before the log changes."""
        config, due = self.config, []
        if self.error:
            return None
        if self.position:
            age = config.segment_ms if config.retention_ms < 0 else min(config.segment_ms, config.retention_ms)
            due.append(self.first_append_ms + age)
        if self.sealed_bytes and config.retention_ms >= 0:
            due.append(self.oldest_ms + config.retention_ms)
        if self.sealed_bytes and config.retention_bytes >= 0 and self.needs_size_check:
            due.append(0)
        return min(due, default=None)

    def maintain(self, now_ms: int, high_watermark: int) -> bool:
        """Seal by age, then remove what retention allows, none of it at or above the high watermark.

        Whether the log start moved. Raises OSError and CorruptLog.
        """
        config = self.config
        age = config.segment_ms if config.retention_ms < 0 else min(config.segment_ms, config.retention_ms)
        if self.position and self.first_append_ms + age <= now_ms:
            self.roll()
        before = self.log_start
        segments = self._list_segments()
        while segments and self._is_expired(segments[0], now_ms) and (end := self._end_of(segments, 0)) <= high_watermark:
            self._raise_log_start(end)
            self._doom_oldest(segments)
        self.needs_size_check = bool(segments) and self._is_expired(segments[0], now_ms)
        return self.log_start > before

    def _is_expired(self, oldest: Sealed, now_ms: int) -> bool:
        config = self.config
        if config.retention_ms >= 0 and self._newest_ms(oldest) + config.retention_ms <= now_ms:
            return True
        return config.retention_bytes >= 0 and self.size_bytes - self.size_of(oldest.base) >= config.retention_bytes

    def remember(self, offset: int, base: int, position: int) -> None:
        cursors = self.cursors
        if cursors is None:
            cursors = self.cursors = {}
        cursors.pop(offset, None)
        cursors[offset] = (base, position)
        if len(cursors) > CURSORS_MAX:
            del cursors[next(iter(cursors))]

    def fail(self, error: ZmqmqError) -> None:
        """Take the partition out of service, until an open finds its files in order."""
        self.error = str(error)
        self.encoded = None

    def __repr__(self) -> str:
        return f"<PartitionLog {self.id} {self.log_start}..{self.log_end} synced {self.synced_end}{' ' + self.error if self.error else ''}>"
