"""Messages: what a reader hands out, and how a batch becomes a list of them at the speed of C.

For each (topic, partition, serdes) there is a subclass of ``Message`` that carries these as class attributes;
msgspec decodes a payload straight into a list of its instances, and offset and batch are then set by
mapping slot setters. Nothing runs per record in Python, and a value is decoded when it is first asked for.
"""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import Callable
from itertools import count, repeat
from typing import Any, ClassVar, Final, Generic, TypeVar

import msgspec
from msgspec import UNSET, Struct

from zmqmq.batch import BatchHeader, Headers
from zmqmq.client.serde import DECODE_ERRORS
from zmqmq.errors import DeserializationError, InvalidRecord
from zmqmq.ports import Buffer

T = TypeVar("T")

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_KEEP_NONE: Final = 0


class Message(Struct, Generic[T], array_like=True, gc=False, eq=False):
    """One record as it was read. ``value`` and ``key`` are decoded on first access and may raise DeserializationError.

    The first four fields are a record of the payload, in its order. Those behind them are set after decoding;
    an element that a future version adds to a record may land in one and is overwritten.
    """

    raw_key: bytes | None
    raw_value: bytes | None
    timestamp_delta: int
    raw_headers: Headers | None = None
    offset: Any = -1
    batch: Any = None
    decoded: Any = UNSET

    topic: ClassVar[str] = ""
    partition: ClassVar[int] = -1
    decode_value: ClassVar[Callable[[bytes], Any]]
    decode_key: ClassVar[Callable[[bytes], Any] | None] = None

    @property
    def value(self) -> T:
        """The decoded value; None for a tombstone (a record whose ``raw_value`` is None)."""
        found = self.decoded
        if found is UNSET:
            found = self.decoded = self._decode("value", type(self).decode_value, self.raw_value)
        return found  # type: ignore[no-any-return]  # the subclass's decoder gives T

    @property
    def key(self) -> Any:
        """Bytes, or what the key serde makes of them; None without a key."""
        decode = type(self).decode_key
        return self.raw_key if decode is None else self._decode("key", decode, self.raw_key)

    @property
    def headers(self) -> Headers:
        return self.raw_headers or {}

    @property
    def timestamp_ms(self) -> int:
        """When the record was made, by its producer's clock, in milliseconds since 1970."""
        return self.batch.base_timestamp_ms + self.timestamp_delta  # type: ignore[no-any-return]

    @property
    def timestamp(self) -> dt.datetime:
        """When the record was made, by its producer's clock, in UTC. Raises InvalidRecord if its producer named no time."""
        return time_of(self.timestamp_ms)

    @property
    def append_time_ms(self) -> int:
        """When the broker appended the record's batch, in milliseconds since 1970."""
        return self.batch.append_time_ms  # type: ignore[no-any-return]

    @property
    def leader_epoch(self) -> int:
        return self.batch.leader_epoch  # type: ignore[no-any-return]

    @property
    def is_tombstone(self) -> bool:
        return self.raw_value is None

    def _decode(self, what: str, decode: Callable[[bytes], Any], data: bytes | None) -> Any:
        if data is None:
            return None
        try:
            return decode(data)
        except DECODE_ERRORS as error:
            raise DeserializationError(
                f"{what} of {self.topic}-{self.partition}@{self.offset} does not decode: {error}",
                message=self,
                hint="correct the serde, or skip the record: the error's .message is the raw message",
            ) from error

    def __repr__(self) -> str:
        size = "tombstone" if self.raw_value is None else f"{len(self.raw_value)} B"
        return f"Message({self.topic}-{self.partition}@{self.offset} key={self.raw_key!r} {size})"


_set_offset: Final = Message.offset.__set__
_set_batch: Final = Message.batch.__set__


class MessageDecoder:
    """Makes the messages of one partition out of the records of a batch."""

    def __init__(self, topic: str, partition: int, value: Callable[[bytes], Any], key: Callable[[bytes], Any] | None) -> None:
        namespace = {
            "topic": topic,
            "partition": partition,
            "decode_value": staticmethod(value),
            "decode_key": None if key is None else staticmethod(key),
        }
        cls: Any = msgspec.defstruct("Message", [], bases=(Message,), namespace=namespace, array_like=True, gc=False, eq=False)
        self._cls: Any = cls
        self._full: Callable[[Buffer], list[Message[Any]]] = msgspec.msgpack.Decoder(list[cls]).decode
        self._holed: Callable[[Buffer], list[Message[Any] | None]] | None = None

    def messages(self, header: BatchHeader, records: Buffer, wanted_offset: int) -> list[Message[Any]]:
        """All records of the batch from ``wanted_offset`` on. Raises InvalidRecord."""
        try:
            found = self._full(records)
        except msgspec.ValidationError:
            return self._compacted(header, records, wanted_offset)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise InvalidRecord(f"records of the batch at {header.base_offset} do not decode: {error}") from error
        if len(found) != header.record_count:
            raise InvalidRecord(f"batch at {header.base_offset} holds {len(found)} records, its header says {header.record_count}")
        deque(map(_set_offset, found, count(header.base_offset)), _KEEP_NONE)
        deque(map(_set_batch, found, repeat(header)), _KEEP_NONE)
        skipped = wanted_offset - header.base_offset
        return found[skipped:] if skipped > 0 else found

    def _compacted(self, header: BatchHeader, records: Buffer, wanted_offset: int) -> list[Message[Any]]:
        """As ``messages``, for a batch in which compaction left nil in place of records."""
        if self._holed is None:
            optional: Any = self._cls | None
            self._holed = msgspec.msgpack.Decoder(list[optional]).decode
        try:
            found = self._holed(records)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise InvalidRecord(f"records of the batch at {header.base_offset} do not decode: {error}") from error
        if len(found) != header.record_count:
            raise InvalidRecord(f"batch at {header.base_offset} holds {len(found)} records, its header says {header.record_count}")
        kept = []
        for offset, message in enumerate(found, header.base_offset):
            if message is not None and offset >= wanted_offset:
                message.offset = offset
                message.batch = header
                kept.append(message)
        return kept


def time_of(timestamp_ms: int) -> dt.datetime:
    """Milliseconds since 1970 as an aware datetime. Raises InvalidRecord for a time before the year 1 or after 9999."""
    try:
        return _EPOCH + dt.timedelta(milliseconds=timestamp_ms)
    except OverflowError as error:
        raise InvalidRecord(f"{timestamp_ms} ms since 1970 is no time of this calendar", hint="timestamp_ms has the number") from error
