"""A little world for the replication machines: a few brokers, one partition, a controller that is right by being simple.

Everything between the machines can go wrong here: messages are lost, doubled, late and out of order (those of one stream only lost),
disks sync late, processes die, power goes and takes what was not synced, leaders change while the old one still believes.

Laws, checked whenever something moves: what is committed never changes; a watermark is held by every member of the in-sync set, on disk
under ``fsync``; no (offset, epoch) is used twice; what was acknowledged is committed. After a calm all logs are equal.
"""

from __future__ import annotations

import random
from typing import Any

from zmqmq import batch
from zmqmq.batch import Record, StampedBatch
from zmqmq.effects import Append
from zmqmq.errors import NotEnoughReplicas, NotLeader, OffsetOutOfRange, ZmqmqError
from zmqmq.facts import EpochStart, LogState
from zmqmq.metadata.image import NO_LEADER
from zmqmq.model import PartitionId
from zmqmq.producer_state import ProducerStates
from zmqmq.replication.following import Following
from zmqmq.replication.insync import Leadership
from zmqmq.replication.leader import PartitionLeader
from zmqmq.replication.leading import IsrProposal, Leading
from zmqmq.replication.messages import Beat, ReplicaBatches, ReplicaFetch, ReplicaReport, decode_stream
from zmqmq.topic_config import TopicConfig
from zmqmq.wire.replies import ProduceResult

PARTITION = PartitionId(b"t" * 16, 0)
STEP_MS = 25


def built(value: bytes, *, count: int = 1, producer: int = -1, sequence: int = -1) -> bytes:
    encoded = batch.encode_records([Record(None, value, 0)] * count)
    return batch.build(
        encoded, record_count=count, base_timestamp_ms=0, max_timestamp_ms=0, compress=False, producer_id=producer, base_sequence=sequence
    )


class Disk:
    """One partition's log. Survives its process; power takes some of what was not synced."""

    def __init__(self) -> None:
        self.batches: list[StampedBatch] = []
        self.log_start = self.synced_end = 0
        self.base = 0
        self.syncing: int | None = None
        self.error = ""
        self.is_intact = True

    @property
    def end(self) -> int:
        return self.batches[-1].header.end_offset if self.batches else self.base

    def state(self, partition: PartitionId) -> LogState:
        assert partition == PARTITION
        producers = ProducerStates()
        epochs: list[EpochStart] = []
        for one in self.batches:
            producers.apply(one.header)
            if not epochs or epochs[-1].epoch != one.header.leader_epoch:
                epochs.append(EpochStart(one.header.leader_epoch, one.header.base_offset))
        return LogState(self.log_start, self.end, self.synced_end, tuple(epochs), producers.entries, 0, -1, self.error)

    def append(self, batches: tuple[StampedBatch, ...]) -> None:
        for one in batches:
            assert one.header.base_offset == self.end, f"{one.header.base_offset} appended at {self.end}"
            self.batches.append(one)

    def truncate(self, end: int) -> int:
        while self.batches and self.end > end:
            self.batches.pop()
        self.synced_end = self.end
        self.syncing = None
        return self.end

    def reset(self, log_start: int) -> None:
        self.batches = []
        self.log_start = self.base = self.synced_end = log_start
        self.syncing = None
        self.error = ""

    def move_start(self, log_start: int) -> None:
        self.log_start = max(self.log_start, log_start)
        while self.batches and self.batches[0].header.end_offset <= self.log_start:
            self.base = self.batches.pop(0).header.end_offset

    def lose_power(self, rng: random.Random) -> None:
        self.truncate(rng.randint(self.synced_end, self.end))
        self.is_intact = False

    def read(self, partition: PartitionId, offset: int, end: int, bytes_max: int) -> bytes:
        assert partition == PARTITION
        found = b""
        for one in self.batches:
            if one.header.end_offset > offset and one.header.end_offset <= end and (not found or len(found) < bytes_max):
                found += b"".join(one.buffers)
        return found


class Controller:
    """The cluster's truth: one partition, its brokers. ``version`` counts its changes."""

    def __init__(self, nodes: int, *, is_fsync: bool) -> None:
        self.replicas = tuple(range(nodes))
        self.isr = self.replicas
        self.leader = NO_LEADER
        self.leader_epoch = self.partition_epoch = 0
        self.epochs: dict[int, int] = {}
        self.alive: dict[int, int] = {}
        self.version = 0
        self.is_fsync = is_fsync

    def register(self, node: int, *, is_intact: bool) -> None:
        self.version += 1
        if self.leader == node:
            self.leader = NO_LEADER
        self.epochs[node] = self.alive[node] = self.version
        if not is_intact and not self.is_fsync and len(self.isr) > 1:
            self._change(isr=tuple(member for member in self.isr if member != node))
        self.elect()

    def fence(self, node: int) -> None:
        self.version += 1
        self.alive.pop(node, None)
        if self.leader == node:
            self.leader = NO_LEADER
        if node in self.isr and len(self.isr) > 1:
            self._change(isr=tuple(member for member in self.isr if member != node))
        self.elect()

    def unfence(self, node: int) -> None:
        self.version += 1
        self.alive[node] = self.epochs[node]
        self.elect()

    def elect(self, leader: int | None = None) -> None:
        """Somebody of the in-sync set, if there is nobody or somebody else is wanted."""
        able = [node for node in self.isr if node in self.alive]
        if leader is None and self.leader in able:
            return
        wanted = leader if leader in able else (able[0] if able else NO_LEADER)
        if wanted == NO_LEADER and self.leader == NO_LEADER:
            return
        self.leader = wanted
        self.leader_epoch += 1
        self._change()

    def on_proposal(self, proposal: IsrProposal) -> bool:
        """False: refused."""
        is_current = (proposal.leader_epoch, proposal.partition_epoch) == (self.leader_epoch, self.partition_epoch)
        is_able = all(self.alive.get(node) == epoch for node, epoch in proposal.isr)
        if not is_current or not is_able or self.leader not in dict(proposal.isr):
            return False
        self._change(isr=tuple(node for node, _ in proposal.isr))
        return True

    def _change(self, isr: tuple[int, ...] | None = None) -> None:
        self.isr = isr if isr is not None else self.isr
        self.partition_epoch += 1
        self.version += 1

    def image(self) -> tuple[Any, ...]:
        leadership = Leadership(self.leader_epoch, self.isr, self.partition_epoch, self.replicas)
        return self.version, self.leader, leadership, dict(self.alive), dict(self.epochs)


class Node:
    """One broker's life between start and crash."""

    def __init__(self, world: World, node_id: int, disk: Disk) -> None:
        self.world = world
        self.node_id = node_id
        self.disk = disk
        self.leading = Leading(node_id)
        self.following = Following(node_id, disk)
        self.leader: PartitionLeader | None = None
        self.appends: list[StampedBatch] = []
        self.version = -1
        self.subscriptions: set[tuple[int, bytes]] = set()
        self.wants_sync = False
        disk.syncing = None
        disk.synced_end = disk.end

    def on_image(self, version: int, leader: int, leadership: Leadership, alive: dict[int, int], epochs: dict[int, int]) -> None:
        if version <= self.version or self.node_id not in epochs:
            return
        self.version = version
        self.following.set_broker_epoch(epochs[self.node_id])
        self.leading.set_brokers(alive)
        if leader == self.node_id:
            self._lead(leadership)
        else:
            self.leading.drop(PARTITION)
            self._stop()
            self.following.follow(
                PARTITION,
                leader,
                leadership.epoch,
                self.world.now_ms,
                is_fsync=self.world.is_fsync,
                may_be_elected=self.node_id in leadership.isr,
            )

    def _lead(self, leadership: Leadership) -> None:
        if self.leader is not None and self.leader.leadership.epoch == leadership.epoch:
            self.leading.on_leadership(PARTITION, leadership, self.world.now_ms)
            return
        self._stop()
        watermark = self.following.unfollow(PARTITION)
        self.leader = PartitionLeader(
            PARTITION, self.node_id, leadership, self.world.config, self.disk.state(PARTITION), high_watermark=watermark
        )
        self.leading.lead(self.leader, self.world.now_ms)

    def _stop(self) -> None:
        """What was acknowledged stays so; what waits will never hear of it."""
        if self.leader is not None:
            self.leader.on_append_failed(NotLeader("it moved"))
            self.leader.fail_waiting(NotLeader("it moved"))
            self.appends = []
            self.world.take_receipts(self.leader)
            self.leader = None

    def produce(self, value: bytes, **producer: int) -> bool:
        if self.leader is None:
            return False
        data = built(value, **producer)
        try:
            stamped = self.leader.append(batch.parse_header(data), data, -1, value, self.world.now_ms)
        except (NotEnoughReplicas, ZmqmqError):
            return False
        if stamped is not None:
            self.appends.append(stamped)
        return True

    def on_message(self, message: object, payload: list[bytes]) -> None:
        now_ms = self.world.now_ms
        if isinstance(message, ReplicaFetch):
            answer, frames = self.leading.answer(message).filled(self.node_id, self.disk.read)
            self.world.send(self.node_id, message.node_id, answer, frames)
        elif isinstance(message, ReplicaBatches):
            self.following.on_fetched(message, payload, now_ms)
        elif isinstance(message, ReplicaReport):
            self.leading.on_report(message, now_ms)
        elif isinstance(message, IsrProposal):
            self.leading.on_refused(message.partition, message.partition_epoch, now_ms)

    def on_stream(self, frames: list[bytes]) -> None:
        found = decode_stream(frames)
        if isinstance(found, Beat):
            self.following.on_beat(found, self.world.now_ms)
        else:
            self.following.on_stream(*found, self.world.now_ms)

    def end_round(self) -> None:
        world, now_ms = self.world, self.world.now_ms
        self._perform()
        if self.appends and self.leader is not None:
            appends, self.appends = tuple(self.appends), []
            self.disk.append(appends)
            world.note_written(appends)
            self.leader.on_written()
            self.leading.on_written(PARTITION, appends, now_ms)
            self.wants_sync = True
        self._sync()
        if self.leader is not None:
            self.leading.on_moved(PARTITION)
            world.check_leader(self)
        for node, key, is_wanted in self.following.take_subscriptions():
            (self.subscriptions.add if is_wanted else self.subscriptions.discard)((node, key))
        for frames in self.leading.take_published(now_ms):
            world.publish(self.node_id, frames)
        for node, message in self.following.take_messages(now_ms):
            world.send(self.node_id, node, message, [])
        for proposal in self.leading.take_proposals(now_ms):
            world.propose(self.node_id, proposal)

    def _perform(self) -> None:
        work = self.following.take_work()
        for partition, end in work.truncations.items():
            self.following.on_truncated(partition, self.disk.truncate(end))
        for reset in work.resets:
            self.disk.reset(reset.log_start)
            self.following.on_reset(reset.partition, reset.log_start)
        for append in work.appends:
            assert isinstance(append, Append)
            if self.world.rng.random() < self.world.disk_full:
                self.following.on_append_failed(append.partition, self.world.now_ms)
            else:
                self.disk.append(append.batches)
                self.following.on_written(append.partition)
                self.wants_sync = True
        for start in work.starts:
            self.disk.move_start(start.log_start)
            self.following.on_start_moved(start.partition, start.log_start)

    def _sync(self) -> None:
        disk = self.disk
        if disk.syncing is not None and self.world.rng.random() < self.world.sync_chance.get(self.node_id, 0.7):
            disk.synced_end = max(disk.synced_end, disk.syncing)
            disk.syncing = None
            self.following.on_synced(PARTITION, disk.synced_end)
            if self.leader is not None:
                self.leader.on_synced(disk.synced_end)
        if self.wants_sync and disk.syncing is None:
            disk.syncing = disk.end
            self.wants_sync = False


class World:
    """See the module."""

    def __init__(self, seed: int = 0, *, nodes: int = 3, is_fsync: bool = True, min_insync: int = 2) -> None:
        self.rng = random.Random(seed)
        self.is_fsync = is_fsync
        self.config = TopicConfig(durability="fsync" if is_fsync else "replicated", min_insync_replicas=min_insync)
        self.now_ms = 1_000
        self.loss = self.doubling = self.disk_full = 0.0
        self.delay_ms_max = 0
        self.cut: set[tuple[int, int]] = set()
        self.sync_chance: dict[int, float] = {}
        self.controller = Controller(nodes, is_fsync=is_fsync)
        self.disks = [Disk() for _ in range(nodes)]
        self.nodes: list[Node | None] = [None] * nodes
        self.mesh: list[tuple[int, int, int, object, list[bytes]]] = []
        self.streams: list[tuple[int, int, list[bytes]]] = []
        self.to_controller: list[tuple[int, int, IsrProposal]] = []
        self.committed: list[tuple[int, bytes]] = []
        self.acknowledged: dict[bytes, int] = {}
        self.places: dict[tuple[int, int], int] = {}
        self.reported: list[ReplicaReport] = []
        for node in range(nodes):
            self.start(node)

    def start(self, node: int) -> None:
        disk = self.disks[node]
        self.nodes[node] = Node(self, node, disk)
        self.controller.register(node, is_intact=disk.is_intact)
        disk.is_intact = True

    def crash(self, node: int, *, loses_power: bool) -> None:
        self.nodes[node] = None
        self.controller.fence(node)
        if loses_power:
            self.disks[node].lose_power(self.rng)

    def leader(self) -> Node:
        node = self.nodes[self.controller.leader]
        assert node is not None
        return node

    def send(self, source: int, target: int, message: object, payload: list[bytes]) -> None:
        if isinstance(message, ReplicaReport):
            self.reported.append(message)
        for _ in range(1 + (self.rng.random() < self.doubling)):
            if (source, target) not in self.cut and self.rng.random() >= self.loss:
                self.mesh.append((self._due(), source, target, message, payload))

    def publish(self, source: int, frames: list[bytes]) -> None:
        for target, node in enumerate(self.nodes):
            is_wanted = node is not None and (source, bytes(frames[0])) in node.subscriptions
            if is_wanted and (source, target) not in self.cut and self.rng.random() >= self.loss:
                self.streams.append((source, target, frames))

    def propose(self, source: int, proposal: IsrProposal) -> None:
        for _ in range(1 + (self.rng.random() < self.doubling)):
            if self.rng.random() >= self.loss:
                self.to_controller.append((self._due(), source, proposal))

    def _due(self) -> int:
        return self.now_ms + (self.rng.randint(0, self.delay_ms_max) if self.delay_ms_max else 0)

    def step(self, ms: int = STEP_MS, *, image_chance: float = 1.0) -> None:
        """One round of every broker."""
        self.now_ms += ms
        self._decide()
        due, self.mesh = [item for item in self.mesh if item[0] <= self.now_ms], [item for item in self.mesh if item[0] > self.now_ms]
        streams, self.streams = self.streams, []
        image = self.controller.image()
        for number, node in enumerate(self.nodes):
            if node is None:
                continue
            if self.rng.random() < image_chance:
                node.on_image(*image)
            inbox: list[tuple[object, list[bytes] | None]] = [(frames, None) for _, target, frames in streams if target == number]
            for _, _, target, message, payload in due:
                if target == number:
                    inbox.insert(self.rng.randint(0, len(inbox)) if self.delay_ms_max else len(inbox), (message, payload))
            for message, payload in inbox:
                node.on_message(message, payload) if payload is not None else node.on_stream(message)  # type: ignore[arg-type]
            node.end_round()

    def _decide(self) -> None:
        due = [item for item in self.to_controller if item[0] <= self.now_ms]
        self.to_controller = [item for item in self.to_controller if item[0] > self.now_ms]
        for _, source, proposal in due:
            if not self.controller.on_proposal(proposal):
                self.send(-1, source, proposal, [])

    def run(self, ms: int) -> None:
        end_ms = self.now_ms + ms
        while self.now_ms < end_ms:
            self.step()

    def calm(self, ms: int = 6_000) -> None:
        """Everything works again; all brokers are there."""
        self.loss = self.doubling = self.disk_full = 0.0
        self.delay_ms_max = 0
        self.cut.clear()
        self.sync_chance.clear()
        for number, node in enumerate(self.nodes):
            if node is None:
                self.start(number)
            elif number not in self.controller.alive:
                self.controller.unfence(number)
        end_ms = self.now_ms + ms
        while self.now_ms < end_ms and not self.is_settled():
            self.step()
        self.check_settled()

    def is_settled(self) -> bool:
        leader = self.nodes[self.controller.leader] if self.controller.leader != NO_LEADER else None
        if leader is None or leader.leader is None or set(self.controller.isr) != set(self.controller.replicas):
            return False
        return leader.leader.high_watermark == leader.disk.end and all(
            node is not None and node.disk.end == leader.disk.end and self._watermark(node) == leader.disk.end for node in self.nodes
        )

    def check_settled(self) -> None:
        assert self.is_settled(), [
            (node, node and node.leader, node and list(node.following), vars(self.controller)) for node in self.nodes
        ]
        logs = [
            [(one.header.base_offset, one.header.leader_epoch, bytes(one.buffers[-1])[-8:]) for one in disk.batches] for disk in self.disks
        ]
        shortest = min(len(log) for log in logs)
        assert all(log[len(log) - shortest :] == logs[0][len(logs[0]) - shortest :] for log in logs)
        assert len(self.committed) == self.disks[0].end
        for value, offset in self.acknowledged.items():
            assert self.committed[offset][1] == value, f"{value!r} was acknowledged at {offset}"

    def _watermark(self, node: Node) -> int:
        if node.leader is not None:
            return node.leader.high_watermark
        follower = node.following.follower(PARTITION)
        return follower.high_watermark if follower is not None else -1

    def note_written(self, batches: tuple[StampedBatch, ...]) -> None:
        for one in batches:
            place = (one.header.base_offset, one.header.leader_epoch)
            assert self.places.setdefault(place, one.header.body_crc) == one.header.body_crc, f"{place} was given to two batches"

    def check_leader(self, node: Node) -> None:
        """After each round of a leader."""
        leader = node.leader
        assert leader is not None
        if leader.high_watermark > len(self.committed):
            self._commit(node, leader)
        self.take_receipts(leader)
        self._compare(node, leader.high_watermark)

    def _commit(self, node: Node, leader: PartitionLeader) -> None:
        """It is the first who knows that these are safe: they have to be."""
        for member in self.controller.isr:
            disk = self.disks[member]
            held = disk.synced_end if self.is_fsync else disk.end
            assert held >= leader.high_watermark, (
                f"watermark {leader.high_watermark} of {leader!r}, but in-sync replica {member} holds {held}"
            )
        for one in node.disk.batches:
            if one.header.base_offset >= len(self.committed) and one.header.end_offset <= leader.high_watermark:
                value = batch.records(one.header, b"".join(one.buffers))[0]
                assert value is not None
                assert value.value is not None
                self.committed += [(one.header.leader_epoch, value.value)] * one.header.record_count

    def _compare(self, node: Node, watermark: int) -> None:
        """What one calls committed is what all call committed. The last few tell: below them batches are equal by their epochs."""
        for one in node.disk.batches[-3:]:
            if one.header.end_offset <= watermark:
                found = self.committed[one.header.base_offset][0]
                assert found == one.header.leader_epoch, f"committed {one.header.base_offset} changed from epoch {found} to {one.header}"

    def take_receipts(self, leader: PartitionLeader) -> None:
        for ticket, result in leader.take_receipts():
            if isinstance(result, ProduceResult):
                assert self.committed[result.base_offset][1] == ticket, f"{ticket!r} acknowledged at {result.base_offset}, not committed"
                self.acknowledged[ticket] = result.base_offset

    def check_followers(self) -> None:
        for node in self.nodes:
            if node is not None and node.leader is None:
                watermark = self._watermark(node)
                assert watermark <= len(self.committed), f"{node.node_id} calls {watermark} committed"
                self._compare(node, watermark)


__all__ = ["PARTITION", "Controller", "Disk", "Node", "OffsetOutOfRange", "World", "built"]
