"""A backup of a directory that is being written: everything acknowledged before, a prefix of what came after, nothing else."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable

import pytest
from cut_world import PLACES, CutWorld, HookedDisk
from hypothesis import given, settings
from hypothesis import strategies as st
from store_world import CONFIG, ROOT, World, checkpoint, open_store, partition, read_all, stamped, sync

from zmqmq.effects import Append
from zmqmq.errors import CorruptLog, DiskFull, InvalidConfig, ZmqmqError
from zmqmq.store import backup
from zmqmq.store.backup import backup_directory
from zmqmq.store.store import Store
from zmqmq.store.verify import verify_directory
from zmqmq.testing.sim.disk import SimDisk

COPY = "backups/copy"
STEPS_MAX = 400
CUT_STEPS_MAX = 60


class Turns:
    """Two threads of which exactly one runs; at each call of the disk the other may get its turn, by the dice."""

    def __init__(self, seed: int, share: float) -> None:
        self.random = random.Random(seed)
        self.share = share
        self.is_on = False
        self._condition = threading.Condition()
        self._running = "store"

    def both(self, backing_up: Callable[[], None], storing: Callable[[], None]) -> None:
        """Run the first to its end while the second goes on, again and again."""
        ended = threading.Event()
        failures: list[BaseException] = []

        def second() -> None:
            self._await("backup")
            try:
                backing_up()
            except BaseException as error:  # noqa: BLE001 - raised below
                failures.append(error)
            ended.set()
            self.is_on = False
            self._give("store")

        self.is_on, self._running = True, "store"
        thread = threading.Thread(target=second)
        thread.start()
        self.switch()
        while not ended.is_set():
            storing()
            if self.is_on:
                self.switch()
        thread.join()
        if failures:
            raise failures[0]

    def maybe_switch(self) -> None:
        if self.is_on and self.random.random() < self.share:
            self.switch()

    def switch(self) -> None:
        me = self._running
        self._give("backup" if me == "store" else "store")
        self._await(me)

    def _give(self, name: str) -> None:
        with self._condition:
            self._running = name
            self._condition.notify_all()

    def _await(self, name: str) -> None:
        with self._condition:
            assert self._condition.wait_for(lambda: self._running == name, 30)


class TurningDisk(SimDisk):
    """Each of its calls may be the last before the other thread's turn."""

    turns: Turns | None = None

    def call(self, name: str, path: str, **given) -> int:
        found = super().call(name, path, **given)
        if self.turns is not None:
            self.turns.maybe_switch()
        return found


class BusyWorld(World):
    """As ``World``, with topics that come and go, on a disk that takes turns."""

    def __init__(self, seed: int) -> None:
        self.topics_made = 0
        super().__init__(seed)
        self.disk.__class__ = TurningDisk
        self.acknowledged = defaultdict(int, self.acknowledged)
        self._make_topic()

    def step(self) -> None:
        choice = self.random.random()
        if choice < 0.04:
            self.store.delete_topic(self.passing.topic_id)
            self._make_topic()
        elif choice < 0.12:
            self._append_passing()
        elif choice < 0.14:
            self.store.close()  # an orderly restart, with its recovery and its checkpoints
            for where in self.partitions:
                self.acknowledged[where] = self.ends[where][-1]
            self.store = self._open()
            self.store.create(self.passing, CONFIG)
        else:
            super().step()

    def _make_topic(self) -> None:
        self.topics_made += 1
        self.passing = partition(0, self.topics_made.to_bytes(16, "big"))
        self.store.create(self.passing, CONFIG)
        self._append_passing()

    def _append_passing(self) -> None:
        end = self.store.state(self.passing).log_end if self.passing in self.store.partitions() else 0
        if self.passing in self.store.partitions():
            self.store.append([Append(self.passing, (stamped(self.passing, end, self.random.randbytes(500)),))])


def check_copy(world: World, acknowledged: dict, copy: Store) -> None:
    for where in world.partitions:
        copy.create(where, CONFIG)
        state = copy.state(where)
        assert not state.error
        assert state.log_end >= acknowledged[where], f"{where} lost {acknowledged[where] - state.log_end} acknowledged records"
        assert state.log_end in world.ends[where]
        assert state.log_start <= world.started[where]
        ends = zip(world.history[where], world.ends[where][1:], strict=True)
        assert read_all(copy, where) == [data for data, end in ends if state.log_start < end <= state.log_end]
    for where in copy.partitions():
        assert not copy.state(where).error
        read_all(copy, where)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 30), warm_up=st.integers(0, 120), share=st.sampled_from([0.02, 0.1, 0.5, 0.9]))
def test_a_backup_under_any_interleaving_holds_what_was_acknowledged_and_no_wrong_record(seed: int, warm_up: int, share: float) -> None:
    world = BusyWorld(seed)
    world.run(warm_up)
    acknowledged = dict(world.acknowledged)
    turns = world.disk.turns = Turns(seed, share)
    steps = 0

    def store_on() -> None:
        nonlocal steps
        steps += 1
        if steps < STEPS_MAX:
            world.step()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backup, "CHUNK_BYTES", 700)  # so that files change while they are copied
        turns.both(lambda: backup_directory(world.disk, ROOT, COPY), store_on)
    world.disk.turns = None
    assert verify_directory(world.disk, COPY).is_ok
    world.disk.crash("all")
    copy = open_store(world.disk, root=COPY, clock=world.clock)
    check_copy(world, acknowledged, copy)
    copy.append([Append(where, (stamped(where, copy.state(where).log_end, b"goes on"),)) for where in world.partitions])
    assert sync(copy)
    copy.close()


class TurningCutDisk(TurningDisk, HookedDisk):
    """A ``CutWorld``'s disk that takes turns."""


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1 << 30), warm_up=st.integers(0, 50), share=st.sampled_from([0.02, 0.1, 0.5, 0.9]))
def test_a_backup_of_logs_that_are_truncated_meanwhile_is_what_the_journal_said_at_some_time(seed: int, warm_up: int, share: float) -> None:
    world = CutWorld(seed)
    world.run(warm_up)
    acknowledged = world.acknowledged
    world.disk.__class__ = TurningCutDisk
    turns = world.disk.turns = Turns(seed, share)
    steps = 0

    def store_on() -> None:
        nonlocal steps
        steps += 1
        if steps < CUT_STEPS_MAX:
            world.run(1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backup, "CHUNK_BYTES", 700)
        turns.both(lambda: backup_directory(world.disk, ROOT, COPY), store_on)
    world.disk.turns = None
    world.disk.crash("all")
    world.store = open_store(world.disk, root=COPY, clock=world.clock)
    for where in PLACES:
        world.store.create(where, CONFIG)
    world.has_undo, world.acknowledged = False, acknowledged
    world.settle()
    world.check()


def filled(seed: int = 5, steps: int = 150) -> World:
    world = World(seed)
    world.run(steps)
    return world


def test_a_backup_of_a_stopped_directory_is_the_same_log() -> None:
    world = filled()
    world.store.close()
    report = backup_directory(world.disk, ROOT, COPY)
    assert (report.rounds, report.snapshots) == (1, 1)
    assert report.partitions == len(world.partitions)
    check_copy(world, {where: ends[-1] for where, ends in world.ends.items()}, open_store(world.disk, root=COPY, clock=world.clock))
    files = world.disk.files()
    assert files[f"/{COPY}/identity"] == files[f"/{ROOT}/identity"]
    assert files[f"/{COPY}/checkpoint"] != b""


def test_a_backup_of_a_crashed_directory_recovers_as_the_directory_does() -> None:
    world = filled()
    world.disk.crash("prefix")
    backup_directory(world.disk, ROOT, COPY)
    world.restart()
    copy = open_store(world.disk, root=COPY, clock=world.clock)
    for where in world.partitions:
        assert read_all(copy, where) == read_all(world.store, where)


def test_progress_is_told_up_to_the_end() -> None:
    world = filled()
    told: list[tuple[int, int]] = []
    backup_directory(world.disk, ROOT, COPY, on_progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] > 0
    assert told == sorted(told)


@pytest.mark.parametrize("target", [ROOT, f"{ROOT}/backup", "backups"])
def test_a_target_that_is_not_empty_or_within_the_source_is_refused(target: str) -> None:
    world = filled(steps=20)
    world.disk.put("backups/precious", b"x")
    with pytest.raises(InvalidConfig, match=target):
        backup_directory(world.disk, ROOT, target)
    assert world.disk.files()["/backups/precious"] == b"x"


def test_what_is_no_data_directory_is_refused() -> None:
    world = filled(steps=20)
    world.disk.mkdir("elsewhere")
    with pytest.raises(InvalidConfig, match="elsewhere"):
        backup_directory(world.disk, "elsewhere", COPY)


def test_damage_in_the_source_is_named_and_leaves_nothing_behind() -> None:
    world = filled()
    world.store.close()
    files = world.disk.files()
    segment = next(path for path, content in sorted(files.items()) if path.endswith(".log") and len(content) > 300)
    for damage in (files[segment][:-50], files[segment][:150] + b"X" + files[segment][151:], None):
        broken = {**files, segment: damage}
        if damage is None:
            del broken[segment]
        disk = SimDisk.of(broken, random.Random(1))
        with pytest.raises(CorruptLog, match=segment.rpartition("/")[0].rpartition("/logs/")[2]) as told:
            backup_directory(disk, ROOT, COPY)
        assert "verify" in told.value.hint
        assert not [path for path in disk.files() if path.startswith(f"/{COPY}")]


def test_a_damaged_journal_is_named_and_not_passed_over() -> None:
    world = filled()
    where = world.partitions[0]
    checkpoint(world.store)
    for _ in range(3):
        world.store.append([Append(where, (stamped(where, world.store.state(where).log_end, b"acknowledged"),))])
        sync(world.store)
    files = world.disk.files()
    path = max((path for path in files if path.endswith(".journal")), key=lambda path: files[path].rfind(b"acknowledged"))
    at = files[path].find(b"acknowledged")
    disk = SimDisk.of({**files, path: files[path][:at] + b"A" + files[path][at + 1 :]}, random.Random(1))
    with pytest.raises(CorruptLog, match="journal"):
        backup_directory(disk, ROOT, COPY)


def test_a_full_target_is_said_before_and_while_copying() -> None:
    world = filled()
    for room in (10, 20_000):
        world.disk.capacity_bytes = world.disk.used_bytes() + room
        with pytest.raises(DiskFull):
            backup_directory(world.disk, ROOT, f"{COPY}{room}")
        world.disk.capacity_bytes = 1 << 40
        assert not [path for path in world.disk.files() if path.startswith(f"/{COPY}")]


def test_a_directory_that_never_holds_still_is_given_up_after_a_bounded_number_of_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "SNAPSHOTS_MAX", 3)
    world = filled()
    counting = iter(range(1_000))

    class Restless(SimDisk):
        def open(self, path, *, create=False, write=True):
            if path == f"{ROOT}/checkpoint":
                world.store.append(
                    [
                        Append(
                            world.partitions[0],
                            (stamped(world.partitions[0], world.store.state(world.partitions[0]).log_end, b"%d" % next(counting)),),
                        )
                    ]
                )
                checkpoint(world.store)
            return super().open(path, create=create, write=write)

    world.disk.__class__ = Restless
    with pytest.raises(ZmqmqError, match="faster than it can be copied"):
        backup_directory(world.disk, ROOT, COPY)
