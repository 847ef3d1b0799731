"""Quorums over the real store, on simulated disks that lose power: what the store promises is what Raft needs."""

from __future__ import annotations

import random

from engine_disk import EngineDisk
from engine_run import EngineStory

from zmqmq.effects import Append
from zmqmq.errors import ZmqmqError
from zmqmq.facts import LogState
from zmqmq.metadata.local import METADATA_CONFIG
from zmqmq.metadata.quorum.disk import Save, Truncate, Write
from zmqmq.model import METADATA_PARTITION
from zmqmq.store.jobs import SyncJob
from zmqmq.store.store import Store
from zmqmq.testing.sim.disk import SimDisk

SEEDS = range(8)
ROOT = "data"


class StoppedClock:
    def wall_ms(self) -> int:
        return 1_000_000

    wall_ns = monotonic_ms = monotonic_us = wall_ms


class StoreDisk(EngineDisk):
    """A data directory. ``visible.saved`` is what the store says."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.chance = random.Random(name)
        self.files = SimDisk(random.Random(name + " disk"))
        self.job: SyncJob | None = None
        self.truncations = 0
        self.open()

    def open(self) -> None:
        self.store = Store.open(self.files, ROOT, clock=StoppedClock(), random=self.chance)
        self.store.create(METADATA_PARTITION, METADATA_CONFIG)
        self.visible.saved = self.store.saved(METADATA_PARTITION)

    def save_at_once(self, data: bytes) -> None:
        self.store.save(METADATA_PARTITION, data)
        self.begin_sync()
        assert self.end_sync()
        self.visible.saved = data

    def perform(self, writes: tuple[Write, ...]) -> None:
        self._check_space()
        for write in writes:
            match write:
                case Truncate(end):
                    self.truncations += 1
                    assert self.store.truncate({METADATA_PARTITION: end}) == {METADATA_PARTITION: end}
                case Save(data):
                    self.store.save(METADATA_PARTITION, data)
                case Append():
                    for error in self.store.append([write]).values():
                        raise error

    def begin_sync(self) -> bool:
        self.job = self.store.begin_sync()
        return self.job is not None

    def end_sync(self) -> bool:
        if self.job is None:
            return False
        self.job.run()
        job, self.job = self.job, None
        return any(fact.partition == METADATA_PARTITION for fact in self.store.end_sync(job))

    def crash(self, chance: random.Random) -> None:
        del chance
        self.job = None
        self.files.crash()
        self.open()

    def read(self, offset: int, end: int, bytes_max: int) -> bytes:
        return self.store.read(METADATA_PARTITION, offset, end, bytes_max)

    def state(self) -> LogState:
        return self.store.state(METADATA_PARTITION)


def test_the_store_keeps_what_the_quorum_needs() -> None:
    truncations = crashes = 0
    for seed in SEEDS:
        disks: list[StoreDisk] = []

        def make(name: str, disks: list[StoreDisk] = disks) -> StoreDisk:
            disks.append(StoreDisk(name))
            return disks[-1]

        story = EngineStory(seed, make)
        try:
            story.run()
        except (AssertionError, ZmqmqError) as error:
            error.add_note(f"seed {seed} over the store")
            raise
        truncations += sum(disk.truncations for disk in disks)
        crashes += story.world.crashes
    assert truncations > 0
    assert crashes > 0
