"""The truncations and resets that a journal holds, and what they leave of everything before them.

A segment may be physically shorter than the checkpoint and earlier journal entries say, or hold other records
there, because a later entry of the journal took them back. So whoever reads a journal looks for these first.

Invariant: what is below every cut that came after it was never touched.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from zmqmq.model import PartitionId
from zmqmq.producer_state import ProducerEntry
from zmqmq.store import formats, replay

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zmqmq.ports import File

NOTHING: Final = -1
"""The bound of what a reset took away altogether."""
UNBOUNDED: Final = 1 << 64

_encode_producers = msgspec.msgpack.Encoder().encode
_decode_producers = msgspec.msgpack.Decoder(dict[int, ProducerEntry | None]).decode


class Cut(Struct, frozen=True):
    """One of them, with the sequence of its entry."""

    sequence: int
    end: int
    is_reset: bool


class Cuts:
    """Those of one partition, in order, at least one."""

    def __init__(self, cuts: Sequence[Cut]) -> None:
        self.count = len(cuts)
        self._sequences = [cut.sequence for cut in cuts]
        self._bounds = [UNBOUNDED]
        for cut in reversed(cuts):
            self._bounds.append(NOTHING if cut.is_reset else min(cut.end, self._bounds[-1]))
        self._bounds.reverse()
        self.reset_start: int | None = next((cut.end for cut in reversed(cuts) if cut.is_reset), None)
        """Where the last reset made the log begin; None: there was none, and the checkpoint counts up to ``bound``."""

    @property
    def bound(self) -> int:
        """Up to where the checkpoint's records still count; NOTHING after a reset."""
        return self._bounds[0]

    def bound_of(self, sequence: int) -> int:
        """Up to where the records of a journal entry still count; NOTHING: a reset made all of it void."""
        return self._bounds[bisect_right(self._sequences, sequence)]


def find_cuts(files: Sequence[File], entries: Sequence[replay.FoundEntry]) -> dict[PartitionId, Cuts]:
    """What a scanned journal holds of them. Raises OSError, and ValueError when an entry does not decode."""
    found: dict[PartitionId, list[Cut]] = {}
    for entry in entries:
        if entry.kind in formats.CUTS:
            for item in formats.items_of(replay.read_entry(files[entry.slot], entry), entry.header):
                end, _ = formats.decode_cut(item)
                found.setdefault(item.partition, []).append(Cut(entry.header.sequence, end, item.kind == formats.ITEM_RESET))
    return {partition: Cuts(cuts) for partition, cuts in found.items()}


def encode_truncate(partition: PartitionId, end: int, producers: Mapping[int, ProducerEntry | None]) -> bytes:
    """The item; ``producers`` are those that wrote behind ``end``, as they are without it."""
    return formats.encode_truncate(partition, end, _encode_producers(producers))


def decode_truncate(item: formats.Item) -> tuple[int, dict[int, ProducerEntry | None]]:
    """Raises ValueError."""
    end, producers = formats.decode_cut(item)
    try:
        return end, _decode_producers(producers)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"producers do not decode: {error}") from error
