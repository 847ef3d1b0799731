"""How values become records in open batches: what the sync and the async producer share.

Nothing here waits. ``put_function`` makes the function that is called a million times a second, as a closure over everything
it needs; ``many`` puts whole lists and says in between when it has to be waited for space.
"""

from __future__ import annotations

import datetime as dt
import enum
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, repeat
from operator import add
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar

from crc32c import crc32c

from zmqmq.batch import Record
from zmqmq.client.accumulator import RECORD_OVERHEAD_BYTES, Batch
from zmqmq.client.arguments import items_of, refused, text_of, whole_of
from zmqmq.client.handles import Handles
from zmqmq.client.outbox import Outbox
from zmqmq.client.serde import Serde, encode_plain_key, encode_raw
from zmqmq.errors import InvalidConfig, MessageTooLarge
from zmqmq.model import SLOT_COUNT
from zmqmq.topic_config import stored_config

H = TypeVar("H")
H_co = TypeVar("H_co", covariant=True)
V_contra = TypeVar("V_contra", contravariant=True)

Headers = Mapping[str, bytes]

Encoded: TypeAlias = list[bytes | None]

_HEADERS_RULE: Final = 'a mapping from str to bytes, as {"source": b"web"}'


class Pause(enum.Enum):
    """What ``Gatherer.many`` says in between."""

    FULL = enum.auto()
    """The buffer is full: wait for space."""
    TAKEN = enum.auto()
    """Records were taken: a good moment to let others run."""


class Put(Protocol[V_contra, H_co]):
    """Add a record; its handle."""

    def __call__(
        self,
        value: V_contra | None,
        *,
        key: Any = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp: dt.datetime | None = None,
    ) -> H_co: ...


class Gatherer:
    """Encodes for one producer, and puts into its outbox."""

    def __init__(self, outbox: Outbox, value: Serde[Any], key: Serde[Any] | None) -> None:
        self.outbox = outbox
        self._encode: Callable[[Any], bytes] = value.encode
        self._encode_key: Callable[[Any], bytes | None] = encode_plain_key if key is None else key.encode
        self._message_bytes_max = stored_config(outbox.route.config).message_bytes_max

    def put_function(self, make_room: Callable[[int, int, int], object], handle: Callable[[Batch, int], H]) -> Put[Any, H]:
        """``make_room(partition, size, timestamp_ms)`` is called when the open batch does not take the record; what it raises
        goes to the caller, else the record is tried again."""
        outbox, encode, encode_key, message_bytes_max = self.outbox, self._encode, self._encode_key, self._message_bytes_max
        acquire, release = outbox.lock.acquire, outbox.lock.release
        open_batch = outbox.accumulator.open.get
        is_raw = encode is encode_raw
        is_plain_key = encode_key is encode_plain_key
        wall_ns, overhead, poke = outbox.io.clock.wall_ns, RECORD_OVERHEAD_BYTES, outbox.io.poke
        size_max = message_bytes_max + overhead

        def put(
            value: Any,
            *,
            key: Any = None,
            headers: Headers | None = None,
            partition: int | None = None,
            timestamp: dt.datetime | None = None,
        ) -> H:
            data = value if (is_raw and value.__class__ is bytes) or value is None else encode(value)
            size = overhead if data is None else len(data) + overhead
            table_version = 0
            if key is not None:
                if not (is_plain_key and key.__class__ is bytes):
                    key = encode_key(key)
                size += len(key)
                if partition is None:
                    slots, table_version = outbox.table
                    partition = slots[crc32c(key) % SLOT_COUNT]
                elif partition.__class__ is not int:  # True and 1.0 are found where 1 is
                    partition = whole_of("partition", partition)
            elif partition is not None and partition.__class__ is not int:
                partition = whole_of("partition", partition)
            if headers is not None:
                headers, size = _checked_headers(headers, size)
            if size > size_max:
                raise _too_large(outbox.route.name, size - overhead, message_bytes_max)
            now_ms = wall_ns() // 1_000_000 if timestamp is None else _milliseconds(timestamp)
            has_asked = False
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
                        if table_version and batch.table_version != table_version:
                            batch.chosen_by(table_version)
                        if timestamp is not None:
                            batch.has_own_times = True
                        break
                finally:
                    release()
                make_room(target, size, now_ms)
                has_asked = True
            if has_asked:  # not before the record is there: the batch might be looked at too early, and again and again
                poke(batch.linger_ms)
            return handle(batch, index)

        return put

    def encoded(self, values: Iterable[Any], keys: Sequence[Any] | None) -> tuple[Encoded, Encoded | None]:
        """For ``many``: values and keys as bytes, checked."""
        data = self._encoded(values)
        if keys is None:
            self._check_sizes(_sizes(data))
            return data, None
        keys = items_of("keys", keys, "a list of keys, one per value")
        if len(keys) != len(data):
            raise InvalidConfig(f"send_many got {len(data)} values and {len(keys)} keys", hint="give one key per value")
        encode = self._encode_key
        encoded = [encode(key) for key in keys]
        self._check_sizes(map(add, _sizes(encoded), _sizes(data)))
        return data, encoded

    def many(self, values: Encoded, keys: Encoded | None, handles: Handles[Any]) -> Iterator[Pause]:
        """Put many records, several times faster than one by one. Yields what has to happen before it goes on."""
        slots, table_version = self.outbox.table
        if keys is None:
            yield from self._gather(handles, _Run(None, 0, values, None, range(len(values))))
            return
        groups: defaultdict[int | None, list[int]] = defaultdict(list)
        for position, key in enumerate(keys):
            groups[None if key is None else slots[crc32c(key) % SLOT_COUNT]].append(position)
        for partition, positions in groups.items():
            version = 0 if partition is None else table_version
            chosen = [values[position] for position in positions], [keys[position] for position in positions]
            yield from self._gather(handles, _Run(partition, version, *chosen, positions))

    def _encoded(self, values: Iterable[Any]) -> Encoded:
        listed = items_of("values", values, "a list of values, or anything else that gives one after the other")
        encode = self._encode
        if encode is encode_raw and set(map(type, listed)) <= {bytes, type(None)}:
            return listed
        return [None if value is None else encode(value) for value in listed]

    def _check_sizes(self, sizes: Iterable[int]) -> None:
        largest = max(sizes, default=0)
        if largest > self._message_bytes_max:
            raise _too_large(self.outbox.route.name, largest, self._message_bytes_max)

    def _gather(self, handles: Handles[Any], run: _Run) -> Iterator[Pause]:
        """Into batches, as many as fit at a time."""
        partition, table_version, values, keys, positions = run
        outbox = self.outbox
        accumulator = outbox.accumulator
        ends = list(accumulate(_sizes(values) if keys is None else map(add, _sizes(values), _sizes(keys))))
        clock = outbox.io.clock
        now_ms = clock.wall_ms()
        at, done = 0, 0
        while at < len(values):
            target = outbox.sticky if partition is None else partition
            with outbox.lock:
                outbox.check_open()
                open_batch = accumulator.open.get(target)
                left = accumulator.batch_bytes - (0 if open_batch is None else open_batch.bytes)
                size_up_to = partial(_size_up_to, ends, at, done)
                fits = at + bisect_right(range(at, len(values)), left, key=size_up_to)
                is_full = fits == at and open_batch is not None
                fits = max(fits, at + 1)
                size = size_up_to(fits - 1)
                batch = None if is_full else accumulator.room(target, size, now_ms, clock.monotonic_ms())
                if batch is not None:
                    first = len(batch.records)
                    batch.records += map(
                        Record,
                        repeat(None, fits - at) if keys is None else keys[at:fits],
                        values[at:fits],
                        repeat(now_ms - batch.base_timestamp_ms),
                    )
                    batch.bytes += size
                    if table_version:
                        batch.chosen_by(table_version)
                    handles.add(batch, first, positions[at:fits])
                    at, done = fits, ends[fits - 1]
            if batch is None and not is_full:
                yield Pause.FULL
                continue
            if at < len(values):
                outbox.close_full(target)
            elif batch is not None:
                outbox.io.poke(batch.linger_ms)
            yield Pause.TAKEN


class _Run(NamedTuple):
    """Records of one ``send_many`` for one partition; None: for whichever has its turn."""

    partition: int | None
    table_version: int
    values: Encoded
    keys: Encoded | None
    positions: Sequence[int]


def _sizes(data: Encoded) -> Iterable[int]:
    try:
        return list(map(len, data))  # type: ignore[arg-type]  # None is rare, and is what the second way is for
    except TypeError:
        return [0 if item is None else len(item) for item in data]


def _size_up_to(ends: list[int], at: int, done: int, index: int) -> int:
    """The bytes of the records from ``at`` to ``index``, both included."""
    return ends[index] - done + (index - at + 1) * RECORD_OVERHEAD_BYTES


def _checked_headers(headers: Headers, size: int) -> tuple[dict[str, bytes], int]:
    """A copy, and the record's size with them."""
    if headers.__class__ is not dict and not isinstance(headers, Mapping):
        raise refused("headers", headers, _HEADERS_RULE)
    for name, value in headers.items():
        if value.__class__ is not bytes:
            raise refused(f"header {name!r}", value, _HEADERS_RULE)
        if name.__class__ is not str:
            raise refused("the name of a header", name, _HEADERS_RULE)
        if not name.isascii():
            text_of("the name of a header", name)
        size += len(name) + len(value) + 4
    return dict(headers), size


def _milliseconds(timestamp: object) -> int:
    if not isinstance(timestamp, dt.datetime) or timestamp.utcoffset() is None:
        raise refused("timestamp", timestamp, "a datetime with a time zone, as datetime.now(UTC)")
    return int(timestamp.timestamp() * 1000)


def _too_large(topic: str, size: int, limit: int) -> MessageTooLarge:
    return MessageTooLarge(
        f"a record of {size} bytes to {topic} is over the topic's limit of {limit}",
        hint=f"make it smaller, or: zmqmq topic alter {topic} --set message_bytes_max=...",
        outcome="not_written",
    )
