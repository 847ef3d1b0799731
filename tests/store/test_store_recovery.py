"""Power cuts at every disk call: what was acknowledged is there, and nothing else than what was written."""

from __future__ import annotations

import errno
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_world import CONFIG, World, bytes_of, checkpoint, open_store, partition, read_all, stamped, sync

from zmqmq.effects import Append
from zmqmq.errors import DiskFull
from zmqmq.testing.sim.disk import LOSSES, Fault, PowerCut, SimDisk


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_no_power_cut_loses_or_changes_an_acknowledged_record(seed: int) -> None:
    world = World(seed)
    for _ in range(6):
        world.arm()
        world.run(60)
    assert world.crashes


@pytest.mark.parametrize("loss", LOSSES)
def test_every_disk_call_of_a_workload_may_be_the_last(loss: str) -> None:
    call = 0
    while True:
        disk = SimDisk(random.Random(call))
        acknowledged, written = 0, []
        disk.fuse = call
        try:
            acknowledged = run_workload(disk, written)
            finished = True
        except WorkloadCut as cut:
            acknowledged = cut.acknowledged
            finished = False
        disk.crash(loss)
        store = open_store(disk)
        store.create(partition(0), CONFIG)
        found = read_all(store, partition(0))
        assert found == written[: len(found)]
        assert len(found) >= acknowledged, f"call {call}: {acknowledged - len(found)} acknowledged batches lost"
        store.close()
        assert disk.open_count == 0
        if finished:
            break
        call += 1
    assert call > 50


def test_what_a_killed_process_left_unsynced_is_synced_by_the_next() -> None:
    """Its names as well: the next process sees them, as if they were on the disk."""
    call = 0
    where = partition(0)
    while True:
        disk, written = SimDisk(random.Random(call)), []
        disk.fuse = call
        try:
            run_workload(disk, written)
            break
        except WorkloadCut:
            disk.kill()
        store = open_store(disk)
        store.create(where, CONFIG)
        found = read_all(store, where)
        assert found == written[: len(found)]
        more = stamped(where, len(found), b"more")
        store.append([Append(where, (more,))])
        assert sync(store) == {where: len(found) + 1}
        for _ in range(2):
            disk.crash("all")
            store = open_store(disk)
            assert read_all(store, where) == [*found, bytes_of(more)], f"killed in call {call}"
        call += 1
    assert call > 50


def test_a_segment_is_sealed_at_the_length_that_a_killed_process_gave_it() -> None:
    """Else what was refused comes back behind its end once the power is cut."""
    disk, where = SimDisk(random.Random(1)), partition(0)
    store = open_store(disk)
    store.create(where, CONFIG)
    first, refused, last = (stamped(where, offset, bytes(size)) for offset, size in ((0, 3000), (1, 500), (1, 2000)))
    store.append([Append(where, (first,))])
    checkpoint(store)
    disk.faults = [Fault("pwritev", path="journal", error=errno.ENOSPC)]
    assert isinstance(store.append([Append(where, (refused,))])[where], DiskFull)
    disk.crash("nothing")
    store = open_store(disk)
    store.create(where, CONFIG)
    assert store.append([Append(where, (last,))]) == {}
    sync(store)
    disk.kill()
    open_store(disk)
    disk.crash("all")
    assert read_all(open_store(disk), where) == [bytes_of(first), bytes_of(last)]


class WorkloadCut(Exception):
    def __init__(self, acknowledged: int) -> None:
        self.acknowledged = acknowledged


def run_workload(disk: SimDisk, written: list[bytes]) -> int:
    acknowledged = 0
    where = partition(0)
    try:
        store = open_store(disk)
        store.create(where, CONFIG)
        for number in range(12):
            found = stamped(where, number, bytes(400), time_ms=number)
            written.append(bytes_of(found))
            assert store.append([Append(where, (found,))]) == {}
            if number % 3 == 2:
                sync(store)
                acknowledged = number + 1
            if number in {4, 9}:
                checkpoint(store)
        store.close()
        return 12
    except PowerCut:
        raise WorkloadCut(acknowledged) from None
