"""The sync producer: encodes and gathers in the caller's thread, hands closed batches to the I/O thread.

``send`` is a closure over everything it needs, because it runs a million times a second.
"""

from __future__ import annotations

import datetime as dt
import time
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import accumulate, repeat
from operator import add
from typing import Any, Final, Generic, Protocol, TypeVar

from crc32c import crc32c

from zmqmq.batch import Record
from zmqmq.client.accumulator import RECORD_OVERHEAD_BYTES
from zmqmq.client.handles import BatchHandle, Handle, wait_for
from zmqmq.client.outbox import Outbox
from zmqmq.client.serde import Serde, encode_plain_key, encode_raw
from zmqmq.errors import ClosedError, DeliveryFailed, InvalidConfig, MessageTooLarge, TimeoutError, ZmqmqError
from zmqmq.model import SLOT_COUNT
from zmqmq.topic_config import stored_config

V = TypeVar("V")
V_contra = TypeVar("V_contra", contravariant=True)

ERROR_FLUSH_S: Final = 5.0
"""How long a ``with`` block that ends by an error (or Ctrl-C) waits for what was sent."""

Headers = Mapping[str, bytes]
_EMPTY: Final = b""


class Send(Protocol[V_contra]):
    """The type of ``Producer.send``."""

    def __call__(
        self,
        value: V_contra | None,
        *,
        key: Any = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp: dt.datetime | None = None,
    ) -> Handle: ...


class Producer(Generic[V]):
    """Sends records to one topic. Made by ``Client.producer``; safe to use from many threads; a context manager."""

    send: Send[V]
    """``send(value, *, key, headers, partition, timestamp) -> Handle``: add a record; blocks only while the buffer is full
    (``max_block``, then BufferFull). ``None`` is a tombstone."""

    def __init__(self, outbox: Outbox, value: Serde[V], key: Serde[Any] | None, *, max_block: float, on_close: Callable[[], None]) -> None:
        self._outbox = outbox
        self._encode: Callable[[Any], bytes] = value.encode
        self._encode_key: Callable[[Any], bytes | None] = encode_plain_key if key is None else key.encode
        self._max_block = max_block
        self._message_bytes_max = stored_config(outbox.route.config).message_bytes_max
        self._on_close = on_close
        self.send = _make_send(outbox, self._encode, self._encode_key, max_block, self._message_bytes_max)

    def __repr__(self) -> str:
        state = "closed" if self._outbox.closed else "open"
        return f"Producer({self.topic} {state} unsent={len(self._outbox.accumulator.unresolved)})"

    @property
    def topic(self) -> str:
        return self._outbox.route.name

    def send_many(self, values: Iterable[V | None], *, keys: Sequence[Any] | None = None) -> BatchHandle:
        """``send`` for many values at once, several times faster. ``keys`` are as many as values."""
        data = self._encoded(values)
        if keys is not None and len(keys) != len(data):
            raise InvalidConfig(f"send_many got {len(data)} values and {len(keys)} keys", hint="give one key per value")
        handle = BatchHandle(len(data))
        if keys is None:
            self._check_sizes(_sizes(data))
            self._gather(handle, None, data, None, range(len(data)))
            return handle
        encode = self._encode_key
        encoded = [encode(key) for key in keys]
        groups: dict[int | None, tuple[list[bytes | None], list[bytes | None], list[int]]] = {}
        slots = self._outbox.slots
        for position, (key, value) in enumerate(zip(encoded, data, strict=True)):
            partition = None if key is None else slots[crc32c(key) % SLOT_COUNT]
            group = groups.get(partition)
            if group is None:
                group = groups[partition] = ([], [], [])
            group[0].append(key)
            group[1].append(value)
            group[2].append(position)
        self._check_sizes(map(add, _sizes(encoded), _sizes(data)))
        for partition, (group_keys, group_values, positions) in groups.items():
            self._gather(handle, partition, group_values, group_keys, positions)
        return handle

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything sent so far is decided. Raises DeliveryFailed if a record was lost since the last flush, or
        TimeoutError; without ``timeout`` the delivery timeout is the limit."""
        self._outbox.check_open()
        deadline = None if timeout is None else time.monotonic() + timeout
        for batch in self._outbox.close_all():
            if batch.outcome is None:
                wait_for(batch, None if deadline is None else deadline - time.monotonic())
        self._raise_failures()

    def close(self, timeout: float | None = None) -> None:
        """Flush and end. Raises DeliveryFailed if a record was lost. What is not decided within ``timeout`` fails."""
        if self._outbox.closed is not None:
            return
        try:
            self.flush(timeout)
        except TimeoutError:
            self.abandon(ClosedError(f"the producer of {self.topic} was closed before its records were delivered"))
            self._raise_failures()
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

    # -- send_many ----------------------------------------------------------------------------------

    def _encoded(self, values: Iterable[V | None]) -> list[bytes | None]:
        listed: list[Any] = values if isinstance(values, list) else list(values)
        encode = self._encode
        if encode is encode_raw and set(map(type, listed)) <= {bytes, type(None)}:
            return listed
        return [None if value is None else encode(value) for value in listed]

    def _check_sizes(self, sizes: Iterable[int]) -> None:
        largest = max(sizes, default=0)
        if largest > self._message_bytes_max:
            raise _too_large(self.topic, largest, self._message_bytes_max)

    def _gather(
        self,
        handle: BatchHandle,
        partition: int | None,
        values: list[bytes | None],
        keys: list[bytes | None] | None,
        positions: Sequence[int],
    ) -> None:
        """Put records into batches, as many as fit at a time."""
        outbox = self._outbox
        accumulator = outbox.accumulator
        ends = list(accumulate(_sizes(values) if keys is None else map(add, _sizes(values), _sizes(keys))))
        now_ms = time.time_ns() // 1_000_000
        at, done = 0, 0
        while at < len(values):
            target = outbox.sticky if partition is None else partition
            with outbox.lock:
                outbox.check_open()
                batch = accumulator.open.get(target)
                base = 0 if batch is None else batch.bytes
                size_up_to = partial(_size_up_to, ends, at, done)
                fits = at + bisect_right(range(at, len(values)), accumulator.batch_bytes - base, key=size_up_to)
                if fits > at or batch is None:
                    fits = max(fits, at + 1)
                    size = size_up_to(fits - 1)
                    batch = outbox.room(target, size, now_ms, self._max_block)
                    first = len(batch.records)
                    batch.records += map(
                        Record,
                        repeat(None, fits - at) if keys is None else keys[at:fits],
                        values[at:fits],
                        repeat(now_ms - batch.base_timestamp_ms),
                    )
                    batch.bytes += size
                    handle.add(batch, first, positions[at:fits])
                    at, done = fits, ends[fits - 1]
            if at < len(values):
                outbox.make_room(target, accumulator.batch_bytes, now_ms, self._max_block)
            elif batch is not None:
                outbox.io.poke(batch.linger_ms)

    def _raise_failures(self) -> None:
        failures, count = self._outbox.take_failures()
        if count:
            more = "" if count <= len(failures) else f" (the first {len(failures)} are listed)"
            first = failures[0].error
            raise DeliveryFailed(
                f"{count} records to {self.topic} were not delivered{more}: {first}",
                failures=failures,
                hint=first.hint or "look at .failures: each names its outcome",
                outcome="unknown" if any(failure.outcome == "unknown" for failure in failures) else "not_written",
            )


def _sizes(data: list[bytes | None]) -> Iterable[int]:
    try:
        return list(map(len, data))  # type: ignore[arg-type]  # None is rare, and is what the second way is for
    except TypeError:
        return [0 if item is None else len(item) for item in data]


def _size_up_to(ends: list[int], at: int, done: int, index: int) -> int:
    """The bytes of the records from ``at`` to ``index``, both included."""
    return ends[index] - done + (index - at + 1) * RECORD_OVERHEAD_BYTES


def _make_send(
    outbox: Outbox,
    encode: Callable[[Any], bytes],
    encode_key: Callable[[Any], bytes | None],
    max_block: float,
    message_bytes_max: int,
) -> Send[Any]:
    """``Producer.send``: everything it needs is a local name."""
    acquire, release = outbox.lock.acquire, outbox.lock.release
    open_batch = outbox.accumulator.open.get
    is_raw = encode is encode_raw
    is_plain_key = encode_key is encode_plain_key
    time_ns, overhead = time.time_ns, RECORD_OVERHEAD_BYTES
    size_max = message_bytes_max + overhead

    def send(
        value: Any, *, key: Any = None, headers: Headers | None = None, partition: int | None = None, timestamp: dt.datetime | None = None
    ) -> Handle:
        data = value if (is_raw and value.__class__ is bytes) or value is None else encode(value)
        size = overhead if data is None else len(data) + overhead
        if key is not None:
            if not (is_plain_key and key.__class__ is bytes):
                key = encode_key(key)
            size += len(key)
            if partition is None:
                partition = outbox.slots[crc32c(key) % SLOT_COUNT]
        if headers is not None:
            headers, size = _checked_headers(headers, size)
        if size > size_max:
            raise _too_large(outbox.route.name, size - overhead, message_bytes_max)
        now_ms = time_ns() // 1_000_000 if timestamp is None else _milliseconds(timestamp)
        while True:
            target = outbox.sticky if partition is None else partition
            try:
                acquire()
                batch = open_batch(target)
                if batch is not None and (total := batch.bytes + size) <= batch.granted:
                    records = batch.records
                    index = len(records)
                    records.append(Record(key, data, now_ms - batch.base_timestamp_ms, headers))
                    batch.bytes = total
                    if timestamp is not None:
                        batch.has_own_times = True
                    return Handle(batch, index)
            finally:
                release()
            if target not in outbox.route.leaders:
                raise InvalidConfig(
                    f"topic {outbox.route.name} has no partition {target}", hint=f"it has 0 to {len(outbox.route.leaders) - 1}"
                )
            outbox.make_room(target, size, now_ms, max_block)

    return send


def _checked_headers(headers: Headers, size: int) -> tuple[dict[str, bytes], int]:
    """A copy, and the record's size with them."""
    for name, value in headers.items():
        if name.__class__ is not str or value.__class__ is not bytes:
            raise InvalidConfig(f"header {name!r} must be a str with a bytes value, got {type(value).__name__}")
        size += len(name) + len(value) + 4
    return dict(headers), size


def _milliseconds(timestamp: dt.datetime) -> int:
    if timestamp.tzinfo is None:
        raise InvalidConfig(f"timestamp needs a time zone, got {timestamp!r}", hint="use datetime.now(UTC)")
    return int(timestamp.timestamp() * 1000)


def _too_large(topic: str, size: int, limit: int) -> MessageTooLarge:
    return MessageTooLarge(
        f"a record of {size} bytes to {topic} is over the topic's limit of {limit}",
        hint=f"make it smaller, or: zmqmq topic alter {topic} --set message_bytes_max=...",
        outcome="not_written",
    )
