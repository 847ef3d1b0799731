"""The brokers of a real cluster, each a process that can be hurt, and a supervisor that starts again what ended by itself.

Where they run is the caller's: ``Seat`` says with which address, in which directory, behind which command.
"""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from attacked import ABORT

import zmqmq
from zmqmq.errors import ZmqmqError
from zmqmq.testing.processes import START_SECONDS_MAX, BrokerProcess, NodePlan, serve_command

CLIENTS_PORT: Final = 5570
CONTROL_PORT: Final = 5580
ASK_SECONDS: Final = 2.0
HEALTHY_SECONDS_MAX: Final = 60.0
POLL_SECONDS: Final = 0.05
STORE: Final = """\
insecure_plaintext = true
[store]
journal_bytes_max = "1MiB"
journal_allocate_bytes = "256KiB"
checkpoint_ms_max = 500
remove_ms_max = 100
disk_reserve_bytes = "2MiB"
"""
"""Small, so that a run meets checkpoints and rolls."""


class Seat(NamedTuple):
    """``data`` may lie on a disk of its own; ``prefix`` is what the broker's command begins with."""

    address: str
    directory: Path
    data: Path
    prefix: tuple[str, ...] = ()
    clients_port: int = CLIENTS_PORT
    control_port: int = CONTROL_PORT


class Members:
    """Node ids are positions. ``accuse`` hears of what no broker may do; ``counts`` of what libzmq did."""

    def __init__(self, seats: Sequence[Seat], accuse: Callable[[str], None]) -> None:
        self.counts: Counter[str] = Counter()
        self._accuse = accuse
        self._should_run: set[int] = set()
        plans = [
            NodePlan(node, seat.directory, f"tcp://{seat.address}:{seat.clients_port}", control=f"tcp://{seat.address}:{seat.control_port}")
            for node, seat in enumerate(seats)
        ]
        self.urls = [plan.url for plan in plans]
        self.processes = []
        self.data = [seat.data for seat in seats]
        for seat, plan in zip(seats, plans, strict=True):
            _write_config(plan, plans, seat.data)
            self.processes.append(BrokerProcess(plan, [*seat.prefix, *serve_command(plan)]))

    @property
    def nodes(self) -> range:
        return range(len(self.processes))

    def start(self, *nodes: int) -> None:
        """And wait until they listen."""
        for node in nodes:
            if not self.processes[node].is_running:
                self.processes[node].start()
            self._should_run.add(node)
        deadline = time.monotonic() + START_SECONDS_MAX
        for node in nodes:
            try:
                self.processes[node].wait_started(deadline)
            except ZmqmqError as error:
                self._accuse(f"node {node} does not start: {error}: {self.tail(node)}")

    def kill(self, *nodes: int) -> None:
        self._should_run.difference_update(nodes)
        for node in nodes:
            self.processes[node].signal(signal.SIGKILL)
        for node in nodes:
            self.processes[node].wait_ended()

    def stop(self, node: int) -> None:
        """Cleanly."""
        self._should_run.discard(node)
        self.processes[node].ask_to_end()
        if (code := self.processes[node].wait_ended()) != 0:
            self._accuse(f"a clean stop of node {node} ended with {code}: {self.tail(node)}")

    def signal(self, node: int, how: signal.Signals) -> None:
        self.processes[node].signal(how)

    def supervise(self) -> None:
        """Start again who ended by itself; only libzmq may have ended it."""
        for node in sorted(self._should_run):
            process = self.processes[node]
            if process.is_running:
                continue
            if process.exit_code == -signal.SIGABRT and ABORT in process.said():
                self.counts["abort by libzmq"] += 1
            else:
                self._accuse(f"node {node} ended by itself with {process.exit_code}: {self.tail(node)}")
            self.start(node)

    def client(self) -> zmqmq.Client:
        return zmqmq.Client(self.urls, timeout=ASK_SECONDS)

    def wait_until_healthy(self, client: zmqmq.Client) -> str:
        """Until every replica is in sync and every broker is there. What is missing when the time is over; else nothing."""
        deadline = time.monotonic() + HEALTHY_SECONDS_MAX
        missing = "?"
        while missing and time.monotonic() < deadline:
            self.supervise()
            time.sleep(POLL_SECONDS)
            missing = self._missing(client)
        return missing

    def _missing(self, client: zmqmq.Client) -> str:
        """Each is asked: one that has just come back tells what was when it went."""
        return "; ".join(filter(None, [self._missing_at(node, client) for node in sorted(self._should_run)]))

    def _missing_at(self, node: int, client: zmqmq.Client) -> str:
        try:
            found = client.admin.describe_cluster(node=node, timeout=ASK_SECONDS)
        except ZmqmqError as error:
            return f"node {node} does not answer: {type(error).__name__}: {error}"
        if found.controller < 0 or found.under_replicated or found.leaderless or any(broker.is_fenced for broker in found.brokers):
            return str(found)
        return ""

    def tail(self, node: int) -> str:
        return self.processes[node].said()[-1_500:]

    def close(self) -> None:
        for process in self.processes:
            process.signal(signal.SIGCONT)
            process.kill()


def _write_config(plan: NodePlan, plans: Sequence[NodePlan], data: Path) -> None:
    plan.directory.mkdir(parents=True, exist_ok=True)
    values = {
        "node_id": plan.node_id,
        "data": str(data),
        "listen": [plan.url],
        "http": "",
        "peers": [f"{other.node_id}@{other.control}" for other in plans],
    }
    plan.config_file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()) + STORE)
