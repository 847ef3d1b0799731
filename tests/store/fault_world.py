"""``World`` on a disk where everything may fail at any call."""

from __future__ import annotations

import random
from typing import Final

from store_world import World, checkpoint, read_all, sync

from zmqmq.errors import DiskFull, LogOffline, Throttled
from zmqmq.testing.sim.disk import DiskFaults, PowerCut
from zmqmq.testing.sim.disk_faults import FaultSwarm

REFUSALS = (DiskFull, Throttled, LogOffline)
"""What a store may say when its disk fails. Never that a file is damaged: nobody damaged one."""
OPENS_MAX = 200
MORE = 10
"""Times the rates of a long simulation: a world makes some thousand calls."""


RATE_MAX: Final = {"eio_sync": 0.05}
"""An open syncs many files, and must succeed some day."""


class FaultyWorld(World):
    """What is asked of a store here: whatever fails, an acknowledged record is there again once the disk is well."""

    def __init__(self, seed: int) -> None:
        self.is_well = True
        super().__init__(seed)
        self.is_well = False
        drawn = DiskFaults.draw(random.Random(seed + 2))
        rates = {name: min(RATE_MAX.get(name, 0.3), getattr(drawn, name) * MORE) for name in drawn.classes}
        self.disk.swarm = FaultSwarm(random.Random(seed + 3), DiskFaults(**rates))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            if self.disk.fuse is None and self.random.random() < 0.02:
                self.arm()
            try:
                self.step()
            except PowerCut:
                self.restart()
            if self.store.offline:
                self.restart()

    def step(self) -> None:
        self.clock.now += 7
        choice = self.random.random()
        if choice < 0.55:
            self.append()
        elif choice < 0.85:
            for where, end in sync(self.store).items():
                self.acknowledged[where] = max(self.acknowledged[where], end)
        elif choice < 0.95 or self.store.checkpoint_due():
            checkpoint(self.store)
        elif choice < 0.96:
            self.random.choice((self.disk.drop_memory, self.disk.kill))()
            self.restart()
        else:
            self.check()

    def restart(self) -> None:
        self.crashes += 1
        self.end_process()
        if self.random.random() < 0.3:
            self.disk.drop_memory()
        for _ in range(OPENS_MAX):
            if self.random.random() < 0.3:
                self.disk.fuse = self.random.randrange(1, 60)
            try:
                self.store = self._open()
            except PowerCut:
                self.end_process()
                continue
            except REFUSALS:
                assert not self.is_well
                continue
            self.disk.fuse = None
            self.forget_unacknowledged()
            return
        raise AssertionError(f"the store did not open {OPENS_MAX} times in a row")

    def heal(self) -> None:
        """The disk is well from now on; one more power cut, and everything promised is there."""
        self.disk.swarm.is_active = False
        self.is_well = True
        self.disk.crash()
        self.store = self._open()
        self.forget_unacknowledged()
        self.check()
        self.store.close()

    def check(self) -> None:
        for where in self.partitions:
            state = self.store.state(where)
            if self.is_well:
                assert not state.error
            assert state.log_end == self.ends[where][-1]
            expected = [data for data, end in zip(self.history[where], self.ends[where][1:], strict=True) if end > state.log_start]
            try:
                assert read_all(self.store, where) == expected
            except REFUSALS:
                assert not self.is_well
