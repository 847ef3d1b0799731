"""What a partition remembers of its idempotent producers, so that a retry is written once and in order.

Pure. The leader decides with it, the store keeps it over restarts. Rules as in Kafka's KIP-98, with
``IN_FLIGHT_BATCHES_MAX`` batches remembered. Sequences count records modulo 2**31.

Invariant: the remembered batches of a producer are those of its newest epoch, in order, without a gap.
"""

from __future__ import annotations

from msgspec import Struct

from zmqmq.batch import NO_PRODUCER, SEQUENCE_MODULUS, BatchHeader
from zmqmq.errors import DuplicateSequence, Fenced, OutOfOrderSequence, UnknownProducer
from zmqmq.model import IN_FLIGHT_BATCHES_MAX


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
    batches: tuple[WrittenBatch, ...]

    @property
    def last_append_ms(self) -> int:
        return self.batches[-1].append_time_ms


class ProducerStates:
    """The producers of one partition."""

    def __init__(self, entries: dict[int, ProducerEntry] | None = None) -> None:
        self.entries: dict[int, ProducerEntry] = dict(entries or {})

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
                raise UnknownProducer(f"{name} is not known here, and sequence {header.base_sequence} is not its first")
            return None
        if header.producer_epoch < entry.epoch:
            raise Fenced(f"{name} is fenced by epoch {entry.epoch}")
        if header.producer_epoch > entry.epoch:
            if header.base_sequence != 0:
                raise OutOfOrderSequence(f"{name} is new, and begins with sequence {header.base_sequence} instead of 0")
            return None
        for batch in entry.batches:
            if batch.base_sequence == header.base_sequence and batch.last_sequence == header.last_sequence:
                return batch
        expected = (entry.batches[-1].last_sequence + 1) % SEQUENCE_MODULUS
        if header.base_sequence == expected:
            return None
        behind = (expected - header.base_sequence) % SEQUENCE_MODULUS
        if behind < SEQUENCE_MODULUS // 2:
            raise DuplicateSequence(f"{name} sent sequence {header.base_sequence} again, {expected} is next")
        raise OutOfOrderSequence(f"{name} sent sequence {header.base_sequence}, {expected} is next")

    def apply(self, header: BatchHeader) -> None:
        """Remember a batch that was appended."""
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
        kept = entry.batches if entry is not None and entry.epoch == header.producer_epoch else ()
        self.entries[header.producer_id] = ProducerEntry(header.producer_epoch, (*kept, written)[-IN_FLIGHT_BATCHES_MAX:])

    def expire(self, before_ms: int) -> None:
        """Forget producers whose last batch is older."""
        self.entries = {id_: entry for id_, entry in self.entries.items() if entry.last_append_ms >= before_ms}
