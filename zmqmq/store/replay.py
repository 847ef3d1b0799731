"""Reading a journal back after whatever happened.

Promise: every entry that a later entry or checkpoint proves to have been synced is returned, or CorruptLog
is raised; behind the last good entry only a torn tail, zeros or an earlier life are passed over. A torn tail
is reported with its place, so that it can be kept aside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from zmqmq.errors import CorruptLog
from zmqmq.store.files import read_range
from zmqmq.store.formats import (
    ENTRY_ALIGNMENT,
    ENTRY_HEADER_BYTES,
    ENTRY_MAGIC,
    EntryHeader,
    decode_entry_header,
    entry_is_whole,
    first_kind,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zmqmq.ports import File

_SEARCH_BYTES: Final = 1 << 20


class FoundEntry(Struct, frozen=True):
    """A whole entry in one of the journal's files."""

    header: EntryHeader
    slot: int
    position: int
    kind: int
    """Of its first item."""


class TornTail(Struct, frozen=True):
    """An entry that was written, never synced, and only half survived."""

    slot: int
    position: int
    size: int


class Replay(Struct, frozen=True):
    """What a journal holds beyond a checkpoint. ``next_sequence`` is one that never was on disk."""

    entries: tuple[FoundEntry, ...]
    torn: TornTail | None
    next_sequence: int


class _Scanned(Struct, frozen=True):
    """One file: its entries from the first byte on, where they stop, and whole ones behind (any life)."""

    entries: tuple[FoundEntry, ...]
    stop: int
    beyond: tuple[FoundEntry, ...]

    def is_life_of(self, found: FoundEntry) -> bool:
        """Whether an entry belongs to the life that the file begins with, as far as its first byte can tell.
        What looks like an entry may be a payload that holds a copy of some other journal."""
        return not self.entries or found.header.generation == self.entries[0].header.generation


def scan(files: Sequence[File], names: Sequence[str], first_sequence: int) -> Replay:
    """Find the entries from ``first_sequence`` on. Raises CorruptLog and OSError."""
    scanned = [_scan_file(file, slot, first_sequence) for slot, file in enumerate(files)]
    chain = _chain(scanned, first_sequence)
    expected = first_sequence + len(chain)
    last = chain[-1] if chain else None
    stop_slot, stop = _stop_of(scanned, last, first_sequence)
    later = [found for each in scanned for found in (*each.entries, *each.beyond) if found.header.sequence >= expected]
    proof = next((found for found in later if found.header.synced >= expected and scanned[found.slot].is_life_of(found)), None)
    if proof is not None:
        raise CorruptLog(
            f"{names[stop_slot]} is damaged at {stop}: entry {expected} was synced (entry {proof.header.sequence} says so)"
            " and cannot be read",
            file=names[stop_slot],
            position=stop,
            hint="acknowledged records are in it: restore the directory from a backup or a replica",
        )
    next_sequence = max([expected, *(found.header.sequence + 1 for found in later)])
    return Replay(tuple(chain), _torn(files[stop_slot], (stop_slot, stop), expected, last, scanned[stop_slot]), next_sequence)


def whole_ends(files: Sequence[File], names: Sequence[str], first_sequence: int) -> tuple[int, ...]:
    """For each file of a journal that somebody may be writing, where its whole entries end that follow each other from
    ``first_sequence`` on; 0 where there are none.

    An entry that is written while it is read is whole at the next look. One that was synced and still is not whole then
    is damaged: CorruptLog. Raises OSError.
    """
    chain: list[FoundEntry] = []
    try:
        chain = _chain([_scan_file(file, slot, first_sequence) for slot, file in enumerate(files)], first_sequence)
        scan(files, names, first_sequence)
    except CorruptLog:
        again = _chain([_scan_file(file, slot, first_sequence) for slot, file in enumerate(files)], first_sequence)
        if len(again) <= len(chain):
            raise
    ends = [0] * len(files)
    for found in chain:
        ends[found.slot] = found.position + found.header.size
    return tuple(ends)


def read_entry(file: File, found: FoundEntry) -> bytes:
    """The entry's bytes, header included. Raises OSError."""
    return read_range(file, ENTRY_HEADER_BYTES + found.header.length, found.position)


def _chain(scanned: Sequence[_Scanned], first_sequence: int) -> list[FoundEntry]:
    by_sequence = {found.header.sequence: found for each in scanned for found in each.entries if found.header.sequence >= first_sequence}
    chain: list[FoundEntry] = []
    while (found := by_sequence.get(first_sequence + len(chain))) is not None:
        chain.append(found)
    return chain


def _stop_of(scanned: Sequence[_Scanned], last: FoundEntry | None, first_sequence: int) -> tuple[int, int]:
    """Where the next entry should have been."""
    if last is not None:
        return last.slot, scanned[last.slot].stop
    for slot, each in enumerate(scanned):
        if each.entries and each.entries[-1].header.sequence == first_sequence - 1:
            return slot, each.stop
    for slot, each in enumerate(scanned):
        if not each.entries and each.beyond:
            return slot, 0
    return 0, scanned[0].stop if not scanned[0].entries else 0


def _torn(file: File, stop: tuple[int, int], expected: int, last: FoundEntry | None, scanned: _Scanned) -> TornTail | None:
    """The tail is torn if its header made it to the disk, or if a later entry of the same life did."""
    slot, position = stop
    header = decode_entry_header(read_range(file, ENTRY_HEADER_BYTES, position))
    same_life = header is not None and (last is None or header.generation == last.header.generation)
    if header is not None and header.sequence == expected and same_life:
        return TornTail(slot, position, min(header.size, file.size() - position))
    behind = [found for found in scanned.beyond if found.header.sequence > expected and scanned.is_life_of(found)]
    return TornTail(slot, position, behind[-1].position + behind[-1].header.size - position) if behind else None


def _scan_file(file: File, slot: int, first_sequence: int) -> _Scanned:
    size = file.size()
    entries: list[FoundEntry] = []
    position = 0
    while True:
        found = _entry_at(file, slot, position, size)
        if found is None or (entries and not _follows(entries[-1].header, found.header)):
            break
        entries.append(found)
        position += found.header.size
    return _Scanned(tuple(entries), position, tuple(_search(file, slot, position, size, first_sequence)))


def _follows(before: EntryHeader, header: EntryHeader) -> bool:
    return header.generation == before.generation and header.sequence == before.sequence + 1


def _entry_at(file: File, slot: int, position: int, size: int) -> FoundEntry | None:
    header = decode_entry_header(file.pread(ENTRY_HEADER_BYTES, position)) if position < size else None
    if header is None or position + ENTRY_HEADER_BYTES + header.length > size:
        return None
    data = read_range(file, ENTRY_HEADER_BYTES + header.length, position)
    return FoundEntry(header, slot, position, first_kind(data)) if entry_is_whole(header, data) else None


def _search(file: File, slot: int, start: int, size: int, first_sequence: int) -> Iterator[FoundEntry]:
    """Whole entries anywhere from ``start`` on whose sequence is not older than the checkpoint."""
    while start < size:
        chunk = read_range(file, min(_SEARCH_BYTES, size - start), start)
        if not chunk:
            return
        at = chunk.find(ENTRY_MAGIC)
        while at >= 0:
            aligned = (start + at) % ENTRY_ALIGNMENT == 0
            found = _candidate(file, slot, start + at, size, first_sequence) if aligned else None
            if found is not None:
                yield found
            at = chunk.find(ENTRY_MAGIC, at + 1)
        start += max(1, len(chunk) - len(ENTRY_MAGIC) + 1)


def _candidate(file: File, slot: int, position: int, size: int, first_sequence: int) -> FoundEntry | None:
    header = decode_entry_header(file.pread(ENTRY_HEADER_BYTES, position))
    if header is None or header.sequence < first_sequence:
        return None
    return _entry_at(file, slot, position, size)
