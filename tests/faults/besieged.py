"""A cluster of real brokers under a nemesis, with several clients at work; what they saw is judged as a history.

What has to be true: the history checker finds nothing wrong; after each action has ended, every partition gives receipts again within
RECOVERY_SECONDS_MAX; at the end every replica is in sync again, the replicas hold the same batches, and all brokers stop cleanly.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from cluster_actions import Grip, disk_actions, network_actions, pause_between, process_actions
from members import Members, Seat
from nemesis import Action, Nemesis
from party import Witness
from places import SmallDisk
from replicas_agree import disagreements
from swarm import polled
from switch import Switch

import zmqmq
from zmqmq.errors import ZmqmqError
from zmqmq.testing.history import Operation, Poll, Report, check

HERE: Final = Path(__file__).parent
BROKERS: Final = 3
CLIENTS: Final = 4
TOPICS: Final = {"kept": {"segment_bytes": "64KiB"}, "quick": {"segment_bytes": "64KiB", "durability": "replicated"}}
PARTITIONS: Final = 3
DISK_BYTES: Final = 160 << 20
RECOVERY_SECONDS_MAX: Final = 15.0
PARTY_SECONDS_MAX: Final = 90.0
POLL_SECONDS: Final = 0.02


class Siege:
    """One run. ``wrong`` empty: all held. The caller has made the seats, and says with ``act`` what is done to whom."""

    def __init__(self, scratch: Path, seats: Sequence[Seat], seed: int) -> None:
        self.wrong: list[str] = []
        self.done: Counter[str] = Counter()
        self.operations: list[Operation] = []
        self.slowest_seconds, self.slowest = 0.0, ""
        self.chance = random.Random(seed)
        self.members = Members(seats, self.wrong.append)
        self._scratch = scratch
        self._errors = scratch / "clients.txt"
        self._witnesses: list[Witness] = []
        self._parties: list[subprocess.Popen[bytes]] = []
        self._last_ack_ns: dict[str, int] = {}
        self.client = self.members.client()
        self.grip = Grip(self.members, self.client, tuple(TOPICS), self.chance)

    def begin(self, clients: int = CLIENTS) -> None:
        self.members.start(*self.members.nodes)
        for topic, config in TOPICS.items():
            self.client.admin.create_topic(topic, partitions=PARTITIONS, replication_factor=BROKERS, config=config, timeout=30)
        for number in range(clients):
            self._join(f"c{number}")
        self._wait_for_receipts("the start", PARTY_SECONDS_MAX)

    def strike(self, nemesis: Nemesis) -> None:
        name = nemesis.strike()
        self.done[name] += 1
        self._wait_for_receipts(name, RECOVERY_SECONDS_MAX)

    def end(self) -> Report:
        """Everybody says the last word; everything is read once more from the start."""
        self._dismiss()
        missing = self.members.wait_until_healthy(self.client)
        if missing:
            self.wrong.append(f"not healthy at the end: {missing}")
        self._read_all()
        report = check(self._history())
        if not report.is_valid:
            self.wrong.append(str(report))
            (self._scratch / "history.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, self._history())))
        for node in self.members.nodes:
            self.members.stop(node)
        self.wrong += disagreements(self.members.data)
        return report

    def close(self) -> None:
        self.client.close()
        for party in self._parties:
            assert party.stdin is not None
            party.stdin.close()
            if party.poll() is None:
                party.kill()
            party.wait(PARTY_SECONDS_MAX)
        self.members.close()

    def _join(self, name: str) -> None:
        path = self._scratch / f"{name}.jsonl"
        self._witnesses.append(Witness(path))
        topics = [f"{topic}:{PARTITIONS}" for topic in TOPICS]
        seed = str(self.chance.getrandbits(32))
        command = [sys.executable, "-W", "error", str(HERE / "swarm.py"), ",".join(self.members.urls), str(path), name, seed, *topics]
        with self._errors.open("a") as errors:
            self._parties.append(subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors))

    def _wait_for_receipts(self, after: str, seconds_max: float) -> None:
        """Of each partition, for something that was acknowledged from now on."""
        started = time.monotonic()
        started_ns = time.monotonic_ns()
        keys = {f"{topic}-{partition}" for topic in TOPICS for partition in range(PARTITIONS)}
        while silent := sorted(key for key in keys if self._last_ack_ns.get(key, 0) < started_ns):
            self._hear()
            self.members.supervise()
            if time.monotonic() - started > seconds_max:
                self.wrong.append(f"no receipt of {', '.join(silent)} within {seconds_max:g} s after: {after}")
                return
            time.sleep(POLL_SECONDS)
        seconds = time.monotonic() - started
        if seconds > self.slowest_seconds and after != "the start":
            self.slowest_seconds, self.slowest = seconds, after

    def _hear(self) -> None:
        for witness in self._witnesses:
            for line in witness.lines():
                operation = msgspec.json.decode(line, type=Operation)
                self.operations.append(operation)
                if operation.f == "send" and operation.type == "ok":
                    for step in operation.value or []:
                        self._last_ack_ns[step.key] = operation.time_ns  # type: ignore[union-attr]  # of a send
        for party in self._parties:
            if party.poll() not in {None, 0}:
                raise AssertionError(f"a client died with {party.returncode}: {self._errors.read_text()[-2_000:]}")

    def _dismiss(self) -> None:
        for party in self._parties:
            assert party.stdin is not None
            party.stdin.close()
        for party in self._parties:
            party.wait(PARTY_SECONDS_MAX)
        self._hear()

    def _read_all(self) -> None:
        for topic in TOPICS:
            try:
                with self.client.reader(topic, start=zmqmq.Offset.START, stop=zmqmq.Offset.END, timeout=PARTY_SECONDS_MAX) as reader:
                    for messages in reader.batches():
                        self._write_final(polled(topic, messages))
            except ZmqmqError as error:
                self.wrong.append(f"the last reading of {topic} got {type(error).__name__}: {error}")

    def _write_final(self, poll: Poll) -> None:
        now = time.monotonic_ns()
        steps: tuple[tuple[Any, list[Any]], ...] = (("invoke", [Poll()]), ("ok", [poll]))
        self.operations += [Operation(0, "last", kind, "poll", now, value, final=True) for kind, value in steps]

    def _history(self) -> list[Operation]:
        ordered = sorted(self.operations, key=lambda operation: operation.time_ns)
        return [msgspec.structs.replace(operation, index=index) for index, operation in enumerate(ordered)]


def besiege(scratch: Path, seed: int, actions: int, seconds_max: float) -> tuple[Siege, Report]:
    """The run in namespaces, with everything that this machine can do."""
    with Switch(BROKERS) as switch, SmallDisk(scratch, DISK_BYTES) as disk:
        seats = []
        for number, host in enumerate(switch.hosts):
            directory = scratch / f"node-{number}"
            data = disk.path / "data" if number == BROKERS - 1 else directory / "data"
            seats.append(Seat(host.address, directory, data, host.prefix))
        siege = Siege(scratch, seats, seed)
        try:
            siege.begin()
            deck: list[Action] = [
                *process_actions(siege.grip),
                *network_actions(siege.grip, switch),
                *disk_actions(siege.grip, disk),
            ]
            nemesis = Nemesis(deck, siege.chance)
            deadline = time.monotonic() + seconds_max
            while siege.done.total() < actions and time.monotonic() < deadline and not siege.wrong:
                siege.strike(nemesis)
                pause_between(siege.chance)
            report = siege.end()
        finally:
            siege.close()
        return siege, report
