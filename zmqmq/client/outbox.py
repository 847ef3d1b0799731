"""What a producer shares with the I/O thread: the accumulator with its lock, the sender, and what failed.

The lock is held for some list operations only, never while encoding, compressing or waiting. Callers close batches and pack
them; the I/O thread does so for those that lingered, takes the line to the sender and brings back the outcomes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final

from zmqmq import batch as format_
from zmqmq.batch import Record
from zmqmq.client.accumulator import Accumulator, Batch
from zmqmq.client.handles import Failure
from zmqmq.client.io_thread import IoThread, monotonic_ms
from zmqmq.client.routing import Sticky, TopicRoute
from zmqmq.client.sender import Sender
from zmqmq.errors import BufferFull, ZmqmqError
from zmqmq.model import SLOT_COUNT

FAILURES_MAX: Final = 10_000
"""Failures kept one by one for ``flush``; further ones are only counted."""

_EMPTY: Final = b""


class Outbox:
    """What a producer shares with the I/O thread, and the pump that turns it."""

    def __init__(self, io: IoThread, sender: Sender, accumulator: Accumulator, route: TopicRoute, *, compress: bool, turn: int) -> None:
        self.io = io
        self.sender = sender
        self.accumulator = accumulator
        self.route = route
        self.lock = threading.Lock()
        self.space = threading.Condition(self.lock)
        self.compress = compress
        self.closed: ZmqmqError | None = None
        self.keeps_failures = True
        """For ``flush``; not needed when each record's caller waits for its own receipt."""
        self.failed: list[Batch] = []
        self.failed_count = 0
        self.failures_kept = 0
        self._sticky = Sticky(turn)
        self.sticky = self._sticky.current(route)
        self.slots: Sequence[int] = route.slots or (0,) * SLOT_COUNT

    # -- in the caller's thread ---------------------------------------------------------------------

    def make_room(self, partition: int, size: int, timestamp_ms: int, max_block: float) -> None:
        """Close what is full, or get the open batch a larger grant, or wait until the buffer has space."""
        with self.lock:
            self.check_open()
            closed = None
            if self.accumulator.is_full(partition, size):
                closed = self.accumulator.close(partition)
                self._advance_sticky(partition)
            else:
                batch = self.room(partition, size, timestamp_ms, max_block)
        if closed is None:
            self.io.poke(batch.linger_ms)
        else:
            self.pack_and_poke(closed)

    def room(self, partition: int, size: int, timestamp_ms: int, max_block: float) -> Batch:
        """With the lock held; it is let go while waiting."""
        deadline: float | None = None
        while (batch := self.accumulator.room(partition, size, timestamp_ms, monotonic_ms())) is None:
            deadline = time.monotonic() + max_block if deadline is None else deadline
            if not self.space.wait(max(0.0, deadline - time.monotonic())):
                raise BufferFull(
                    f"the producer's buffer for {self.route.name} was full for {max_block:g} s ({self.accumulator.buffered_bytes} bytes)",
                    hint="slow down, or raise buffer_bytes or max_block; look at the broker with 'zmqmq ping'",
                    outcome="not_written",
                )
            self.check_open()
        return batch

    def check_open(self) -> None:
        if self.closed is not None:
            raise type(self.closed)(str(self.closed), hint=self.closed.hint)

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
                self.space.notify_all()

    def take_failures(self) -> tuple[list[Failure], int]:
        """What failed since the last time, and how many in all."""
        with self.lock:
            batches, self.failed = self.failed, []
            count, self.failed_count = self.failed_count, 0
            self.failures_kept = 0
        failures = [failure for batch in batches for failure in _failures_of(batch)]
        return failures[:FAILURES_MAX], count

    def on_forked(self, error: ZmqmqError) -> None:
        """In the child: what is under way belongs to the parent."""
        self.closed = error
        self.accumulator.open.clear()
        for batch in self.accumulator.unresolved:
            batch.outcome = error
        self.accumulator.unresolved.clear()

    # -- in the I/O thread --------------------------------------------------------------------------

    def before(self, now_ms: int) -> None:
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
            self.space.notify_all()
        for batch in resolved:
            batch.notify()

    def next_ms(self) -> int | None:
        with self.lock:
            return self.accumulator.next_linger_ms()

    def _keep_failed(self, batch: Batch) -> None:
        self.failed_count += batch.count
        if self.failures_kept < FAILURES_MAX:
            self.failures_kept += batch.count
            self.failed.append(batch)

    def _take_route(self) -> None:
        found = self.io.core.routing.routes.get(self.route.name)
        if found is not None and found is not self.route:
            self.route = found
            self.slots = found.slots or (0,) * SLOT_COUNT
            self.sticky = self._sticky.current(found)

    def _advance_sticky(self, partition: int) -> None:
        if partition == self.sticky:
            self._sticky.advance()
            self.sticky = self._sticky.current(self.route)


def _failures_of(batch: Batch) -> list[Failure]:
    error = batch.outcome
    assert isinstance(error, ZmqmqError)
    outcome = error.outcome or "unknown"
    records: Sequence[Record | None] = batch.records
    if batch.payload:
        data = batch.sealed or batch.seal(format_.NO_PRODUCER, 0, format_.NO_SEQUENCE)
        records = format_.records(format_.parse_header(data), data)
    return [Failure(batch.topic, batch.partition, record.key, record.value, error, outcome) for record in records if record is not None]
