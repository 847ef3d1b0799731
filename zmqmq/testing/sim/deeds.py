"""What a nemesis can do to a cluster, deed by deed: processes that die or stand still, machines that cannot reach each other, full
disks, wrong clocks. Each deed undoes itself after a while, or when the cluster heals."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Collection
from functools import partial
from typing import Final

from zmqmq.batch import HEADER_BYTES
from zmqmq.testing.sim.broker import SimBroker, State
from zmqmq.testing.sim.chance import log_uniform
from zmqmq.testing.sim.cluster import Cluster
from zmqmq.testing.sim.deeds_cluster import ClusterDeeds
from zmqmq.testing.sim.disk import CAPACITY_BYTES, Fault
from zmqmq.testing.sim.disk_nodes import FileNode
from zmqmq.testing.sim.kernel import US_PER_S
from zmqmq.testing.sim.rot import sealed_segments

PAUSE_S: Final = (0.05, 30.0)
APART_S: Final = (0.05, 12.0)
CLOG_S: Final = (0.05, 5.0)
FULL_S: Final = (0.5, 8.0)
NO_FILES_S: Final = (0.3, 4.0)
DYING_S: Final = (0.001, 1.0)
SYNCS_BEFORE_MAX: Final = 20
DYING_S_MAX: Final = 3.0
"""A disk of which nobody asks a sync for so long goes on living."""
PROGRESS_S_MAX: Final = 3.0
"""A power cut that waits for a watermark or a log start to move waits so long."""
LOOK_US: Final = 1_000
JUMP_S: Final = 3600.0
ROT_S: Final = (0.5, 10.0)
"""From the moment when a bit of a sealed segment turns over to the one when somebody restores the file."""
TRACE_OF_ROT_BYTES: Final = 64
"""Around the bit, to know whether the place still is what rotted."""
FUSE_CALLS_MAX: Final = 400
ROOM_BYTES_MAX: Final = 256 << 10


class Deeds:
    """``by_name`` holds all of them. Each takes the dice that decide about it, and says in words what it did, or nothing when there
    was nothing to do. What needs an end within the trouble has it before ``end_us``."""

    def __init__(self, cluster: Cluster, end_us: int, spares: Collection[str]) -> None:
        self._cluster = cluster
        self._end_us = end_us
        self._spares = frozenset(spares)
        self._rotten: dict[FileNode, None] = {}
        """Files that wait to be restored; a second bit in one would not be found again."""
        self.by_name: dict[str, Callable[[random.Random], str]] = {
            "broker killed": self._kill,
            "power cut": self._cut_power,
            "power cut in a call": self._light_fuse,
            "broker stopped": self._stop,
            "broker paused": self._pause_broker,
            "client killed": self._kill_client,
            "client paused": self._pause_client,
            "partition": self._part,
            "one-way partition": self._part_one_way,
            "link clogged": self._clog,
            "links broken": self._break_links,
            "disk full": self._fill_disk,
            "no new files": self._refuse_files,
            "disk dies": self._kill_disk,
            "clock jumped": self._jump,
            "segment rots": self._rot,
        }
        if len(cluster.brokers) > 1:
            self.by_name |= ClusterDeeds(cluster, self._later).by_name

    def _kill(self, dice: random.Random) -> str:
        broker = self._any_broker(dice)
        if broker.state is State.DOWN:
            return ""
        broker.kill()
        if dice.random() < 0.5:
            broker.disk.drop_memory()
        return broker.name

    def _cut_power(self, dice: random.Random) -> str:
        """At any moment, or just when something was acknowledged."""
        broker = self._any_broker(dice)
        if broker.state is State.DOWN:
            return ""
        if dice.random() < 0.3:
            broker.cut_power()
            return broker.name
        progress = dice.choice((_watermarks, _log_starts))
        before, opening = progress(broker), broker.opening_count
        until_us = self._cluster.world.now_us + int(PROGRESS_S_MAX * US_PER_S)

        def look() -> None:
            if broker.opening_count != opening or broker.state is State.DOWN or self._cluster.chance.is_quiet:
                return
            if progress(broker) != before or self._cluster.world.now_us >= until_us:
                self._cluster.trace.tell("power cut", f"{broker.name}, its progress was {before} and is {progress(broker)}")
                broker.cut_power()
            else:
                self._cluster.world.after(LOOK_US, look)

        self._cluster.world.after(LOOK_US, look)
        return f"{broker.name} at its next progress"

    def _light_fuse(self, dice: random.Random) -> str:
        broker = self._any_broker(dice)
        broker.disk.fuse = int(FUSE_CALLS_MAX ** dice.random())
        return f"{broker.name} in its {broker.disk.fuse + 1}th call of the disk"

    def _stop(self, dice: random.Random) -> str:
        broker = self._any_broker(dice)
        if broker.state is not State.SERVING:
            return ""
        broker.stop()
        return broker.name

    def _pause_broker(self, dice: random.Random) -> str:
        broker, seconds = self._any_broker(dice), log_uniform(dice, PAUSE_S)
        if broker.state is State.DOWN:
            return ""
        broker.pause()
        self._later(seconds, broker.process.resume)
        return f"{broker.name} for {seconds:.2f} s"

    def _kill_client(self, dice: random.Random) -> str:
        machine = self._any_client(dice)
        if machine:
            self._cluster.kill_client(machine)
        return machine

    def _pause_client(self, dice: random.Random) -> str:
        machine, seconds = self._any_client(dice), log_uniform(dice, PAUSE_S)
        if not machine:
            return ""
        process = self._cluster.clients[machine].process
        process.pause()
        self._cluster.network.mute(machine)
        self._later(seconds, process.resume)
        return f"{machine} for {seconds:.2f} s"

    def _part(self, dice: random.Random) -> str:
        """Some of the clients lose some of the brokers, both ways."""
        seconds, pairs = log_uniform(dice, APART_S), self._some_pairs(dice)
        for one, other in pairs:
            self._cluster.network.part(one, other)
            self._later(seconds, partial(self._cluster.network.join, one, other))
        return f"{', '.join(f'{one} and {other}' for one, other in pairs)} for {seconds:.2f} s" if pairs else ""

    def _part_one_way(self, dice: random.Random) -> str:
        seconds, pairs, is_outward = log_uniform(dice, APART_S), self._some_pairs(dice), dice.random() < 0.5
        ways = [(one, other) if is_outward else (other, one) for one, other in pairs]
        for source, target in ways:
            self._block(source, target, seconds)
        return f"{', '.join(f'{source} to {target}' for source, target in ways)} for {seconds:.2f} s" if ways else ""

    def _clog(self, dice: random.Random) -> str:
        seconds, pairs, is_outward = log_uniform(dice, CLOG_S), self._some_pairs(dice), dice.random() < 0.5
        for one, other in pairs:
            source, target = (one, other) if is_outward else (other, one)
            self._cluster.network.clog(source, target, int(seconds * US_PER_S))
        return f"{', '.join(f'{one} and {other}' for one, other in pairs)} for {seconds:.2f} s" if pairs else ""

    def _break_links(self, dice: random.Random) -> str:
        broker = self._any_broker(dice)
        self._cluster.network.break_links(broker.name)
        return broker.name

    def _fill_disk(self, dice: random.Random) -> str:
        broker, seconds, room = self._any_broker(dice), log_uniform(dice, FULL_S), dice.randrange(0, ROOM_BYTES_MAX)
        disk = broker.disk
        disk.capacity_bytes = disk.used_bytes() + room

        def empty() -> None:
            disk.capacity_bytes = CAPACITY_BYTES

        self._later(seconds, empty)
        return f"{broker.name} has {room} bytes of room for {seconds:.2f} s"

    def _refuse_files(self, dice: random.Random) -> str:
        """A disk without inodes: what is there can be written, nothing new can be made."""
        broker, seconds = self._any_broker(dice), log_uniform(dice, NO_FILES_S)
        fault = Fault("create", errno.ENOSPC, times=-1)
        broker.disk.faults.append(fault)

        def allow() -> None:
            broker.disk.faults = [each for each in broker.disk.faults if each is not fault]

        left_s = (self._end_us - self._cluster.world.now_us) / US_PER_S
        self._later(min(seconds, left_s), allow)
        return f"{broker.name} for {seconds:.2f} s"

    def _kill_disk(self, dice: random.Random) -> str:
        """A sync of the journal fails, and a moment later the power does: what was acknowledged in between is put to the test."""
        broker, seconds = self._any_broker(dice), log_uniform(dice, DYING_S)
        fault = Fault("fdatasync", path="/journal/", nth=dice.randrange(1, SYNCS_BEFORE_MAX))
        broker.disk.faults.append(fault)
        chance, world = self._cluster.chance, self._cluster.world
        until_us = world.now_us + int(DYING_S_MAX * US_PER_S)

        def cut() -> None:
            if not chance.is_quiet and broker.state is not State.DOWN:
                chance.struck["power cut"] += 1
                self._cluster.trace.tell("power cut", f"{broker.name}, {seconds:.3f} s after a failed sync")
                broker.cut_power()

        def look() -> None:
            if fault.times and not chance.is_quiet and world.now_us < until_us:
                world.after(LOOK_US, look)
                return
            broker.disk.faults = [each for each in broker.disk.faults if each is not fault]
            if not fault.times:
                self._cluster.note_loss(broker)
                self._later(seconds, cut)

        world.after(LOOK_US, look)
        return f"{broker.name} after {fault.nth} syncs"

    def _jump(self, dice: random.Random) -> str:
        machine = dice.choice([broker.name for broker in self._cluster.brokers] + sorted(self._cluster.clients))
        seconds = dice.uniform(-JUMP_S, JUMP_S)
        self._cluster.clock(machine).jump(int(seconds * US_PER_S))
        return f"{machine} by {seconds:.1f} s"

    def _rot(self, dice: random.Random) -> str:
        """One bit of a sealed segment. Of a record with one replica no more can be asked than that its damage is noticed; so the
        file is restored before the end, and the broker started again. Active segments are left alone: what recovery could not
        write again because of the damage would wait beside them for somebody who knows."""
        broker, seconds = self._any_broker(dice), log_uniform(dice, ROT_S)
        sealed = [each for each in sealed_segments(broker) if each[1] not in self._rotten]
        if not sealed:
            return ""
        path, node = sealed[dice.randrange(len(sealed))]
        size = min(node.content.size, node.durable.size)
        bit = dice.randrange(dice.choice((size, min(size, HEADER_BYTES))) * 8)
        broker.disk.flip(path, bit)
        self._rotten[node] = None
        around = max(0, bit // 8 - TRACE_OF_ROT_BYTES // 2)
        rotten = node.content.read(TRACE_OF_ROT_BYTES, around)

        def restore() -> None:
            del self._rotten[node]
            for version in (node.content, node.durable):
                if version.read(TRACE_OF_ROT_BYTES, around) == rotten:
                    version.flip(bit)
            broker.kill()

        left_s = (self._end_us - self._cluster.world.now_us) / US_PER_S
        self._later(min(seconds, left_s), restore)
        return f"bit {bit} of {path} for {seconds:.2f} s"

    def _any_broker(self, dice: random.Random) -> SimBroker:
        return dice.choice(self._cluster.brokers)

    def _any_client(self, dice: random.Random) -> str:
        """The one that drives a test is spared: its death would be the end of the test, not a trouble of the cluster."""
        machines = sorted(set(self._cluster.clients) - self._spares - {self._cluster.driver})
        number = dice.randrange(0, 1 << 16)
        return machines[number % len(machines)] if machines else ""

    def _some_pairs(self, dice: random.Random) -> list[tuple[str, str]]:
        """Of clients and brokers, and of brokers among themselves."""
        names = [broker.name for broker in self._cluster.brokers]
        others = sorted(self._cluster.clients) + names
        pairs = [(one, other) for one in others for other in names if one != other]
        return [pair for pair in pairs if dice.random() < 0.5]

    def _block(self, source: str, target: str, seconds: float) -> None:
        self._cluster.network.block(source, target)
        self._later(seconds, partial(self._cluster.network.unblock, source, target))

    def _later(self, seconds: float, undo: Callable[[], None]) -> None:
        self._cluster.at_heal(undo, seconds)


def _watermarks(broker: SimBroker) -> int:
    """Their sum, which moves when any of them does."""
    return 0 if broker.loop is None else sum(leader.high_watermark for leader in broker.loop.node.partitions)


def _log_starts(broker: SimBroker) -> int:
    return 0 if broker.loop is None else sum(leader.log_start for leader in broker.loop.node.partitions)
