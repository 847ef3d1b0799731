"""Raft's entries as batches of METADATA_PARTITION's log, and its hard state as the bytes saved with it. ``docs/spec/quorum.md``.

An entry is one batch: the leader epoch is its term, the offset its index, each record's value a metadata record; the proposal id is the
key of the first record. What Raft writes for itself, no-ops and configurations, are batches with the CONTROL attribute and one record.
The log of the ``local`` engine is one of these, without keys. The structs below are a format on disk: they must not change otherwise
than by new fields at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from zmqmq import batch
from zmqmq.batch import CONTROL, BatchHeader, Record, StampedBatch
from zmqmq.errors import CorruptLog, InvalidRecord, UnsupportedVersion
from zmqmq.metadata.quorum.state import Configuration, Entry, HardState, SnapshotMeta
from zmqmq.model import METADATA_PARTITION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zmqmq.ports import Buffer

FORMAT_VERSION: Final = 1
NO_PROPOSAL: Final = -1
_PROPOSAL_BYTES: Final = 8
_SEED: Final = batch.stamp_seed(METADATA_PARTITION)
_VERSION_BYTE: Final = bytes([FORMAT_VERSION])
_MALFORMED: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class Control(Struct, frozen=True, array_like=True):
    """The value of a control record. Without a configuration: the no-op that opens a term."""

    configuration: Configuration | None = None


class SavedState(Struct, frozen=True, array_like=True):
    """Term and vote, and what the quorum was at index 0: the same for all its first voters (thesis 4.4), nobody for who came later."""

    hard_state: HardState
    base: Configuration


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_control: Final = msgspec.msgpack.Decoder(Control).decode
_decode_saved: Final = msgspec.msgpack.Decoder(SavedState).decode


def encode_saved(hard_state: HardState, base: Configuration) -> bytes:
    return _VERSION_BYTE + _encode(SavedState(hard_state, base))


def decode_saved(data: bytes) -> SavedState:
    """Raises CorruptLog, and UnsupportedVersion for a state from the future."""
    if data[:1] not in (b"", _VERSION_BYTE):
        raise UnsupportedVersion(f"the saved state of the quorum has version {data[0]}, this program knows {FORMAT_VERSION}")
    try:
        return _decode_saved(memoryview(data)[1:])
    except _MALFORMED as error:
        raise CorruptLog(f"the saved state of the quorum does not decode: {error}", hint="restore this broker's disk") from error


def encode_entry(entry: Entry, wall_ms: int) -> StampedBatch:
    key = None if entry.proposal_id == NO_PROPOSAL else entry.proposal_id.to_bytes(_PROPOSAL_BYTES, "big", signed=True)
    values = entry.records or (_VERSION_BYTE + _encode(Control(entry.configuration)),)
    encoded = batch.encode_records([Record(None if position else key, value, 0) for position, value in enumerate(values)])
    data = batch.build(
        encoded, record_count=len(values), base_timestamp_ms=wall_ms, max_timestamp_ms=wall_ms, attributes=0 if entry.records else CONTROL
    )
    header = batch.parse_header(data)
    return batch.stamp(header, data, seed=_SEED, base_offset=entry.index, leader_epoch=entry.term, append_time_ms=wall_ms)


def decode_entries(data: Buffer) -> Iterator[Entry]:
    """Of whole batches, one after the other. Raises InvalidRecord, UnsupportedVersion."""
    position = 0
    while position < len(data):
        header = batch.parse_header(data, position)
        batch.check_stamp(header, data, _SEED, position)
        batch.check_body(header, data, position)
        yield _entry(header, batch.records(header, data, position))
        position += header.length


def _entry(header: BatchHeader, found: list[Record | None]) -> Entry:
    first = found[0]
    proposal_id = NO_PROPOSAL
    if first is not None and first.key is not None:
        proposal_id = int.from_bytes(first.key, "big", signed=True)
    values = tuple(record.value for record in found if record is not None and record.value is not None)
    if len(values) < len(found):
        raise InvalidRecord(f"the entry at index {header.base_offset} of the metadata log has an empty record")
    if not header.is_control:
        return Entry(header.base_offset, header.leader_epoch, values, proposal_id)
    return Entry(header.base_offset, header.leader_epoch, (), proposal_id, _control(values[0]).configuration)


def _control(value: bytes) -> Control:
    if value[:1] != _VERSION_BYTE:
        raise UnsupportedVersion(f"a control record of the metadata log has version {value[:1].hex()}, this program knows {FORMAT_VERSION}")
    try:
        return _decode_control(memoryview(value)[1:])
    except _MALFORMED as error:
        raise InvalidRecord(f"a control record of the metadata log does not decode: {error}") from error


def base_snapshot(base: Configuration) -> SnapshotMeta:
    """What Raft takes for the beginning of a log that is never cut."""
    return SnapshotMeta(configuration=base)
