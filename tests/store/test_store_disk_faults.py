"""Disks that fail at any call, processes that are killed, power that is cut: no acknowledged record is lost or changed."""

from __future__ import annotations

import errno
import random

from fault_world import FaultyWorld
from hypothesis import given, settings
from hypothesis import strategies as st
from store_world import CONFIG, checkpoint, open_store, partition, read_all, stamped, sync

from zmqmq.effects import Append
from zmqmq.testing.sim.disk import Fault, SimDisk


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_no_fault_of_the_disk_loses_or_changes_an_acknowledged_record(seed: int) -> None:
    world = FaultyWorld(seed)
    world.run(150)
    world.heal()


def test_the_worlds_faults_strike_often_enough_to_mean_something() -> None:
    struck: dict[str, int] = {}
    for seed in range(20):
        world = FaultyWorld(seed)
        world.run(250)
        world.heal()
        for name, count in world.disk.swarm.struck.items():
            struck[name] = struck.get(name, 0) + count
    assert all(struck[name] >= 3 for name in ("eio_read", "eio_write", "eio_sync", "enospc", "short_write", "torn")), struck


def test_a_failed_sync_is_never_tried_again() -> None:
    """The second would say that all is well, of pages that the first one lost."""
    for call in ("journal", ".log"):
        disk, where = SimDisk(random.Random(1)), partition(0)
        store = open_store(disk)
        store.create(where, CONFIG)
        store.append([Append(where, (stamped(where, 0, b"x"),))])
        disk.faults = [Fault("fdatasync", path=call, error=errno.EIO)]
        sync(store)
        checkpoint(store)
        assert store.offline
        calls = disk.call_count
        assert sync(store) == {}
        checkpoint(store)
        store.close()
        assert disk.call_count == calls
        assert len(read_all(open_store(disk), where)) == 1
