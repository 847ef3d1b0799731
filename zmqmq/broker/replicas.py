"""What this broker keeps for others: it leads partitions with followers, and follows leaders.

A thin desk between the image, the partitions' machines and the messages of ``replication``. Roles are taken when the image says so and the
logs exist; nothing is led before this life of the broker is registered, for the registration begins new leader epochs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zmqmq.effects import AnswerReplica, Effect, Publish, ResetLog, Subscribe, Tell, TruncateLogs
from zmqmq.errors import ZmqmqError
from zmqmq.metadata.messages import AlterPartitions, PartitionProposal, PartitionsRefused
from zmqmq.model import PartitionId
from zmqmq.replication.following import Following
from zmqmq.replication.leading import Leading
from zmqmq.replication.messages import Beat, ReplicaBatches, ReplicaFetch, ReplicaMessage, ReplicaReport, decode_stream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zmqmq.batch import StampedBatch
    from zmqmq.broker.dispatch import Dispatch, Now
    from zmqmq.broker.partitions import Logs, Partitions
    from zmqmq.facts import StartMoved
    from zmqmq.metadata.image import ClusterImage, PartitionImage, TopicImage
    from zmqmq.ports import Buffer


CUT_RETRY_MS: Final = 500
"""After the disk refused to cut a log."""


class Replicas:
    """See the module."""

    def __init__(self, node_id: int, logs: Logs, partitions: Partitions, dispatch: Dispatch, *, catch_up_bytes_per_s: int = 0) -> None:
        self.node_id = node_id
        self.leading = Leading(node_id)
        self.following = Following(node_id, logs, catch_up_bytes_per_s=catch_up_bytes_per_s)
        self.broker_epoch = -1
        """Of this life; -1 before it is registered."""
        self.controller: int | None = None
        self._partitions = partitions
        self._dispatch = dispatch
        self._appending: dict[PartitionId, tuple[StampedBatch, ...]] = {}
        self._cutting: dict[PartitionId, TruncateLogs | ResetLog] = {}
        """Logs that are being cut in this round."""
        self._failed: dict[PartitionId, TruncateLogs | ResetLog] = {}
        """Logs that the disk would not cut."""
        self._retry_ms: int | None = None
        self._discarded: list[ResetLog] = []
        self._logs = logs

    def on_registered(self, broker_epoch: int, image: ClusterImage) -> None:
        """This life of the broker is registered and has applied that: its roles begin."""
        self.broker_epoch = broker_epoch
        self.following.set_broker_epoch(broker_epoch)
        self.on_brokers(image)
        self._partitions.place_all()

    def on_brokers(self, image: ClusterImage) -> None:
        self.leading.set_brokers({node: broker.broker_epoch for node, broker in image.brokers.items() if not broker.is_fenced})

    def place(self, partition: PartitionId, topic: TopicImage, image: PartitionImage, now_ms: int) -> None:
        """Take the role that the image gives to this broker."""
        if self.broker_epoch < 0:
            return
        if image.leader == self.node_id:
            leader = self._partitions.opened(partition)
            if leader is None:
                leader = self._partitions.lead(partition, topic, image, self.following.unfollow(partition))
            if leader is not None and len(image.replicas) > 1 and partition not in self.leading:
                self.leading.lead(leader, now_ms)
            return
        self.leading.drop(partition)
        if self.node_id in image.replicas:
            self.following.follow(
                partition, image.leader, image.leader_epoch, now_ms,
                is_fsync=topic.settings.durability == "fsync", may_be_elected=self.node_id in (*image.isr, *image.eligible),
            )  # fmt: skip
        else:
            self.following.unfollow(partition)
            self._discard(partition)

    def forget(self, partition: PartitionId) -> None:
        """The topic is gone."""
        self.leading.drop(partition)
        self.following.unfollow(partition)

    def on_published(self, frames: Sequence[Buffer], now: Now) -> None:
        """Raises RemoteProtocolError."""
        found = decode_stream(frames)
        if isinstance(found, Beat):
            self.following.on_beat(found, now.ms)
        else:
            self.following.on_stream(*found, now.ms)

    def on_message(self, message: ReplicaMessage, payload: Sequence[Buffer], now: Now) -> None:
        """Raises RemoteProtocolError."""
        match message:
            case ReplicaFetch():
                self._dispatch.effects.append(AnswerReplica(message.node_id, self.leading.answer(message)))
            case ReplicaBatches():
                self.following.on_fetched(message, payload, now.ms)
            case ReplicaReport():
                for partition in self.leading.on_report(message, now.ms):
                    self._partitions.note_advanced(partition)

    def on_partitions_refused(self, message: PartitionsRefused, now: Now) -> None:
        for refusal in message.refusals:
            self.leading.on_refused(PartitionId(refusal.topic_id, refusal.partition), refusal.partition_epoch, now.ms)

    def on_appending(self, partition: PartitionId, batches: tuple[StampedBatch, ...]) -> None:
        """The leader's batches of this round, to be published once they are written."""
        self._appending[partition] = batches

    def on_written(self, partition: PartitionId, now: Now) -> None:
        batches = self._appending.pop(partition, ())
        if self.following.follower(partition) is not None:
            self.following.on_written(partition)
        elif batches:
            self.leading.on_written(partition, batches, now.ms)

    def on_append_failed(self, partition: PartitionId, now: Now) -> None:
        self._appending.pop(partition, None)
        self.following.on_append_failed(partition, now.ms)

    def on_truncated(self, ends: Mapping[PartitionId, int | ZmqmqError]) -> None:
        """A log that could not be cut stays as it is, and out of sync; the error was counted."""
        for partition, end in ends.items():
            if isinstance(end, ZmqmqError):
                self._dispatch.count(end)
                self._cuts_failed(partition)
            else:
                self._cutting.pop(partition, None)
                self.following.on_truncated(partition, end)

    def on_reset(self, partition: PartitionId, log_start: int) -> None:
        self._cutting.pop(partition, None)
        self.following.on_reset(partition, log_start)

    def on_reset_failed(self, partition: PartitionId, error: ZmqmqError) -> None:
        """It is tried again when the leader is asked again."""
        self._dispatch.count(error)
        self._cuts_failed(partition)

    def _cuts_failed(self, partition: PartitionId) -> None:
        """The log stays as it is, and out of sync, until the disk takes it."""
        self._failed[partition] = self._cutting.pop(partition)

    def on_start_moved(self, moved: StartMoved) -> None:
        if self.following.follower(moved.partition) is not None:
            self.following.on_start_moved(moved.partition, moved.log_start)
        else:
            self.leading.on_moved(moved.partition)

    def take_effects(self, now: Now) -> list[Effect]:
        """What this round asks of the store, and of the other brokers. Called when nothing more happens in the round."""
        work = self.following.take_work()
        effects: list[Effect] = []
        for reset in work.resets:
            self._cutting[reset.partition] = ResetLog(reset.partition, reset.log_start)
            effects.append(self._cutting[reset.partition])
        if work.truncations:
            effects.append(TruncateLogs(work.truncations))
            self._cutting.update({partition: TruncateLogs({partition: end}) for partition, end in work.truncations.items()})
        effects.extend(self._cut_again(now))
        discarded, self._discarded = self._discarded, []
        self._cutting.update({discard.partition: discard for discard in discarded})
        effects.extend(discarded)
        effects.extend(work.appends)
        effects.extend(work.starts)
        if work.wants_sync or work.starts:
            self._dispatch.wants_sync = True
        effects.extend(Subscribe(*change) for change in self.following.take_subscriptions())
        effects.extend(Publish(tuple(frames)) for frames in self.leading.take_published(now.ms))
        effects.extend(Tell(node, message, is_bulk=True) for node, message in self.following.take_messages(now.ms))
        effects.extend(self._proposals(now))
        return effects

    def next_deadline_ms(self) -> int | None:
        if self.broker_epoch < 0:
            return None
        deadlines = (self.leading.next_deadline_ms(), self.following.next_deadline_ms(), self._retry_ms)
        times = [time for time in deadlines if time is not None]
        return min(times, default=None)

    def _discard(self, partition: PartitionId) -> None:
        """Others keep it now: make room. Should it come back, it is copied from its leader's first record on."""
        if partition in self._logs and self._logs.state(partition).log_end:
            self._discarded.append(ResetLog(partition, 0))

    def _cut_again(self, now: Now) -> list[Effect]:
        if self._failed and self._retry_ms is None:
            self._retry_ms = now.ms + CUT_RETRY_MS
        if self._retry_ms is None or now.ms < self._retry_ms:
            return []
        self._retry_ms = None
        failed, self._failed = self._failed, {}
        again = {partition: cut for partition, cut in failed.items() if self.following.follower(partition) is not None}
        self._cutting.update(again)
        return list(again.values())

    def _proposals(self, now: Now) -> list[Effect]:
        proposals = self.leading.take_proposals(now.ms)
        if not proposals or self.controller is None:
            return []  # they come again
        changes = [PartitionProposal(*each.partition, each.leader_epoch, each.partition_epoch, list(each.isr)) for each in proposals]
        return [Tell(self.controller, AlterPartitions(self.node_id, self.broker_epoch, changes))]
