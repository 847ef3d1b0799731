"""The partitions that this broker leads: found by id, opened at first use, watched for high watermarks that advance.

An idle partition costs nothing here: its leader is made when the first request names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from zmqmq.broker.dispatch import Dispatch
from zmqmq.effects import Append, CreateLog, DeleteTopicLogs
from zmqmq.errors import CorruptLog, LogOffline, NotLeader, UnknownTopic, ZmqmqError
from zmqmq.metadata.image import ClusterImage, TopicImage
from zmqmq.model import PartitionId
from zmqmq.replication.leader import Leadership, PartitionLeader, Receipt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from zmqmq.batch import StampedBatch
    from zmqmq.facts import LogState, Synced


class Logs(Protocol):
    """What the machines may look up in the store. Answers come from memory."""

    def state(self, partition: PartitionId) -> LogState:
        """The log of a partition; an empty one if nothing was ever written."""


class Partitions:
    """Holds the committed image and the leaders. ``take_advanced`` names those whose high watermark advanced, or that are gone."""

    def __init__(self, node_id: int, logs: Logs, dispatch: Dispatch) -> None:
        self.image = ClusterImage()
        self.node_id = node_id
        self.offline = ""
        self._logs = logs
        self._dispatch = dispatch
        self._leaders: dict[PartitionId, PartitionLeader] = {}
        self._appends: dict[PartitionId, list[StampedBatch]] = {}
        self._touched: dict[PartitionId, PartitionLeader] = {}
        self._advanced: dict[PartitionId, None] = {}

    def __iter__(self) -> Iterator[PartitionLeader]:
        """The leaders that were made so far."""
        return iter(self._leaders.values())

    def topic(self, topic_id: bytes) -> TopicImage:
        topic = self.image.topics.get(topic_id)
        if topic is None:
            raise UnknownTopic(f"no topic has the id {topic_id.hex() or 'nil'}", hint="it may have been deleted; look it up again by name")
        return topic

    def find(self, topic_id: bytes, partition: int) -> PartitionLeader:
        """Raises UnknownTopic, NotLeader, CorruptLog."""
        leader = self._leaders.get(PartitionId(topic_id, partition))
        return leader if leader is not None else self._open(topic_id, partition)

    @property
    def leaders(self) -> Mapping[PartitionId, PartitionLeader]:
        """Those that were asked for since the start."""
        return self._leaders

    def opened(self, partition: PartitionId) -> PartitionLeader | None:
        return self._leaders.get(partition)

    def watermark(self, partition: PartitionId) -> int:
        """How far retention may go."""
        leader = self._leaders.get(partition)
        return leader.high_watermark if leader is not None else self._logs.state(partition).log_end

    def check_writable(self) -> None:
        if self.offline:
            raise LogOffline(
                f"the broker writes nothing any more: {self.offline}",
                outcome="not_written",
                hint="look at its disk and its log, then restart it",
            )

    def write(self, leader: PartitionLeader, stamped: StampedBatch) -> None:
        batches = self._appends.get(leader.partition)
        if batches is None:
            self._appends[leader.partition] = [stamped]
        else:
            batches.append(stamped)
        if leader.config.durability == "fsync":
            self._dispatch.wants_sync = True

    def touch(self, leader: PartitionLeader) -> None:
        """It may have receipts."""
        self._touched[leader.partition] = leader

    def take_appends(self) -> list[Append]:
        appends, self._appends = self._appends, {}
        return [Append(partition, tuple(batches)) for partition, batches in appends.items()]

    def on_written(self, partition: PartitionId) -> None:
        leader = self._leaders.get(partition)
        if leader is not None:
            self._note(leader, leader.on_written())

    def on_append_failed(self, partition: PartitionId, error: ZmqmqError) -> None:
        leader = self._leaders.get(partition)
        if leader is not None:
            leader.on_append_failed(error)
            self.touch(leader)

    def on_synced(self, synced: Synced) -> None:
        leader = self._leaders.get(synced.partition)
        if leader is not None:
            self._note(leader, leader.on_synced(synced.end))

    def on_offline(self, reason: str, error: ZmqmqError) -> None:
        self.offline = reason
        for leader in self._leaders.values():
            leader.fail_waiting(error)
            self.touch(leader)

    def take_receipts(self) -> list[Receipt]:
        touched, self._touched = self._touched, {}
        return [receipt for leader in touched.values() for receipt in leader.take_receipts()]

    def take_advanced(self) -> Iterable[PartitionId]:
        advanced, self._advanced = self._advanced, {}
        return advanced

    def set_image(self, image: ClusterImage) -> None:
        """Take over the next committed image: make, change and remove what it says."""
        before, self.image = self.image, image
        for topic_id, topic in image.topics.items():
            if before.topics.get(topic_id) is not topic:
                self._change(before.topics.get(topic_id), topic)
        for topic_id, topic in before.topics.items():
            if topic_id not in image.topics:
                self._remove(topic)

    def _change(self, before: TopicImage | None, topic: TopicImage) -> None:
        for number, image in enumerate(topic.partitions):
            partition = PartitionId(topic.topic_id, number)
            if self.node_id in image.replicas and (before is None or before.settings != topic.settings):
                self._dispatch.effects.append(CreateLog(partition, topic.settings))
            leader = self._leaders.get(partition)
            if leader is not None:
                self._update(leader, before, topic, number)

    def _update(self, leader: PartitionLeader, before: TopicImage | None, topic: TopicImage, number: int) -> None:
        image = topic.partitions[number]
        if image.leader_epoch != leader.leadership.epoch:
            leader.fail_waiting(NotLeader(f"leadership of {leader.partition} moved on to epoch {image.leader_epoch}"))
            self.touch(leader)
            del self._leaders[leader.partition]
        elif before is None or before.settings != topic.settings:
            self._note(leader, leader.set_config(topic.settings))

    def _remove(self, topic: TopicImage) -> None:
        error = UnknownTopic(f"topic {topic.name!r} was deleted")
        for number in range(len(topic.partitions)):
            partition = PartitionId(topic.topic_id, number)
            self._appends.pop(partition, None)
            leader = self._leaders.pop(partition, None)
            if leader is not None:
                leader.fail_waiting(error)
                self.touch(leader)
            self._advanced[partition] = None
        self._dispatch.effects.append(DeleteTopicLogs(topic.topic_id))

    def _open(self, topic_id: bytes, number: int) -> PartitionLeader:
        topic = self.topic(topic_id)
        if not 0 <= number < len(topic.partitions):
            raise UnknownTopic(f"topic {topic.name!r} has partitions 0 to {len(topic.partitions) - 1}, not {number}")
        image = topic.partitions[number]
        if image.leader != self.node_id:
            raise NotLeader(f"partition {number} of {topic.name!r} is led by broker {image.leader}")
        partition = PartitionId(topic_id, number)
        state = self._logs.state(partition)
        if state.error:
            raise CorruptLog(f"partition {number} of {topic.name!r} is out of service: {state.error}", hint="restore it from a backup")
        leader = self._leaders[partition] = PartitionLeader(
            partition, self.node_id, Leadership(image.leader_epoch, image.isr), topic.settings, state
        )
        return leader

    def _note(self, leader: PartitionLeader, has_advanced: bool) -> None:
        if has_advanced:
            self._advanced[leader.partition] = None
        self.touch(leader)
