"""Cutting a partition's log: where, and what is left of it.

``plan`` only reads. The store makes the plan durable in the journal, and then ``apply`` changes the log in memory, which
leaves it cold: the files are cut by the ``prepare`` that follows, or, if that fails, before the next write, or by
the next open. So a crash at any point leaves either the whole log or the truncated one.

The segment that holds the last batch left becomes the active one again. It is found by what is in it: a segment that
begins where the log now ends may already belong to the log's next life.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from zmqmq.errors import CorruptLog
from zmqmq.producer_state import ProducerEntry, ProducerStates
from zmqmq.store import formats, index
from zmqmq.store.cuts import encode_truncate
from zmqmq.store.formats import INDEX_ENTRY_BYTES, index_seed
from zmqmq.store.layout import index_path, segment_path
from zmqmq.store.partition_log import UNKNOWN, PartitionLog
from zmqmq.store.segment import corrupt, walk
from zmqmq.store.undo import Producers, producers_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zmqmq.model import PartitionId
    from zmqmq.store.formats import IndexEntry
    from zmqmq.store.segment import Place


class Plan(Struct, frozen=True):
    """The log as it will be: ``base``, ``position`` and the rest as in ``PartitionLog``."""

    end: int
    base: int
    position: int = 0
    index_entries: int = 0
    """UNKNOWN: the index is to be made anew."""
    first_append_ms: int = UNKNOWN
    last_append_ms: int = UNKNOWN
    sealed_bytes: int = 0
    producers: Producers = {}
    is_reset: bool = False
    """Nothing is left; the log begins at ``end``."""

    def item(self, partition: PartitionId) -> bytes:
        """What the journal says of it."""
        if self.is_reset:
            return formats.encode_reset(partition, self.end)
        return encode_truncate(partition, self.end, self.producers)


class _Boundary(Struct, frozen=True):
    """Where the last batch that stays ends, in the segment ``base``."""

    end: int
    base: int
    position: int
    index_entries: int
    last_append_ms: int


def reset(log_start: int) -> Plan:
    return Plan(end=log_start, base=log_start, is_reset=True)


def plan(log: PartitionLog, end: int) -> Plan | None:
    """How to cut the log at the batch boundary at or below ``end``; None: it ends there already.

    A log that begins behind ``end`` has nothing to keep: it is reset. Raises CorruptLog and OSError.
    """
    if end >= log.log_end:
        return None
    if end < log.log_start:
        return reset(end)
    found = _find(log, end)
    if found.end < log.log_start:
        return reset(found.end)
    producers = producers_at(log.producers.entries, log.undo, found.end) if log.producers is not None else {}
    return Plan(
        found.end,
        found.base,
        found.position,
        found.index_entries,
        _first_append_ms(log, found.base) if found.position else UNKNOWN,
        found.last_append_ms,
        log.sealed_bytes if found.base == log.base else sum([log.size_of(base) for base in log.segments() if base < found.base]),
        producers,
    )


def _find(log: PartitionLog, end: int) -> _Boundary:
    segments = log.segments()
    before = [base for base in segments if base < end]
    if not before:
        if segments[0] > end > log.log_start:  # else nothing is left, and nothing is needed
            path = segment_path(log.directory, end)
            raise corrupt(path, 0, f"no segment holds offset {end}; the oldest begins at {segments[0]}")
        return _Boundary(end, end, 0, 0, UNKNOWN)
    base = before[-1]
    try:
        found = _find_by_index(log, base, end)
    except (index.BadIndex, FileNotFoundError):
        found = _find_unindexed(log, base, end)
    return found if found is not None else _find(log, base)


def _find_unindexed(log: PartitionLog, base: int, end: int) -> _Boundary | None:
    try:
        return _walk_to(log, base, end, index.START, index_entries=UNKNOWN)
    except FileNotFoundError as missing:
        raise corrupt(segment_path(log.directory, base), 0, "the file is missing") from missing


def _find_by_index(log: PartitionLog, base: int, end: int) -> _Boundary | None:
    """As ``_walk_to``, from the nearest entry of the index. Raises BadIndex, CorruptLog and OSError."""
    if log.size_of(base) <= index.INDEX_INTERVAL_BYTES:
        return _walk_to(log, base, end, index.START, index_entries=0)
    file = log.volume.files.get(index_path(segment_path(log.directory, base)))
    count = log.index_entries if base == log.base else file.size() // INDEX_ENTRY_BYTES
    seed = index_seed(log.id, base)
    number, entry = index.floor_of(file, seed, count, lambda entry: base + entry.relative < end)
    while True:
        try:
            found = _walk_to(log, base, end, entry, index_entries=number)
        except CorruptLog as error:
            if error.position == entry.position and number:
                raise index.BadIndex("an entry names a batch that is not there") from error
            raise
        if found is not None or not number:
            return found
        number -= 1  # ``end`` is inside the batch that the entry names
        entry = index.read_entry(file, seed, number - 1) if number else index.START


def _walk_to(log: PartitionLog, base: int, end: int, start: IndexEntry, *, index_entries: int) -> _Boundary | None:
    """The boundary at or below ``end``, or None if it is not behind ``start``. What lies behind ``end`` is not looked at:
    an earlier truncation may have got half way there. Raises BadIndex, CorruptLog and OSError."""
    last: Place | None = None
    path = segment_path(log.directory, base)
    file = log.volume.files.get(path)
    for place in walk(file, path, log.seed, position=start.position, end=log.size_of(base), offset=base + start.relative):
        if place.header.end_offset > end:
            break
        if index_entries != UNKNOWN and index.is_due(place.position, start.position):
            raise index.BadIndex("an entry is missing")
        last = place
        if place.header.end_offset == end:
            break
    if last is None:
        return None
    header = last.header
    return _Boundary(header.end_offset, base, last.position + header.length, index_entries, header.append_time_ms)


def _first_append_ms(log: PartitionLog, base: int) -> int:
    if base == log.base:
        return log.first_append_ms
    path = segment_path(log.directory, base)
    file = log.volume.files.get(path)
    return next(walk(file, path, log.seed, position=0, end=log.size_of(base), offset=base)).header.append_time_ms


def apply(log: PartitionLog, planned: Plan) -> None:
    """Make the log what was planned, in memory. ``cut_files`` follows."""
    if planned.is_reset:
        log.sealed = []
        log.volume.keep_from(log.directory, planned.end)
    elif planned.base != log.base:
        assert log.sealed is not None
        log.sealed = [each for each in log.sealed if each.base < planned.base]
    log.sealed_bytes = planned.sealed_bytes
    if not log.sealed_bytes:
        log.oldest_ms = UNKNOWN
    log.base, log.position, log.index_entries = planned.base, planned.position, max(planned.index_entries, 0)
    log.first_append_ms, log.last_append_ms = planned.first_append_ms, planned.last_append_ms
    log.log_end = log.synced_end = planned.end
    log.cut_count += 1
    log.cursors = log.encoded = None
    log.is_prepared = False
    if planned.is_reset:
        log.log_start = planned.end
        log.epochs, log.producers, log.undo, log.error = (), None, None, ""
        return
    if log.undo is not None:
        log.undo.cut(planned.end)
    learn(log, planned.end, planned.producers)


def cut_files(log: PartitionLog, planned: Plan) -> None:
    """Let nothing be left on the disk of what was cut. Raises OSError and CorruptLog; the next write tries again."""
    log.prepare()
    if planned.index_entries == UNKNOWN:
        log.rebuild_index(log.base)


def learn(log: PartitionLog, end: int, producers: Mapping[int, ProducerEntry | None]) -> None:
    """Epochs and producers of a log that was cut at ``end``, now or in the life that the journal tells of."""
    log.epochs = tuple(each for each in log.epochs if each.offset < end) if end > log.log_start else ()
    if end == log.log_start:
        log.last_append_ms = UNKNOWN
    if producers:
        if log.producers is None:
            log.producers = ProducerStates()
        log.producers.restore(producers)
    log.encoded = None
