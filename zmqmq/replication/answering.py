"""What a leader answers to a follower's fetch: a range to read, where the logs part, or why not.

Promise (KIP-101, KIP-279, KIP-320): a follower gets batches only when its leader epoch is the leader's and its log ends with a batch that
the leader holds at the same place; else it hears the largest epoch up to its own that the leader knows, and that epoch's end. A follower
below the leader's log start gets batches from there on, and sees by ``log_start`` that it has to begin anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
from msgspec import Struct

from zmqmq.errors import Fenced, NotLeader, ZmqmqError
from zmqmq.marks import reached
from zmqmq.model import BATCH_BYTES_MAX, PartitionId
from zmqmq.ports import Buffer
from zmqmq.replication.epochs import NO_EPOCH
from zmqmq.replication.messages import ReplicaBatches, ReplicaFetchEntry, ReplicaResult
from zmqmq.wire.framing import fault

if TYPE_CHECKING:
    from zmqmq.replication.leader import PartitionLeader

ANSWER_BYTES_MAX: Final = 4 << 20
"""Of one answer, whatever the fetch allows; one batch more at most."""

Read: TypeAlias = Callable[[PartitionId, int, int, int], Buffer]
"""Whole batches of a partition from an offset up to an end, of about so many bytes but at least one. May raise ZmqmqError."""


class ReplicaRange(Struct, frozen=True, gc=False):
    """Whole batches of one partition from ``offset`` on, none of it at or above ``end``; ``result`` goes before them."""

    partition: PartitionId
    offset: int
    end: int
    bytes_max: int
    result: ReplicaResult


class AnswerReplica(Struct, frozen=True):
    """Read the ranges in their order and send them to ``target``, at most ``bytes_max`` in all but always one batch."""

    target: int
    broker_epoch: int
    number: int
    ranges: tuple[ReplicaRange, ...]
    results: tuple[ReplicaResult, ...]
    bytes_max: int

    def filled(self, node_id: int, read: Read) -> tuple[ReplicaBatches, list[Buffer]]:
        """The message and its payload. A read that fails becomes its partition's fault."""
        results = list(self.results)
        payload: list[Buffer] = []
        room = self.bytes_max
        for wanted in self.ranges:
            if room <= 0:
                break
            try:
                data = read(wanted.partition, wanted.offset, wanted.end, min(wanted.bytes_max, room))
            except ZmqmqError as error:
                results.append(msgspec.structs.replace(wanted.result, fault=fault(error)))
                continue
            results.append(msgspec.structs.replace(wanted.result, frames=int(bool(data))))
            if data:
                payload.append(data)
                room -= len(data)
        return ReplicaBatches(node_id, self.broker_epoch, self.number, results), payload


def replica_answer(leader: PartitionLeader, entry: ReplicaFetchEntry, bytes_max: int = BATCH_BYTES_MAX) -> ReplicaResult | ReplicaRange:
    """See the module."""
    epoch = leader.leadership.epoch
    if entry.leader_epoch != epoch:
        reached("replica fetch of another epoch refused")
        return refusal(entry, _epoch_error(leader, entry.leader_epoch))
    log_start, log_end = leader.log_start, leader.log_end
    result = ReplicaResult(entry.topic_id, entry.partition, epoch, leader.high_watermark, log_start, log_end)
    if entry.end >= log_start:
        parting = _parting(leader, entry)
        if parting is not None:
            reached("replica parted from its leader")
            return msgspec.structs.replace(result, parting_epoch=parting[0], parting_end=parting[1])
    if max(entry.end, log_start) >= log_end:
        return result
    return ReplicaRange(leader.partition, max(entry.end, log_start), log_end, min(max(bytes_max, 1), BATCH_BYTES_MAX), result)


def refusal(entry: ReplicaFetchEntry, error: ZmqmqError) -> ReplicaResult:
    return ReplicaResult(entry.topic_id, entry.partition, entry.leader_epoch, -1, -1, -1, fault=fault(error))


def _parting(leader: PartitionLeader, entry: ReplicaFetchEntry) -> tuple[int, int] | None:
    if entry.last_epoch == NO_EPOCH and entry.end <= leader.log_end:
        # It holds no batch. Where it begins was a log start once, so everything before was committed.
        return None
    found, end = leader.end_of_epoch(entry.last_epoch)
    return None if found == entry.last_epoch and entry.end <= end else (found, end)


def _epoch_error(leader: PartitionLeader, epoch: int) -> ZmqmqError:
    known = leader.leadership.epoch
    if epoch < known:
        return Fenced(f"{leader.partition} is led in epoch {known}, the follower asked in {epoch}", hint="it learns the newer epoch soon")
    return NotLeader(f"{leader.partition} was led here in epoch {known}, the follower knows {epoch} already")
