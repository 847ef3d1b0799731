"""A cluster of QuorumLogs over disks that forget, in virtual time, and the contract of a metadata log checked at every event."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from itertools import count
from typing import Final

import msgspec
from engine_disk import EngineDisk
from msgspec import Struct

from zmqmq.errors import DiskFull, ZmqmqError
from zmqmq.metadata.log import REPLAYED, BarrierLost, Committed, Leader, LogEvent, Lost, Passed, Refused, SnapshotNeeded, Unknown
from zmqmq.metadata.quorum.engine import QuorumLog
from zmqmq.metadata.quorum.format import encode_saved
from zmqmq.metadata.quorum.messages import Message
from zmqmq.metadata.quorum.state import Configuration, HardState, Member
from zmqmq.metadata.records import FeatureLevelSet, MetadataRecord

MS: Final = 1_000
ROUNDS_MAX: Final = 1_000

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


class Weather(Struct):
    """The calm one loses nothing."""

    loss: float = 0.0
    duplicates: float = 0.0
    delay_ms: tuple[float, float] = (0.1, 2.0)
    sync_ms: tuple[float, float] = (0.1, 3.0)
    fuse: float = 0.0
    """Crashes between two steps of a round."""


class Contract:
    """What was promised to anybody, over all lives of all members."""

    def __init__(self) -> None:
        self.history: list[tuple[int, tuple[MetadataRecord, ...]]] = []
        self.answers: dict[int, str] = {}
        self.leaders: dict[int, Member] = {}
        self.committed_levels: set[int] = set()
        self.refused_levels: set[int] = set()

    def on_committed(self, member: Member, position: int, event: Committed) -> None:
        entry = (event.index, event.records)
        if position < len(self.history):
            assert self.history[position] == entry, f"total order: {member} has {entry} where {self.history[position]} is"
            return
        assert not self.history or self.history[-1][0] < event.index, "indexes ascend"
        levels = {record.level for record in event.records if isinstance(record, FeatureLevelSet)}
        assert not levels & self.committed_levels, f"handed out twice under two indexes: {levels}"
        assert not levels & self.refused_levels, f"refused, and committed: {levels}"
        self.committed_levels |= levels
        self.history.append(entry)

    def on_answer(self, proposal_id: int, answer: str) -> None:
        assert proposal_id not in self.answers, f"proposal {proposal_id} was answered {self.answers[proposal_id]}, and now {answer}"
        self.answers[proposal_id] = answer

    def on_leader(self, member: Member, event: Leader) -> None:
        before = self.leaders.setdefault(event.epoch, member)
        assert before == member, f"{before} and {member} lead under epoch {event.epoch}"


class Engine:
    """One member with its disk and its shell, running or not."""

    def __init__(self, world: EngineWorld, member: Member, base: Configuration) -> None:
        self.world = world
        self.member = member
        self.disk = world.make_disk(f"{world.seed}:{member}")
        self.disk.save_at_once(encode_saved(HardState(), base))
        self.log: QuorumLog | None = None
        self.life = 0
        self.handed_out = 0
        self.handed_end = 0
        self.told: Leader | None = None
        self.next_index = 0
        self.open: dict[int, tuple[int, ...]] = {}
        """Proposals without an answer, and the levels that they set."""
        self.barriers: dict[int, int] = {}
        self.is_syncing = self.wants_sync = False
        self.woken_at = -1

    def __repr__(self) -> str:
        return f"Engine({self.member} {self.log!r})"

    @property
    def now_ms(self) -> int:
        return self.world.now_us // MS

    def start(self) -> None:
        assert self.log is None
        self.life += 1
        self.handed_out = self.handed_end = 0
        chance = random.Random(f"{self.world.seed}:{self.member}:{self.life}")
        self.log = QuorumLog(self.member, self.disk.state(), self.disk.visible.saved, self.disk.read, chance)
        self.do(lambda log: log.start(self.now_ms))

    def crash(self) -> None:
        if self.log is None:
            return
        self.world.crashes += 1
        self.log, self.told, self.is_syncing, self.wants_sync = None, None, False, False
        self.open.clear()
        self.barriers.clear()
        self.disk.crash(self.world.chance)
        self.life += 1

    def do(self, fact: Callable[[QuorumLog], object]) -> None:
        """A round of the shell."""
        log = self.log
        if log is None:
            return
        log.on_time(self.now_ms)
        fact(log)
        for _ in range(ROUNDS_MAX):
            writes = log.take_writes()
            if writes:
                self.perform(log, writes)
            events = log.take_events()
            for event in events:
                self.on_event(event)
            if not writes and not events:
                break
            if self.world.weather.fuse and self.world.chance.random() < self.world.weather.fuse:
                self.crash()
                return
        else:
            raise AssertionError(f"{self} never comes to rest")
        self.world.changes += sum(done.error is None for done in log.take_changes())
        for message in log.take_messages():
            self.world.send(message)
        self.maybe_sync()
        self.wake()

    def perform(self, log: QuorumLog, writes: tuple[object, ...]) -> None:
        try:
            self.disk.perform(writes)  # type: ignore[arg-type]
        except DiskFull as error:
            self.world.refused_writes += 1
            log.on_append_failed(error)
        else:
            self.wants_sync = True
            log.on_written()

    def maybe_sync(self) -> None:
        if not self.wants_sync or self.is_syncing or self.log is None:
            return
        self.wants_sync = False
        self.is_syncing = True
        self.log.on_sync_begun()
        self.disk.begin_sync()
        life = self.life

        def synced() -> None:
            if self.life == life and self.log is not None:
                self.is_syncing = False
                is_reported = self.disk.end_sync()
                self.do(lambda log: log.on_synced(0, self.now_ms) if is_reported else None)

        self.world.later(self.world.chance.uniform(*self.world.weather.sync_ms), synced)

    def wake(self) -> None:
        due_ms = self.log.next_deadline_ms() if self.log is not None else None
        if due_ms is None or due_ms * MS == self.woken_at:
            return
        self.woken_at = due_ms * MS
        life = self.life

        def woken() -> None:
            if self.life == life and self.woken_at == due_ms * MS:
                self.woken_at = -1
                self.do(lambda _: None)

        self.world.later(max(1.0, due_ms + 1 - self.world.now_us / MS), woken)

    def on_event(self, event: LogEvent) -> None:
        contract = self.world.contract
        match event:
            case Committed(proposal_id, index, records):
                contract.on_committed(self.member, self.handed_out, event)
                self.handed_out += 1
                self.handed_end = index + len(records)
                if proposal_id != REPLAYED:
                    del self.open[proposal_id]
                    contract.on_answer(proposal_id, "committed")
            case Refused(proposal_id):
                contract.refused_levels |= set(self.open.pop(proposal_id))
                contract.on_answer(proposal_id, "refused")
                assert not contract.refused_levels & contract.committed_levels
            case Unknown(proposal_id):
                del self.open[proposal_id]
                contract.on_answer(proposal_id, "unknown")
            case Leader(_, index):
                contract.on_leader(self.member, event)
                assert self.log is not None
                assert index >= self.handed_end
                assert index == self.log.applied_end, "leads before everything was handed out"
                self.told = event
                self.next_index = index
            case Lost():
                self.told = None
            case Passed(token):
                assert self.handed_out >= self.barriers.pop(token), "a barrier passed before what was committed was seen"
            case BarrierLost(token):
                del self.barriers[token]

    def propose(self, size: int = 1, *, stale: int = 0) -> int:
        """As a controller: at the index that follows its own last proposal."""
        assert self.told is not None
        assert self.log is not None
        proposal_id = next(self.world.numbers)
        levels = tuple(next(self.world.numbers) for _ in range(size))
        records = tuple(FeatureLevelSet("x", level) for level in levels)
        self.open[proposal_id] = levels
        epoch, index = self.told.epoch, self.log.log_end - stale
        self.do(lambda log: log.append(epoch, index, proposal_id, records))
        return proposal_id

    def barrier(self) -> None:
        token = next(self.world.numbers)
        self.barriers[token] = len(self.world.contract.history)
        self.do(lambda log: log.barrier(token))

    def check_read(self) -> None:
        """What can be read is what was handed out."""
        if self.log is None:
            return
        found = self.log.read(0)
        assert not isinstance(found, SnapshotNeeded)
        read = [(entry.index, entry.records) for entry in found]
        assert read[: self.handed_out] == self.world.contract.history[: self.handed_out]


class EngineWorld:
    """The heap, the network, and everybody."""

    def __init__(self, seed: int, voters: int, spares: int = 0, make_disk: Callable[[str], EngineDisk] | None = None) -> None:
        self.seed = seed
        self.make_disk = make_disk or (lambda _: EngineDisk())
        self.chance = random.Random(f"{seed}:engines")
        self.weather = Weather()
        self.contract = Contract()
        self.now_us = 0
        self.crashes = self.refused_writes = self.changes = 0
        self.numbers = count(1)
        self.blocked: set[tuple[int, int]] = set()
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        members = [Member(node_id, "a") for node_id in range(1, voters + spares + 1)]
        self.base = Configuration(tuple(members[:voters]))
        self.engines = {
            member.node_id: Engine(self, member, self.base if member in self.base.voters else Configuration()) for member in members
        }
        for engine in self.engines.values():
            engine.start()

    def leader(self) -> Engine | None:
        able = [engine for engine in self.engines.values() if engine.told is not None]
        return max(able, key=lambda engine: engine.told.epoch if engine.told else 0, default=None)

    def later(self, delay_ms: float, function: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now_us + int(delay_ms * MS), next(self._order), function))

    def send(self, message: Message) -> None:
        chance, weather = self.chance, self.weather
        data = _encode(message)
        for _ in range(2 if weather.duplicates and chance.random() < weather.duplicates else 1):
            if not weather.loss or chance.random() >= weather.loss:
                self.later(chance.uniform(*weather.delay_ms), lambda: self._deliver(_decode(data)))

    def _deliver(self, message: Message) -> None:
        if (message.source.node_id, message.target.node_id) not in self.blocked:
            engine = self.engines[message.target.node_id]
            engine.do(lambda log: log.on_message(message, engine.now_ms))

    def run_until(self, is_over: Callable[[], object], timeout_ms: float) -> bool:
        until_us = self.now_us + int(timeout_ms * MS)
        while not is_over():
            if not self._heap or self._heap[0][0] > until_us:
                self.now_us = until_us
                return bool(is_over())
            self.now_us, _, function = heapq.heappop(self._heap)
            function()
        return True

    def run_ms(self, duration_ms: float) -> None:
        self.run_until(lambda: False, duration_ms)

    def wait(self, is_over: Callable[[], object], timeout_ms: float = 5_000) -> None:
        assert self.run_until(is_over, timeout_ms), f"not within {timeout_ms} ms: {list(self.engines.values())}"

    def isolate(self, node_id: int) -> None:
        self.blocked |= {pair for other in self.engines for pair in ((node_id, other), (other, node_id))}

    def offline(self) -> list[ZmqmqError]:
        return [engine.log.offline_error for engine in self.engines.values() if engine.log is not None and engine.log.offline_error]
