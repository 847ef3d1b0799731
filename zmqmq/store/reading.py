"""Reading a partition's log: by offset for consumers, by time for those who look for a start.

Promise: what is returned is contiguous whole batches, each checked by its stamp to be the one that belongs
there; a batch that is not raises CorruptLog and takes the partition out of service. Bodies are not hashed
here: consumers check them end to end, against the producer's own CRC.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final, TypeVar

from zmqmq.batch import HEADER_BYTES
from zmqmq.errors import CorruptLog, DataLost
from zmqmq.model import Timestamps
from zmqmq.store import index
from zmqmq.store.files import read_range
from zmqmq.store.formats import INDEX_ENTRY_BYTES, IndexEntry, index_seed
from zmqmq.store.layout import index_path, segment_path
from zmqmq.store.segment import Place, check_batch, corrupt, walk

if TYPE_CHECKING:
    from collections.abc import Callable

    from zmqmq.store.partition_log import PartitionLog

T = TypeVar("T")
READ_BYTES_MAX: Final = 8 << 20


def read(log: PartitionLog, offset: int, end: int, bytes_max: int) -> bytes:
    """Whole batches from the one that contains ``offset``; see ``Store.read``. Raises CorruptLog and OSError."""
    log.check_in_service()
    end = min(end, log.log_end)
    if offset < log.log_start:
        raise DataLost(
            f"offset {offset} of {log.id} was removed, the log starts at {log.log_start}",
            log_start=log.log_start,
            log_end=log.log_end,
            hint="read on from log_start, and lengthen retention_ms or retention_bytes",
        )
    if offset >= end:
        return b""
    return _in_service(log, lambda: _read(log, offset, end, min(max(bytes_max, HEADER_BYTES), READ_BYTES_MAX)))


def _in_service(log: PartitionLog, action: Callable[[], T]) -> T:
    """Do it, or take the partition out of service because its files are not what was written."""
    try:
        return action()
    except CorruptLog as error:
        log.fail(error)
        raise
    except FileNotFoundError as missing:
        damage = corrupt(str(missing.filename), 0, "the file is missing")
        log.fail(damage)
        raise damage from missing


def _read(log: PartitionLog, offset: int, end: int, bytes_max: int) -> bytes:
    base, position, exact = _locate(log, offset)
    path = segment_path(log.directory, base)
    size = log.size_of(base)
    file = log.volume.files.get(path)
    data = read_range(file, min(bytes_max, size - position), position)
    expected, used = (offset if exact else -1), 0
    while len(data) - used >= HEADER_BYTES or not used:
        header = check_batch(data, used, path=path, position=position + used, seed=log.seed, offset=expected)
        if header.end_offset > end:
            break
        if used + header.length > len(data):
            if used:
                break
            if position + header.length > size:
                raise corrupt(path, position, f"a batch of {header.length} bytes is cut after {size - position}")
            data += read_range(file, header.length - len(data), position + len(data))
            if len(data) < header.length:
                raise corrupt(path, position, f"a batch of {header.length} bytes is cut after {len(data)}")
        used += header.length
        expected = header.end_offset
    if used:
        log.remember(expected, base, position + used)
    return data if used == len(data) else data[:used]


def _locate(log: PartitionLog, offset: int) -> tuple[int, int, bool]:
    """(segment base, position) of the batch that contains ``offset``; and whether it begins with it."""
    found = log.cursors.get(offset) if log.cursors is not None else None
    if found is not None and found[1] < log.size_of(found[0]):
        return (*found, True)
    segments = log.segments()
    number = bisect_right(segments, offset) - 1
    if number < 0:
        path = segment_path(log.directory, log.log_start)
        raise corrupt(path, 0, f"no segment holds offset {offset}; the oldest begins at {segments[0]}")
    base = segments[number]
    if base == offset:
        return base, 0, True
    place = _find(log, base, lambda entry: base + entry.relative <= offset, lambda place: place.header.end_offset > offset)
    if place is None:
        path = segment_path(log.directory, base)
        raise corrupt(path, log.size_of(base), f"offset {offset} is not in the segment where it belongs")
    return base, place.position, place.header.base_offset == offset


def find_time(log: PartitionLog, time_ms: int, end: int) -> Timestamps | None:
    """The first batch that was appended at ``time_ms`` or later, if it begins before ``end``. Raises CorruptLog and OSError."""
    log.check_in_service()
    if log.last_append_ms < time_ms or log.log_start >= log.log_end:
        return None
    found = _in_service(log, lambda: _find_time(log, time_ms))
    return found if found is not None and found.offset < end else None


def _find_time(log: PartitionLog, time_ms: int) -> Timestamps | None:
    segments = log.segments()
    low, high = 0, len(segments)
    while high - low > 1:
        middle = (low + high) // 2
        first = _first(log, segments[middle])
        if first is not None and first.header.append_time_ms < time_ms:
            low = middle
        else:
            high = middle
    for base in segments[low:]:
        place = _find(
            log,
            base,
            lambda entry: entry.append_time_ms < time_ms or base + entry.relative <= log.log_start,  # noqa: B023  # used at once
            lambda place: place.header.append_time_ms >= time_ms and place.header.end_offset > log.log_start,
        )
        if place is not None:
            return Timestamps(max(place.header.base_offset, log.log_start), place.header.append_time_ms)
    return None


def _first(log: PartitionLog, base: int) -> Place | None:
    path = segment_path(log.directory, base)
    size = log.size_of(base)
    return (
        next(walk(log.volume.files.get(path), path, log.seed, position=0, end=size, offset=base, chunk_bytes=HEADER_BYTES), None)
        if size
        else None
    )


def _find(log: PartitionLog, base: int, is_at_or_before: Callable[[IndexEntry], bool], is_wanted: Callable[[Place], bool]) -> Place | None:
    """The first batch of a segment that is wanted, by its index. An index that does not fit is rebuilt, once."""
    if not log.size_of(base):
        return None
    try:
        return _find_by_index(log, base, is_at_or_before, is_wanted)
    except (index.BadIndex, FileNotFoundError):
        log.rebuild_index(base)
    try:
        return _find_by_index(log, base, is_at_or_before, is_wanted)
    except index.BadIndex as error:
        raise corrupt(segment_path(log.directory, base), 0, error) from error


def _find_by_index(
    log: PartitionLog, base: int, is_at_or_before: Callable[[IndexEntry], bool], is_wanted: Callable[[Place], bool]
) -> Place | None:
    path = segment_path(log.directory, base)
    size = log.size_of(base)
    entry = _floor(log, base, path, size, is_at_or_before)
    file = log.volume.files.get(path)
    try:
        for place in walk(file, path, log.seed, position=entry.position, end=size, offset=base + entry.relative):
            if is_wanted(place):
                return place
            if place.position - entry.position > index.SCAN_BYTES_MAX:
                raise index.BadIndex("an entry is missing")
    except CorruptLog as error:
        if error.position == entry.position and entry.position:
            raise index.BadIndex("an entry names a batch that is not there") from error
        raise
    return None


def _floor(log: PartitionLog, base: int, path: str, size: int, is_at_or_before: Callable[[IndexEntry], bool]) -> IndexEntry:
    if size <= index.INDEX_INTERVAL_BYTES:
        return index.START
    file = log.volume.files.get(index_path(path))
    count = log.index_entries if base == log.base else file.size() // INDEX_ENTRY_BYTES
    return index.find_floor(file, index_seed(log.id, base), count, is_at_or_before)
