"""The batch format: what was built reads back; anything else is refused by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqmq import batch, compression
from zmqmq.errors import InvalidRecord, UnsupportedVersion, ZmqmqError
from zmqmq.model import PartitionId

PLACE = PartitionId(b"t" * 16, 3)
SEED = batch.stamp_seed(PLACE)

records_of_any_kind = st.lists(
    st.builds(
        batch.Record,
        st.none() | st.binary(max_size=40),
        st.none() | st.binary(max_size=400),
        st.integers(-(2**31), 2**31),
        st.none() | st.dictionaries(st.text(max_size=8), st.binary(max_size=8), max_size=3),
    ),
    min_size=1,
    max_size=30,
)


def built(records: list[batch.Record], *, compress: bool = True) -> bytes:
    return batch.build(batch.encode_records(records), record_count=len(records), base_timestamp_ms=5, max_timestamp_ms=9, compress=compress)


def stamped(data: bytes, base_offset: int = 100) -> bytes:
    placed = batch.stamp(batch.parse_header(data), data, seed=SEED, base_offset=base_offset, leader_epoch=2, append_time_ms=7)
    return b"".join(placed.buffers)


def read(data: bytes) -> list[batch.Record | None]:
    header = batch.parse_header(data)
    batch.check_body(header, data)
    batch.check_stamp(header, data, SEED)
    return batch.records(header, data)


@given(records_of_any_kind, st.booleans())
def test_what_was_built_and_stamped_reads_back(records: list[batch.Record], compress: bool) -> None:
    assert read(stamped(built(records, compress=compress))) == records


def test_stamping_changes_only_the_first_forty_bytes() -> None:
    plain = built([batch.Record(b"k", b"v" * 100, 0)])
    placed = stamped(plain)
    assert placed[40:] == plain[40:]
    assert len(placed) == len(plain)


def test_a_batch_that_does_not_shrink_stays_plain() -> None:
    data = built([batch.Record(None, bytes(range(256)), 0)])
    assert batch.parse_header(data).codec == batch.CODEC_NONE


def test_every_flipped_bit_is_seen() -> None:
    data = stamped(built([batch.Record(b"key", b"some value", 1), batch.Record(None, b"another", 2)]))
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises((InvalidRecord, UnsupportedVersion)):
            read(bytes(damaged))


def test_every_truncation_is_seen() -> None:
    data = stamped(built([batch.Record(b"key", b"some value", 1)]))
    for length in range(len(data)):
        with pytest.raises(InvalidRecord):
            read(data[:length])


def test_a_batch_of_another_partition_is_refused() -> None:
    data = stamped(built([batch.Record(None, b"x", 0)]))
    other = batch.stamp_seed(PartitionId(b"t" * 16, 4))
    with pytest.raises(InvalidRecord, match="another partition"):
        batch.check_stamp(batch.parse_header(data), data, other)


def test_a_version_from_the_future_is_named() -> None:
    data = bytearray(built([batch.Record(None, b"x", 0)]))
    data[2] = 9
    with pytest.raises(UnsupportedVersion, match="version 9"):
        batch.parse_header(bytes(data))


def test_a_count_that_lies_is_seen_by_the_reader() -> None:
    encoded = batch.encode_records([batch.Record(None, b"x", 0)] * 3)
    data = batch.build(encoded, record_count=2, base_timestamp_ms=0, max_timestamp_ms=0)
    with pytest.raises(InvalidRecord, match="holds 3 records"):
        batch.records(batch.parse_header(data), data)


def test_elements_from_the_future_are_ignored() -> None:
    encoded = b"\x91\x97\xc4\x01k\xc4\x01v\x00\xc0\x2a\x2b\x2c"
    data = batch.build(encoded, record_count=1, base_timestamp_ms=0, max_timestamp_ms=0, compress=False)
    assert batch.records(batch.parse_header(data), data) == [batch.Record(b"k", b"v", 0)]


def test_a_zstd_bomb_is_refused_before_it_takes_memory() -> None:
    bomb = compression.compress(bytes(64 << 20))
    with pytest.raises(InvalidRecord, match="announces"):
        compression.decompress(bomb, 1 << 20)


@given(st.binary(max_size=300))
def test_garbage_behind_a_header_is_refused_by_name(garbage: bytes) -> None:
    data = batch.seal(
        garbage or b"\x00", codec=batch.CODEC_ZSTD, uncompressed_bytes=50, record_count=1, base_timestamp_ms=0, max_timestamp_ms=0
    )
    with pytest.raises(ZmqmqError):
        batch.records(batch.parse_header(data), data)
