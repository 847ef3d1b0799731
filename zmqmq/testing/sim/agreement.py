"""What brokers of a cluster must agree on, looked at after each turn of one of them. One method, one line of docs/simulator.md.

Tells in the trace what the metadata log decided, once: who leads, who is in sync, who is fenced.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from zmqmq.batch import parse_header
from zmqmq.broker.loop import Loop
from zmqmq.facts import EpochStart, LogState
from zmqmq.metadata.image import NO_LEADER, ClusterImage, PartitionImage
from zmqmq.model import PartitionId
from zmqmq.replication.leader import PartitionLeader
from zmqmq.testing.sim.invariants import Violation

READ_BYTES: Final = 1 << 20


class Member(Protocol):
    """A broker, and what its disk held when it ended."""

    name: str
    opening_count: int
    loop: Loop | None

    def log_state(self, partition: PartitionId) -> LogState | None: ...


class Agreement:
    """Remembers what was decided and what was committed. ``may_lose(partition)``: so many disks lost records of it that a committed one
    may be gone."""

    def __init__(self, members: Sequence[Member], tell: Callable[[str, str], None], may_lose: Callable[[PartitionId], bool]) -> None:
        self.leader_changes = 0
        self._members = members
        self._tell = tell
        self._may_lose = may_lose
        self._images: dict[int, ClusterImage] = {}
        """What each index of the metadata log came to."""
        self._newest = ClusterImage()
        self._last_leader: dict[PartitionId, int] = {}
        self._active: dict[int, tuple[str, int]] = {}
        self._known: dict[str, ClusterImage] = {}
        self._led: dict[tuple[str, PartitionId], tuple[PartitionLeader, int]] = {}
        """The last leader's machine of each broker and partition, and its high watermark."""
        self._committed: dict[PartitionId, tuple[int, int]] = {}
        """The greatest high watermark of each partition, and the epoch of the record before it."""
        self._committed_in: dict[PartitionId, int] = {}
        """The leader epoch in which it got there. Who leads in an older one does not know yet that it is over."""

    def after_turn(self, member: Member) -> None:
        assert member.loop is not None
        node = member.loop.node
        assert node.cluster is not None
        if node.cluster.active.epoch is not None:
            self._one_active_controller(member, node.cluster.active.epoch)
        image = node.partitions.image
        if self._known.get(member.name) is not image:
            self._known[member.name] = image
            self._equal_metadata(member, image)
        for partition, leader in node.partitions.leaders.items():
            name = (member.name, partition)
            known, watermark = self._led.get(name, (None, -1))
            if known is not leader:
                self._leader_has_all(member, leader)
            elif watermark == leader.high_watermark:
                continue
            self._led[name] = leader, leader.high_watermark
            self._watermark_is_held(leader)
            self._committed_is_kept(leader)

    def check_replicas(self) -> None:
        """At the end, when all are in sync: what is committed is the same on all replicas, byte for byte."""
        loops = {number: (member.name, member.loop) for number, member in enumerate(self._members)}
        for partition, (watermark, _) in self._committed.items():
            topic = self._newest.topics.get(partition.topic_id)
            if topic is not None:
                found = [loops[number] for number in topic.partitions[partition.partition].replicas]
                _check_equal(partition, watermark, {name: loop for name, loop in found if loop is not None})

    def _one_active_controller(self, member: Member, epoch: int) -> None:
        found = self._active.setdefault(epoch, (member.name, member.opening_count))
        if found != (member.name, member.opening_count):
            raise Violation(f"one active controller: {member.name} and {found[0]} decide in epoch {epoch}")

    def _equal_metadata(self, member: Member, image: ClusterImage) -> None:
        if self._images.setdefault(image.index, image) != image:
            raise Violation(f"equal metadata: {member.name} has another image of index {image.index} than one before it had")
        if image.index > self._newest.index:
            before, self._newest = self._newest, image
            self._tell_brokers(before, image)
            for topic_id, topic in image.topics.items():
                known = before.topics.get(topic_id)
                for number, partition in enumerate(topic.partitions):
                    old = known.partitions[number] if known is not None and number < len(known.partitions) else None
                    if old is not partition:
                        self._tell_partition(PartitionId(topic_id, number), topic.name, old, partition)

    def _leader_has_all(self, member: Member, leader: PartitionLeader) -> None:
        """What was committed in earlier epochs, a new leader has; on disk if the topic is ``fsync``."""
        end, epoch = self._committed.get(leader.partition, (0, -1))
        is_over = leader.leadership.epoch < self._committed_in.get(leader.partition, -1)
        if is_over or end <= leader.log_start or self._may_lose(leader.partition):
            return
        if leader.log_end < end or _epoch_before(leader.epochs, end) != epoch:
            raise Violation(f"a leader has all that is committed: {leader!r} on {member.name}, {end} of epoch {epoch} was committed")

    def _watermark_is_held(self, leader: PartitionLeader) -> None:
        """By every member of the in-sync set: on its disk if the topic is ``fsync``, else as long as it lives."""
        is_fsync = leader.config.durability == "fsync"
        for number in leader.leadership.isr:
            member = self._members[number]
            state = member.log_state(leader.partition)
            if state is None or state.error or not (is_fsync or self._is_same_life(leader, number)):
                continue
            held = state.synced_end if is_fsync else state.log_end
            if leader.high_watermark > held:
                raise Violation(f"the in-sync set holds what is committed: {leader!r}, but {member.name} has {held}")

    def _is_same_life(self, leader: PartitionLeader, number: int) -> bool:
        """Of a member: what it reported, it still has."""
        progress = leader.followers.get(number)
        loop = self._members[number].loop
        if progress is None or loop is None or loop.node.cluster is None:
            return False
        return loop.node.cluster.membership.broker_epoch == progress.broker_epoch

    def _committed_is_kept(self, leader: PartitionLeader) -> None:
        """Records below the high watermark are the same whoever says so."""
        end, epoch = self._committed.get(leader.partition, (0, -1))
        if leader.high_watermark > end:
            self._committed[leader.partition] = leader.high_watermark, _epoch_before(leader.epochs, leader.high_watermark)
            self._committed_in[leader.partition] = leader.leadership.epoch
        elif leader.high_watermark == end > leader.log_start and not self._may_lose(leader.partition):
            found = _epoch_before(leader.epochs, end)
            if found != epoch:
                raise Violation(f"what is committed stays: {leader!r} has epoch {found} before offset {end}, it was {epoch}")

    def _tell_brokers(self, before: ClusterImage, image: ClusterImage) -> None:
        for number, broker in image.brokers.items():
            old = before.brokers.get(number)
            if old is None or (old.broker_epoch, old.is_fenced, old.is_draining) != (
                broker.broker_epoch, broker.is_fenced, broker.is_draining,
            ):  # fmt: skip
                states = [name for name, is_so in (("fenced", broker.is_fenced), ("draining", broker.is_draining)) if is_so]
                self._tell("member", f"b{number} of epoch {broker.broker_epoch} is {' and '.join(states) or 'active'}")

    def _tell_partition(self, partition: PartitionId, topic: str, old: PartitionImage | None, now: PartitionImage) -> None:
        leader = "nobody" if now.leader == NO_LEADER else f"b{now.leader}"
        eligible = f" eligible {now.eligible}" if now.eligible else ""
        self._tell("partition", f"{topic}/{partition.partition} epoch {now.leader_epoch}: {leader} leads, in sync {now.isr}{eligible}")
        if now.leader != NO_LEADER:
            self.leader_changes += old is not None and self._last_leader.get(partition, now.leader) != now.leader
            self._last_leader[partition] = now.leader


def _epoch_before(epochs: Sequence[EpochStart], offset: int) -> int:
    """Of the record before an offset; -1 if it is not known."""
    position = bisect_right(epochs, offset - 1, key=lambda start: start.offset)
    return epochs[position - 1].epoch if position else -1


def _check_equal(partition: PartitionId, watermark: int, loops: Mapping[str, Loop]) -> None:
    start = max((loop.store.state(partition).log_start for loop in loops.values()), default=0)
    found = {name: _contents(loop, partition, start, watermark) for name, loop in loops.items()}
    if len(set(found.values())) > 1:
        lengths = {name: len(content) for name, content in found.items()}
        raise Violation(f"replicas are equal: {partition} from {start} to {watermark} differs, in bytes: {lengths}")


def _contents(loop: Loop, partition: PartitionId, start: int, end: int) -> bytes:
    """All batches that hold records of [start, end)."""
    parts = list[bytes]()
    while start < end:
        data = loop.store.read(partition, start, end, READ_BYTES)
        if not data:
            break
        parts.append(bytes(data))
        start = _end_of(parts[-1])
    return b"".join(parts)


def _end_of(batches: bytes) -> int:
    position = end = 0
    while position < len(batches):
        header = parse_header(batches, position)
        position, end = position + header.length, header.end_offset
    return end
