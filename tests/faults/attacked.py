"""A broker in a network of its own, with the kill test's parties outside of it, and a nemesis between them.

What has to be true is what the kill test's ledger says; besides, after each action has ended, receipts have to come again within
RECOVERY_SECONDS_MAX.
"""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any, Final

from campaign import Campaign, Report
from lives import World
from nemesis import Nemesis, actions_on
from network import Host

RECOVERY_SECONDS_MAX: Final = 10.0
POLL_SECONDS: Final = 0.02
PORT: Final = 5570
ABORT: Final = "Assertion failed: !_io_error"
"""libzmq 4.3.5 aborts its process when a connection turns readable with an error and writable in one turn of its loop (zeromq/libzmq
issue 4841). Not ours to mend; it counts as one more kill, and the table shows it."""


class Inside(World):
    """Lives are spent in the namespace of a host."""

    def __init__(self, host: Host) -> None:
        self.prefix = host.prefix


class AttackedCampaign(Campaign):
    """``kills`` counts actions. Is the victim of its nemesis."""

    def __init__(self, host: Host, directory: Path, seed: int, **more: Any) -> None:
        url = f"tcp://{host.address}:{PORT}"
        super().__init__(directory, seed, world=Inside(host), url=url, options=("--insecure-plaintext",), **more)
        self.nemesis = Nemesis(actions_on(self, host), random.Random(seed))
        self.slowest_seconds = 0.0
        self.slowest = ""

    def signal(self, how: signal.Signals) -> None:
        self._lives.signal(how)

    def kill(self) -> None:
        self._lives.end()

    def restart(self) -> None:
        self._start_or_accuse()

    def _step(self) -> None:
        if not self._lives.is_alive and not self._start_or_accuse():
            return
        name = self.nemesis.strike()
        self.report.kills[name] += 1
        self._wait_for_receipts(name)
        if self.report.killed % self._audit_every == 0:
            self._audit()

    def _wait_for_receipts(self, name: str) -> None:
        started = time.monotonic()
        heard = self._receipts()
        while self._receipts() == heard:
            elapsed = time.monotonic() - started
            if elapsed > RECOVERY_SECONDS_MAX:
                self._ledger.accuse(f"no receipt within {RECOVERY_SECONDS_MAX:g} s after: {name}")
                return
            if not self._lives.live_for(POLL_SECONDS):
                if self._lives.status == -signal.SIGABRT and ABORT in self._tail():
                    self.report.kills["abort by libzmq"] += 1
                    self.restart()
                    continue
                self._ledger.accuse(f"the broker ended by itself after: {name}: {self._tail()}")
                return
        elapsed = time.monotonic() - started
        if elapsed > self.slowest_seconds:
            self.slowest_seconds, self.slowest = elapsed, name

    def _receipts(self) -> int:
        for witness in self._witnesses:
            self._hear(witness)
        return self._ledger.counts["ack"]


def attack(scratch: Path, seed: int, actions: int, seconds_max: float) -> tuple[Report, str]:
    """The report, and the longest silence after an action."""
    with Host(0) as host:
        campaign = AttackedCampaign(host, scratch, seed, audit_every=8)
        report = campaign.run(actions, seconds_max)
        return report, f"longest wait for a receipt afterwards {campaign.slowest_seconds:.1f} s ({campaign.slowest})"
