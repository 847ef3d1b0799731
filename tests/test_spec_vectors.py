"""The bytes printed in ``docs/spec`` are what the program reads and writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from zmqmq import batch
from zmqmq.facts import EpochStart
from zmqmq.metadata import records
from zmqmq.model import PartitionId
from zmqmq.producer_state import ProducerEntry, WrittenBatch
from zmqmq.store import formats, manifest
from zmqmq.wire import framing, replies, requests

SPEC = Path(__file__).parent.parent / "docs" / "spec"
TOPIC_ID = bytes(range(16))
NOON = 1_700_000_000_000


def vectors(document: str) -> dict[str, bytes]:
    blocks = re.findall(r"```vector (\w+)\n(.*?)```", (SPEC / document).read_text(), re.DOTALL)
    return {name: bytes.fromhex(block) for name, block in blocks}


BATCHES = vectors("batch.md")
WIRE = vectors("wire.md")
STORAGE = vectors("storage.md")
METADATA = vectors("metadata.md")
PLACE = PartitionId(TOPIC_ID, 2)
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
    seed = batch.stamp_seed(PLACE)
    unstamped = BATCHES["batch"]
    stamped = batch.stamp(batch.parse_header(unstamped), unstamped, seed=seed, base_offset=1000, leader_epoch=3, append_time_ms=NOON + 9)
    assert seed == 0x5417635A
    assert b"".join(stamped.buffers) == BATCHES["stamped"]


def test_the_stamped_batch_reads_back() -> None:
    data = BATCHES["stamped"]
    header = batch.parse_header(data)
    batch.check_body(header, data)
    batch.check_stamp(header, data, batch.stamp_seed(PLACE))
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


def test_the_journal_entry_decodes_and_encodes() -> None:
    data = STORAGE["entry"]
    header = formats.decode_entry_header(data)
    assert header is not None
    assert formats.entry_is_whole(header, data)
    assert (header.generation, header.sequence, header.synced, header.size) == (0x1122334455667788, 42, 41, len(data))
    append, moved = formats.items_of(data, header)
    assert (append.kind, append.partition, bytes(append.body)) == (formats.ITEM_APPEND, PLACE, BATCHES["stamped"])
    assert (moved.kind, moved.partition.partition, formats.decode_log_start(moved.body)) == (formats.ITEM_LOG_START, 5, 77)
    items = [formats.encode_item(append.kind, PLACE, len(append.body)), append.body, formats.encode_log_start(moved.partition, 77)]
    again = formats.encode_entry(
        items, length=header.length, item_count=2, generation=header.generation, sequence=header.sequence, synced=header.synced
    )
    assert b"".join(again) == data


def test_the_index_entry_decodes_and_encodes() -> None:
    seed = formats.index_seed(PLACE, 5000)
    entry = formats.IndexEntry(1000, 65_600, NOON + 9)
    assert formats.decode_index_entry(STORAGE["index"], seed) == entry
    assert formats.encode_index_entry(entry, seed) == STORAGE["index"]
    assert formats.decode_index_entry(STORAGE["index"], formats.index_seed(PLACE, 5001)) is None


def test_the_checkpoint_decodes_and_encodes() -> None:
    found, ((entry, encoded),) = manifest.decode_manifest(STORAGE["checkpoint"], "checkpoint")
    written = WrittenBatch(40, 41, 1000, 1002, 3, NOON + 9)
    assert (found.first_sequence, found.is_clean, entry.partition_id) == (43, True, PLACE)
    assert (entry.log_start, entry.log_end, entry.position, entry.last_append_ms) == (0, 1002, 129, NOON + 9)
    assert (entry.epochs, entry.producers) == ((EpochStart(3, 1000),), {7: ProducerEntry(1, (written,))})
    assert manifest.encode_manifest(43, [encoded], is_clean=True) == STORAGE["checkpoint"]


def test_the_identity_opens() -> None:
    body = formats.open_sealed(formats.IDENTITY_MAGIC, STORAGE["identity"], "identity")
    assert json.loads(body) == {"cluster_id": "7Qk2", "node_id": 0, "directory_id": "Dir1"}


METADATA_RECORDS: dict[str, records.MetadataRecord] = {
    "BrokerRegistered": records.BrokerRegistered(
        0, "Dir1", "tcp://127.0.0.1:5570", "b", "zmqmq 0.1.0", "tcp://h:1", "tcp://h:2", "tcp://h:3", "v1", bytes([1, 2, 3, 4])
    ),
    "TopicCreated": records.TopicCreated(TOPIC_ID, "orders", [records.Assignment((0,), (0,), 0)], {"retention_ms": "7d"}),
    "TopicAltered": records.TopicAltered(TOPIC_ID, {"retention_ms": "1d"}),
    "TopicDeleted": records.TopicDeleted(TOPIC_ID),
    "PartitionChanged": records.PartitionChanged(TOPIC_ID, 2, 1, 4, 9, (0, 1, 2), (0, 1), (2,), (2,), (0,)),
    "ProducerIdsAllocated": records.ProducerIdsAllocated(0, 5, 2000),
    "FeatureLevelSet": records.FeatureLevelSet("metadata", 1),
    "BrokerChanged": records.BrokerChanged(1, 7, is_fenced=True, is_draining=False),
    "BrokerRemoved": records.BrokerRemoved(1),
}
SHORT_METADATA_RECORDS: dict[str, records.MetadataRecord] = {
    "BrokerRegistered_short": records.BrokerRegistered(0, "Dir1", "tcp://127.0.0.1:5570", "", "zmqmq 0.1.0"),
    "PartitionChanged_short": records.PartitionChanged(TOPIC_ID, 2, 1, 4, 9, (0, 1, 2), (0, 1), (2,)),
}


@pytest.mark.parametrize("name", METADATA_RECORDS)
def test_a_metadata_record_decodes_and_encodes(name: str) -> None:
    assert records.decode(METADATA[name]) == METADATA_RECORDS[name]
    assert records.encode(METADATA_RECORDS[name]) == METADATA[name]


@pytest.mark.parametrize("name", SHORT_METADATA_RECORDS)
def test_a_metadata_record_of_an_older_writer_decodes(name: str) -> None:
    assert records.decode(METADATA[name]) == SHORT_METADATA_RECORDS[name]


def test_every_vector_is_used() -> None:
    assert set(BATCHES) == {"batch", "stamped", "zstd"}
    assert set(METADATA) == set(METADATA_RECORDS) | set(SHORT_METADATA_RECORDS)
    assert set(STORAGE) == {"entry", "index", "identity", "checkpoint"}
    assert set(WIRE) == set(REQUESTS) | set(REPLIES)
