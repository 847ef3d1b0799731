"""What a partition remembers of its idempotent producers, so that a retry is written once and in order.

Pure. The leader decides with it, the store keeps it over restarts. Rules as in Kafka's KIP-98, with
``IN_FLIGHT_BATCHES_MAX`` batches remembered. Sequences count records modulo 2**31.

Who is forgotten depends on the log alone, on the order and the append times of its batches, so that leader,
store and a replay of the log always agree. ``apply`` forgets who wrote nothing for ``PRODUCER_IDLE_MS``, and
beyond ``PRODUCERS_MAX`` who was idle longest. To forget one that may still send its first batch again would
write that batch twice; so while all of them wrote within ``PRODUCER_KEPT_MS``, the leader refuses new ones.

Invariants: the remembered batches of a producer are those of its newest epoch, in order, without a gap;
``entries`` are in the order of their last batches, and at most PRODUCERS_MAX.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta, Struct

from zmqmq.batch import NO_PRODUCER, SEQUENCE_MODULUS, BatchHeader
from zmqmq.errors import DuplicateSequence, Fenced, OutOfOrderSequence, Throttled, UnknownProducer
from zmqmq.marks import reached
from zmqmq.model import IN_FLIGHT_BATCHES_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

PRODUCERS_MAX: Final = 10_000
"""Of one partition; some 120 bytes each in the checkpoint, 600 in memory."""
PRODUCER_KEPT_MS: Final = 5 * 60_000
"""Far beyond a delivery deadline: who was silent for so long sends nothing again."""
PRODUCER_IDLE_MS: Final = 7 * 86_400_000
_RETRY_AFTER_MS: Final = 1_000


class WrittenBatch(Struct, frozen=True, array_like=True, gc=False):
    """A batch that is in the log."""

    base_sequence: int
    last_sequence: int
    base_offset: int
    end_offset: int
    leader_epoch: int
    append_time_ms: int


class ProducerEntry(Struct, frozen=True, array_like=True):
    """One producer id: its newest epoch and last batches, oldest first. Immutable, so that a copy is free."""

    epoch: int
    batches: Annotated[tuple[WrittenBatch, ...], Meta(min_length=1)]

    @property
    def last_append_ms(self) -> int:
        return self.batches[-1].append_time_ms

    @property
    def end_offset(self) -> int:
        return self.batches[-1].end_offset


class ProducerStates:
    """The producers of one partition."""

    def __init__(self, entries: Mapping[int, ProducerEntry] | None = None) -> None:
        self.entries: OrderedDict[int, ProducerEntry] = _in_order(entries or {})

    def check(self, header: BatchHeader) -> WrittenBatch | None:
        """None: append it. A batch: it is a duplicate of that one.

        Raises Fenced (a newer epoch exists), OutOfOrderSequence (a predecessor is missing),
        UnknownProducer (never seen, and not its first batch), DuplicateSequence (older than is remembered).
        """
        if header.producer_id == NO_PRODUCER:
            return None
        name = f"producer {header.producer_id} epoch {header.producer_epoch}"
        entry = self.entries.get(header.producer_id)
        if entry is None:
            if header.base_sequence != 0:
                reached("unknown producer refused")
                raise UnknownProducer(f"{name} is not known here, and sequence {header.base_sequence} is not its first")
            return None
        if header.producer_epoch < entry.epoch:
            reached("old producer epoch refused")
            raise Fenced(f"{name} is fenced by epoch {entry.epoch}")
        if header.producer_epoch > entry.epoch:
            if header.base_sequence != 0:
                raise OutOfOrderSequence(f"{name} is new, and begins with sequence {header.base_sequence} instead of 0")
            return None
        for batch in entry.batches:
            if batch.base_sequence == header.base_sequence and batch.last_sequence == header.last_sequence:
                reached("duplicate answered")
                return batch
        expected = (entry.batches[-1].last_sequence + 1) % SEQUENCE_MODULUS
        if header.base_sequence == expected:
            return None
        behind = (expected - header.base_sequence) % SEQUENCE_MODULUS
        if behind < SEQUENCE_MODULUS // 2:
            raise DuplicateSequence(f"{name} sent sequence {header.base_sequence} again, {expected} is next")
        reached("gap in sequences refused")
        raise OutOfOrderSequence(f"{name} sent sequence {header.base_sequence}, {expected} is next")

    def check_room(self, producer_id: int, now_ms: int) -> None:
        """Raises Throttled for a new producer when nobody may be forgotten for it."""
        if len(self.entries) < PRODUCERS_MAX or producer_id in self.entries or producer_id == NO_PRODUCER:
            return
        idle_ms = now_ms - next(iter(self.entries.values())).last_append_ms
        if idle_ms < PRODUCER_KEPT_MS:
            raise Throttled(
                f"{len(self.entries)} producers wrote to the partition within {PRODUCER_KEPT_MS // 60_000} minutes, its limit",
                retry_after_ms=_RETRY_AFTER_MS,
                hint="keep producers open instead of making new ones, or spread them over more partitions",
                outcome="not_written",
            )

    def apply(self, header: BatchHeader, undo: dict[int, ProducerEntry | None] | None = None) -> None:
        """Remember a batch that was appended. ``undo`` collects what ``restore`` needs to take it back."""
        if header.producer_id == NO_PRODUCER:
            return
        written = WrittenBatch(
            header.base_sequence,
            header.last_sequence,
            header.base_offset,
            header.end_offset,
            header.leader_epoch,
            header.append_time_ms,
        )
        entry = self.entries.get(header.producer_id)
        if undo is not None:
            undo.setdefault(header.producer_id, entry)
        kept = entry.batches if entry is not None and entry.epoch == header.producer_epoch else ()
        self.entries[header.producer_id] = ProducerEntry(header.producer_epoch, (*kept, written)[-IN_FLIGHT_BATCHES_MAX:])
        self.entries.move_to_end(header.producer_id)
        self._forget(header.append_time_ms, undo)

    def restore(self, undo: Mapping[int, ProducerEntry | None]) -> None:
        """Take back the applied batches that ``undo`` was collected from."""
        if undo:
            before = {**self.entries, **undo}
            self.entries = _in_order({producer_id: entry for producer_id, entry in before.items() if entry is not None})

    def _forget(self, now_ms: int, undo: dict[int, ProducerEntry | None] | None) -> None:
        while True:
            producer_id, idlest = next(iter(self.entries.items()))
            if len(self.entries) <= PRODUCERS_MAX and now_ms - idlest.last_append_ms <= PRODUCER_IDLE_MS:
                break
            del self.entries[producer_id]
            if undo is not None:
                undo.setdefault(producer_id, idlest)


def _in_order(entries: Mapping[int, ProducerEntry]) -> OrderedDict[int, ProducerEntry]:
    return OrderedDict(sorted(entries.items(), key=lambda item: item[1].end_offset))
