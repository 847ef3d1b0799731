"""The sync producer: encodes and gathers in the caller's thread, hands closed batches to the I/O thread."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic, TypeVar

from zmqmq.client.arguments import Seconds, maybe_seconds_of
from zmqmq.client.gathering import Gatherer, Pause, Put
from zmqmq.client.handles import BatchHandle, Handle
from zmqmq.client.outbox import Outbox
from zmqmq.client.serde import Serde
from zmqmq.client.waiting import wait, wait_for_batch
from zmqmq.errors import ClosedError, TimeoutError, ZmqmqError

V = TypeVar("V")

ERROR_FLUSH_S: Final = 5.0
"""How long a ``with`` block that ends by an error (or Ctrl-C) waits for what was sent."""


class Producer(Generic[V]):
    """Sends records to one topic. Made by ``Client.producer``; safe to use from many threads; a context manager."""

    send: Put[V, Handle]
    """``send(value, *, key, headers, partition, timestamp) -> Handle``: add a record; blocks only while the buffer is full
    (``max_block``, then BufferFull). ``None`` is a tombstone."""

    def __init__(self, outbox: Outbox, value: Serde[V], key: Serde[Any] | None, *, max_block: float, on_close: Callable[[], None]) -> None:
        self._outbox = outbox
        self._gatherer = Gatherer(outbox, value, key)
        self._max_block = max_block
        self._on_close = on_close
        self.send = self._gatherer.put_function(_room_maker(outbox, max_block), Handle)

    def __repr__(self) -> str:
        state = "closed" if self._outbox.closed else "open"
        return f"Producer({self.topic} {state} unsent={len(self._outbox.accumulator.unresolved)})"

    @property
    def topic(self) -> str:
        return self._outbox.route.name

    def send_many(self, values: Iterable[V | None], *, keys: Sequence[Any] | None = None) -> BatchHandle:
        """``send`` for many values at once, several times faster. ``keys`` are as many as values."""
        encoded, encoded_keys = self._gatherer.encoded(values, keys)
        handle = BatchHandle(len(encoded))
        deadline: float | None = None
        for pause in self._gatherer.many(encoded, encoded_keys, handle):
            if pause is Pause.FULL:
                deadline = deadline or time.monotonic() + self._max_block
                _wait_for_space(self._outbox, deadline, self._max_block)
            else:
                deadline = None
        return handle

    def flush(self, timeout: Seconds | None = None) -> None:
        """Wait until everything sent so far is decided. Raises DeliveryFailed if a record was lost since the last flush, or
        TimeoutError; without ``timeout`` the delivery timeout is the limit."""
        seconds = maybe_seconds_of("timeout", timeout)
        self._outbox.check_open()
        deadline = None if seconds is None else time.monotonic() + seconds
        for batch in self._outbox.close_all():
            wait_for_batch(batch, None if deadline is None else deadline - time.monotonic())
        self._outbox.raise_failures()

    def close(self, timeout: Seconds | None = None) -> None:
        """Flush and end. Raises DeliveryFailed if a record was lost. What is not decided within ``timeout`` fails."""
        seconds = maybe_seconds_of("timeout", timeout)
        if self._outbox.closed is not None:
            self._outbox.raise_failures()
            return
        try:
            self.flush(seconds)
        except TimeoutError:
            self.abandon(ClosedError(f"the producer of {self.topic} was closed before its records were delivered"))
            self._outbox.raise_failures()
        finally:
            self.abandon(ClosedError(f"the producer of {self.topic} is closed", hint="make a new one with client.producer()"))

    def abandon(self, error: ZmqmqError) -> None:
        """End without waiting: what is not delivered fails."""
        if self._outbox.closed is None:
            self._outbox.end(error)
            self._on_close()

    def __enter__(self) -> Producer[V]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Leaving by an error flushes all the same, for a short time, but that error is the one that is raised."""
        try:
            self.close(None if kind is None else ERROR_FLUSH_S)
        except ZmqmqError:
            if kind is None:
                raise

    def __del__(self) -> None:
        outbox = getattr(self, "_outbox", None)
        if outbox is not None and outbox.closed is None and outbox.accumulator.unresolved:
            warnings.warn(f"{self!r} was dropped with undelivered records; use 'with' or close()", ResourceWarning, stacklevel=2)


def _room_maker(outbox: Outbox, max_block: float) -> Callable[[int, int, int], None]:
    """No reference to the producer: a cycle would hide that it is no longer used."""

    def make_room(partition: int, size: int, timestamp_ms: int) -> None:
        deadline: float | None = None
        while not outbox.make_room(partition, size, timestamp_ms):
            deadline = deadline or time.monotonic() + max_block
            _wait_for_space(outbox, deadline, max_block)

    return make_room


def _wait_for_space(outbox: Outbox, deadline: float, max_block: float) -> None:
    if not wait(outbox.space, deadline - time.monotonic()):
        raise outbox.full_error(max_block)
