"""Checking a directory that a broker holds: what moves on is not taken for damage, and damage is found all the same."""

from __future__ import annotations

import random

import pytest
from store_world import CONFIG, ROOT, World, checkpoint, open_store, partition, stamped, sync

from zmqmq.effects import Append
from zmqmq.errors import DataDirLocked, InvalidConfig
from zmqmq.store.store import Store
from zmqmq.store.verify import is_held, rebuild_indexes, verify_directory
from zmqmq.testing.sim.disk import SimDisk

WHERE = partition(0)


class BusyDisk(SimDisk):
    """Somebody else is at work between the calls of whoever uses it."""

    work = None
    every = 1
    _calls = 0

    def call(self, name, path, **given) -> int:
        self._calls += 1
        if self.work is not None and self._calls % self.every == 0:
            work, self.work = self.work, None
            work()
            self.work = work
        return super().call(name, path, **given)


@pytest.mark.parametrize("every", [1, 3, 10, 40])
@pytest.mark.parametrize("seed", range(6))
def test_a_running_broker_is_not_taken_for_damage(seed: int, every: int) -> None:
    world = World(seed)
    world.run(60)
    world.disk.__class__ = BusyDisk
    world.disk.every = every
    world.disk.work = world.step
    result = verify_directory(world.disk, ROOT)
    world.disk.work = None
    assert result.is_ok, (seed, every, result.findings)
    assert result.is_in_use
    world.check()


def a_store(disk: SimDisk) -> Store:
    store = open_store(disk)
    store.create(WHERE, CONFIG)
    for number in range(12):
        assert store.append([Append(WHERE, (stamped(WHERE, number, bytes([number]) * 900, time_ms=number),))]) == {}
    sync(store)
    checkpoint(store)
    return store


def test_damage_is_found_while_the_broker_runs() -> None:
    disk = BusyDisk(random.Random(1))
    store = a_store(disk)
    path = f"/{ROOT}/logs/{WHERE.topic_id.hex()}/0/{0:020d}.log"
    file = disk.open(path)
    file.pwritev([b"nonsense"], 200)
    file.close()
    number = 12

    def work() -> None:
        nonlocal number
        store.append([Append(WHERE, (stamped(WHERE, number, b"x" * 50, time_ms=number),))])
        number += 1
        sync(store)
        if store.checkpoint_due():
            checkpoint(store)

    disk.work, disk.every = work, 8
    result = verify_directory(disk, ROOT)
    assert not result.is_ok
    assert result.is_in_use
    assert [finding.file for finding in result.findings] == [path.removeprefix("/")]


def test_the_end_of_the_journal_is_work_under_way_until_the_broker_is_gone() -> None:
    disk = SimDisk(random.Random(1))
    store = a_store(disk)
    store.append([Append(WHERE, (stamped(WHERE, 12, b"x" * 900, time_ms=12),))])
    store.append([Append(WHERE, (stamped(WHERE, 13, b"y" * 900, time_ms=13),))])
    path, content = next((path, content) for path, content in disk.files().items() if "/journal/" in path and b"yyy" in content)
    journal = disk.open(path.removeprefix("/"))
    journal.pwritev([b"half"], content.index(b"yyy"))
    result = verify_directory(disk, ROOT)
    assert (result.findings, result.is_in_use) == ([], True)
    disk.crash("nothing")
    result = verify_directory(disk, ROOT)
    assert not result.is_in_use
    assert "a torn tail" in [finding.what.split(" of ")[0] for finding in result.findings]


def test_asking_who_holds_a_directory_leaves_its_lock_alone() -> None:
    disk = SimDisk(random.Random(1))
    store = a_store(disk)
    assert is_held(disk, ROOT)
    assert is_held(disk, ROOT)
    store.close()
    assert not is_held(disk, ROOT)
    open_store(disk).close()


def test_indexes_of_a_directory_in_use_are_not_built_and_the_next_step_says_so() -> None:
    disk = SimDisk(random.Random(1))
    store = a_store(disk)
    with pytest.raises(DataDirLocked, match="running broker") as caught:
        rebuild_indexes(disk, ROOT)
    assert "stop the broker" in caught.value.hint
    store.close()


def test_a_directory_of_something_else_is_named_and_left_as_it_is() -> None:
    disk = SimDisk(random.Random(1))
    disk.mkdir("elsewhere")
    for look in (verify_directory, rebuild_indexes):
        with pytest.raises(InvalidConfig, match="elsewhere: no zmqmq data directory there") as caught:
            look(disk, "elsewhere")
        assert "serve --data" in caught.value.hint
    assert disk.listdir("elsewhere") == []
