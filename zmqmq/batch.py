"""The batch: the one format shared by the wire and the disk. ``docs/spec/batch.md`` has the byte tables.

A batch is a header of 96 bytes and a payload. The first 40 bytes, the *stamped part*, are written by the
partition's leader; the rest, the *body*, travels unchanged from the producer over the disk to the
consumer, under its own CRC. Stamping re-hashes only the short part.

Invariants of a valid batch: ``length == len(header) + len(payload)``; ``body_crc`` is the CRC32C of
everything behind the stamped part; ``stamp_crc`` is the CRC32C of the stamped part before it, seeded with
topic id and partition, so that a stale or misplaced batch is seen; ``record_count == last_offset_delta + 1``
(compaction leaves nil in place of a removed record).

The constants and structs below are the format: they must not change.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec
from crc32c import crc32c
from msgspec import Struct

from zmqmq import compression
from zmqmq.errors import InvalidRecord, UnsupportedVersion
from zmqmq.model import BATCH_BYTES_MAX, BATCH_RECORDS_MAX, UNCOMPRESSED_BYTES_MAX, PartitionId
from zmqmq.ports import Buffer

if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC: Final = b"ZQ"
VERSION: Final = 1
FORMAT_NATIVE: Final = 0

_STAMP: Final = struct.Struct("<2sBBIQIIqI")
_STAMP_CRC: Final = struct.Struct("<I")
_BODY: Final = struct.Struct("<HHIIiqqqqII")
_PLACE: Final = struct.Struct("<2sBBIQ8xq4xI4xII")
_SEED: Final = struct.Struct("<16sI")
STAMP_BYTES: Final = _STAMP.size + _STAMP_CRC.size
HEADER_BYTES: Final = STAMP_BYTES + _BODY.size
assert STAMP_BYTES == 40
assert HEADER_BYTES == 96

CODEC_MASK: Final = 0x0007
CODEC_NONE: Final = 0
CODEC_ZSTD: Final = 1
TRANSACTIONAL: Final = 0x0010
CONTROL: Final = 0x0020
_ATTRIBUTES_KNOWN: Final = CODEC_MASK | TRANSACTIONAL | CONTROL

NO_PRODUCER: Final = -1
NO_SEQUENCE: Final = -1
SEQUENCE_MODULUS: Final = 1 << 31

Headers: TypeAlias = dict[str, bytes]


class Record(Struct, array_like=True, gc=False):
    """One record as it lies in a payload."""

    key: bytes | None
    value: bytes | None
    timestamp_delta: int
    headers: Headers | None = None


class BatchHeader(Struct, frozen=True, gc=False):
    """All fields of the header, by their names in the specification."""

    length: int
    base_offset: int
    leader_epoch: int
    body_crc: int
    append_time_ms: int
    stamp_crc: int
    attributes: int
    producer_epoch: int
    record_count: int
    last_offset_delta: int
    base_sequence: int
    producer_id: int
    base_timestamp_ms: int
    max_timestamp_ms: int
    delete_horizon_ms: int
    uncompressed_bytes: int

    @property
    def end_offset(self) -> int:
        return self.base_offset + self.last_offset_delta + 1

    @property
    def last_sequence(self) -> int:
        return (self.base_sequence + self.last_offset_delta) % SEQUENCE_MODULUS

    @property
    def codec(self) -> int:
        return self.attributes & CODEC_MASK

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & CONTROL)


class BatchPlace(NamedTuple):
    """What it takes to step over a batch in a file."""

    length: int
    base_offset: int
    end_offset: int
    append_time_ms: int


class StampedBatch(Struct, frozen=True):
    """A batch that has its place in a log; ``buffers`` one after the other are its bytes."""

    header: BatchHeader
    buffers: tuple[Buffer, ...]


_encode_records = msgspec.msgpack.Encoder().encode
_decode_records = msgspec.msgpack.Decoder(list[Record | None]).decode


def encode_records(records: Sequence[Record]) -> bytes:
    return _encode_records(records)


def build(
    records: bytes,
    *,
    record_count: int,
    base_timestamp_ms: int,
    max_timestamp_ms: int,
    compress: bool = True,
    level: int = compression.LEVEL_DEFAULT,
    producer_id: int = NO_PRODUCER,
    producer_epoch: int = 0,
    base_sequence: int = NO_SEQUENCE,
    attributes: int = 0,
) -> bytes:
    """An unstamped batch around an encoded array of records. Compresses only if that makes it smaller."""
    payload, codec = pack(records, compress=compress, level=level)
    return seal(
        payload,
        codec=codec,
        uncompressed_bytes=len(records),
        record_count=record_count,
        base_timestamp_ms=base_timestamp_ms,
        max_timestamp_ms=max_timestamp_ms,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        attributes=attributes,
    )


def pack(records: bytes, *, compress: bool = True, level: int = compression.LEVEL_DEFAULT) -> tuple[bytes, int]:
    """The payload and its codec: the expensive half of ``build``, which needs no producer state."""
    if compress:
        packed = compression.compress(records, level)
        if len(packed) < len(records):
            return packed, CODEC_ZSTD
    return records, CODEC_NONE


def seal(
    payload: bytes,
    *,
    codec: int,
    uncompressed_bytes: int,
    record_count: int,
    base_timestamp_ms: int,
    max_timestamp_ms: int,
    producer_id: int = NO_PRODUCER,
    producer_epoch: int = 0,
    base_sequence: int = NO_SEQUENCE,
    attributes: int = 0,
) -> bytes:
    """The cheap half of ``build``: header and CRC around a packed payload."""
    body = _BODY.pack(
        attributes | codec,
        producer_epoch,
        record_count,
        record_count - 1,
        base_sequence,
        producer_id,
        base_timestamp_ms,
        max_timestamp_ms,
        0,
        uncompressed_bytes,
        0,
    )
    body_crc = crc32c(payload, crc32c(body))
    stamp = _STAMP.pack(MAGIC, VERSION, FORMAT_NATIVE, HEADER_BYTES + len(payload), 0, 0, body_crc, 0, 0)
    return b"".join((stamp, bytes(_STAMP_CRC.size), body, payload))


def parse_header(data: Buffer, position: int = 0) -> BatchHeader:
    """The header at ``position``; checks its shape, not its CRCs.

    Raises InvalidRecord when this is no batch, and UnsupportedVersion for a version or format from the future.
    """
    if len(data) - position < HEADER_BYTES:
        raise InvalidRecord(f"batch header needs {HEADER_BYTES} bytes, {max(0, len(data) - position)} are there")
    magic, version, format_, length, base_offset, epoch, body_crc, append_time_ms, reserved_stamp = _STAMP.unpack_from(data, position)
    if magic != MAGIC:
        raise InvalidRecord("batch does not begin with its magic")
    if version != VERSION or format_ != FORMAT_NATIVE:
        raise UnsupportedVersion(f"batch has version {version} format {format_}, this program knows {VERSION} and {FORMAT_NATIVE}")
    (stamp_crc,) = _STAMP_CRC.unpack_from(data, position + _STAMP.size)
    (
        attributes,
        producer_epoch,
        record_count,
        last_offset_delta,
        base_sequence,
        producer_id,
        base_timestamp_ms,
        max_timestamp_ms,
        delete_horizon_ms,
        uncompressed_bytes,
        reserved_body,
    ) = _BODY.unpack_from(data, position + STAMP_BYTES)
    if not HEADER_BYTES < length <= BATCH_BYTES_MAX:
        raise InvalidRecord(f"batch length {length} is not in {HEADER_BYTES + 1}..{BATCH_BYTES_MAX}")
    if record_count != last_offset_delta + 1 or record_count == 0:
        raise InvalidRecord(f"batch has {record_count} records and last offset delta {last_offset_delta}")
    if record_count > BATCH_RECORDS_MAX:
        raise InvalidRecord(f"batch has {record_count} records, the limit is {BATCH_RECORDS_MAX}")
    if uncompressed_bytes > UNCOMPRESSED_BYTES_MAX:
        raise InvalidRecord(f"batch would decompress to {uncompressed_bytes} bytes, the limit is {UNCOMPRESSED_BYTES_MAX}")
    if attributes & ~_ATTRIBUTES_KNOWN or reserved_stamp or reserved_body or attributes & CODEC_MASK > CODEC_ZSTD:
        raise InvalidRecord(f"batch uses attributes {attributes:#06x} or reserved fields that this version does not know")
    return BatchHeader(
        length, base_offset, epoch, body_crc, append_time_ms, stamp_crc, attributes, producer_epoch, record_count, last_offset_delta,
        base_sequence, producer_id, base_timestamp_ms, max_timestamp_ms, delete_horizon_ms, uncompressed_bytes,
    )  # fmt: skip


def check_place(data: Buffer, position: int, seed: int) -> BatchPlace:
    """``parse_header`` and ``check_stamp`` in a third of the time, for those who only step over the batch."""
    if len(data) - position < HEADER_BYTES:
        raise InvalidRecord(f"batch header needs {HEADER_BYTES} bytes, {max(0, len(data) - position)} are there")
    magic, version, format_, length, base_offset, append_time_ms, stamp_crc, count, last_delta = _PLACE.unpack_from(data, position)
    if crc32c(data[position : position + _STAMP.size], seed) != stamp_crc or magic != MAGIC or count != last_delta + 1 or not count:
        header = parse_header(data, position)
        check_stamp(header, data, seed, position)
    if version != VERSION or format_ != FORMAT_NATIVE or not HEADER_BYTES < length <= BATCH_BYTES_MAX:
        parse_header(data, position)
    return BatchPlace(length, base_offset, base_offset + count, append_time_ms)


def end_offset_of(batches: bytes) -> int:
    """Behind the last of several whole batches whose places were checked. Their bodies may be damaged."""
    position = 0
    while True:
        place = _PLACE.unpack_from(batches, position)
        if position + place[3] + HEADER_BYTES > len(batches):
            return int(place[4] + place[7])
        position += place[3]


def stamp_seed(partition: PartitionId) -> int:
    """Where the stamp CRC of this partition's batches starts from."""
    return crc32c(_SEED.pack(partition.topic_id, partition.partition))


def check_body(header: BatchHeader, data: Buffer, position: int = 0) -> None:
    """Raises InvalidRecord unless the whole batch is there and its body is what the producer made."""
    body = memoryview(data)[position + STAMP_BYTES : position + header.length]
    if len(body) != header.length - STAMP_BYTES:
        raise InvalidRecord(f"batch of {header.length} bytes is cut after {len(body) + STAMP_BYTES}")
    if crc32c(body) != header.body_crc:
        raise InvalidRecord("batch body does not match its CRC")


def check_stamp(header: BatchHeader, data: Buffer, seed: int, position: int = 0) -> None:
    """Raises InvalidRecord unless the stamped part was written for this place."""
    if crc32c(memoryview(data)[position : position + _STAMP.size], seed) != header.stamp_crc:
        raise InvalidRecord("batch stamp does not match its CRC, or belongs to another partition")


def stamp(header: BatchHeader, data: Buffer, *, seed: int, base_offset: int, leader_epoch: int, append_time_ms: int) -> StampedBatch:
    """Give a checked batch its place. The body is not copied."""
    front = _STAMP.pack(MAGIC, VERSION, FORMAT_NATIVE, header.length, base_offset, leader_epoch, header.body_crc, append_time_ms, 0)
    stamp_crc = crc32c(front, seed)
    stamped = msgspec.structs.replace(
        header, base_offset=base_offset, leader_epoch=leader_epoch, append_time_ms=append_time_ms, stamp_crc=stamp_crc
    )
    return StampedBatch(stamped, (front + _STAMP_CRC.pack(stamp_crc), memoryview(data)[STAMP_BYTES : header.length]))


def stamped_batches(data: Buffer, partition: PartitionId) -> tuple[StampedBatch, ...]:
    """Contiguous whole batches of a partition's log, as its leader sends them, each checked in full and not copied.

    Raises InvalidRecord: a batch is cut, damaged, of another partition or version, or does not follow the one before.
    """
    seed, position = stamp_seed(partition), 0
    found: list[StampedBatch] = []
    view = memoryview(data)
    while position < len(view):
        try:
            header = parse_header(view, position)
        except UnsupportedVersion as error:
            raise InvalidRecord(str(error), hint=error.hint) from error
        check_stamp(header, view, seed, position)
        check_body(header, view, position)
        if found and header.base_offset != found[-1].header.end_offset:
            raise InvalidRecord(f"batch has offset {header.base_offset} where {found[-1].header.end_offset} is next in {partition}")
        found.append(StampedBatch(header, (view[position : position + header.length],)))
        position += header.length
    return tuple(found)


def record_bytes(header: BatchHeader, data: Buffer, position: int = 0) -> Buffer:
    """The encoded array of records, decompressed within the bound that the header announced."""
    payload = memoryview(data)[position + HEADER_BYTES : position + header.length]
    if header.codec == CODEC_ZSTD:
        return compression.decompress(payload, header.uncompressed_bytes)
    if len(payload) != header.uncompressed_bytes:
        raise InvalidRecord(f"plain payload has {len(payload)} bytes, the header says {header.uncompressed_bytes}")
    return payload


def records(header: BatchHeader, data: Buffer, position: int = 0) -> list[Record | None]:
    """The decoded records; None where compaction removed one. Raises InvalidRecord."""
    try:
        found = _decode_records(record_bytes(header, data, position))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidRecord(f"records do not decode: {error}") from error
    if len(found) != header.record_count:
        raise InvalidRecord(f"batch holds {len(found)} records, its header says {header.record_count}")
    return found
