"""The bytes of every file but the segments (those hold batches): pure functions, no files.

The constants and structs below are the format: they must not change. ``docs/spec/storage.md`` has the tables.
All numbers are little-endian.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from crc32c import crc32c

from zmqmq.errors import CorruptLog, UnsupportedVersion
from zmqmq.model import PartitionId

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zmqmq.ports import Buffer

_CRC: Final = struct.Struct("<I")

ENTRY_MAGIC: Final = b"ZQJE"
ENTRY_VERSION: Final = 1
ENTRY_ALIGNMENT: Final = 8
_ENTRY: Final = struct.Struct("<4sHHQQQIII")
ENTRY_HEADER_BYTES: Final = _ENTRY.size + _CRC.size
assert ENTRY_HEADER_BYTES == 48

_ITEM: Final = struct.Struct("<B3xI16sI")
_OFFSET: Final = struct.Struct("<Q")
ITEM_HEADER_BYTES: Final = _ITEM.size
ITEM_APPEND: Final = 1
ITEM_LOG_START: Final = 2
ITEM_TRUNCATE: Final = 3
ITEM_RESET: Final = 4
ITEM_SAVED: Final = 5
CUTS: Final = frozenset({ITEM_TRUNCATE, ITEM_RESET})
"""Kinds that take records back. They stand in entries of their own, so that a reader finds them before it replays the others."""


class EntryHeader(NamedTuple):
    """``synced`` is the highest sequence that was known to be on disk when this entry was written."""

    generation: int
    sequence: int
    synced: int
    length: int
    item_count: int
    crc: int

    @property
    def size(self) -> int:
        """Bytes on disk, header and padding included."""
        return entry_size(self.length)


class Item(NamedTuple):
    """One change of one partition: batches to append, its new log start, where it is truncated or begins anew, what is saved with it."""

    kind: int
    partition: PartitionId
    body: memoryview


def entry_size(length: int) -> int:
    used = ENTRY_HEADER_BYTES + length
    return used + -used % ENTRY_ALIGNMENT


def encode_entry(items: Sequence[Buffer], *, length: int, item_count: int, generation: int, sequence: int, synced: int) -> list[Buffer]:
    """The buffers of a whole entry, padding included, without copying the items."""
    front = _ENTRY.pack(ENTRY_MAGIC, ENTRY_VERSION, 0, generation, sequence, synced, length, item_count, 0)
    crc = crc32c(front, generation & 0xFFFFFFFF)
    for item in items:
        crc = crc32c(item, crc)
    padding = bytes(entry_size(length) - ENTRY_HEADER_BYTES - length)
    return [front + _CRC.pack(crc), *items, padding] if padding else [front + _CRC.pack(crc), *items]


def decode_entry_header(data: Buffer, position: int = 0) -> EntryHeader | None:
    """What looks like an entry's header, or None. Proves nothing before ``entry_is_whole``."""
    if len(data) - position < ENTRY_HEADER_BYTES:
        return None
    magic, version, _, generation, sequence, synced, length, count, reserved = _ENTRY.unpack_from(data, position)
    if magic != ENTRY_MAGIC or version != ENTRY_VERSION or reserved:
        return None
    (crc,) = _CRC.unpack_from(data, position + _ENTRY.size)
    return EntryHeader(generation, sequence, synced, length, count, crc)


def entry_is_whole(header: EntryHeader, data: Buffer) -> bool:
    """Whether ``data``, which begins with the header, holds the entry as it was written."""
    view = memoryview(data)
    if len(view) < ENTRY_HEADER_BYTES + header.length:
        return False
    crc = crc32c(view[: _ENTRY.size], header.generation & 0xFFFFFFFF)
    return crc32c(view[ENTRY_HEADER_BYTES : ENTRY_HEADER_BYTES + header.length], crc) == header.crc


def encode_item(kind: int, partition: PartitionId, length: int) -> bytes:
    """The front of an item; ``length`` bytes of body follow."""
    return _ITEM.pack(kind, partition.partition, partition.topic_id, length)


def encode_log_start(partition: PartitionId, log_start: int) -> bytes:
    return encode_item(ITEM_LOG_START, partition, _OFFSET.size) + _OFFSET.pack(log_start)


def decode_log_start(body: Buffer) -> int:
    """Raises ValueError unless it is one."""
    if len(body) != _OFFSET.size:
        raise ValueError(f"a log start of {len(body)} bytes")
    (value,) = _OFFSET.unpack(body)
    return int(value)


def encode_truncate(partition: PartitionId, end: int, producers: bytes) -> bytes:
    """A log that ends at ``end`` again; what its producers are then, encoded."""
    return encode_item(ITEM_TRUNCATE, partition, _OFFSET.size + len(producers)) + _OFFSET.pack(end) + producers


def encode_reset(partition: PartitionId, log_start: int) -> bytes:
    """An empty log that begins at ``log_start``."""
    return encode_item(ITEM_RESET, partition, _OFFSET.size) + _OFFSET.pack(log_start)


def encode_saved(partition: PartitionId, data: bytes) -> bytes:
    return encode_item(ITEM_SAVED, partition, len(data)) + data


def decode_cut(item: Item) -> tuple[int, bytes]:
    """The offset of a truncation or reset, and the producers of the former. Raises ValueError unless it is one."""
    if item.kind not in CUTS or len(item.body) < _OFFSET.size or (item.kind == ITEM_RESET and len(item.body) > _OFFSET.size):
        raise ValueError(f"an item of kind {item.kind} and {len(item.body)} bytes is neither truncation nor reset")
    return int(_OFFSET.unpack_from(item.body)[0]), bytes(item.body[_OFFSET.size :])


def first_kind(data: Buffer) -> int:
    """Of what kind the first item of an entry is; 0 when it has none."""
    return data[ENTRY_HEADER_BYTES] if len(data) > ENTRY_HEADER_BYTES else 0


def items_of(data: Buffer, header: EntryHeader) -> Iterator[Item]:
    """The items of an entry that is whole. Raises ValueError if they do not fill it exactly."""
    view = memoryview(data)[ENTRY_HEADER_BYTES : ENTRY_HEADER_BYTES + header.length]
    position = 0
    for _ in range(header.item_count):
        if len(view) - position < ITEM_HEADER_BYTES:
            raise ValueError("an item is cut")
        kind, partition, topic_id, length = _ITEM.unpack_from(view, position)
        position += ITEM_HEADER_BYTES
        yield Item(kind, PartitionId(topic_id, partition), view[position : position + length])
        position += length
    if position != len(view):
        raise ValueError("the items do not fill their entry")


_INDEX: Final = struct.Struct("<IIq")
_INDEX_SEED: Final = struct.Struct("<16sIQ")
INDEX_ENTRY_BYTES: Final = _INDEX.size + _CRC.size
assert INDEX_ENTRY_BYTES == 20
RELATIVE_OFFSET_MAX: Final = (1 << 32) - 1


class IndexEntry(NamedTuple):
    """A batch of a segment: its offset counted from the segment's base, its place, its append time."""

    relative: int
    position: int
    append_time_ms: int


def index_seed(partition: PartitionId, base: int) -> int:
    return crc32c(_INDEX_SEED.pack(partition.topic_id, partition.partition, base))


def encode_index_entry(entry: IndexEntry, seed: int) -> bytes:
    front = _INDEX.pack(*entry)
    return front + _CRC.pack(crc32c(front, seed))


def decode_index_entry(data: bytes, seed: int) -> IndexEntry | None:
    """The entry, or None when it is cut, damaged or of another segment."""
    if len(data) != INDEX_ENTRY_BYTES or _CRC.unpack_from(data, _INDEX.size)[0] != crc32c(data[: _INDEX.size], seed):
        return None
    return IndexEntry(*_INDEX.unpack_from(data))


IDENTITY_MAGIC: Final = b"ZQID"
CHECKPOINT_MAGIC: Final = b"ZQCP"
SEALED_VERSION: Final = 1
_SEALED: Final = struct.Struct("<4sHHII")


def seal_file(magic: bytes, body: bytes) -> bytes:
    """A small file's content: magic, version, length, CRC32C over these and the body, body."""
    front = _SEALED.pack(magic, SEALED_VERSION, 0, len(body), 0)
    return _SEALED.pack(magic, SEALED_VERSION, 0, len(body), crc32c(body, crc32c(front))) + body


def open_sealed(magic: bytes, data: bytes, path: str) -> bytes:
    """The body of a file made by ``seal_file``. Raises CorruptLog, or UnsupportedVersion for one from the future."""
    hint = "restore the file from a backup of the whole data directory"
    if len(data) < _SEALED.size:
        raise CorruptLog(f"{path} is cut after {len(data)} bytes", file=path, position=len(data), hint=hint)
    found, version, reserved, length, crc = _SEALED.unpack_from(data)
    body = data[_SEALED.size :]
    front = _SEALED.pack(found, version, reserved, length, 0)
    if found != magic or length != len(body) or crc32c(body, crc32c(front)) != crc:
        raise CorruptLog(f"{path} does not match its checksum", file=path, position=0, hint=hint)
    if version != SEALED_VERSION:
        raise UnsupportedVersion(
            f"{path} has format version {version}, this program knows {SEALED_VERSION}", hint="open it with a newer zmqmq"
        )
    return body
