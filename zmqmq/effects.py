"""What a broker's machines may ask of their shell. Values only; the shell performs them in order.

``Send`` leaves after everything before it in the same round was performed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from msgspec import Struct

from zmqmq.batch import StampedBatch
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


class Relay(Struct, frozen=True):
    """Another broker's answer, as frames, to a client of this one."""

    target: bytes
    frames: tuple[Buffer, ...]


class Filler(Protocol):
    """An answer that lacks what is to be read from the logs."""

    def filled(self, node_id: int, read: Callable[[PartitionId, int, int, int], Buffer], /) -> tuple[Struct, list[Buffer]]:
        """The message of this broker, and its payload."""


class AnswerReplica(Struct, frozen=True):
    """Read what a follower asked for, and send it."""

    node_id: int
    answer: Filler


class TruncateLogs(Struct, frozen=True):
    """Cut logs back, durably, before anything is appended. Answered by ``on_truncated``."""

    ends: dict[PartitionId, int]


class ResetLog(Struct, frozen=True):
    """Forget all records; the log begins anew at ``log_start``. Before anything is appended. Answered by ``on_reset``."""

    partition: PartitionId
    log_start: int


class WriteQuorum(Struct, frozen=True):
    """Change the metadata partition: cut it to ``truncate_to`` (-1: not), save, append; in this order. Answered by
    ``on_quorum_written``, and by ``on_synced``."""

    truncate_to: int
    saved: bytes | None
    batches: tuple[StampedBatch, ...]


class AdoptCluster(Struct, frozen=True):
    """This broker belongs to that cluster from now on; ``saved`` is kept with the metadata partition. Answered by ``on_adopted`` when it is
    on disk."""

    cluster_id: str
    saved: bytes


Effect: TypeAlias = (
    Send
    | Append
    | Sync
    | AnswerFetch
    | AnswerOffsets
    | CreateLog
    | DeleteTopicLogs
    | MoveLogStart
    | Relay
    | Tell
    | Publish
    | Subscribe
    | Connect
    | AnswerReplica
    | TruncateLogs
    | ResetLog
    | WriteQuorum
    | AdoptCluster
)
