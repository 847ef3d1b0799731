"""What a broker's machines may ask of their shell. Values only; the shell performs them in order.

``Send`` leaves after everything before it in the same round was performed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from zmqmq.batch import StampedBatch
from zmqmq.errors import ZmqmqError
from zmqmq.model import PartitionId
from zmqmq.ports import Buffer
from zmqmq.topic_config import TopicConfig
from zmqmq.wire.replies import FetchResult, OffsetResult, Reply
from zmqmq.wire.requests import OffsetQuery


class Send(Struct, frozen=True):
    """Answer a peer."""

    target: bytes
    reply: Reply
    payload: tuple[Buffer, ...] = ()


class Append(Struct, frozen=True):
    """Append stamped batches; answered by ``on_appended`` or ``on_append_failed``, later by ``on_synced``."""

    partition: PartitionId
    batches: tuple[StampedBatch, ...]


class Sync(Struct, frozen=True):
    """Something waits for the disk: start a sync as soon as the running one is done."""


class ReadRange(Struct, frozen=True, gc=False):
    """Whole batches of one partition from ``offset`` on, none of it at or above ``end``."""

    partition: PartitionId
    offset: int
    end: int
    bytes_max: int
    result: FetchResult


class AnswerFetch(Struct, frozen=True):
    """Read the ranges and send them to a peer, at most ``bytes_max`` in all but always one batch.
    ``results`` are those that need no reading. A read that fails becomes that partition's error."""

    target: bytes
    correlation_id: int
    ranges: tuple[ReadRange, ...]
    results: tuple[FetchResult, ...]
    bytes_max: int
    started_ms: int = 0


class AnswerOffsets(Struct, frozen=True):
    """Look up offsets by time and send them. ``bounds`` are (log start, high watermark, leader epoch) per query;
    ``results`` are the answers that need no looking up, None in the other places."""

    target: bytes
    correlation_id: int
    queries: tuple[OffsetQuery, ...]
    bounds: tuple[tuple[int, int, int], ...]
    results: tuple[OffsetResult | None, ...] = ()


class CreateLog(Struct, frozen=True):
    """Make room for a partition, or give it new settings."""

    partition: PartitionId
    config: TopicConfig


class DeleteTopicLogs(Struct, frozen=True):
    """Remove every partition of a topic from the disk."""

    topic_id: bytes


class MoveLogStart(Struct, frozen=True):
    """Records before ``log_start`` go for good. Answered by ``on_start_moved`` when readers do not see them any more, then
    by ``on_start_synced`` when that is on disk; or by ``on_start_failed``."""

    partition: PartitionId
    log_start: int


class Tell(Struct, frozen=True):
    """A message to another broker, which may be lost. ``is_bulk``: over the data mesh, else over the control mesh."""

    node_id: int
    body: Struct
    payload: tuple[Buffer, ...] = ()
    is_bulk: bool = False


class Publish(Struct, frozen=True):
    """To whoever subscribed to the first frame."""

    frames: tuple[Buffer, ...]


class Subscribe(Struct, frozen=True):
    """Hear what a broker publishes under a key, or do not any more."""

    node_id: int
    key: bytes
    is_wanted: bool = True


class Connect(Struct, frozen=True):
    """Who the other brokers are: addresses by node id. Replaces what was said before."""

    control: dict[int, str]
    replication: dict[int, str]
    stream: dict[int, str]


class AnswerReplica(Struct, frozen=True):
    """Read the ranges and send them to a follower, at most ``bytes_max`` in all but always one batch. ``make_body`` gets what was read:
    (range, bytes or error) in order."""

    node_id: int
    ranges: tuple[ReadRange, ...]
    bytes_max: int
    make_body: Callable[[list[tuple[ReadRange, bytes | ZmqmqError]]], Struct]


class TruncateLogs(Struct, frozen=True):
    """Cut logs back, durably, before anything else of the round. Answered by ``on_truncated``."""

    ends: dict[PartitionId, int]


class ResetLog(Struct, frozen=True):
    """Forget all records; the log begins anew at ``log_start``. Answered by ``on_truncated``."""

    partition: PartitionId
    log_start: int


class SaveState(Struct, frozen=True):
    """Keep a few bytes with a partition; answered by ``on_synced``."""

    partition: PartitionId
    data: bytes


class AdoptCluster(Struct, frozen=True):
    """This broker belongs to that cluster from now on."""

    cluster_id: str


Effect: TypeAlias = (
    Send
    | Append
    | Sync
    | AnswerFetch
    | AnswerOffsets
    | CreateLog
    | DeleteTopicLogs
    | MoveLogStart
    | Tell
    | Publish
    | Subscribe
    | Connect
    | AnswerReplica
    | TruncateLogs
    | ResetLog
    | SaveState
    | AdoptCluster
)
