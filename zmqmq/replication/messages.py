"""What leaders and followers say to each other. Every message may be lost, doubled, late or out of order.

Two ways: *mesh* messages (fetches, their answers, reports) have tags and go from broker to broker; *stream* messages (appended batches,
beats) are published once for everybody who subscribed to their key. Correctness rests on the first kind alone.

The structs are a format on the wire: tags are never reused, new fields go at the end and have defaults. Decoding raises
RemoteProtocolError, whatever the bytes are.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
from msgspec import Struct

from zmqmq.errors import RemoteProtocolError
from zmqmq.model import PartitionId
from zmqmq.ports import Buffer
from zmqmq.wire.replies import Fault

if TYPE_CHECKING:
    from collections.abc import Sequence

REPLICA_ENTRIES_MAX: Final = 1_000
"""Partitions in one fetch, report or beat."""

_STREAM: Final = 1
_BEAT: Final = 2
_STREAM_KEY: Final = struct.Struct(">B16sI")
_BEAT_KEY: Final = struct.Struct(">BI16x")
KEY_BYTES: Final = _STREAM_KEY.size
"""All keys have one length: ZeroMQ subscriptions match by prefix."""
assert _BEAT_KEY.size == KEY_BYTES == 21


class ReplicaFetchEntry(Struct, frozen=True, array_like=True, gc=False):
    """The follower's log ends at ``end`` with a batch of ``last_epoch``; -1 if it holds no batch."""

    topic_id: bytes
    partition: int
    leader_epoch: int
    end: int
    last_epoch: int


class ReplicaFetch(Struct, frozen=True, array_like=True, tag=40):
    """Send what follows. ``number`` comes back in the answer; the entries' order is the order of service."""

    node_id: int
    broker_epoch: int
    number: int
    bytes_max: int
    entries: list[ReplicaFetchEntry]


class ReplicaResult(Struct, frozen=True, array_like=True):
    """One partition's part of an answer: batches, a parting, or a fault.

    ``parting_end >= 0``: the logs differ; ``parting_epoch`` is the largest epoch up to the asker's last that the leader holds (-1: none),
    and this is its end. ``frames`` is 1 when a payload frame of whole batches belongs to this result.
    """

    topic_id: bytes
    partition: int
    leader_epoch: int
    high_watermark: int
    log_start: int
    log_end: int
    parting_epoch: int = -1
    parting_end: int = -1
    frames: int = 0
    fault: Fault | None = None


class ReplicaBatches(Struct, frozen=True, array_like=True, tag=41):
    """The answer to a fetch. Partitions for which there was no room are missing."""

    node_id: int
    broker_epoch: int
    number: int
    results: list[ReplicaResult]


class ReportEntry(Struct, frozen=True, array_like=True, gc=False):
    """How far the follower is: written, on its disk, known to be committed, and where its log starts."""

    topic_id: bytes
    partition: int
    leader_epoch: int
    end: int
    synced_end: int
    high_watermark: int
    log_start: int = 0


class ReplicaReport(Struct, frozen=True, array_like=True, tag=42):
    """``number`` rises with each report of a broker epoch: one that was overtaken is dropped."""

    node_id: int
    broker_epoch: int
    entries: list[ReportEntry]
    number: int = 0


ReplicaMessage: TypeAlias = ReplicaFetch | ReplicaBatches | ReplicaReport


class StreamHeader(Struct, frozen=True, array_like=True, gc=False):
    """Goes before published batches: where they belong. ``previous_epoch`` is that of the batch that ends at ``previous_end``."""

    node_id: int
    leader_epoch: int
    previous_end: int
    previous_epoch: int
    high_watermark: int
    log_start: int = 0


class BeatEntry(Struct, frozen=True, array_like=True, gc=False):
    """The leader's ends of a partition in which the follower's last report differed."""

    topic_id: bytes
    partition: int
    leader_epoch: int
    end: int
    last_epoch: int
    high_watermark: int
    log_start: int = 0


class Beat(Struct, frozen=True, array_like=True):
    """``node_id`` lives, and this is what one follower may have missed."""

    node_id: int
    entries: list[BeatEntry]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_header: Final = msgspec.msgpack.Decoder(StreamHeader).decode
_decode_beat: Final = msgspec.msgpack.Decoder(Beat).decode
_MALFORMED: Final = (msgspec.MsgspecError, ValueError, RecursionError)


def stream_key(partition: PartitionId) -> bytes:
    """What followers of a partition subscribe to at its leader."""
    return _STREAM_KEY.pack(_STREAM, partition.topic_id, partition.partition)


def beat_key(node_id: int) -> bytes:
    """What a follower subscribes to at each broker that it follows; ``node_id`` is its own."""
    return _BEAT_KEY.pack(_BEAT, node_id)


def stream_frames(partition: PartitionId, header: StreamHeader, batches: Buffer) -> list[Buffer]:
    return [stream_key(partition), _encode(header), batches]


def beat_frames(target: int, beat: Beat) -> list[Buffer]:
    """The beat for the follower ``target``."""
    return [beat_key(target), _encode(beat)]


def decode_stream(frames: Sequence[Buffer]) -> Beat | tuple[PartitionId, StreamHeader, Buffer]:
    """A beat, or published batches with their partition and header. Raises RemoteProtocolError."""
    if len(frames) not in (2, 3) or len(frames[0]) != KEY_BYTES or frames[0][0] != (_BEAT if len(frames) == 2 else _STREAM):
        raise RemoteProtocolError(f"stream message of {len(frames)} frames has no known key", hint="the broker that sent it may be newer")
    try:
        if len(frames) == 2:
            return _decode_beat(frames[1])
        _, topic_id, number = _STREAM_KEY.unpack(frames[0])
        return PartitionId(topic_id, number), _decode_header(frames[1]), frames[2]
    except _MALFORMED as error:
        raise RemoteProtocolError(f"stream message does not decode: {error}") from error
