"""What a checkpoint says: where replay begins, and of every partition what a cold log needs.

Pure. Fields are only ever added at the end, with defaults; a reader ignores what it does not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta, Struct

from zmqmq.errors import CorruptLog
from zmqmq.facts import EpochStart
from zmqmq.model import PartitionId
from zmqmq.producer_state import ProducerEntry
from zmqmq.store.formats import CHECKPOINT_MAGIC, open_sealed, seal_file
from zmqmq.topic_config import TopicConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_CONFIG: Final = TopicConfig()


class PartitionEntry(Struct, frozen=True, array_like=True):
    """Everything of one partition before ``log_end`` is on disk, ``position`` bytes of it in the active segment."""

    topic_id: Annotated[bytes, Meta(min_length=16, max_length=16)]
    partition: Annotated[int, Meta(ge=0, lt=1 << 32)]
    log_start: int
    log_end: int
    base: int
    position: int
    index_entries: int
    sealed_bytes: int
    first_append_ms: int
    last_append_ms: int
    oldest_ms: int
    epochs: tuple[EpochStart, ...] = ()
    producers: dict[int, ProducerEntry] = {}
    error: str = ""
    segment_bytes: int = DEFAULT_CONFIG.segment_bytes
    """For replay, which comes before the metadata can tell the settings."""
    saved: bytes = b""
    """What others asked to keep with the partition."""
    cut_count: int = 0
    """Truncations and resets so far: who copies or checks the files meanwhile sees by it that they may have changed."""

    @property
    def partition_id(self) -> PartitionId:
        return PartitionId(self.topic_id, self.partition)


class Manifest(Struct, frozen=True, array_like=True):
    """``first_sequence`` is where replay of the journal begins. ``is_clean``: written by an orderly close."""

    first_sequence: int
    is_clean: bool
    partitions: list[msgspec.Raw]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Manifest).decode
_decode_entry = msgspec.msgpack.Decoder(PartitionEntry).decode


def encode_partition(entry: PartitionEntry) -> bytes:
    return _encode(entry)


def encode_manifest(first_sequence: int, partitions: Sequence[bytes], *, is_clean: bool) -> bytes:
    """The content of the checkpoint's file."""
    return seal_file(CHECKPOINT_MAGIC, _encode(Manifest(first_sequence, is_clean, [msgspec.Raw(each) for each in partitions])))


def decode_manifest(data: bytes, path: str) -> tuple[Manifest, list[tuple[PartitionEntry, bytes]]]:
    """The manifest and its partitions, each with its encoded form. Raises CorruptLog."""
    body = open_sealed(CHECKPOINT_MAGIC, data, path)
    try:
        manifest = _decode(body)
        return manifest, [(_decode_entry(raw), bytes(raw)) for raw in manifest.partitions]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CorruptLog(f"{path} does not decode: {error}", file=path, position=0) from error
