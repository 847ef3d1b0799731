"""What ``make faults`` runs, each with what it needs and how long it may take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from attacked import attack
from besieged import besiege
from campaign import Report
from full_disk import fill
from network import Host
from places import LOG_LOST, Ext4, SmallDisk
from power import WRITEBACK, cut_power
from switch import Switch
from syscalls import FAULTS, sweep
from tools import missing, refused, run

CUTS: Final = 100
CUTS_WRITEBACK: Final = 60
PLANT_CUTS_MAX: Final = 20
ACTIONS: Final = 32
CLUSTER_ACTIONS: Final = 105
CLUSTER_SECONDS_MAX: Final = 900.0
CAMPAIGN_SECONDS_MAX: Final = 240.0


class Outcome(NamedTuple):
    """``wrong`` empty: what was promised held."""

    figures: str
    wrong: list[str]


class Scenario(NamedTuple):
    """``reason``: why it cannot run on this machine, found by trying; empty if it can."""

    name: str
    seconds_max: int
    reason: Callable[[Path], str]
    act: Callable[[Path, int], Outcome]


def _tried(act: Callable[[], object], *programs: str) -> str:
    absent = missing(*programs)
    if absent:
        return absent
    try:
        act()
    except Exception as error:  # noqa: BLE001 - whatever refuses it is the reason
        return refused(error)
    return ""


def no_power_cuts(scratch: Path) -> str:
    def act() -> None:
        with Ext4(scratch, megabytes=16) as disk:
            disk.cut(LOG_LOST)
            disk.mount_again()

    return _tried(act, "mkfs.ext4", "mount", "umount")


def no_tmpfs(scratch: Path) -> str:
    def act() -> None:
        with SmallDisk(scratch, 1 << 20):
            pass

    return _tried(act, "mount", "umount")


def no_network(scratch: Path) -> str:
    def act() -> None:
        with Host(9) as host:
            host.drop("both")
            host.heal()

    return _tried(act, "ip")


def no_cluster(scratch: Path) -> str:
    def act() -> None:
        with Switch(1) as switch, SmallDisk(scratch, 1 << 20):
            switch.hosts[0].drop_from("both", [switch.clients])
            switch.hosts[0].heal()

    return _tried(act, "ip", "nft", "tc", "strace", "mount")


def no_strace(scratch: Path) -> str:
    absent = missing("strace", root=False)
    return absent or _tried(lambda: run("strace", "-qq", "-o", scratch / "t", "-e", "inject=fsync:error=EIO:when=1", "true"))


def _campaign(report: Report, more: str = "") -> Outcome:
    hits = ", ".join(f"{name} {count}" for name, count in report.kills.most_common())
    words = f"{report.killed} ({hits}), {report.counts['ack']:,} acknowledged, {report.audits} audits"
    return Outcome(f"{words}; {more}" if more else words, report.wrong)


def power_cuts(scratch: Path, seed: int) -> Outcome:
    return _campaign(cut_power(scratch, seed, CUTS, CAMPAIGN_SECONDS_MAX))


def power_cuts_writeback(scratch: Path, seed: int) -> Outcome:
    return _campaign(cut_power(scratch, seed, CUTS_WRITEBACK, CAMPAIGN_SECONDS_MAX, **WRITEBACK))


def power_cuts_planted(scratch: Path, seed: int) -> Outcome:
    report = cut_power(scratch, seed, PLANT_CUTS_MAX, CAMPAIGN_SECONDS_MAX, plant="never_syncs")
    if report.wrong:
        return Outcome(f"found after {report.killed} cuts: {report.wrong[0][:90]}", [])
    return Outcome("", [f"a store that never syncs was not found within {report.killed} cuts"])


def system_calls(scratch: Path, seed: int) -> Outcome:
    found = sweep(scratch)
    by_fault = ", ".join(f"{fault} {found.points[fault]}" for fault in FAULTS)
    return Outcome(f"{found.points.total()} points ({by_fault}), {found.missed} missed", found.wrong)


def full_disk(scratch: Path, seed: int) -> Outcome:
    found = fill(scratch)
    return Outcome(f"{found.acked} acknowledged, {found.refused} refused; {found.figures}", found.wrong)


def nemesis(scratch: Path, seed: int) -> Outcome:
    report, silence = attack(scratch, seed, ACTIONS, CAMPAIGN_SECONDS_MAX)
    return _campaign(report, silence)


def cluster(scratch: Path, seed: int) -> Outcome:
    siege, report = besiege(scratch, seed, CLUSTER_ACTIONS, CLUSTER_SECONDS_MAX)
    by_kind: Counter[str] = Counter()
    for name, count in siege.done.items():
        by_kind[name.partition(":")[0]] += count
    hits = ", ".join(f"{name} {count}" for name, count in by_kind.most_common())
    found = report.metrics
    aborts = siege.members.counts["abort by libzmq"]
    words = (
        f"{siege.done.total()} ({hits}), {found.sends_ok:,} sends acknowledged, {found.sends_failed} refused, {found.sends_unknown} unknown"
    )
    silence = f"longest wait for receipts of all partitions afterwards {siege.slowest_seconds:.1f} s ({siege.slowest})"
    return Outcome(f"{words}, {found.values_read:,} records; {silence}; {aborts} aborts by libzmq", siege.wrong)


SCENARIOS: Final = (
    Scenario("power cuts", 300, no_power_cuts, power_cuts),
    Scenario("power cuts, writeback", 300, no_power_cuts, power_cuts_writeback),
    Scenario("power cuts, planted bug", 120, no_power_cuts, power_cuts_planted),
    Scenario("system calls", 900, no_strace, system_calls),
    Scenario("full disk", 120, no_tmpfs, full_disk),
    Scenario("nemesis", 300, no_network, nemesis),
    Scenario("cluster", 1_200, no_cluster, cluster),
)
