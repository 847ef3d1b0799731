"""The partitions that this broker leads: found by id, opened at first use, watched for high watermarks that advance.

An idle partition costs nothing here: its leader is made when the first request names it.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from zmqmq.broker.dispatch import Dispatch
from zmqmq.effects import Append, CreateLog, DeleteTopicLogs
from zmqmq.errors import CorruptLog, LogOffline, NotLeader, UnknownTopic, ZmqmqError
from zmqmq.metadata.image import NO_LEADER, ClusterImage, TopicImage
from zmqmq.model import PartitionId
from zmqmq.replication.insync import Leadership
from zmqmq.replication.leader import PartitionLeader, Receipt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from zmqmq.batch import StampedBatch
    from zmqmq.broker.dispatch import Now
    from zmqmq.broker.replicas import Replicas
    from zmqmq.facts import LogState, Synced
    from zmqmq.metadata.image import PartitionImage


PLACED_PER_TURN_MAX: Final = 500
"""Roles taken before the broker listens again: others must not take it for dead over an image that changed everything."""
DELETED_MAX: Final = 1_000
"""Deleted topics that a member of a cluster remembers, to tell them from those that it has not heard of yet."""


class Logs(Protocol):
    """What the machines may look up in the store. Answers come from memory."""

    def state(self, partition: PartitionId) -> LogState:
        """The log of a partition; an empty one if nothing was ever written."""

    def __contains__(self, partition: object) -> bool:
        """Whether there is a log of the partition."""


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
        self.replicas: Replicas | None = None
        """Of a member of a cluster."""
        self.may_lead = True
        """False: nobody may rely on what this broker leads, for another may lead it by now."""
        self._deleted: dict[bytes, None] = {}
        """Topics that were deleted lately."""
        self._placing: dict[PartitionId, None] = {}
        self._placed_us = -1
        """Whose roles may have changed, once their logs exist."""

    def __iter__(self) -> Iterator[PartitionLeader]:
        """The leaders that were made so far."""
        return iter(self._leaders.values())

    def topic(self, topic_id: bytes) -> TopicImage:
        topic = self.image.topics.get(topic_id)
        if topic is None and self.replicas is not None and topic_id not in self._deleted:
            raise NotLeader(f"broker {self.node_id} has not heard of the topic {topic_id.hex() or 'nil'} yet", outcome="not_written")
        if topic is None:
            raise UnknownTopic(f"no topic has the id {topic_id.hex() or 'nil'}", hint="it may have been deleted; look it up again by name")
        return topic

    def find(self, topic_id: bytes, partition: int) -> PartitionLeader:
        """Raises UnknownTopic, NotLeader, CorruptLog."""
        leader = self._leaders.get(PartitionId(topic_id, partition))
        if leader is None or not self.may_lead:
            return self._open(topic_id, partition)
        return leader

    @property
    def leaders(self) -> Mapping[PartitionId, PartitionLeader]:
        """Those that were asked for since the start."""
        return self._leaders

    def opened(self, partition: PartitionId) -> PartitionLeader | None:
        return self._leaders.get(partition)

    def watermark(self, partition: PartitionId) -> int:
        """How far retention may go."""
        leader = self._leaders.get(partition)
        if leader is not None:
            return leader.high_watermark
        follower = self.replicas.following.follower(partition) if self.replicas is not None else None
        if follower is not None:
            return follower.high_watermark
        state = self._logs.state(partition)
        return state.log_end if self.replicas is None else state.log_start

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
        if self.replicas is not None:
            for partition, batches in appends.items():
                self.replicas.on_appending(partition, tuple(batches))
        return [Append(partition, tuple(batches)) for partition, batches in appends.items()]

    def place(self, now: Now) -> bool:
        """Take the roles that the last images gave to this broker, some in each turn; the logs that they need have been made. Tells
        whether there were any."""
        if not self._placing or self.replicas is None or now.us == self._placed_us:
            return False
        self._placed_us = now.us
        for partition in list(islice(self._placing, PLACED_PER_TURN_MAX)):
            del self._placing[partition]
            topic = self.image.topics.get(partition.topic_id)
            if topic is None:
                continue
            image = topic.partitions[partition.partition]
            leadership = Leadership(image.leader_epoch, image.isr, image.partition_epoch, image.replicas)
            leader = self._leaders.get(partition)
            if partition in self.replicas.leading:
                has_moved = self.replicas.leading.on_leadership(partition, leadership, now.ms)
            else:
                has_moved = leader is not None and leader.leadership.epoch == leadership.epoch and leader.set_leadership(leadership)
            if has_moved:
                self.note_advanced(partition)
            self.replicas.place(partition, topic, image, now.ms)
        return True

    def place_all(self) -> None:
        """Every role is to be taken anew."""
        for topic in self.image.topics.values():
            self._placing.update((PartitionId(topic.topic_id, number), None) for number in range(len(topic.partitions)))

    @property
    def has_placing(self) -> bool:
        return bool(self._placing)

    def note_advanced(self, partition: PartitionId) -> None:
        """Its high watermark moved."""
        leader = self._leaders.get(partition)
        if leader is not None:
            self._note(leader, has_advanced=True)

    def fail_waiting(self, error: ZmqmqError) -> None:
        """Nobody hears of the records that are under way."""
        for leader in self._leaders.values():
            leader.fail_waiting(error)
            self.touch(leader)

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
        self.fail_waiting(error)

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
        has_settings = before is None or before.settings != topic.settings
        for number, image in enumerate(topic.partitions):
            known = before.partitions[number] if before is not None and number < len(before.partitions) else None
            if known is image and not has_settings:
                continue
            partition = PartitionId(topic.topic_id, number)
            is_new = known is None or self.node_id not in known.replicas
            if self.node_id in image.replicas and (is_new or has_settings):
                self._dispatch.effects.append(CreateLog(partition, topic.settings))
            leader = self._leaders.get(partition)
            if leader is not None:
                self._update(leader, before, topic, number)
            if self.replicas is not None:
                self._placing[partition] = None

    def _update(self, leader: PartitionLeader, before: TopicImage | None, topic: TopicImage, number: int) -> None:
        image = topic.partitions[number]
        if image.leader_epoch != leader.leadership.epoch:
            leader.fail_waiting(self._moved(topic, number))
            self.touch(leader)
            del self._leaders[leader.partition]
            if self.replicas is not None:
                self.replicas.leading.drop(leader.partition)
            self._advanced[leader.partition] = None
        elif before is None or before.settings != topic.settings:
            self._note(leader, leader.set_config(topic.settings))

    def _remove(self, topic: TopicImage) -> None:
        error = UnknownTopic(f"topic {topic.name!r} was deleted")
        self._deleted[topic.topic_id] = None
        if len(self._deleted) > DELETED_MAX:
            del self._deleted[next(iter(self._deleted))]
        for number in range(len(topic.partitions)):
            partition = PartitionId(topic.topic_id, number)
            self._appends.pop(partition, None)
            leader = self._leaders.pop(partition, None)
            if leader is not None:
                leader.fail_waiting(error)
                self.touch(leader)
            if self.replicas is not None:
                self.replicas.forget(partition)
                self._placing.pop(partition, None)
            self._advanced[partition] = None
        self._dispatch.effects.append(DeleteTopicLogs(topic.topic_id))

    def _open(self, topic_id: bytes, number: int) -> PartitionLeader:
        topic = self.topic(topic_id)
        if not 0 <= number < len(topic.partitions):
            raise UnknownTopic(f"topic {topic.name!r} has partitions 0 to {len(topic.partitions) - 1}, not {number}")
        image = topic.partitions[number]
        if image.leader != self.node_id:
            raise self._moved(topic, number)
        if not self.may_lead:
            raise NotLeader(f"broker {self.node_id} is cut off from its cluster and leads nothing until it is back", outcome="not_written")
        partition = PartitionId(topic_id, number)
        if self.replicas is not None:
            raise NotLeader(f"broker {self.node_id} does not lead partition {number} of {topic.name!r} yet", outcome="not_written")
        state = self._logs.state(partition)
        if state.error:
            raise CorruptLog(f"partition {number} of {topic.name!r} is out of service: {state.error}", hint="restore it from a backup")
        return self._make(partition, topic, image, state, 0)

    def lead(self, partition: PartitionId, topic: TopicImage, image: PartitionImage, high_watermark: int) -> PartitionLeader | None:
        """Begin to lead a partition; None when its log is out of service."""
        state = self._logs.state(partition)
        return None if state.error else self._make(partition, topic, image, state, high_watermark)

    def _make(
        self, partition: PartitionId, topic: TopicImage, image: PartitionImage, state: LogState, high_watermark: int
    ) -> PartitionLeader:
        leadership = Leadership(image.leader_epoch, image.isr, image.partition_epoch, image.replicas)
        leader = PartitionLeader(partition, self.node_id, leadership, topic.settings, state, high_watermark=high_watermark)
        self._leaders[partition] = leader
        return leader

    def _moved(self, topic: TopicImage, number: int) -> NotLeader:
        """Who leads instead, for the client."""
        image = topic.partitions[number]
        if image.leader == NO_LEADER:
            return NotLeader(f"partition {number} of {topic.name!r} has no leader", hint="brokers that keep it have to come back")
        broker = self.image.brokers.get(image.leader)
        return NotLeader(
            f"partition {number} of {topic.name!r} is led by broker {image.leader}",
            leader=image.leader,
            endpoint=broker.endpoint if broker is not None else "",
        )

    def _note(self, leader: PartitionLeader, has_advanced: bool) -> None:
        if has_advanced:
            self._advanced[leader.partition] = None
            if self.replicas is not None:
                self.replicas.leading.on_moved(leader.partition)
        self.touch(leader)
