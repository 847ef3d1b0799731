"""Peers that speak ZeroMQ and lie in what they say: named errors, bounded memory, nobody else harmed."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
import zstandard
from bad_world import GREETING, BrokerProcess, ready, rss_bytes, stranger, unharmed, until_refused
from broker.raw_client import RawClient, make_batch

from zmqmq import Client, Offset, batch, errors
from zmqmq.model import FRAME_BYTES_MAX, UNCOMPRESSED_BYTES_MAX
from zmqmq.wire import framing
from zmqmq.wire.replies import ErrorReply
from zmqmq.wire.requests import (
    AlterTopic,
    CreateTopic,
    DeleteEntry,
    DeleteRecords,
    Fetch,
    FetchEntry,
    GetMetadata,
    GetStats,
    Hello,
    InitProducer,
    ListOffsets,
    OffsetQuery,
    Ping,
    Produce,
    ProduceEntry,
)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    made = BrokerProcess(tmp_path_factory.mktemp("requests"), limits={"topics_max": 60, "partitions_max": 2000})
    yield made
    made.close()


@pytest.fixture
def raw(broker: BrokerProcess) -> Iterator[RawClient]:
    with RawClient(broker.url) as made:
        yield made


@pytest.fixture
def topic(broker: BrokerProcess) -> Iterator[str]:
    name = f"t{random.randrange(1 << 40)}"
    with Client(broker.url) as client:
        client.admin.create_topic(name)
        yield name
        client.admin.delete_topic(name)


def answer_to(raw: RawClient, *frames: bytes) -> errors.ZmqmqError:
    raw.send_frames(list(frames))
    return framing.raised(raw.receive()[0].fault)


# ── headers ──────────────────────────────────────────────────────────────────────────────────────────

DEEP = b"\x91" * 500_000
HEADERS = {
    "empty": b"",
    "not_msgpack": b"\xc1",
    "deep_arrays": DEEP,
    "deep_maps": b"\x81\xa1a" * 300_000,
    "deep_in_a_field": b"\x96\x06\x07\x01\xa1x\x01" + DEEP,
    "array_that_lies": b"\xdd\xff\xff\xff\xff\x03\x07\x01",
    "map_that_lies": b"\x97\x06\x07\x01\xa1x\x01\x01\xdf\xff\xff\xff\xff",
    "text_that_lies": b"\x94\x01\x07\x01\xdb\xff\xff\xff\xff",
    "binary_that_lies": b"\x93\x0c\xc6\xff\xff\xff\xff\x01",
    "not_utf_8": b"\x96\x01\x07\x01\x01\x01\xa2\xff\xfe",
    "number_too_big": b"\x93\x0c\xcf" + b"\xff" * 8 + b"\x01" + b"\x01",
    "future_request": b"\x93\x7f\x07\x01",
    "a_reply": b"\x92\x0c\x07",
    "too_big": bytes((1 << 20) + 1),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_does_not_decode_is_named_and_the_connection_kept(raw: RawClient, name: str) -> None:
    assert isinstance(answer_to(raw, framing.PROTOCOL, HEADERS[name]), errors.RemoteProtocolError)
    assert raw.call(Ping)


def test_versions_from_the_future_are_told_which_one_is_spoken(raw: RawClient) -> None:
    error = answer_to(raw, framing.PROTOCOL[:-1] + b"\x02", b"\x93\x0c\x07\x01")
    assert isinstance(error, errors.UnsupportedVersion)
    assert "2" in str(error)
    assert error.hint
    told = raw.call(Hello, version_min=2, version_max=9)
    assert isinstance(framing.raised(told.fault), errors.UnsupportedVersion)


def test_endless_garbage_from_one_that_reads_no_answers_harms_nobody(broker: BrokerProcess) -> None:
    with RawClient(broker.url) as deaf, unharmed(broker):
        deaf.socket.setsockopt(zmq.RCVHWM, 1)
        deaf.socket.setsockopt(zmq.SNDTIMEO, 50)
        for i in range(30_000):
            try:
                deaf.send_frames([framing.PROTOCOL, b"\xc1" * (i % 1000)])
            except zmq.Again:
                break


def test_requests_before_hello_and_after_a_refused_hello_are_refused(broker: BrokerProcess) -> None:
    with RawClient(broker.url, hello=False) as raw:
        for _ in range(2):
            error = framing.raised(raw.call(GetMetadata).fault)
            assert isinstance(error, errors.RemoteProtocolError)
            assert "Hello" in error.hint
            raw.call(Hello, cluster_id="another")


# ── requests that ask for too much ───────────────────────────────────────────────────────────────────


def test_requests_for_millions_of_things_are_refused_or_answered_in_bounded_time(broker: BrokerProcess, raw: RawClient) -> None:
    unknown = bytes(16)
    with unharmed(broker):
        for kind, fields in (
            (Fetch, {"entries": [FetchEntry(unknown, i, 0) for i in range(20_000)]}),
            (ListOffsets, {"queries": [OffsetQuery(unknown, i, 0) for i in range(20_000)]}),
            (Produce, {"entries": [ProduceEntry(unknown, i) for i in range(20_000)]}),
            (GetMetadata, {"topics": ["x" * 200] * 4_000}),
            (GetMetadata, {"topics": ["é" * 100] * 4_000}),
            (GetMetadata, {"topics": ["x" * 900_000]}),
            (CreateTopic, {"name": "x" * 900_000}),
            (CreateTopic, {"name": "t", "partitions": 1 << 40}),
            (CreateTopic, {"name": "t", "partitions": -1}),
            (CreateTopic, {"name": "../../etc", "partitions": 1}),
            (CreateTopic, {"name": "t", "config": {f"k{i}": "v" for i in range(50_000)}}),
            (CreateTopic, {"name": "t", "config": {"retention_ms": "9" * 500_000}}),
        ):
            reply = raw.call(kind, **fields)
            assert reply is not None, kind


def test_topics_and_partitions_are_bounded_with_an_error_that_names_the_bound(broker: BrokerProcess) -> None:
    with Client(broker.url) as client, unharmed(broker):
        topics = until_refused(lambda i: client.admin.create_topic(f"many-{i}"), 100)
        partitions = until_refused(lambda i: client.admin.create_topic(f"wide-{i}", 900), 4)
        for found in client.admin.topics():
            if found.name.startswith(("many-", "wide-")):
                client.admin.delete_topic(found.name)
    assert "60" in str(topics)
    assert "2000" in str(partitions) or "60" in str(partitions)


def test_fetches_with_absurd_limits_get_bounded_answers(broker: BrokerProcess, topic: str, raw: RawClient) -> None:
    with Client(broker.url) as client, client.producer(topic) as out:
        out.send_many([os.urandom(100_000) for _ in range(300)])
    info = raw.call(GetMetadata, topics=[topic]).topics[0]
    huge = (1 << 63) - 1
    with unharmed(broker):
        for fields in (
            {"bytes_max": huge, "bytes_min": huge, "wait_ms_max": 10},
            {"bytes_max": huge, "wait_ms_max": huge},
            {"bytes_max": -huge, "bytes_min": -huge, "wait_ms_max": -huge},
        ):
            for offset in (0, 299):
                entries = [FetchEntry(info.topic_id, 0, offset, -1, fields["bytes_max"])] * 50
                reply, frames = raw.exchange(Fetch, entries=entries, **fields)
                assert frames
                assert sum(map(len, frames)) <= 21 << 20
        for offset in (-1, -huge, huge, 301):
            reply = raw.call(Fetch, entries=[FetchEntry(info.topic_id, 0, offset)])
            assert isinstance(framing.raised(reply.results[0].error), errors.OffsetOutOfRange), offset


# ── batches ──────────────────────────────────────────────────────────────────────────────────────────


def lying(payload: bytes, **says: Any) -> bytes:
    fields = {"codec": 1, "uncompressed_bytes": 100, "record_count": 1, "base_timestamp_ms": 1, "max_timestamp_ms": 1}
    return batch.seal(payload, **{**fields, **says})


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return bytes([*data[:at], data[at] ^ 1 << bit, *data[at + 1 :]])


def test_batches_that_lie_in_their_headers_are_refused_one_by_one(raw: RawClient, topic: str) -> None:
    info = raw.call(GetMetadata, topics=[topic]).topics[0]
    good = make_batch(b"good")
    chance = random.Random(3)
    bad = [
        b"",
        good[:50],
        good[:-1],
        good + b"x",
        b"XX" + good[2:],
        good[:2] + b"\x02" + good[3:],
        lying(b"x", record_count=(1 << 32) - 1),
        lying(b"x", uncompressed_bytes=UNCOMPRESSED_BYTES_MAX + 1),
        lying(b"x", record_count=1, uncompressed_bytes=UNCOMPRESSED_BYTES_MAX),
        lying(b"x", producer_id=1 << 40, base_sequence=0),
        lying(b"x", producer_id=-9),
        lying(b"x", attributes=0x20),
        lying(b"x", attributes=0x8000),
        *(flipped(good, chance.randrange(40, len(good)), chance.randrange(8)) for _ in range(40)),
    ]
    for data in bad:
        entry = ProduceEntry(info.topic_id, 0)
        results = raw.call(Produce, (data, good), entries=[entry, entry]).results
        assert isinstance(framing.raised(results[0].error), errors.FatalError), data[:100]
        assert results[1].error is None


BOMB = zstandard.ZstdCompressor(level=1).compress(bytes(64 << 20))
NESTED = zstandard.ZstdCompressor(level=1).compress(b"\x91\x94\xc0" + b"\x91" * 1_000_000)
EMPTY_RECORD = b"\x93\xc0\xc0\x00"
MANY = b"\xdd" + struct.pack(">I", 8_000_000) + EMPTY_RECORD * 8_000_000

POISON = {
    "bomb_that_says_it_is_small": lying(BOMB, uncompressed_bytes=1_000),
    "not_zstd": lying(b"not zstd at all"),
    "zstd_with_a_lying_size": lying(b"\x28\xb5\x2f\xfd\xc0" + struct.pack("<Q", 100 << 30) + b"\x00" * 20, uncompressed_bytes=1_000),
    "cut_zstd": lying(zstandard.compress(os.urandom(1000))[:-20], uncompressed_bytes=1_000),
    "deep_records": lying(NESTED, uncompressed_bytes=1_000_003),
    "not_msgpack": lying(b"\xc1" * 100, codec=0, uncompressed_bytes=100),
    "not_records": lying(msgspec.msgpack.encode({"a": 1}).ljust(100, b"\0"), codec=0),
    "fewer_records_than_said": lying(batch.encode_records([batch.Record(None, b"x" * 93, 0)]), codec=0, record_count=3),
}


@pytest.mark.parametrize("name", POISON)
def test_a_poisoned_batch_is_an_error_with_its_place_and_can_be_stepped_over(
    broker: BrokerProcess, raw: RawClient, topic: str, name: str
) -> None:
    """The broker does not look into batches; what it stores of a lying producer must not harm a consumer."""
    info = raw.call(GetMetadata, topics=[topic]).topics[0]
    raw.produce(info, b"before")
    poison = raw.call(Produce, (POISON[name],), entries=[ProduceEntry(info.topic_id, 0)]).results[0]
    if poison.error is not None:
        assert isinstance(framing.raised(poison.error), errors.InvalidRecord | errors.MessageTooLarge)
        return
    behind = raw.produce(info, b"behind").base_offset
    before = rss_bytes(os.getpid())
    with Client(broker.url) as client, client.reader(topic, stop=Offset.END) as reader:
        assert reader.poll(5).value == b"before"
        with pytest.raises(errors.InvalidRecord, match=f"{topic}-0@{poison.base_offset}") as told:
            reader.poll(5)
        assert f"seek({behind}, partition=0)" in told.value.hint
        with pytest.raises(errors.InvalidRecord):
            reader.poll(5)
        assert reader.position() == {0: poison.base_offset}
        reader.seek(behind)
        assert reader.poll(5).value == b"behind"
    assert rss_bytes(os.getpid()) - before < 64 << 20
    assert "Traceback" not in broker.stderr()


def test_a_batch_of_millions_of_empty_records_is_refused(raw: RawClient, topic: str) -> None:
    info = raw.call(GetMetadata, topics=[topic]).topics[0]
    data = batch.build(MANY, record_count=8_000_000, base_timestamp_ms=1, max_timestamp_ms=1)
    assert len(data) < 1 << 20
    result = raw.call(Produce, (data,), entries=[ProduceEntry(info.topic_id, 0)]).results[0]
    assert isinstance(framing.raised(result.error), errors.InvalidRecord)


# ── too many, too big, too slow ──────────────────────────────────────────────────────────────────────


def test_frames_over_the_limit_end_that_connection_only(broker: BrokerProcess) -> None:
    with ExitStack() as stay, unharmed(broker):
        for _ in range(4):
            rude = stay.enter_context(RawClient(broker.url))
            rude.send_frames([framing.PROTOCOL, b"\x93\x0c\x07\x01", bytes(FRAME_BYTES_MAX + 1)])


def test_a_producer_that_reads_no_receipts_is_held_back(broker: BrokerProcess, topic: str) -> None:
    with RawClient(broker.url) as deaf, unharmed(broker):
        info = deaf.call(GetMetadata, topics=[topic]).topics[0]
        deaf.socket.setsockopt(zmq.RCVHWM, 1)
        deaf.socket.setsockopt(zmq.SNDTIMEO, 100)
        data = make_batch(os.urandom(500_000))
        for _ in range(400):
            try:
                deaf.send(Produce, (data,), entries=[ProduceEntry(info.topic_id, 0)])
            except zmq.Again:
                break


def test_long_polls_without_end_are_bounded(broker: BrokerProcess, topic: str) -> None:
    with ExitStack() as stay, unharmed(broker):
        for _ in range(20):
            raw = stay.enter_context(RawClient(broker.url))
            info = raw.call(GetMetadata, topics=[topic]).topics[0]
            for _ in range(300):
                raw.send(Fetch, wait_ms_max=60_000, entries=[FetchEntry(info.topic_id, 0, 0)] * 100)
            reply, _ = raw.receive()
            assert isinstance(framing.raised(reply.fault), errors.Throttled)


def test_connections_over_the_bound_are_told_and_make_room_when_they_go(tmp_path: Path) -> None:
    small = BrokerProcess(tmp_path, limits={"connections_max": 20})
    try:
        with unharmed(small), ExitStack() as stay:
            replies = [stay.enter_context(RawClient(small.url, hello=False)).call(Hello) for _ in range(22)]
            refused = [framing.raised(reply.fault) for reply in replies if isinstance(reply, ErrorReply)]
            assert len(refused) == 3  # the honest client is one of 20
            assert all(isinstance(error, errors.Throttled) for error in refused)
        with Client(small.url, timeout=10) as client:
            assert client.admin.topics() is not None
    finally:
        small.close()


def test_strangers_do_not_take_the_file_descriptors_of_honest_clients_and_of_the_log(tmp_path: Path) -> None:
    small = BrokerProcess(tmp_path, rlimits={"RLIMIT_NOFILE": 80})
    try:
        with Client(small.url) as client:
            client.admin.create_topic("many", 20)
            with unharmed(small), ExitStack() as stay:
                for _ in range(150):
                    stay.enter_context(stranger(small.port, GREETING + ready()))
                before = small.cpu_s()
                with client.producer("many") as out:
                    for i in range(200):
                        out.send(b"x", key=b"%d" % i)
                with client.reader("many", stop=Offset.END) as reader:
                    assert sum(1 for _ in reader) == 200
                assert small.cpu_s() - before < 3
    finally:
        small.close()


# ── everything, at random ────────────────────────────────────────────────────────────────────────────

NUMBERS = (0, 1, -1, 2, 255, 1 << 31, -(1 << 31), (1 << 32) - 1, (1 << 63) - 1, -(1 << 63))
TEXTS = ("", "t", "honest-0", "__x", "../x", "x" * 300, "\0", "é", "-1", "9" * 400, "1e999", "nan", "unlimited", "1.5h", "-5d")
SETTINGS = (
    "retention_ms",
    "retention_bytes",
    "segment_bytes",
    "segment_ms",
    "message_bytes_max",
    "min_insync_replicas",
    "compression",
    "?",
)
ENTRY_KINDS = {"entries": {Produce: ProduceEntry, Fetch: FetchEntry, DeleteRecords: DeleteEntry}, "queries": {ListOffsets: OffsetQuery}}


def a_value(chance: random.Random, kind: type, name: str, type_: Any, topic_ids: list[bytes]) -> Any:
    if name in ENTRY_KINDS:
        entry = ENTRY_KINDS[name][kind]
        return [a_struct(chance, entry, topic_ids) for _ in range(chance.choice((0, 1, 2, 50)))]
    if name in {"config", "set"}:
        return {chance.choice(SETTINGS): chance.choice(TEXTS) for _ in range(chance.choice((0, 1, 1, 3)))}
    if name in {"topics", "unset"}:
        return [chance.choice(TEXTS) for _ in range(3)] if name == "unset" or chance.random() < 0.9 else None
    if type_ is bytes:
        return chance.choice((*topic_ids, b"", bytes(16), bytes(15) + b"\x01", b"x" * 1000))
    if type_ is bool:
        return chance.random() < 0.5
    return chance.choice(TEXTS) if type_ is str else chance.choice(NUMBERS)


def a_struct(chance: random.Random, kind: type, topic_ids: list[bytes], **fixed: Any) -> Any:
    fields = [field for field in msgspec.structs.fields(kind) if field.name not in fixed]
    return kind(**fixed, **{field.name: a_value(chance, kind, field.name, field.type, topic_ids) for field in fields})


def test_well_formed_requests_with_absurd_contents_are_all_answered(broker: BrokerProcess, topic: str) -> None:
    chance = random.Random(11)
    good = make_batch(b"v")
    with unharmed(broker), RawClient(broker.url) as raw:
        topic_ids = [raw.call(GetMetadata, topics=[topic]).topics[0].topic_id]
        for number in range(1, 1_500):
            kind = chance.choice((GetMetadata, Produce, Fetch, ListOffsets, CreateTopic, AlterTopic, DeleteRecords, InitProducer, GetStats))
            fixed = {"wait_ms_max": 0} if kind is Fetch else {}
            request = a_struct(chance, kind, topic_ids, correlation_id=number, timeout_ms=chance.choice(NUMBERS), **fixed)
            payload = [chance.choice((good, good[:40], b"")) for _ in range(len(request.entries))] if kind is Produce else []
            raw.send_frames(framing.encode(request, payload))
            if kind is not Produce or request.acks:
                assert raw.receive()[0].correlation_id == number, request
