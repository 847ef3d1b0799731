"""A cluster of Raft members in one thread and virtual time: clocks that drift, disks that lose, a network that does what it likes."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from itertools import count
from typing import Final

import msgspec
from msgspec import Struct
from raft_checks import Checks
from raft_store import MemoryDisk

from zmqmq.metadata.log import BarrierLost, Leader, Lost, Passed, Refused, Unknown
from zmqmq.metadata.quorum.core import Settings
from zmqmq.metadata.quorum.effects import Apply, Persist, RaftEffect, Restore, SendMessage, SnapshotWanted
from zmqmq.metadata.quorum.machine import Raft
from zmqmq.metadata.quorum.messages import InstallSnapshot, Message
from zmqmq.metadata.quorum.state import Configuration, Entry, Member

MS: Final = 1_000
ROUNDS_MAX: Final = 1_000
"""Of effects that bring effects, without time passing."""


class Weather(Struct):
    """What the network and the disks do. The calm one loses nothing."""

    loss: float = 0.0
    duplicates: float = 0.0
    damage: float = 0.0
    """Of parts of snapshots, on the way or when the disk is read."""
    delay_ms: tuple[float, float] = (0.1, 2.0)
    slow: float = 0.0
    """Messages that take ten times as long, and so come out of order."""
    sync_ms: tuple[float, float] = (0.1, 3.0)
    slow_sync: float = 0.0
    fuse: float = 0.0
    """Crashes between two effects of one round."""


class Node:
    """One member, running or not. ``clock`` is (rate, offset)."""

    def __init__(self, world: World, member: Member, configuration: Configuration, clock: tuple[float, int]) -> None:
        self.world = world
        self.member = member
        self.disk = MemoryDisk(configuration)
        self.clock = clock
        self.raft: Raft | None = None
        self.life = 0
        self.applied_end = 0
        self.commit_end = self.commit_before = 0
        self.is_leader = False
        self.leader_log_end = 0
        self.told: tuple[int, int] | None = None
        """(term, next index) since Leader was said."""
        self.barriers: dict[int, int] = {}
        self.mine: dict[int, int] = {}
        """Open proposals and their terms."""
        self.paused_until = 0
        self.pending: list[Callable[[Raft], object]] = []
        self.is_syncing = False

    def __repr__(self) -> str:
        return f"Node({self.member} {self.raft!r})"

    @property
    def now_ms(self) -> int:
        return int(self.world.now_us * self.clock[0] / MS) + self.clock[1]

    def start(self) -> None:
        assert self.raft is None
        self.life += 1
        self.applied_end = self.disk.visible.snapshot.end
        self.commit_end = self.commit_before = 0
        chance = random.Random(f"{self.world.seed}:{self.member}:{self.life}")
        self.raft = Raft(self.member, self.world.settings, self.disk.visible, chance)
        self.world.checks.on_hard_state(self.member, self.disk.synced.hard_state)
        self.do(lambda raft: raft.start(self.now_ms))

    def crash(self, *, keeps_nothing: bool = False) -> None:
        self.raft, self.told, self.is_leader, self.is_syncing = None, None, False, False
        self.barriers.clear()
        self.mine.clear()
        self.pending.clear()
        self.life += 1
        self.disk.crash(self.world.chance, keeps_nothing=keeps_nothing)
        self.world.checks.on_hard_state(self.member, self.disk.synced.hard_state)

    def do(self, fact: Callable[[Raft], object]) -> None:
        """One fact, and everything that comes of it."""
        if self.raft is None:
            return
        if self.paused_until > self.world.now_us:
            self.pending.append(fact)
            return
        self.commit_before = self.commit_end
        fact(self.raft)
        for _ in range(ROUNDS_MAX):
            effects = self.raft.take_effects()
            self._look()
            for effect in effects:
                if self.world.weather.fuse and self.world.chance.random() < self.world.weather.fuse:
                    self.world.crash(self)
                    return
                self._perform(effect)
            if not effects:
                break
        else:
            raise AssertionError(f"{self} never comes to rest")
        self._wake()

    def pause(self, duration_ms: int) -> None:
        self.paused_until = max(self.paused_until, self.world.now_us + duration_ms * MS)
        self.world.at(self.paused_until, self.resume)

    def resume(self, *, is_now: bool = False) -> None:
        """What came in the pause is done in one go, unless the pause was made longer."""
        if is_now:
            self.paused_until = self.world.now_us
        if self.paused_until <= self.world.now_us:
            facts, self.pending = self.pending, []
            for fact in facts:
                self.do(fact)

    def _wake(self) -> None:
        assert self.raft is not None
        due_ms = self.raft.next_deadline_ms()
        if due_ms is not None:
            delay_us = max(int((due_ms - self.now_ms) * MS / self.clock[0]), 0) + MS
            self.world.wake(self, self.world.now_us + delay_us)

    def _look(self) -> None:
        raft, checks = self.raft, self.world.checks
        assert raft is not None
        assert raft.commit_end >= self.commit_end, f"the commit end of {self.member} went back"
        if raft.is_leader and not self.is_leader:
            checks.on_leader(self.member, raft)
            self.leader_log_end = 0
        self.is_leader = raft.is_leader
        if raft.is_leader:
            assert raft.log_end >= self.leader_log_end, f"leader append-only: {self.member} cut its log"
            self.leader_log_end = raft.log_end
        if raft.commit_end > self.commit_end:
            self.commit_end = raft.commit_end
            checks.on_commit(self.member, raft, self.world.leaders())

    def _perform(self, effect: RaftEffect) -> None:
        checks = self.world.checks
        assert self.raft is not None
        match effect:
            case Persist():
                checks.on_persist(self.member, self.raft, effect, self.commit_before)
                self.disk.perform(effect)
                self._sync()
            case SendMessage(message):
                checks.on_message(message)
                self.world.send(message)
            case Apply(entries):
                for entry in entries:
                    self._apply(entry)
            case Restore(snapshot):
                checks.on_restore(self.member, snapshot.meta.end, snapshot.data)
                self.applied_end = snapshot.meta.end
            case Leader(epoch, index):
                assert (epoch, index) == (self.raft.term, self.applied_end), "leads before everything was applied"
                self.told = (epoch, index)
            case Lost():
                self.told = None
            case Refused(proposal_id) | Unknown(proposal_id):
                term = self.mine.pop(proposal_id, -1)
                if term >= 0:
                    checks.on_answer(term, proposal_id, "refused" if isinstance(effect, Refused) else "unknown")
            case Passed(token):
                assert self.applied_end >= self.barriers.pop(token), "a barrier passed before what was committed was seen"
            case BarrierLost(token):
                self.barriers.pop(token)
            case SnapshotWanted():
                self.world.damaged_snapshots += 1
                self.save_snapshot()

    def _apply(self, entry: Entry) -> None:
        self.world.checks.on_apply(self.member, self.applied_end, entry)
        self.applied_end = entry.end
        if self.mine.get(entry.proposal_id) == entry.term:
            del self.mine[entry.proposal_id]
            self.world.checks.on_answer(entry.term, entry.proposal_id, "committed")
            self.world.acked += 1

    def save_snapshot(self) -> None:
        assert self.raft is not None
        if self.applied_end:
            self.raft.save_snapshot(self.applied_end, self.world.checks.snapshot_of(self.applied_end))

    def _sync(self) -> None:
        """One sync at a time; it makes everything durable that was written before it began."""
        if self.is_syncing:
            return
        self.is_syncing = True
        weather = self.world.weather
        delay_ms = self.world.chance.uniform(*weather.sync_ms)
        if weather.slow_sync and self.world.chance.random() < weather.slow_sync:
            delay_ms *= 100
        number = self.disk._pending[-1].number
        life = self.life

        def synced() -> None:
            if self.life != life:
                return
            self.disk.sync(number)
            self.world.checks.on_hard_state(self.member, self.disk.synced.hard_state)
            self.is_syncing = False
            if self.disk._pending:
                self._sync()
            self.do(lambda raft: raft.on_persisted(number, self.now_ms))

        self.world.at(self.world.now_us + int(delay_ms * MS), synced)

    def propose(self, records: tuple[bytes, ...], *, configuration: Configuration | None = None, stale: int = 0) -> int:
        """As a controller does: under the epoch that it leads, at the next index, less ``stale``. It need not wait for Leader."""
        assert self.raft is not None
        proposal_id = next(self.world.proposal_ids)
        epoch = self.raft.term
        index = self.raft.log_end - stale
        self.mine[proposal_id] = epoch
        if configuration is None:
            self.do(lambda raft: raft.append(epoch, index, proposal_id, records, self.now_ms))
        else:
            self.do(lambda raft: raft.change(epoch, index, proposal_id, configuration, self.now_ms))
        return proposal_id

    def barrier(self) -> None:
        token = next(self.world.proposal_ids)
        self.barriers[token] = self.world.checks.known_commit_end
        self.do(lambda raft: raft.barrier(token, self.now_ms))


class World:
    """The heap, the network, and everybody."""

    def __init__(self, seed: int, voters: int, settings: Settings | None = None, *, drift: float = 0.0) -> None:
        self.seed = seed
        self.settings = settings or Settings()
        self.chance = random.Random(f"{seed}:world")
        self.weather = Weather()
        self.checks = Checks()
        self.now_us = 0
        self.event_count = self.acked = self.crashes = self.damaged_snapshots = 0
        self.proposal_ids = count(1)
        self.blocked: set[tuple[int, int]] = set()
        """(source, target) node ids."""
        self._drift = drift
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()
        self._wakes: dict[Member, int] = {}
        members = tuple(Member(node_id, "a") for node_id in range(1, voters + 1))
        self.first = Configuration(members)
        self.nodes: dict[Member, Node] = {}
        for member in members:
            self.add(member, self.first)

    def add(self, member: Member, configuration: Configuration | None = None) -> Node:
        clock = (self.chance.uniform(1 - self._drift, 1 + self._drift), self.chance.randrange(1_000_000))
        node = self.nodes[member] = Node(self, member, configuration or Configuration(), clock)
        node.start()
        return node

    def node(self, node_id: int) -> Node:
        return next(node for node in self.nodes.values() if node.member.node_id == node_id)

    def leaders(self) -> list[tuple[Member, Raft]]:
        return [(node.member, node.raft) for node in self.nodes.values() if node.raft is not None and node.raft.is_leader]

    def leader(self) -> Node | None:
        """The one of the newest term that may be asked."""
        able = [node for node in self.nodes.values() if node.told is not None and node.paused_until <= self.now_us]
        return max(able, key=lambda node: node.told or (0, 0), default=None)

    def crash(self, node: Node, *, keeps_nothing: bool = False) -> None:
        if node.raft is not None:
            self.crashes += 1
            node.crash(keeps_nothing=keeps_nothing)

    def isolate(self, node_id: int) -> None:
        for other in self.nodes:
            self.blocked |= {(node_id, other.node_id), (other.node_id, node_id)}

    def at(self, when_us: int, function: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (max(when_us, self.now_us), next(self._numbers), function))

    def wake(self, node: Node, when_us: int) -> None:
        if self._wakes.get(node.member, -1) == when_us:
            return
        self._wakes[node.member] = when_us
        life = node.life

        def woken() -> None:
            if node.life == life and self._wakes.get(node.member) == when_us:
                del self._wakes[node.member]
                node.do(lambda raft: raft.on_time(node.now_ms))

        self.at(when_us, woken)

    def send(self, message: Message) -> None:
        weather, chance = self.weather, self.chance
        for _ in range(2 if weather.duplicates and chance.random() < weather.duplicates else 1):
            if weather.loss and chance.random() < weather.loss:
                continue
            delay_ms = chance.uniform(*weather.delay_ms)
            if weather.slow and chance.random() < weather.slow:
                delay_ms *= 10
            self.at(self.now_us + int(delay_ms * MS), lambda: self._deliver(message))

    def _deliver(self, message: Message) -> None:
        if (message.source.node_id, message.target.node_id) in self.blocked:
            return
        node = next((node for node in self.nodes.values() if node.member.node_id == message.target.node_id), None)
        if node is None:
            return
        if isinstance(message, InstallSnapshot) and message.data and self.weather.damage and self.chance.random() < self.weather.damage:
            place = self.chance.randrange(len(message.data))
            data = message.data[:place] + bytes([message.data[place] ^ 1]) + message.data[place + 1 :]
            message = msgspec.structs.replace(message, data=data)
        node.do(lambda raft: raft.on_message(message, node.now_ms))

    def run_until(self, is_over: Callable[[], bool], until_us: int) -> bool:
        while not is_over():
            if not self._heap or self._heap[0][0] > until_us:
                self.now_us = until_us
                return is_over()
            self.now_us, _, function = heapq.heappop(self._heap)
            self.event_count += 1
            function()
        return True

    def run_ms(self, duration_ms: float) -> None:
        self.run_until(lambda: False, self.now_us + int(duration_ms * MS))

    def wait(self, is_over: Callable[[], object], timeout_ms: int = 5_000) -> None:
        """Until it holds; fails when it does not in time."""
        assert self.run_until(lambda: bool(is_over()), self.now_us + timeout_ms * MS), (
            f"not within {timeout_ms} ms: {list(self.nodes.values())}"
        )
