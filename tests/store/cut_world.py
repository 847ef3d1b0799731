"""A store that truncates, resets and saves, beside a plain model of what its journal says.

Each change is one entry of the journal, so whatever a crash leaves must be what the model says after some number of the
changes, none of those missing that were acknowledged.
"""

from __future__ import annotations

import random
from typing import Any

from store_world import OPTIONS, ManualClock, bytes_of, open_store, partition, read_all, stamped

from zmqmq.batch import StampedBatch
from zmqmq.effects import Append
from zmqmq.errors import Throttled
from zmqmq.facts import EpochStart
from zmqmq.producer_state import ProducerStates
from zmqmq.store.jobs import CheckpointJob, SyncJob
from zmqmq.store.verify import verify_directory
from zmqmq.testing.sim.disk import PowerCut, SimDisk
from zmqmq.topic_config import TopicConfig

CONFIG = TopicConfig(segment_bytes=1500, retention_ms=-1)
PLACES = (partition(0), partition(1))
PRODUCERS = 3


class HookedDisk(SimDisk):
    """Does something else once, just before its n-th call from now: as another thread would."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(chance)
        self.hook: tuple[int, Any] | None = None

    def call(self, name: str, path: str, **given: Any) -> int:
        if self.hook is not None:
            count, action = self.hook
            self.hook = (count - 1, action) if count else None
            if not count:
                action()
        return super().call(name, path, **given)


class ModelLog:
    """One partition as a list of batches."""

    def __init__(self) -> None:
        self.batches: list[StampedBatch] = []
        self.base = 0
        self.log_start = 0
        self.epochs: list[EpochStart] = []
        self.saved = b""

    @property
    def end(self) -> int:
        return self.batches[-1].header.end_offset if self.batches else self.base

    def append(self, batches: list[StampedBatch]) -> None:
        assert batches[0].header.base_offset == self.end
        for each in batches:
            self.batches.append(each)
            if not self.epochs or each.header.leader_epoch > self.epochs[-1].epoch:
                self.epochs.append(EpochStart(each.header.leader_epoch, each.header.base_offset))

    def boundary(self, end: int) -> int:
        if end >= self.end or end < self.base:
            return min(end, self.end)
        return max([self.base, *(each.header.end_offset for each in self.batches if each.header.end_offset <= end)])

    def truncate(self, end: int) -> int:
        found = self.boundary(end) if end >= self.log_start else end
        if found < self.log_start:
            self.reset(found)
        elif found < self.end:
            self.batches = [each for each in self.batches if each.header.end_offset <= found]
            self.epochs = [each for each in self.epochs if each.offset < found and found > self.log_start]
        return self.end

    def reset(self, start: int) -> None:
        self.batches, self.epochs = [], []
        self.base = self.log_start = start

    def move_start(self, start: int) -> None:
        if min(start, self.end) <= self.log_start:
            return
        self.log_start = min(start, self.end)
        while len(self.epochs) > 1 and self.epochs[1].offset <= self.log_start:
            del self.epochs[0]

    def producers(self) -> dict[int, Any]:
        states = ProducerStates()
        for each in self.batches:
            states.apply(each.header)
        return dict(states.entries)

    def visible(self) -> list[bytes]:
        return [bytes_of(each) for each in self.batches if each.header.end_offset > self.log_start]


def model_of(changes: list[tuple[Any, ...]]) -> dict[Any, ModelLog]:
    logs = {where: ModelLog() for where in PLACES}
    for kind, *given in changes:
        if kind == "append":
            for where, batches in given[0].items():
                logs[where].append(batches)
        elif kind == "truncate":
            for where, end in given[0].items():
                logs[where].truncate(end)
        elif kind == "reset":
            logs[given[0]].reset(given[1])
        elif kind == "start":
            logs[given[0]].move_start(given[1])
        else:
            logs[given[0]].saved = given[1]
    return logs


class CutWorld:
    """A store and its model. ``changes`` are those begun, in order; the first ``acknowledged`` of them must survive."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = ManualClock()
        self.disk = HookedDisk(random.Random(seed + 1))
        self.changes: list[tuple[Any, ...]] = []
        self.acknowledged = 0
        self.lives = 1
        self.has_undo = True
        """Every truncation so far was of a log that remembers what it cuts: a new life does not, of its checkpoint."""
        self.epoch = 1
        self.syncing: tuple[SyncJob, int] | None = None
        self.checkpointing: CheckpointJob | None = None
        self.is_run = False
        self._open()

    def _open(self) -> None:
        self.store = open_store(self.disk, clock=self.clock, seed=self.lives, options=OPTIONS)
        self.syncing = self.checkpointing = None
        for where in PLACES:
            self.store.create(where, CONFIG)

    @property
    def model(self) -> dict[Any, ModelLog]:
        return model_of(self.changes)

    def batches(self, where: Any, count: int) -> list[StampedBatch]:
        """The next ones, of producers that write in order."""
        log = self.model[where]
        end, states, found = log.end, ProducerStates(log.producers()), []
        for _ in range(count):
            producer = self.random.randrange(PRODUCERS)
            known = states.entries.get(producer)
            sequence = known.batches[-1].last_sequence + 1 if known else 0
            size = self.random.choice((10, 100, 700))
            each = stamped(
                where,
                end,
                self.random.randbytes(size),
                count=self.random.randint(1, 3),
                time_ms=self.clock.now,
                epoch=self.epoch,
                producer=producer,
                sequence=sequence,
            )
            states.apply(each.header)
            found.append(each)
            end = each.header.end_offset
        return found

    def append(self, *places: Any, count: int = 2) -> None:
        change = {where: self.batches(where, count) for where in places}
        self.changes.append(("append", change))
        failed = self.store.append([Append(where, tuple(batches)) for where, batches in change.items()])
        assert all(isinstance(error, Throttled) for error in failed.values()), failed
        for where in failed:
            del change[where]

    def truncate(self, **ends: int) -> None:
        """``p0=5`` truncates the first partition to 5."""
        wanted = {PLACES[int(name[1:])]: end for name, end in ends.items()}
        self.has_undo = self.has_undo and self.lives == 1
        expected = {where: log.truncate(wanted[where]) for where, log in self.model.items() if where in wanted}
        self.changes.append(("truncate", wanted))
        results = self.store.truncate(wanted)
        for where, result in results.items():
            if isinstance(result, Throttled):
                del wanted[where]
            else:
                assert result == expected[where]
        self._acknowledge_cut([where for where in wanted if self.store.state(where).log_end == expected[where]])

    def _acknowledge_cut(self, places: list[Any]) -> None:
        before, after = model_of(self.changes[:-1]), self.model
        if any(before[where].end != after[where].end or before[where].log_start != after[where].log_start for where in places):
            self.acknowledged = len(self.changes)

    def reset(self, where: Any, start: int) -> None:
        self.changes.append(("reset", where, start))
        try:
            self.store.reset(where, start)
        except Throttled:
            self.changes.pop()
        else:
            self.acknowledged = len(self.changes)

    def _attempt(self, change: tuple[Any, ...], action: Any) -> None:
        self.changes.append(change)
        try:
            action()
        except Throttled:
            self.changes.pop()

    def move_start(self, where: Any, start: int) -> None:
        self._attempt(("start", where, start), lambda: self.store.move_log_start(where, start))

    def save(self, where: Any, data: bytes) -> None:
        self._attempt(("save", where, data), lambda: self.store.save(where, data))

    def begin_sync(self) -> None:
        if self.syncing is None and (job := self.store.begin_sync()) is not None:
            self.syncing = job, len(self.changes)

    def end_sync(self) -> None:
        if self.syncing is not None:
            job, count = self.syncing
            job.run()
            self.syncing = None
            for synced in self.store.end_sync(job):
                assert synced.end <= self.store.state(synced.partition).log_end
            self.acknowledged = max(self.acknowledged, count)

    def sync(self) -> None:
        self.end_sync()
        self.begin_sync()
        self.end_sync()

    def begin_checkpoint(self) -> None:
        if self.checkpointing is None:
            self.checkpointing = self.store.begin_checkpoint()
            self.is_run = False

    def run_checkpoint(self) -> None:
        if self.checkpointing is not None and not self.is_run:
            self.is_run = True
            self.checkpointing.run()

    def end_checkpoint(self) -> None:
        self.run_checkpoint()
        if self.checkpointing is not None:
            self.store.end_checkpoint(self.checkpointing)
            self.checkpointing = None

    def checkpoint(self) -> None:
        self.end_checkpoint()
        self.begin_checkpoint()
        self.end_checkpoint()

    def step(self) -> None:
        """Anything, by chance."""
        self.clock.now += 7
        chance = self.random
        where = chance.choice(PLACES)
        log = self.model[where]
        match chance.choices(range(10), (40, 14, 3, 4, 6, 8, 8, 6, 6, 6))[0]:
            case 0:
                self.append(*chance.sample(PLACES, chance.randint(1, 2)), count=chance.randint(1, 3))
            case 1:
                self.epoch += 1
                places = chance.sample(range(2), chance.randint(1, 2))
                model = self.model
                ends = {number: chance.randrange(model[PLACES[number]].log_start, model[PLACES[number]].end + 3) for number in places}
                self.truncate(**{f"p{number}": end for number, end in ends.items()})
            case 2:
                self.reset(where, chance.randrange(0, log.end + 20))
            case 3:
                self.move_start(where, chance.randrange(log.log_start, log.end + 1))
            case 4:
                self.save(where, chance.randbytes(chance.choice((0, 5, 200))))
            case 5:
                self.begin_sync()
            case 6:
                self.end_sync()
            case 7:
                self.begin_checkpoint()
            case 8:
                self.end_checkpoint()
            case _:
                self.check()

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()
            if self.store.checkpoint_due():
                self.end_checkpoint()
                self.begin_checkpoint()

    def crash(self, loss: Any = None, *, fuse: int | None = None) -> None:
        """End the process, check the files at rest, open them, and see what is there."""
        self.disk.fuse = self.disk.hook = None
        if loss == "kill":
            self.disk.kill()
        else:
            self.disk.crash(loss)
        found = verify_directory(self.disk, "data")
        assert found.is_ok, found.findings
        self.disk.fuse = fuse
        self.lives += 1
        try:
            self._open()
        except PowerCut:
            return self.crash(loss)
        self.disk.fuse = None
        ends = {check.partition: check.journal_end for check in found.partitions}
        self.settle()
        for where in PLACES:
            assert ends.get(where, 0) == self.store.state(where).log_end
        self.check()
        return None

    def settle(self) -> None:
        """Find out how many of the changes survived: those that follow never happened."""
        for count in range(len(self.changes), self.acknowledged - 1, -1):
            if all(self._differs(where, log) is None for where, log in model_of(self.changes[:count]).items()):
                del self.changes[count:]
                self.acknowledged = count
                return
        wrong = [self._differs(where, log) for where, log in model_of(self.changes[: self.acknowledged]).items()]
        raise AssertionError(f"{len(self.changes)} changes, {self.acknowledged} acknowledged: {wrong}")

    def _differs(self, where: Any, log: ModelLog) -> Any:
        """None, or what the store says and what it should."""
        state = self.store.state(where)
        assert not state.error
        for name, is_, should in (
            ("end", state.log_end, log.end),
            ("start", state.log_start, log.log_start),
            ("saved", self.store.saved(where), log.saved),
            ("epochs", state.epochs, tuple(log.epochs)),
        ):
            if is_ != should:
                return where.partition, name, is_, should
        known = log.producers()
        if self.has_undo and state.producers != known:
            return where.partition, "producers", state.producers, known
        for producer, entry in state.producers.items():
            if producer not in known or entry.batches != known[producer].batches[-len(entry.batches) :]:
                return where.partition, f"producer {producer}", entry, known.get(producer)
        return None if read_all(self.store, where) == log.visible() else (where.partition, "records")

    def check(self) -> None:
        for where, log in self.model.items():
            assert self._differs(where, log) is None, self._differs(where, log)
            state = self.store.state(where)
            assert state.synced_end <= state.log_end
