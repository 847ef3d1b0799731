"""Power cuts under a real broker at work: the kill test of ``tests/kill`` on a disk that forgets what was not synced.

The parties, their testimony and the audits are those of the kill test; the files of testimony lie outside of the mount. All topics
are durable by ``fsync``: that is the promise which holds over a power cut.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Final

from campaign import TOPICS, Campaign, Report, Topic
from lives import World
from places import LOG_FLUSHED, LOG_LOST, Ext4

STEP_DOWN_SECONDS_MAX: Final = 0.03
"""Between the cut and the kill: so long the broker runs on a dead disk."""

SYNCED_TOPICS: Final = tuple(
    Topic(topic.name, topic.partitions, {name: value for name, value in topic.config.items() if name != "durability"}, topic.keeps_all)
    for topic in TOPICS
)


class PowerCuts(World):
    """Each end of a life is the machine's: what was not on disk is gone when the next one begins."""

    keeps_unsynced = False

    def __init__(self, disk: Ext4, mode: int, chance: random.Random) -> None:
        self._disk = disk
        self._mode = mode
        self._chance = chance
        self._is_cut = False

    def before_kill(self) -> None:
        self._disk.cut(self._mode)
        self._is_cut = True
        if self._chance.random() < 0.5:
            time.sleep(self._chance.uniform(0, STEP_DOWN_SECONDS_MAX))

    def after_end(self) -> None:
        if not self._is_cut:
            self._disk.cut(self._mode)
        self._is_cut = False
        self._disk.mount_again()


def cut_power(
    scratch: Path, seed: int, cuts: int, seconds_max: float, *, options: str = "", mode: int = LOG_LOST, plant: str = ""
) -> Report:
    """A campaign of power cuts."""
    witnesses = scratch / "witnesses"
    witnesses.mkdir()
    with Ext4(scratch, options=options) as disk:
        world = PowerCuts(disk, mode, random.Random(seed))
        campaign = Campaign(witnesses, seed, plant=plant, world=world, topics=SYNCED_TOPICS, data=disk.path / "data", audit_every=12)
        return campaign.run(cuts, seconds_max)


WRITEBACK: Final = {"options": "data=writeback,noauto_da_alloc", "mode": LOG_FLUSHED}
"""Names and sizes may be newer than the data below them."""
