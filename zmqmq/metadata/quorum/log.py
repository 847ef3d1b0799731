"""The log as one member sees it: what the disk holds, and a tail that is not known to be there yet.

Invariant: start <= tail_start <= end; persisted_end <= end; entries before ``tail_start`` are read from the store.
Terms are kept in memory, one item for each term that wrote something: comparing logs reads nothing.
"""

from __future__ import annotations

import bisect
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from zmqmq.errors import CorruptLog

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zmqmq.metadata.quorum.state import Entry, EntryStore, SnapshotMeta

SCAN_BYTES: Final = 1 << 20
"""Read at once while the log is looked through at the start."""


class TermStart(NamedTuple):
    """The first index that was written in a term."""

    term: int
    first: int


class RaftLog:
    """See the module. Changes are seen at once here; ``take_unsaved`` says what the disk has to do for them."""

    def __init__(self, store: EntryStore) -> None:
        self._store = store
        self.start, self.start_term = store.start, store.start_term
        self.end = self.tail_start = self.persisted_end = store.end
        self._tail: list[Entry] = []
        self._terms: list[TermStart] = []
        self._saves: deque[tuple[int, int]] = deque()
        """(number, end) of each Persist under way; an end is lowered when its entries are replaced."""
        self._unsaved_from = self._handed_end = self.end
        self.is_replaced = False
        """Nothing of what the store holds belongs to it any more."""

    def __repr__(self) -> str:
        return f"RaftLog({self.start}..{self.end} term={self.last_term} persisted={self.persisted_end})"

    @property
    def last_term(self) -> int:
        return self._terms[-1].term if self._terms else self.start_term

    @property
    def has_unsaved(self) -> bool:
        return self._unsaved_from < self.end or self._unsaved_from < self._handed_end or self.is_replaced

    def scan(self) -> Iterator[Entry]:
        """Every entry of the store, once, at the start; so the terms become known."""
        index = self.start
        while index < self.end:
            found = self._store.read(index, self.end, SCAN_BYTES)
            if not found or found[0].index != index:
                raise CorruptLog(
                    f"the metadata log has no entry at index {index}, it ends at {self.end}", hint="restore this broker's disk"
                )
            for entry in found:
                self._note_term(entry)
                yield entry
            index = found[-1].end

    def term_at(self, end: int) -> int:
        """The term of the record before ``end``."""
        assert self.start <= end
        assert end <= self.end
        found = bisect.bisect_left(self._terms, end, key=lambda start: start.first)
        return self._terms[found - 1].term if found else self.start_term

    def holds(self, end: int, term: int) -> bool:
        """Whether the entry before ``end`` is there and was written in ``term``: then everything before is the same too (paper 5.3)."""
        return self.start <= end <= self.end and self.term_at(end) == term

    def agreeing_end(self, end: int, term: int) -> int:
        """Where this log may agree with another one, of which ``last_end_within`` told this: the end of an entry here, or a place before
        the log's start if only that is left."""
        if end < self.start or self.holds(end, term):
            return end
        bound, found = self.last_end_within(end, term)
        if found > term:
            return self.start - 1
        if bound < end:
            return bound
        # ``end`` may lie inside an entry of this log: go back to where its term began.
        return max(self.start, next((start.first for start in self._terms if start.term == found), self.start))

    def last_end_within(self, end: int, term: int) -> tuple[int, int]:
        """The greatest place at or before ``end`` whose term is at most ``term``, and its term. The log's start, if there is none."""
        bound = min(end, self.end)
        found = bisect.bisect_right(self._terms, term, key=lambda start: start.term)
        if found < len(self._terms):
            bound = min(bound, self._terms[found].first)
        bound = max(bound, self.start)
        return bound, self.term_at(bound)

    def read(self, start: int, end: int, bytes_max: int) -> tuple[Entry, ...]:
        """Whole entries from ``start`` on, none beyond ``end``; at least one, if there is one."""
        if start >= end:
            return ()
        if start < self.tail_start:
            return self._store.read(start, min(end, self.tail_start), bytes_max)
        chosen: list[Entry] = []
        size = 0
        for entry in self._tail[bisect.bisect_left(self._tail, start, key=lambda each: each.index) :]:
            size += entry.size_bytes
            if entry.end > end or (chosen and size > bytes_max):
                break
            chosen.append(entry)
        return tuple(chosen)

    def append(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            assert entry.index == self.end
            assert entry.term >= self.last_term
            self._note_term(entry)
            self._tail.append(entry)
            self.end = entry.end

    def truncate(self, index: int) -> None:
        """Entries from ``index`` on are gone."""
        assert self.start <= index
        assert index <= self.end
        del self._tail[bisect.bisect_left(self._tail, index, key=lambda entry: entry.index) :]
        while self._terms and self._terms[-1].first >= index:
            self._terms.pop()
        self.end = index
        self.tail_start = min(self.tail_start, index)
        self.persisted_end = min(self.persisted_end, index)
        self._unsaved_from = min(self._unsaved_from, index)
        self._saves = deque((number, min(end, index)) for number, end in self._saves)

    def replace(self, snapshot: SnapshotMeta) -> None:
        """Nothing of this log is worth keeping; a snapshot stands for everything before its end (paper, figure 13)."""
        self._tail.clear()
        self._terms.clear()
        self.start = self.end = self.tail_start = snapshot.end
        self.start_term = snapshot.term
        self._unsaved_from = self._handed_end = snapshot.end
        self.persisted_end = 0
        self._saves = deque((number, 0) for number, _ in self._saves)
        self.is_replaced = True

    def move_start(self, start: int) -> None:
        """Entries before ``start``, all of them persisted, are not needed any more."""
        if not self.start < start <= self.tail_start:
            return
        self.start_term = self.term_at(start)
        self.start = start
        kept = bisect.bisect_right(self._terms, start, key=lambda each: each.first) - 1
        if kept >= 0:
            del self._terms[:kept]
            if self._terms[0].first < start:
                self._terms[0] = TermStart(self._terms[0].term, start)

    def take_unsaved(self, number: int) -> tuple[int, tuple[Entry, ...]]:
        """What Persist ``number`` has to do: truncate from where (-1: not at all), and append what."""
        start = self._unsaved_from
        truncate_from = start if start < self._handed_end else -1
        first = bisect.bisect_left(self._tail, start, key=lambda entry: entry.index)
        self._saves.append((number, self.end))
        self._unsaved_from = self._handed_end = self.end
        self.is_replaced = False
        return truncate_from, tuple(self._tail[first:])

    def on_persisted(self, number: int) -> None:
        while self._saves and self._saves[0][0] <= number:
            self.persisted_end = self._saves.popleft()[1]
        if self.persisted_end > self.tail_start:
            del self._tail[: bisect.bisect_left(self._tail, self.persisted_end, key=lambda entry: entry.index)]
            self.tail_start = self.persisted_end

    def _note_term(self, entry: Entry) -> None:
        if entry.term > (self._terms[-1].term if self._terms else -1):
            self._terms.append(TermStart(entry.term, entry.index))
