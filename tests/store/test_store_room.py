"""The reserve of the disk: how much of it the store leaves, however small it is."""

from __future__ import annotations

import random

from store_world import CONFIG, checkpoint, open_store, partition, stamped, sync

from zmqmq.effects import Append
from zmqmq.errors import DiskFull
from zmqmq.store.room import CHECK_MS, COPIES, Room
from zmqmq.testing.sim.disk import SimDisk
from zmqmq.units import UNLIMITED

BATCH_BYTES = 32 << 10
RESERVE_BYTES = 1 << 20


class Clock:
    now = 0

    def wall_ms(self) -> int:
        return self.now

    def monotonic_ms(self) -> int:
        return self.now


class Disk:
    """Counts how often it is asked."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.asked = 0

    def free_bytes(self, path: str) -> int:
        self.asked += 1
        return self.free


def room_on(disk: Disk, clock: Clock) -> Room:
    return Room(disk, "data", clock, bytes_max=UNLIMITED, reserve_bytes=RESERVE_BYTES)  # type: ignore[arg-type]


def fill(disk: Disk, room: Room) -> None:
    """Until it is refused."""
    while room.refusal(BATCH_BYTES, 0) is None:
        disk.free -= COPIES * BATCH_BYTES
        room.wrote(BATCH_BYTES)
        assert disk.free > 0


def test_a_reserve_smaller_than_what_is_written_between_two_looks_is_kept() -> None:
    disk = Disk(64 << 20)
    fill(disk, room_on(disk, Clock()))
    assert disk.free >= RESERVE_BYTES - COPIES * BATCH_BYTES


def test_the_disk_is_asked_seldom_while_there_is_room_and_while_there_is_none() -> None:
    disk, clock = Disk(64 << 20), Clock()
    room = room_on(disk, clock)
    fill(disk, room)
    asked = disk.asked
    assert asked <= 4
    assert all(isinstance(room.refusal(BATCH_BYTES, 0), DiskFull) for _ in range(100))
    assert disk.asked == asked


def test_space_that_comes_back_is_noticed_within_the_interval() -> None:
    disk, clock = Disk(64 << 20), Clock()
    room = room_on(disk, clock)
    fill(disk, room)
    disk.free = 8 << 20
    clock.now += CHECK_MS
    assert room.refusal(BATCH_BYTES, 0) is None


def test_a_trim_after_a_restart_frees_its_segments_without_a_write() -> None:
    disk = SimDisk(random.Random(1))
    store = open_store(disk)
    where = partition(0)
    store.create(where, CONFIG)
    for number in range(8):
        assert store.append([Append(where, (stamped(where, number, bytes(2200), time_ms=number),))]) == {}
        sync(store)
        checkpoint(store)
    store.close()
    store = open_store(disk)
    store.create(where, CONFIG)
    before = store.state(where).size_bytes
    store.move_log_start(where, 5)
    checkpoint(store)
    assert store.state(where).size_bytes < before
    assert len([path for path in disk.files() if path.endswith(".log")]) == 3
