"""Targets: batches, alone and in a segment. See ``targets``."""

from __future__ import annotations

import random
import struct
from typing import Final

from crc32c import crc32c
from fuzzing import Target
from memory import MemoryFile
from mutating import Trees, pack, unpack

from zmqmq import batch
from zmqmq.client.message import MessageDecoder
from zmqmq.errors import CorruptLog, InvalidRecord, UnsupportedVersion
from zmqmq.model import PartitionId
from zmqmq.store import index
from zmqmq.store.segment import walk

WHERE: Final = PartitionId(b"0123456789abcdef", 3)
SEED: Final = batch.stamp_seed(WHERE)
BASE: Final = 1_000
CHUNK_BYTES: Final = 128
"""So small that every batch is read in parts."""


def batch_of(offset: int, values: list[bytes | None], *, compress: bool = True, producer: int = -1) -> bytes:
    found = [batch.Record(b"k%d" % number, value, number, {"h": b"x"} if number else None) for number, value in enumerate(values)]
    data = batch.build(
        batch.encode_records(found), record_count=len(found), base_timestamp_ms=5, max_timestamp_ms=9, compress=compress,
        producer_id=producer, base_sequence=0 if producer >= 0 else -1,
    )  # fmt: skip
    stamped = batch.stamp(batch.parse_header(data), data, seed=SEED, base_offset=offset, leader_epoch=2, append_time_ms=offset)
    return b"".join(stamped.buffers)


BATCHES: Final = (
    batch_of(BASE, [b"v" * 10, None, b"w"]),
    batch_of(BASE + 3, [b"compressible " * 20] * 3, producer=7),
    batch_of(BASE + 6, [b"plain"], compress=False),
)


def fix_batch(data: bytearray, chance: random.Random, at: int = 0, *, is_last: bool = True) -> int:
    """Make length and checksums of the batch at ``at`` fit, for the most part. Where it ends."""
    if len(data) - at < batch.HEADER_BYTES:
        return len(data)
    (length,) = struct.unpack_from("<I", data, at + 4)
    if (is_last and chance.random() < 0.8) or not batch.HEADER_BYTES < length <= len(data) - at:
        length = len(data) - at
        struct.pack_into("<I", data, at + 4, length)
    struct.pack_into("<I", data, at + 20, crc32c(bytes(data[at + 40 : at + length])))
    struct.pack_into("<I", data, at + 36, crc32c(bytes(data[at : at + 36]), SEED))
    return at + length


def check_header(data: bytes) -> None:
    try:
        place = batch.check_place(data, 0, SEED)
    except (InvalidRecord, UnsupportedVersion):
        place = None
    header = batch.parse_header(data)
    batch.check_stamp(header, data, SEED)
    assert place == (header.length, header.base_offset, header.end_offset, header.append_time_ms)
    batch.check_body(header, data)
    again = batch.stamp(
        header, data, seed=SEED, base_offset=header.base_offset, leader_epoch=header.leader_epoch, append_time_ms=header.append_time_ms
    )
    assert again.header == header
    assert b"".join(again.buffers) == data[: header.length]


MESSAGES: Final = MessageDecoder("t", 3, bytes, None)


def check_records(data: bytes) -> None:
    header = batch.parse_header(data)
    batch.check_body(header, data)
    found = batch.records(header, data)
    assert batch._decode_records(pack(found)) == found
    messages = MESSAGES.messages(header, batch.record_bytes(header, data), header.base_offset)
    assert [(each.raw_key, each.raw_value) for each in messages] == [(each.key, each.value) for each in found if each is not None]
    for message in messages[:1]:
        assert (message.value, message.headers) == (message.raw_value, message.raw_headers or {})
        _ = message.timestamp


def wrap_records(body: bytes, chance: random.Random) -> bytes:
    count = len(unpack(body)) if body[0] & 0xF0 == 0x90 else 1
    if chance.random() < 0.05:
        count += 1
    compress = chance.random() < 0.3
    return batch.build(body, record_count=max(1, count), base_timestamp_ms=0, max_timestamp_ms=0, compress=compress)


def fix_segment(data: bytearray, chance: random.Random) -> None:
    at = 0
    while at < len(data):
        at = fix_batch(data, chance, at, is_last=False)


def check_segment(data: bytes) -> None:
    file = MemoryFile(data)
    error: CorruptLog | None = None
    places = []
    try:
        for place in walk(file, "s", SEED, position=0, end=len(data), with_bodies=True, chunk_bytes=CHUNK_BYTES):
            places.append((place.position, place.header))  # noqa: PERF401 - those before the error count
    except CorruptLog as raised:
        error = raised
    known = iter(places)
    for place in walk(file, "s", SEED, position=0, end=len(data)):
        if (each := next(known, None)) is not None:
            assert each == (place.position, place.header)
    index.make(file, "s", stamp_seed=SEED, base=places[0][1].base_offset if places else 0, size=len(data))
    if error is not None:
        raise error


_ERRORS: Final = (InvalidRecord, UnsupportedVersion)
_BODIES: Final = tuple(pack(batch.records(batch.parse_header(each), each)) for each in BATCHES)

TARGETS: Final = (
    Target("batch-header", check_header, _ERRORS, BATCHES, fix=fix_batch),
    Target("batch-records", check_records, _ERRORS, BATCHES, fix=fix_batch, trees=Trees(_BODIES, unpack, pack, wrap_records)),
    Target("segment", check_segment, (CorruptLog,), (b"".join(BATCHES), BATCHES[0]), fix=fix_segment),
)
