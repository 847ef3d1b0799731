"""What a producer shares with the engine: the accumulator with its lock, the sender, and what failed.

The lock is held for some list operations only, never while encoding, compressing or waiting. Callers close batches and pack
them; the engine does so for those that lingered, takes the line to the sender and brings back the outcomes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from zmqmq import batch as format_
from zmqmq.batch import Record
from zmqmq.client.accumulator import Accumulator, Batch
from zmqmq.client.engine import Io
from zmqmq.client.handles import Failure
from zmqmq.client.routing import Sticky, TopicRoute
from zmqmq.client.sender import Sender
from zmqmq.client.watching import Watched
from zmqmq.errors import BufferFull, DeliveryFailed, InvalidConfig, ZmqmqError
from zmqmq.model import SLOT_COUNT

FAILURES_MAX: Final = 10_000
"""Failures kept one by one for ``flush``; further ones are only counted."""

_EMPTY: Final = b""


class Space(Watched):
    """Room in the buffer, or news that there will be none."""

    __slots__ = ("_outbox",)

    def __init__(self, outbox: Outbox) -> None:
        super().__init__()
        self._outbox = outbox

    @property
    def is_ready(self) -> bool:
        return self._outbox.accumulator.has_space or self._outbox.closed is not None


class Outbox:
    """What a producer shares with the engine, and the pump that turns it."""

    def __init__(self, io: Io, sender: Sender, accumulator: Accumulator, route: TopicRoute, *, compress: bool, turn: int) -> None:
        self.io = io
        self.sender = sender
        self.accumulator = accumulator
        self.route = route
        self.lock = threading.Lock()
        self.space = Space(self)
        self.compress = compress
        self.closed: ZmqmqError | None = None
        self.keeps_failures = True
        """For ``flush``; not needed when each record's caller waits for its own receipt."""
        self.failed: list[Batch] = []
        self.failed_count = 0
        self.failures_kept = 0
        self._sticky = Sticky(turn)
        self.sticky = self._sticky.current(route)
        self.table: tuple[Sequence[int], int] = _table_of(route)
        """The partition of each slot, and the version of this table."""

    def make_room(self, partition: int, size: int, timestamp_ms: int) -> bool:
        """Close what is full, or get the open batch a larger grant, to be poked when the record is in it. False: the buffer is
        full; ``space`` tells when to try again."""
        with self.lock:
            self.check_open()
            if partition not in self.route.leaders:
                hint = f"it has 0 to {len(self.route.leaders) - 1}"
                raise InvalidConfig(f"topic {self.route.name} has no partition {partition}", hint=hint)
            closed = self._close(partition) if self.accumulator.is_full(partition, size) else None
            batch = None if closed is not None else self.accumulator.room(partition, size, timestamp_ms, self.io.clock.monotonic_ms())
        if closed is not None:
            self.pack_and_poke(closed)
        return closed is not None or batch is not None

    def close_full(self, partition: int) -> None:
        """The open batch takes no more, as its producer sees it."""
        with self.lock:
            batch = self.accumulator.open.get(partition)
            closed = self._close(partition) if batch is not None and batch.records else None
        if closed is not None:
            self.pack_and_poke(closed)

    def check_open(self) -> None:
        if self.closed is not None:
            raise type(self.closed)(str(self.closed), hint=self.closed.hint)

    def full_error(self, max_block: float) -> BufferFull:
        return BufferFull(
            f"the producer's buffer for {self.route.name} was full for {max_block:g} s ({self.accumulator.buffered_bytes} bytes)",
            hint="slow down, or raise buffer_bytes or max_block; look at the broker with 'zmqmq ping'",
            outcome="not_written",
        )

    def pack_and_poke(self, batch: Batch) -> None:
        """A batch that is in line must be packed by somebody, else those behind it wait for ever."""
        try:
            self.pack(batch)
        except BaseException:  # Ctrl-C, usually; it goes on to the caller
            self.io.call(lambda _now_ms: self.pack(batch))
            raise
        self.io.poke()

    def pack(self, batch: Batch) -> None:
        if batch.payload is None:
            batch.pack(compress=self.compress)
        with self.lock:
            self.accumulator.on_packed(batch)

    def close_all(self) -> list[Batch]:
        """Send on what has gathered; every batch that is not decided yet."""
        with self.lock:
            closed = self.accumulator.close_all()
            unresolved = list(self.accumulator.unresolved)
        for batch in closed:
            self.pack_and_poke(batch)
        return unresolved

    def end(self, error: ZmqmqError) -> None:
        """Take no more records; what is open stands in line unpacked, for the sender to fail."""
        with self.lock:
            if self.closed is None:
                self.closed = error
                self.accumulator.close_all()
        self.space.notify()

    def raise_failures(self) -> None:
        """What failed since the last time, as DeliveryFailed."""
        with self.lock:
            batches, self.failed = self.failed, []
            count, self.failed_count = self.failed_count, 0
            self.failures_kept = 0
        if not count:
            return
        failures = [failure for batch in batches for failure in _failures_of(batch)][:FAILURES_MAX]
        more = "" if count <= len(failures) else f" (the first {len(failures)} are listed)"
        first = failures[0].error
        raise DeliveryFailed(
            f"{count} records to {self.route.name} were not delivered{more}: {first}",
            failures=failures,
            hint=first.hint or "look at .failures: each names its outcome",
            outcome="unknown" if any(failure.outcome == "unknown" for failure in failures) else "not_written",
        )

    def on_forked(self, error: ZmqmqError) -> None:
        """In the child: what is under way belongs to the parent."""
        self.closed = error
        self.accumulator.open.clear()
        for batch in self.accumulator.unresolved:
            batch.outcome = error
        self.accumulator.unresolved.clear()

    def before(self, now_ms: int) -> None:
        if self.accumulator.is_idle:  # whoever adds something now will poke
            return
        with self.lock:
            closed = self.accumulator.close_lingering(now_ms) if self.accumulator.open else []
            for batch in closed:
                self._advance_sticky(batch.partition)
            line = self.accumulator.take_line()
        for batch in closed:
            self.pack(batch)
        if line:
            self.sender.enqueue(line)

    def after(self) -> None:
        self._take_route()
        resolved = self.sender.take_resolved()
        if not resolved:
            return
        with self.lock:
            for batch in resolved:
                self.accumulator.release(batch)
                if isinstance(batch.outcome, ZmqmqError) and self.keeps_failures:
                    self._keep_failed(batch)
                else:
                    batch.payload = batch.sealed = _EMPTY
        if self.space.is_ready:
            self.space.notify()
        for batch in resolved:
            batch.notify()

    def next_ms(self) -> int | None:
        if not self.accumulator.open:
            return None
        with self.lock:
            return self.accumulator.next_linger_ms()

    def _close(self, partition: int) -> Batch:
        batch = self.accumulator.close(partition)
        self._advance_sticky(partition)
        return batch

    def _keep_failed(self, batch: Batch) -> None:
        self.failed_count += batch.count
        if self.failures_kept < FAILURES_MAX:
            self.failures_kept += batch.count
            self.failed.append(batch)

    def _take_route(self) -> None:
        found = self.io.core.routing.routes.get(self.route.name)
        if found is not None and found is not self.route:
            self.route = found
            self.table = _table_of(found)
            self.sticky = self._sticky.current(found)

    def _advance_sticky(self, partition: int) -> None:
        if partition == self.sticky:
            self._sticky.advance()
            self.sticky = self._sticky.current(self.route)


def _table_of(route: TopicRoute) -> tuple[Sequence[int], int]:
    return route.slots or (0,) * SLOT_COUNT, route.table_version


def _failures_of(batch: Batch) -> list[Failure]:
    error = batch.outcome
    assert isinstance(error, ZmqmqError)
    outcome = error.outcome or "unknown"
    records: Sequence[Record | None] = batch.records
    if batch.payload:
        data = batch.sealed or batch.seal(format_.NO_PRODUCER, 0, format_.NO_SEQUENCE)
        records = format_.records(format_.parse_header(data), data)
    return [Failure(batch.topic, batch.partition, record.key, record.value, error, outcome) for record in records if record is not None]
