"""Where records gather into batches on their way out.

One accumulator belongs to one producer, and the producer's lock protects it: callers add, the I/O side takes.
It has no lock and no clock of its own. Per partition there is at most one open batch; a closed batch gets its place
in line at once, and may be packed (encoded, compressed) afterwards, outside the lock: what is packed late is
sent late, and nothing overtakes it.

Invariant: ``buffered_bytes`` is what all unresolved batches hold, counted in grants of ``GRANT_BYTES`` while they are
open, so that adding a record does not have to count; it passes ``buffer_bytes`` by one grant at most.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Final, TypeAlias

from msgspec import Struct

from zmqmq import batch as format_
from zmqmq.batch import NO_SEQUENCE, Record
from zmqmq.client.watching import Watched
from zmqmq.errors import ZmqmqError

RECORD_OVERHEAD_BYTES: Final = 24
"""Counted per record on top of key, value and headers."""
GRANT_BYTES: Final = 16 << 10
EMPTY_MS: Final = 1_000
"""An open batch that has no record so long after its time to leave is forgotten."""

_timestamp_delta: Final = attrgetter("timestamp_delta")


class Receipt(Struct, frozen=True, gc=False):
    """A batch was delivered. ``base_offset`` is None when that is all that is known (acks=0, or an old duplicate)."""

    base_offset: int | None
    append_time_ms: int
    leader_epoch: int
    replicas: int
    synced: int


Outcome: TypeAlias = Receipt | ZmqmqError


class Batch(Watched):
    """Records of one partition, from the first ``send`` to the receipt.

    States: open (``records`` grow) -> closed -> packed (``payload`` is set, ``records`` are gone) -> resolved.
    ``sequence`` and ``producer`` are the sender's. ``table_version`` is that of the slot table which chose the partition for
    a record, the oldest if there were several, 0 if no record has a key.
    """

    __slots__ = (
        "base_timestamp_ms", "bytes", "codec", "count", "deadline_ms", "granted", "has_own_times", "in_flight",
        "linger_ms", "max_timestamp_ms", "maybe_written", "outcome", "partition", "payload", "producer", "records",
        "sealed", "sequence", "table_version", "topic", "uncompressed_bytes",
    )  # fmt: skip

    def __init__(self, topic: str, partition: int, timestamp_ms: int, *, linger_ms: int, deadline_ms: int) -> None:
        super().__init__()
        self.topic = topic
        self.partition = partition
        self.records: list[Record] = []
        self.count = 0
        self.bytes = 0
        self.granted = 0
        self.base_timestamp_ms = self.max_timestamp_ms = timestamp_ms
        self.linger_ms = linger_ms
        self.deadline_ms = deadline_ms
        self.payload: bytes | None = None
        self.codec = 0
        self.uncompressed_bytes = 0
        self.sealed = b""
        self.table_version = 0
        self.has_own_times = False
        self.sequence = NO_SEQUENCE
        self.producer: Any = None
        self.in_flight = False
        self.maybe_written = False
        self.outcome: Outcome | None = None

    def __repr__(self) -> str:
        return f"Batch({self.topic}-{self.partition} n={self.count or len(self.records)} sequence={self.sequence} {self.outcome!r})"

    def pack(self, *, compress: bool) -> None:
        """Encode and compress a closed batch: the expensive step, done outside every lock."""
        encoded = format_.encode_records(self.records)
        last = max(map(_timestamp_delta, self.records)) if self.has_own_times else self.records[-1].timestamp_delta
        self.max_timestamp_ms = max(self.base_timestamp_ms, self.base_timestamp_ms + last)
        self.uncompressed_bytes = len(encoded)
        payload, self.codec = format_.pack(encoded, compress=compress)
        self.payload = payload  # before the records go: an interrupted pack can be repeated
        self.records = []

    def seal(self, producer_id: int, producer_epoch: int, sequence: int) -> bytes:
        """The bytes that travel. Sealing again with other arguments replaces them."""
        assert self.payload is not None
        self.sequence = sequence
        self.sealed = format_.seal(
            self.payload,
            codec=self.codec,
            uncompressed_bytes=self.uncompressed_bytes,
            record_count=self.count,
            base_timestamp_ms=self.base_timestamp_ms,
            max_timestamp_ms=self.max_timestamp_ms,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=sequence,
        )
        return self.sealed

    @property
    def is_ready(self) -> bool:
        return self.outcome is not None

    def chosen_by(self, table_version: int) -> None:
        """A slot table chose the partition for a record of this batch."""
        if not 0 < self.table_version <= table_version:
            self.table_version = table_version


class Accumulator:
    """Open batches, closed batches in line, and what they cost."""

    def __init__(self, topic: str, *, batch_bytes: int, buffer_bytes: int, linger_ms: int, delivery_ms: int) -> None:
        self.topic = topic
        self.batch_bytes = batch_bytes
        self.buffer_bytes = buffer_bytes
        self.linger_ms = linger_ms
        self.delivery_ms = delivery_ms
        self.open: dict[int, Batch] = {}
        self.unresolved: dict[Batch, None] = {}
        self.buffered_bytes = 0
        self._line: list[Batch] = []

    def is_full(self, partition: int, size: int) -> bool:
        """The open batch has to be closed before ``size`` more bytes find room."""
        batch = self.open.get(partition)
        return batch is not None and batch.bytes + size > self.batch_bytes

    @property
    def is_idle(self) -> bool:
        """Nothing is open, nothing stands in line. The one thing that may be asked without the producer's lock."""
        return not self.open and not self._line

    @property
    def has_space(self) -> bool:
        """A record that comes alone is always taken, however large the buffer."""
        return self.buffered_bytes < self.buffer_bytes or not self.unresolved

    def room(self, partition: int, size: int, timestamp_ms: int, now_ms: int) -> Batch | None:
        """The open batch, which now takes ``size`` more bytes. None: the buffer is full; wait for ``release``."""
        batch = self.open.get(partition)
        if batch is not None and batch.bytes + size <= batch.granted:
            return batch
        if not self.has_space:
            return None
        if batch is None:
            batch = Batch(self.topic, partition, timestamp_ms, linger_ms=now_ms + self.linger_ms, deadline_ms=now_ms + self.delivery_ms)
            self.open[partition] = batch
            self.unresolved[batch] = None
        grant = max(batch.bytes + size, min(batch.granted + GRANT_BYTES, self.batch_bytes)) - batch.granted
        batch.granted += grant
        self.buffered_bytes += grant
        return batch

    def close(self, partition: int) -> Batch:
        """No record joins the batch any more; it stands in line from now on."""
        batch = self.open.pop(partition)
        batch.count = len(batch.records)
        assert batch.count > 0
        self.buffered_bytes -= batch.granted - batch.bytes
        batch.granted = batch.bytes
        self._line.append(batch)
        return batch

    def close_lingering(self, now_ms: int) -> list[Batch]:
        """Close what has gathered long enough; the batches want packing. One that never got a record goes: its producer was
        interrupted."""
        for batch in [batch for batch in self.open.values() if not batch.records and batch.linger_ms + EMPTY_MS <= now_ms]:
            self._discard(batch)
        due = [partition for partition, batch in self.open.items() if batch.linger_ms <= now_ms and batch.records]
        return [self.close(partition) for partition in due]

    def close_all(self) -> list[Batch]:
        """Close every open batch; whoever is about to add to an empty one has to ask for ``room`` again."""
        for batch in [batch for batch in self.open.values() if not batch.records]:
            self._discard(batch)
        return [self.close(partition) for partition in list(self.open)]

    def next_linger_ms(self) -> int | None:
        return min((batch.linger_ms if batch.records else batch.linger_ms + EMPTY_MS for batch in self.open.values()), default=None)

    def take_line(self) -> list[Batch]:
        """The closed batches, in order of closing. They may still lack their payload."""
        line, self._line = self._line, []
        return line

    def on_packed(self, batch: Batch) -> None:
        """From now on the batch costs what its payload does, unless its deadline came first."""
        assert batch.payload is not None
        if batch not in self.unresolved:
            return
        self.buffered_bytes -= batch.granted - len(batch.payload)
        batch.granted = len(batch.payload)

    def release(self, batch: Batch) -> None:
        """The batch is resolved: its room is free."""
        del self.unresolved[batch]
        self.buffered_bytes -= batch.granted
        batch.granted = 0
        self._check()

    def _discard(self, batch: Batch) -> None:
        del self.open[batch.partition]
        self.release(batch)

    def _check(self) -> None:
        assert self.buffered_bytes >= 0
        assert bool(self.unresolved) or self.buffered_bytes == 0
