"""The outcome of deciding, and how it is cut into appends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from zmqmq.errors import ZmqmqError
from zmqmq.metadata.log import APPEND_BYTES_MAX, RECORD_OVERHEAD_BYTES
from zmqmq.metadata.records import MetadataRecord, encode
from zmqmq.model import PartitionId

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Decision(Struct, frozen=True):
    """Records to commit before the answer, or why not. No records and no error: all is as asked already.

    The records of one decision may need several appends (``chunks``); a controller that is lost between two of them
    leaves a state that ``repaired`` completes. ``unclean`` names partitions that got a leader which may lack committed
    records, because their topic allows it: to be said loudly.
    """

    records: tuple[MetadataRecord, ...] = ()
    topic_id: bytes = b""
    error: ZmqmqError | None = None
    unclean: tuple[PartitionId, ...] = ()


def chunks(records: Iterable[MetadataRecord]) -> Iterator[tuple[MetadataRecord, ...]]:
    """The records in order, in appends that the metadata log takes."""
    chunk: list[MetadataRecord] = []
    size = RECORD_OVERHEAD_BYTES
    for record in records:
        added = len(encode(record)) + RECORD_OVERHEAD_BYTES
        if chunk and size + added > APPEND_BYTES_MAX:
            yield tuple(chunk)
            chunk, size = [], RECORD_OVERHEAD_BYTES
        chunk.append(record)
        size += added
    if chunk:
        yield tuple(chunk)
