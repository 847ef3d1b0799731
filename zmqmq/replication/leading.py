"""All partitions that this broker leads for others: what to publish, what to answer, whom to have in sync.

Pure. The partitions' own machines are made and told of writes and syncs by their owner, who then says here what happened. At the end of a
round the shell publishes ``take_published``, performs and sends the answers, and sends ``take_proposals`` to the controller.

A beat goes to each follower every BEAT_MS and lists the partitions in which its last report differs from the leader's state. Candidates for
that are noted when something happens to a partition; none of the work here grows with the partitions that nothing happens to.
"""

from __future__ import annotations

import heapq
from itertools import islice
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from zmqmq.errors import NotLeader, RemoteProtocolError
from zmqmq.marks import reached
from zmqmq.model import PartitionId
from zmqmq.replication.answering import ANSWER_BYTES_MAX, AnswerReplica, ReplicaRange, refusal, replica_answer
from zmqmq.replication.epochs import epoch_before
from zmqmq.replication.insync import LAG_MS_MAX, PROPOSAL_RETRY_MS, Leadership
from zmqmq.replication.messages import (
    REPLICA_ENTRIES_MAX,
    Beat,
    BeatEntry,
    ReplicaFetch,
    ReplicaReport,
    ReplicaResult,
    StreamHeader,
    beat_frames,
    stream_frames,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zmqmq.batch import StampedBatch
    from zmqmq.ports import Buffer
    from zmqmq.replication.leader import PartitionLeader

BEAT_MS: Final = 100
STREAM_BYTES_MAX: Final = 1 << 20
"""Of one published message, unless a single batch is larger."""
RANGE_BYTES_MIN: Final = 256 << 10
"""What each partition of a fetch gets at least, so that reads stay large."""
PROPOSALS_UNDER_WAY_MAX: Final = 500
"""The controller decides all that it is asked for in one round, and must not miss its own heartbeats over that."""
CHECK_MS: Final = 100
"""At least, between looks at an in-sync set that should change and cannot."""


class IsrProposal(Struct, frozen=True):
    """Compare-and-set on the two epochs; members with the broker epochs in which they proved to be in sync, -1 if they did not yet."""

    partition: PartitionId
    leader_epoch: int
    partition_epoch: int
    isr: tuple[tuple[int, int], ...]


class _Follower:
    """What goes on with one broker that follows."""

    def __init__(self) -> None:
        self.partitions: dict[PartitionId, None] = {}
        self.stale: dict[PartitionId, None] = {}
        self.broker_epoch = -1
        self.report_number = -1


class Leading:
    """See the module. Belongs to one thread."""

    def __init__(self, node_id: int) -> None:
        self.node_id = node_id
        self.dropped_reports = 0
        """Reports that were overtaken, or came from an earlier life of their sender."""
        self._alive: Mapping[int, int] = {}
        self._leaders: dict[PartitionId, PartitionLeader] = {}
        self._followers: dict[int, _Follower] = {}
        self._published: list[list[Buffer]] = []
        self._checks: list[tuple[int, PartitionId]] = []
        self._check_ms: dict[PartitionId, int] = {}
        self._proposals: dict[PartitionId, IsrProposal] = {}
        self._unsent: dict[PartitionId, None] = {}
        self._sent: dict[PartitionId, int] = {}
        """When each of the proposals that are under way is sent again; in the order of that."""
        self._beat_ms = 0

    def __len__(self) -> int:
        return len(self._leaders)

    def __contains__(self, partition: object) -> bool:
        return partition in self._leaders

    def set_brokers(self, alive: Mapping[int, int]) -> None:
        """The brokers that are not fenced, this one too, with their broker epochs. What an earlier life of one of them reported is void."""
        before, self._alive = self._alive, alive
        for node, follower in self._followers.items():
            if node in alive and alive[node] != before.get(node):
                if alive[node] != follower.broker_epoch:
                    self._forget(node, follower)
                for partition in follower.partitions:
                    self._check_at(partition, 0)

    def lead(self, leader: PartitionLeader, now_ms: int) -> None:
        """A new leader's epoch. Partitions without other replicas need not be told."""
        self.drop(leader.partition)
        self._leaders[leader.partition] = leader
        leader.growth.note(now_ms, leader.log_end)
        self._attend(leader)
        self._check_at(leader.partition, now_ms + LAG_MS_MAX)

    def drop(self, partition: PartitionId) -> None:
        """It is led by another one, or nobody."""
        if self._leaders.pop(partition, None) is not None:
            self._check_ms.pop(partition, None)
            self._withdraw(partition)
            for node in list(self._followers):
                self._leave(node, partition)

    def on_leadership(self, partition: PartitionId, leadership: Leadership, now_ms: int) -> bool:
        """The metadata log changed the partition within its leader epoch. Tells whether the high watermark moved."""
        leader = self._leaders.get(partition)
        if leader is None or leadership.partition_epoch <= leader.leadership.partition_epoch:
            return False
        has_moved = leader.set_leadership(leadership)
        self._withdraw(partition)
        for node in list(self._followers):
            if node not in leadership.replicas:
                self._leave(node, partition)
        self._attend(leader)
        self._check_at(partition, now_ms)
        return has_moved

    def on_written(self, partition: PartitionId, batches: Sequence[StampedBatch], now_ms: int) -> None:
        """After the leader's own ``on_written``: tell the followers."""
        leader = self._leaders.get(partition)
        if leader is None:
            return
        start = 0
        size = 0
        for index, batch in enumerate(batches):
            if size and size + batch.header.length > STREAM_BYTES_MAX:
                self._publish(leader, batches[start:index])
                start, size = index, 0
            size += batch.header.length
        self._publish(leader, batches[start:])
        leader.growth.note(now_ms, leader.log_end)
        self._touch(leader)
        if partition not in self._check_ms:
            self._check_at(partition, now_ms + LAG_MS_MAX)

    def on_moved(self, partition: PartitionId) -> None:
        """The high watermark or the log start moved."""
        leader = self._leaders.get(partition)
        if leader is not None:
            self._touch(leader)

    def on_report(self, report: ReplicaReport, now_ms: int) -> list[PartitionId]:
        """How far a follower is. The partitions whose high watermark moved."""
        follower = self._followers.get(report.node_id)
        if follower is None or self._alive.get(report.node_id) != report.broker_epoch:
            self.dropped_reports += 1
            return []
        if report.broker_epoch != follower.broker_epoch:
            self._forget(report.node_id, follower)
            follower.broker_epoch = report.broker_epoch
        if report.number <= follower.report_number:
            self.dropped_reports += 1
            return []
        follower.report_number = report.number
        advanced = []
        for entry in report.entries:
            leader = self._leaders.get(PartitionId(entry.topic_id, entry.partition))
            if leader is None:
                continue
            if leader.on_report(report.node_id, entry, report.broker_epoch):
                advanced.append(leader.partition)
                self._touch(leader)
            self._consider(leader, report.node_id, now_ms)
        return advanced

    def answer(self, fetch: ReplicaFetch) -> AnswerReplica:
        """Plan the answer to a fetch. Raises RemoteProtocolError for one that is too large."""
        if len(fetch.entries) > REPLICA_ENTRIES_MAX:
            raise RemoteProtocolError(
                f"fetch of broker {fetch.node_id} has {len(fetch.entries)} entries, the limit is {REPLICA_ENTRIES_MAX}"
            )
        ranges: list[ReplicaRange] = []
        results: list[ReplicaResult] = []
        bytes_max = min(max(fetch.bytes_max, 1), ANSWER_BYTES_MAX)
        share = max(bytes_max // max(len(fetch.entries), 1), RANGE_BYTES_MIN)
        for entry in fetch.entries:
            leader = self._leaders.get(PartitionId(entry.topic_id, entry.partition))
            if leader is None:
                error = NotLeader(f"broker {self.node_id} does not lead partition {entry.partition} of {entry.topic_id.hex()}")
                results.append(refusal(entry, error))
                continue
            found = replica_answer(leader, entry, share)
            if isinstance(found, ReplicaRange):
                ranges.append(found)
            else:
                results.append(found)
        return AnswerReplica(fetch.node_id, self._alive.get(self.node_id, -1), fetch.number, tuple(ranges), tuple(results), bytes_max)

    def on_refused(self, partition: PartitionId, partition_epoch: int, now_ms: int) -> None:
        """The controller did not take a proposal."""
        leader = self._leaders.get(partition)
        if leader is not None and leader.in_sync.on_refused(partition_epoch, now_ms):
            self._withdraw(partition)
            self._check_at(partition, now_ms + PROPOSAL_RETRY_MS)

    def take_published(self, now_ms: int) -> list[list[Buffer]]:
        """Stream messages of this round, and beats when it is time; the first frame is the key."""
        published, self._published = self._published, []
        if now_ms >= self._beat_ms and self._followers:
            self._beat_ms = now_ms + BEAT_MS
            published += [beat_frames(node, self._beat(node, follower)) for node, follower in self._followers.items()]
        return published

    def take_proposals(self, now_ms: int) -> list[IsrProposal]:
        """In-sync sets to ask the controller for; again after a while, as long as nothing came of it."""
        proposals = []
        while self._checks and self._checks[0][0] <= now_ms:
            due_ms, partition = heapq.heappop(self._checks)
            if self._check_ms.get(partition) == due_ms:
                del self._check_ms[partition]
                self._check(self._leaders[partition], now_ms)
        while self._sent and self._sent[oldest := next(iter(self._sent))] <= now_ms:
            del self._sent[oldest]
            self._unsent[oldest] = None
        for partition in list(islice(self._unsent, PROPOSALS_UNDER_WAY_MAX - len(self._sent))):
            del self._unsent[partition]
            self._sent[partition] = now_ms + PROPOSAL_RETRY_MS
            proposals.append(self._proposals[partition])
        return proposals

    def next_deadline_ms(self) -> int | None:
        times = [next(iter(self._sent.values()))] if self._sent else []
        times += [0] if self._unsent and len(self._sent) < PROPOSALS_UNDER_WAY_MAX else []
        times += [self._checks[0][0]] if self._checks else []
        times += [self._beat_ms] if self._followers else []
        return min(times, default=None)

    def _attend(self, leader: PartitionLeader) -> None:
        """Its replicas are followers; all of them have to hear of it."""
        for node in leader.leadership.replicas:
            if node != self.node_id:
                self._followers.setdefault(node, _Follower()).partitions[leader.partition] = None
        self._touch(leader)

    def _leave(self, node: int, partition: PartitionId) -> None:
        follower = self._followers[node]
        follower.partitions.pop(partition, None)
        follower.stale.pop(partition, None)
        if not follower.partitions:
            del self._followers[node]

    def _forget(self, node: int, follower: _Follower) -> None:
        follower.report_number = -1
        for partition in follower.partitions:
            self._leaders[partition].forget(node)
            follower.stale[partition] = None

    def _touch(self, leader: PartitionLeader) -> None:
        for node in leader.leadership.replicas:
            if node != self.node_id:
                self._followers[node].stale[leader.partition] = None

    def _publish(self, leader: PartitionLeader, batches: Sequence[StampedBatch]) -> None:
        if not batches:
            return
        end = batches[0].header.base_offset
        header = StreamHeader(
            self.node_id, leader.leadership.epoch, end, epoch_before(leader.epochs, end), leader.high_watermark, leader.log_start
        )
        data = b"".join(buffer for batch in batches for buffer in batch.buffers)
        self._published.append(stream_frames(leader.partition, header, data))

    def _beat(self, node: int, follower: _Follower) -> Beat:
        """What differs is listed, and looked at again for the next beat; the rest is dropped from the candidates."""
        entries = []
        for partition in [name for name, _ in zip(follower.stale, range(REPLICA_ENTRIES_MAX), strict=False)]:
            del follower.stale[partition]
            leader = self._leaders[partition]
            if leader.differs(node):
                follower.stale[partition] = None
                entries.append(
                    BeatEntry(
                        *partition, leader.leadership.epoch, leader.log_end, leader.last_epoch, leader.high_watermark, leader.log_start
                    )
                )
        return Beat(self.node_id, entries)

    def _consider(self, leader: PartitionLeader, node: int, now_ms: int) -> None:
        """A report may be a reason to change the in-sync set at once."""
        progress = leader.followers.get(node)
        if progress is None or leader.in_sync.is_open:
            return
        has_lost = progress.end < leader.high_watermark
        if has_lost if node in leader.leadership.isr else leader.may_join(node, self._alive):
            self._check_at(leader.partition, now_ms)

    def _check_at(self, partition: PartitionId, due_ms: int) -> None:
        known_ms = self._check_ms.get(partition)
        if known_ms is None or due_ms < known_ms:
            self._check_ms[partition] = due_ms
            heapq.heappush(self._checks, (due_ms, partition))

    def _check(self, leader: PartitionLeader, now_ms: int) -> None:
        members = leader.isr_change(now_ms, self._alive)
        if members is not None:
            leadership = leader.leadership
            reached("in-sync set grows" if len(members) > len(leadership.isr) else "in-sync set shrinks")
            isr = tuple((node, self._epoch_of(leader, node)) for node in members)
            self._proposals[leader.partition] = IsrProposal(leader.partition, leadership.epoch, leadership.partition_epoch, isr)
            self._sent.pop(leader.partition, None)
            self._unsent[leader.partition] = None
        if leader.in_sync.retry_ms > now_ms:
            self._check_at(leader.partition, leader.in_sync.retry_ms)
        overdue_ms = leader.overdue_ms()
        if overdue_ms is not None:
            self._check_at(leader.partition, max(overdue_ms, now_ms + CHECK_MS))

    def _withdraw(self, partition: PartitionId) -> None:
        if self._proposals.pop(partition, None) is not None:
            self._unsent.pop(partition, None)
            self._sent.pop(partition, None)

    def _epoch_of(self, leader: PartitionLeader, node: int) -> int:
        progress = leader.followers.get(node)
        return progress.broker_epoch if progress is not None else self._alive.get(node, -1)
