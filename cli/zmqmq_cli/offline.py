"""A data directory read without a broker: names of topics, messages of segments. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import Struct

from zmqmq import batch
from zmqmq.errors import CorruptLog, InvalidRecord, UnsupportedVersion
from zmqmq.metadata import records as metadata
from zmqmq.model import METADATA_PARTITION, PartitionId
from zmqmq.ports import Disk
from zmqmq.store.verify import SegmentBatch, batches_of, segment_paths

METADATA_NAME: Final = "__metadata"


class StoredMessage(Struct, frozen=True):
    """A record with its place, as formats print it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    leader_epoch: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]


def topic_names(disk: Disk, root: str) -> dict[bytes, str]:
    """Names by topic id, as far as the metadata log can be read; a directory without them is still worth looking at."""
    names = {METADATA_PARTITION.topic_id: METADATA_NAME}
    for partition, path in segment_paths(disk, root):
        if partition == METADATA_PARTITION:
            names.update(_names_in(disk, path))
    return names


def _names_in(disk: Disk, path: str) -> dict[bytes, str]:
    names: dict[bytes, str] = {}
    try:
        for found in batches_of(disk, path):
            for record in batch.records(found.header, found.data):
                entry = metadata.decode(record.value) if record is not None else None
                if isinstance(entry, metadata.TopicCreated):
                    names[entry.topic_id] = entry.name
    except (CorruptLog, InvalidRecord, UnsupportedVersion):
        return names  # verify reports what is wrong; here the names so far are better than none
    return names


def name_of(names: Mapping[bytes, str], partition: PartitionId) -> str:
    return names.get(partition.topic_id, partition.topic_id.hex())


def messages(found: SegmentBatch, topic: str, partition: int) -> Iterator[StoredMessage]:
    """The records of a batch that compaction left. Raises InvalidRecord."""
    header = found.header
    for index, record in enumerate(batch.records(header, found.data)):
        if record is not None:
            yield StoredMessage(
                topic=topic,
                partition=partition,
                offset=header.base_offset + index,
                timestamp_ms=header.base_timestamp_ms + record.timestamp_delta,
                leader_epoch=header.leader_epoch,
                key=record.key,
                value=record.value,
                headers=record.headers or {},
            )


def header_row(found: SegmentBatch) -> dict[str, object]:
    """One line of ``log dump --headers-only``."""
    header = found.header
    return {
        "position": found.position,
        "base_offset": header.base_offset,
        "last_offset": header.end_offset - 1,
        "records": header.record_count,
        "bytes": header.length,
        "uncompressed": header.uncompressed_bytes,
        "codec": "zstd" if header.codec == batch.CODEC_ZSTD else "none",
        "epoch": header.leader_epoch,
        "appended_ms": header.append_time_ms,
        "producer": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "sequence": header.base_sequence,
        "control": header.is_control,
    }
