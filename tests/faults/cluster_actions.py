"""What can be done to a cluster of real brokers, and to whom: the leader of some partition, the controller, anybody, several at once.

The victim is chosen when an action begins, because leaders move.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from members import Members
from nemesis import Action
from network import Direction
from places import SmallDisk
from switch import Switch, SwitchedHost
from tools import CALL_SECONDS_MAX

import zmqmq
from zmqmq.errors import ZmqmqError

Role: TypeAlias = Literal["leader", "controller", "anybody"]
ROLES: Final[tuple[Role, ...]] = ("leader", "controller", "anybody")
DIRECTIONS: Final[tuple[Direction, ...]] = ("both", "in", "out")
PAUSE_SECONDS: Final = (2.0, 8.0)
"""Longer than lease and fence together."""
CUT_SECONDS: Final = (1.0, 6.0)
DOWN_SECONDS: Final = (0.1, 3.0)
ERRORS_SECONDS: Final = (1.5, 3.0)
FULL_SECONDS: Final = (1.0, 4.0)


class Grip:
    """Finds victims. ``keys`` are those that have leaders."""

    def __init__(self, members: Members, client: zmqmq.Client, topics: tuple[str, ...], chance: random.Random) -> None:
        self.members = members
        self._client = client
        self._topics = topics
        self._chance = chance

    def find(self, role: Role) -> int:
        """Somebody at random if nobody has the role, or nobody can tell."""
        found = -1
        try:
            if role == "leader":
                found = self._chance.choice(self._client.admin.describe_topic(self._chance.choice(self._topics)).partitions).leader
            elif role == "controller":
                found = self._client.admin.describe_cluster().controller
        except ZmqmqError:
            found = -1  # in the middle of another change: anybody will do
        return found if found >= 0 else self._chance.choice(self.members.nodes)

    def on(self, role: Role, name: str, begin: Callable[[int], None], end: Callable[[int], None], seconds: tuple[float, float]) -> Action:
        victims: list[int] = []

        def start() -> None:
            victims[:] = [self.find(role)]
            begin(victims[0])

        def finish() -> None:
            if victims:
                end(victims[0])

        return Action(f"{name}: {role}", start, finish, seconds[1], seconds[0])

    def several(self) -> list[Action]:
        """Two and all killed at once; all stopped and started, one by one."""
        members = self.members

        def roll() -> None:
            for node in members.nodes:
                members.stop(node)
                members.start(node)
                members.wait_until_healthy(self._client)

        two = list(members.nodes)[:2]
        return [
            Action("kill -9: two", lambda: members.kill(*two), lambda: members.start(*two), DOWN_SECONDS[1]),
            Action("kill -9: all", lambda: members.kill(*members.nodes), lambda: members.start(*members.nodes), 1.0),
            Action("rolling restart", roll, lambda: None, 0.1),
        ]


def process_actions(grip: Grip) -> list[Action]:
    """Those that need no rights."""
    members = grip.members
    found = []
    for role in ROLES:
        found.append(grip.on(role, "kill -9", members.kill, members.start, DOWN_SECONDS))
        found.append(stop_and_go(grip, role, PAUSE_SECONDS))
    return found + grip.several()


def stop_and_go(grip: Grip, role: Role, seconds: tuple[float, float]) -> Action:
    members = grip.members
    return grip.on(role, "SIGSTOP", lambda n: members.signal(n, signal.SIGSTOP), lambda n: members.signal(n, signal.SIGCONT), seconds)


def network_actions(grip: Grip, switch: Switch) -> list[Action]:
    """Cuts of each kind, resets, a cable, a slow line."""

    def host(node: int) -> SwitchedHost:
        return switch.hosts[node]

    def heal(node: int) -> None:
        host(node).heal()

    found = []
    for role in ROLES[:2]:
        for direction in DIRECTIONS:
            found.append(grip.on(role, f"cut from all, {direction}", lambda n, d=direction: host(n).drop(d), heal, CUT_SECONDS))
            found.append(
                grip.on(
                    role,
                    f"cut from brokers, {direction}",
                    lambda n, d=direction: host(n).drop_from(d, switch.others(n)),
                    heal,
                    CUT_SECONDS,
                )
            )
    for direction in DIRECTIONS:
        cut = lambda n, d=direction: host(n).drop_from(d, [switch.clients])  # noqa: E731 - as those above
        found.append(grip.on("leader", f"cut from clients, {direction}", cut, heal, CUT_SECONDS))
    next_one = lambda n: switch.hosts[(n + 1) % len(switch.hosts)].address  # noqa: E731 - as those above
    found.append(grip.on("controller", "cut from one broker", lambda n: host(n).drop_from("both", [next_one(n)]), heal, CUT_SECONDS))
    found.append(grip.on("leader", "cut from one broker", lambda n: host(n).drop_from("both", [next_one(n)]), heal, CUT_SECONDS))
    found.append(grip.on("leader", "connections reset", lambda n: host(n).reject(), heal, (0.1, 2.0)))
    found.append(grip.on("leader", "cable out", lambda n: host(n).unplug(), lambda n: host(n).plug(), CUT_SECONDS))
    found.append(grip.on("leader", "slow network", lambda n: host(n).slow("2mbit"), lambda n: host(n).fast(), CUT_SECONDS))
    return found


class FailingSyncs:
    """Every fdatasync of a running broker fails for a while; then it is killed and started again, as its operator would."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._strace: subprocess.Popen[bytes] | None = None

    def begin(self, node: int) -> None:
        pid = self._members.processes[node].pid
        inject = "inject=fdatasync,fsync:error=EIO"
        self._strace = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync", "-e", inject, "-p", str(pid)],
            stderr=subprocess.DEVNULL,
        )

    def end(self, node: int) -> None:
        """It went offline or it ended; the new life has to be fine."""
        assert self._strace is not None
        self._strace.terminate()
        self._strace.wait(CALL_SECONDS_MAX)
        self._members.kill(node)
        self._members.start(node)


class FillingDisk:
    """Somebody else's file takes all space of one broker's disk."""

    def __init__(self, disk: SmallDisk) -> None:
        self._disk = disk

    def begin(self) -> None:
        self._disk.fill()

    def end(self) -> None:
        (self._disk.path / "ballast").unlink(missing_ok=True)


def disk_actions(grip: Grip, disk: SmallDisk) -> list[Action]:
    filling = FillingDisk(disk)
    found = [Action("disk full", filling.begin, filling.end, FULL_SECONDS[1], FULL_SECONDS[0])]
    for role in ROLES[:2]:
        failing = FailingSyncs(grip.members)
        found.append(grip.on(role, "EIO on sync", failing.begin, failing.end, ERRORS_SECONDS))
    return found


def pause_between(chance: random.Random) -> None:
    """Sometimes the next action finds the cluster still mending itself."""
    time.sleep(chance.choice((0.0, 0.0, 0.5, 2.0)))
