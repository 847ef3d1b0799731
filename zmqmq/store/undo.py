"""What a partition's producers were before its last batches, so that a truncation can take those back.

Pure. The memory is bounded and begins anew with each open. Where it does not reach, the batches that are cut are
dropped from what is remembered of a producer: it may then be unknown, which costs it its lane, never a record.

Invariant: ``_records`` holds every batch of a producer from ``_floor`` on, in order.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from zmqmq.producer_state import ProducerEntry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zmqmq.batch import BatchHeader
    from zmqmq.producer_state import ProducerStates

UNDO_BATCHES_MAX: Final = 256
"""Of one partition that is written; some 400 bytes each."""

Producers = dict[int, ProducerEntry | None]
"""None: it is not known."""


class ProducerUndo:
    """The last batches of one partition, each with the producers that it changed as they were before."""

    __slots__ = ("_floor", "_records")

    def __init__(self, floor: int) -> None:
        self._floor = floor
        self._records: deque[tuple[int, int, tuple[tuple[int, ProducerEntry | None], ...]]] = deque()

    def apply(self, states: ProducerStates, header: BatchHeader) -> None:
        """Let the states learn a batch, and remember how to take it back."""
        before: Producers = {}
        states.apply(header, before)
        self._records.append((header.base_offset, header.end_offset, tuple(before.items())))
        if len(self._records) > UNDO_BATCHES_MAX:
            self._floor = self._records.popleft()[1]

    def before(self, end: int) -> Producers:
        """The producers that were changed at ``end`` or later, as they were then, as far as the memory reaches."""
        found: Producers = {}
        for base, _, changed in reversed(self._records):
            if base < end:
                break
            found.update(changed)
        return found

    def cut(self, end: int) -> None:
        """The batches from ``end`` on are gone."""
        while self._records and self._records[-1][0] >= end:
            self._records.pop()
        self._floor = min(self._floor, end)

    def reaches(self, end: int) -> bool:
        return self._floor <= end


def producers_at(entries: Mapping[int, ProducerEntry], undo: ProducerUndo | None, end: int) -> Producers:
    """The producers that are different once the log ends at ``end``."""
    changed = undo.before(end) if undo is not None else {}
    if undo is not None and undo.reaches(end):
        return changed
    for producer_id, entry in {**entries, **changed}.items():
        if entry is not None and entry.end_offset > end:
            kept = tuple(batch for batch in entry.batches if batch.end_offset <= end)
            changed[producer_id] = ProducerEntry(entry.epoch, kept) if kept else None
    return changed
