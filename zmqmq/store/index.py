"""The sparse index of a segment: one table that answers "where is this offset" and "where is this time".

It holds an entry about every ``INDEX_INTERVAL_BYTES`` of the segment (none for its first batch). Append times
do not decrease within a partition, so one order serves both questions. Lookups read O(log n) entries and keep
none in memory. The index is never trusted: an entry has its own CRC and the batch it names is checked, and an
index that is damaged or too short is made anew from the segment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zmqmq.model import BATCH_BYTES_MAX
from zmqmq.store.files import write_all
from zmqmq.store.formats import INDEX_ENTRY_BYTES, IndexEntry, decode_index_entry, encode_index_entry
from zmqmq.store.segment import walk

if TYPE_CHECKING:
    from collections.abc import Callable

    from zmqmq.ports import File

INDEX_INTERVAL_BYTES: Final = 1 << 16
SCAN_BYTES_MAX: Final = INDEX_INTERVAL_BYTES + BATCH_BYTES_MAX
"""With a whole index no lookup walks farther than this."""

START: Final = IndexEntry(0, 0, -(1 << 63))
"""The entry that every index begins with, unwritten."""


class BadIndex(Exception):
    """The index is not what belongs to its segment. Never leaves the store: the index is rebuilt."""


def find_floor(file: File, seed: int, count: int, is_at_or_before: Callable[[IndexEntry], bool]) -> IndexEntry:
    """The last of ``count`` entries for which the question, true up to some entry and false from there on, is true.

    Raises BadIndex and OSError.
    """
    return floor_of(file, seed, count, is_at_or_before)[1]


def floor_of(file: File, seed: int, count: int, is_at_or_before: Callable[[IndexEntry], bool]) -> tuple[int, IndexEntry]:
    """For how many entries it is true, and the last of them. Raises as ``find_floor``."""
    low, high, found = 0, count, START
    while low < high:
        middle = (low + high) // 2
        entry = read_entry(file, seed, middle)
        if is_at_or_before(entry):
            low, found = middle + 1, entry
        else:
            high = middle
    return low, found


def read_entry(file: File, seed: int, number: int) -> IndexEntry:
    """Raises BadIndex and OSError."""
    entry = decode_index_entry(file.pread(INDEX_ENTRY_BYTES, number * INDEX_ENTRY_BYTES), seed)
    if entry is None:
        raise BadIndex(f"entry {number} is damaged")
    return entry


def is_due(position: int, indexed_position: int) -> bool:
    """Whether the batch at ``position`` gets an entry, the last one being at ``indexed_position`` (0: none)."""
    return position - indexed_position >= INDEX_INTERVAL_BYTES


def make(segment: File, path: str, *, stamp_seed: int, base: int, size: int) -> list[IndexEntry]:
    """The entries that belong to a segment, read from the segment itself. Raises CorruptLog and OSError."""
    entries: list[IndexEntry] = []
    indexed = 0
    for place in walk(segment, path, stamp_seed, position=0, end=size, offset=base):
        if is_due(place.position, indexed):
            entries.append(IndexEntry(place.header.base_offset - base, place.position, place.header.append_time_ms))
            indexed = place.position
    return entries


def write(file: File, seed: int, entries: list[IndexEntry]) -> None:
    """Replace an index. Raises OSError."""
    file.truncate(0)
    write_all(file, (b"".join([encode_index_entry(entry, seed) for entry in entries]),), 0)
