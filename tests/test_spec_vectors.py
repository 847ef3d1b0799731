"""The bytes printed in ``docs/spec`` are what the program reads and writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zmqmq import batch
from zmqmq.model import PartitionId
from zmqmq.wire import framing, replies, requests

SPEC = Path(__file__).parent.parent / "docs" / "spec"
TOPIC_ID = bytes(range(16))
NOON = 1_700_000_000_000


def vectors(document: str) -> dict[str, bytes]:
    blocks = re.findall(r"```vector (\w+)\n(.*?)```", (SPEC / document).read_text(), re.DOTALL)
    return {name: bytes.fromhex(block) for name, block in blocks}


BATCHES = vectors("batch.md")
WIRE = vectors("wire.md")
RECORDS = [batch.Record(b"ann", b"10", 0), batch.Record(None, b"hello", 5, {"src": b"web"})]


def test_the_unstamped_batch_is_what_a_producer_builds() -> None:
    built = batch.build(
        batch.encode_records(RECORDS),
        record_count=2,
        base_timestamp_ms=NOON,
        max_timestamp_ms=NOON + 5,
        compress=False,
        producer_id=7,
        producer_epoch=1,
        base_sequence=40,
    )
    assert built == BATCHES["batch"]


def test_the_stamped_batch_is_what_a_leader_makes_of_it() -> None:
    seed = batch.stamp_seed(PartitionId(TOPIC_ID, 2))
    unstamped = BATCHES["batch"]
    stamped = batch.stamp(batch.parse_header(unstamped), unstamped, seed=seed, base_offset=1000, leader_epoch=3, append_time_ms=NOON + 9)
    assert seed == 0x5417635A
    assert b"".join(stamped.buffers) == BATCHES["stamped"]


def test_the_stamped_batch_reads_back() -> None:
    data = BATCHES["stamped"]
    header = batch.parse_header(data)
    batch.check_body(header, data)
    batch.check_stamp(header, data, batch.stamp_seed(PartitionId(TOPIC_ID, 2)))
    assert (header.base_offset, header.end_offset, header.leader_epoch, header.append_time_ms) == (1000, 1002, 3, NOON + 9)
    assert (header.producer_id, header.producer_epoch, header.base_sequence, header.last_sequence) == (7, 1, 40, 41)
    assert batch.records(header, data) == RECORDS


def test_the_compressed_batch_reads_back() -> None:
    data = BATCHES["zstd"]
    header = batch.parse_header(data)
    batch.check_body(header, data)
    assert header.codec == batch.CODEC_ZSTD
    assert batch.records(header, data) == [batch.Record(None, b"a" * 60, 0)] * 3


REQUESTS = {
    "Hello": requests.Hello(1, 5000, client_id="billing", software="zmqmq 0.1.0"),
    "Produce": requests.Produce(2, 30_000, requests.ACKS_ALL, [requests.ProduceEntry(TOPIC_ID, 2, 1)]),
    "Fetch": requests.Fetch(3, 1500, 500, 1, 4_194_304, [requests.FetchEntry(TOPIC_ID, 2, 1000, 3, 1 << 20)]),
}
REPLIES = {
    "HelloReply": replies.HelloReply(1, 1, "7Qk2", 0, "zmqmq 0.1.0"),
    "ProduceReply": replies.ProduceReply(2, [replies.ProduceResult(1000, 3, NOON + 9, 1, 1)]),
    "FetchReply": replies.FetchReply(3, [replies.FetchResult(TOPIC_ID, 2, 1002, 0, 3, 1)]),
    "ErrorReply": replies.ErrorReply(2, replies.Fault(30, "topic 'ordres' does not exist", "", {"similar": ["orders"]})),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_vector_decodes_and_encodes(name: str) -> None:
    value, payload = framing.decode_request([framing.PROTOCOL, WIRE[name]])
    assert (value, list(payload)) == (REQUESTS[name], [])
    assert framing.encode(value)[1] == WIRE[name]


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_vector_decodes_and_encodes(name: str) -> None:
    value, payload = framing.decode_reply([framing.PROTOCOL, WIRE[name]])
    assert (value, list(payload)) == (REPLIES[name], [])
    assert framing.encode(value)[1] == WIRE[name]


def test_every_vector_is_used() -> None:
    assert set(BATCHES) == {"batch", "stamped", "zstd"}
    assert set(WIRE) == set(REQUESTS) | set(REPLIES)
