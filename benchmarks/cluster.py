"""How good a cluster is on this machine: real brokers in processes of their own, TCP over loopback.

    python benchmarks/cluster.py                              # all cases, some ten minutes
    python benchmarks/cluster.py failover --kills 10
    python benchmarks/cluster.py scale --json scale.jsonl

Prints a row for each figure: what was asked, what was measured. ``--profile FOLDER`` runs the brokers under cProfile, for finding
out and not for figures.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from run import CHUNK, in_process, paced, percentiles, send_many, sent_latency
from values import json_values

import zmqmq
from zmqmq.testing.processes import HOST, BrokerProcess, NodePlan, end_all, free_ports, wait_until
from zmqmq.wire.replies import ClusterReply

BROKERS = 3
TOPIC = "t"
RATE_PER_SECOND = 1_000
HEALTHY_SECONDS_MAX = 60.0
WRITE_SECONDS_MAX = 20.0
SPEED_RUNS = 3
SPEED_RECORDS = 1_000_000
SHUTDOWNS = 5
LOAD_SECONDS = 4.0
STOP_AFTER_SECONDS = 1.0
LOSS = 0.05
SCALE_TOPICS = 10
SCALE_PARTITIONS = 1_000
IDLE_SECONDS = 20.0
SETTLE_SECONDS = 5.0


class Figure(NamedTuple):
    """One measurement. ``limit`` with its sense, for ratios at least and for everything else at most; None: only reported."""

    what: str
    measured: float
    unit: str
    limit: float | None = None
    is_least: bool = False

    @property
    def asked(self) -> str:
        return "" if self.limit is None else f"{'≥' if self.is_least else '≤'} {self.limit:g}"

    @property
    def is_met(self) -> bool:
        return self.limit is None or (self.measured >= self.limit if self.is_least else self.measured <= self.limit)


class Brokers:
    """Some that form a cluster, or one of its own; over any number of lives, at the same places with the same data."""

    def __init__(self, folder: Path, count: int, options: argparse.Namespace, *, lose: float = 0.0) -> None:
        ports = free_ports(2 * count)
        controls = [f"tcp://{HOST}:{port}" for port in ports[count:]] if count > 1 else [""]
        plans = [NodePlan(node, folder / f"node-{node}", f"tcp://{HOST}:{ports[node]}", control=controls[node]) for node in range(count)]
        self.processes = []
        for plan in plans:
            command = [
                sys.executable,
                str(Path(__file__).with_name("cluster_broker.py")),
                str(plan.write_config(plans)),
                "--lose",
                str(lose),
            ]
            if options.profile:
                command += ["--profile", str(Path(options.profile) / f"{count}-{plan.node_id}.prof")]
            self.processes.append(BrokerProcess(plan, command))

    @property
    def urls(self) -> str:
        return ",".join(process.plan.url for process in self.processes)

    @property
    def running(self) -> list[int]:
        return [process.plan.node_id for process in self.processes if process.is_running]

    def start(self, *nodes: int) -> None:
        for node in nodes:
            self.processes[node].start()

    def wait_healthy(self, mq: zmqmq.Client) -> None:
        """Every broker that runs knows a controller, that exactly these run, and that nothing lacks a leader or a running replica."""
        wait_until(lambda: not self._lack(mq), time.monotonic() + HEALTHY_SECONDS_MAX, lambda: f"not healthy: {self._lack(mq)}")

    def _lack(self, mq: zmqmq.Client) -> str:
        running = self.running
        for node in running:
            try:
                found = mq.admin.describe_cluster(node=node)
            except zmqmq.ZmqmqError as error:
                return f"broker {node}: {error}"
            active = [broker.node_id for broker in found.brokers if not broker.is_fenced]
            late = found.leaderless + found.under_min + (found.under_replicated if len(running) == len(self.processes) else 0)
            if len(running) > 1 and (found.controller not in running or active != running or late):
                return f"broker {node} sees controller {found.controller}, {active} active, {late} partitions late"
        return ""


@contextlib.contextmanager
def brokers(count: int, options: argparse.Namespace, *, lose: float = 0.0) -> Iterator[tuple[Brokers, zmqmq.Client]]:
    """A cluster that is healthy, or a broker of its own, and a client of it."""
    with tempfile.TemporaryDirectory() as folder:
        made = Brokers(Path(folder), count, options, lose=lose)
        try:
            made.start(*range(count))
            with zmqmq.Client(made.urls, timeout=WRITE_SECONDS_MAX) as mq:
                made.wait_healthy(mq)
                yield made, mq
        finally:
            end_all(made.processes)


def cluster_seen(mq: zmqmq.Client, node: int | None = None) -> ClusterReply:
    return mq.admin.describe_cluster(node=node)


def lead_from(mq: zmqmq.Client, leader: int) -> None:
    """Have the topic's only partition led by this broker."""
    if mq.admin.describe_topic(TOPIC).partitions[0].leader != leader:
        mq.admin.move_leaders({(TOPIC, 0): leader})
    wait_until(
        lambda: mq.admin.describe_topic(TOPIC).partitions[0].leader == leader,
        time.monotonic() + HEALTHY_SECONDS_MAX,
        lambda: f"broker {leader} does not lead",
    )


def _kills(options: argparse.Namespace, *, with_controller: bool) -> list[float]:
    """Seconds from ``kill -9`` of the leader to the next acknowledged write, of a client that was writing before."""
    gaps = []
    value = json_values(1)[0]
    with brokers(BROKERS, options) as (made, mq):
        mq.admin.create_topic(TOPIC, replication_factor=BROKERS)
        for number in range(options.kills):
            controller = cluster_seen(mq).controller
            victim = controller if with_controller else (controller + 1 + number % (BROKERS - 1)) % BROKERS
            lead_from(mq, victim)
            made.wait_healthy(mq)
            mq.produce(TOPIC, value)
            assert cluster_seen(mq).controller == controller
            started = time.monotonic()
            made.processes[victim].kill()
            mq.produce(TOPIC, value)
            gaps.append(time.monotonic() - started)
            made.start(victim)
            made.wait_healthy(mq)
    return gaps


def failover(options: argparse.Namespace) -> Iterator[Figure]:
    found = percentiles(_kills(options, with_controller=False))
    yield Figure(f"kill -9 of a leader to the next write, {options.kills} kills, p50", found["p50"], "s", 0.7)
    yield Figure("… p99", found["p99"], "s", 2.0)
    yield Figure("… longest", found["max"], "s")


def failover_controller(options: argparse.Namespace) -> Iterator[Figure]:
    found = percentiles(_kills(options, with_controller=True))
    yield Figure(f"kill -9 of a leader that is the controller too, {options.kills} kills, p50", found["p50"], "s", 1.5)
    yield Figure("… p99", found["p99"], "s")
    yield Figure("… longest", found["max"], "s")


def shutdown(options: argparse.Namespace) -> Iterator[Figure]:
    gaps, failed, sent = [], 0, 0
    with brokers(BROKERS, options) as (made, mq):
        mq.admin.create_topic(TOPIC, replication_factor=BROKERS)
        for number in range(SHUTDOWNS):
            victim = number % BROKERS
            lead_from(mq, victim)
            made.wait_healthy(mq)
            moments, errors = _write_and_stop(mq, made.processes[victim])
            gaps.append(max(after - before for before, after in itertools.pairwise(moments)))
            failed += len(errors)
            sent += len(moments) + len(errors)
            made.processes[victim].wait_ended()
            made.start(victim)
            made.wait_healthy(mq)
    yield Figure(f"SIGTERM of a leader at {RATE_PER_SECOND:,} writes/s, {SHUTDOWNS} times, {sent:,} writes: failed", failed, "", 0)
    yield Figure("… longest time without a receipt, median", statistics.median(gaps) * 1e3, "ms", 300)
    yield Figure("… worst", max(gaps) * 1e3, "ms", 300)


def _write_and_stop(mq: zmqmq.Client, victim: BrokerProcess) -> tuple[list[float], list[zmqmq.ZmqmqError]]:
    """Moments of the receipts, in order, and what failed."""
    moments: list[float] = []
    errors: list[zmqmq.ZmqmqError] = []

    def note(handle: Any) -> None:
        try:
            handle.result(0)
        except zmqmq.ZmqmqError as error:
            errors.append(error)
        else:
            moments.append(time.monotonic())

    value = json_values(1)[0]
    with mq.producer(TOPIC, linger=0) as out:
        out.send(value).result()
        stop_at = time.monotonic() + STOP_AFTER_SECONDS
        is_asked = False
        for due in paced(RATE_PER_SECOND, LOAD_SECONDS):
            out.send(value).add_done_callback(note)
            if not is_asked and due >= stop_at:
                is_asked = True
                victim.ask_to_end()
        out.flush(WRITE_SECONDS_MAX)
    return moments, errors


def speed(options: argparse.Namespace) -> Iterator[Figure]:
    rates: dict[tuple[int, str], list[float]] = {}
    for _ in range(SPEED_RUNS):
        for count in (1, BROKERS):
            with brokers(count, options) as (made, mq):
                for durability in ("replicated", "fsync"):
                    mq.admin.create_topic(durability, replication_factor=count, config={"durability": durability})
                    rate = in_process(send_many, made.urls, durability, SPEED_RECORDS)
                    rates.setdefault((count, durability), []).append(rate)
    for durability, least in (("replicated", 0.3), ("fsync", 0.2)):
        single, cluster = (statistics.median(rates[count, durability]) for count in (1, BROKERS))
        yield Figure(f"send_many, {durability}, one broker", single / 1e6, "M/s")
        yield Figure(f"send_many, {durability}, {BROKERS} replicas", cluster / 1e6, "M/s")
        yield Figure("… ratio", cluster / single, "", least, is_least=True)


def latency(options: argparse.Namespace) -> Iterator[Figure]:
    found: dict[tuple[int, str], dict[str, float]] = {}
    for count in (1, BROKERS):
        with brokers(count, options) as (made, mq):
            for durability in ("replicated", "fsync"):
                mq.admin.create_topic(durability, replication_factor=count, config={"durability": durability})
                found[count, durability] = in_process(sent_latency, made.urls, durability)
    for durability in ("replicated", "fsync"):
        single, cluster = found[1, durability], found[BROKERS, durability]
        for name in ("p50", "p99"):
            yield Figure(f"send to receipt at {RATE_PER_SECOND:,}/s, {durability}, one broker, {name}", single[name], "ms")
            added = cluster[name] - single[name]
            yield Figure(f"… {BROKERS} replicas, {name}, added", added, "ms", 1.5 if name == "p50" else None)


def lossy(options: argparse.Namespace) -> Iterator[Figure]:
    for lose in (0.0, LOSS):
        with brokers(BROKERS, options, lose=lose) as (made, mq):
            for durability in ("replicated", "fsync"):
                mq.admin.create_topic(durability, replication_factor=BROKERS, config={"durability": durability})
                found = in_process(sent_latency, made.urls, durability)
                for name in ("p50", "p99"):
                    yield Figure(
                        f"send to receipt at {RATE_PER_SECOND:,}/s, {durability}, PUB/SUB loses {lose:.0%}, {name}", found[name], "ms"
                    )
            mq.admin.create_topic("counted", replication_factor=BROKERS)
            yield Figure(f"records lost or doubled of {CHUNK:,}, PUB/SUB loses {lose:.0%}", _count_wrong(mq), "", 0)
            made.wait_healthy(mq)


def _count_wrong(mq: zmqmq.Client) -> int:
    """How many places of a log differ from what was sent."""
    values = json_values(CHUNK)
    with mq.producer("counted") as out:
        out.send_many(values)
        out.flush(WRITE_SECONDS_MAX)
    with mq.reader("counted", start=zmqmq.Offset.START, stop=zmqmq.Offset.END) as reader:
        read = [message.value for message in reader]
    return sum(before != after for before, after in zip(values, read, strict=False)) + abs(len(values) - len(read))


def scale(options: argparse.Namespace) -> Iterator[Figure]:
    count = SCALE_TOPICS * options.partitions
    with brokers(BROKERS, options) as (made, mq):
        yield Figure(f"create {count:,} partitions with {BROKERS} replicas", _timed(lambda: _create(made, mq, options.partitions)), "s")
        yield Figure("restart of all, SIGTERM to the last one's end", _timed(lambda: end_all(made.processes)), "s")
        yield Figure("… start of all to ready", _timed(lambda: _start_all(made, mq)), "s", 10)
        yield from _idle(made)
        yield from _new_controller(made, mq)
        for process in made.processes:
            process.kill()
        yield Figure("start of all to ready after kill -9 of all", _timed(lambda: _start_all(made, mq)), "s", 10)


def _timed(work: Callable[[], None]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _create(made: Brokers, mq: zmqmq.Client, partitions: int) -> None:
    for number in range(SCALE_TOPICS):
        mq.admin.create_topic(f"{TOPIC}{number}", partitions=partitions, replication_factor=BROKERS)
    made.wait_healthy(mq)
    _write_everywhere(mq)


def _start_all(made: Brokers, mq: zmqmq.Client) -> None:
    made.start(*range(BROKERS))
    made.wait_healthy(mq)
    _write_everywhere(mq)


def _write_everywhere(mq: zmqmq.Client) -> None:
    """An acknowledged write to the first partitions of each topic, which all brokers lead some of."""
    for number in range(SCALE_TOPICS):
        for partition in range(BROKERS):
            mq.produce(f"{TOPIC}{number}", b"here", partition=partition)


def _idle(made: Brokers) -> Iterator[Figure]:
    time.sleep(SETTLE_SECONDS)
    before = [_cpu_seconds(process.pid) for process in made.processes]
    time.sleep(IDLE_SECONDS)
    for process, then in zip(made.processes, before, strict=True):
        used = (_cpu_seconds(process.pid) - then) / IDLE_SECONDS * 100
        yield Figure(f"processor of broker {process.plan.node_id}, idle, over {IDLE_SECONDS:.0f} s", used, "%", 5)
        yield Figure("… its memory", _memory_bytes(process.pid) / 1e6, "MB")


def _new_controller(made: Brokers, mq: zmqmq.Client) -> Iterator[Figure]:
    controller = cluster_seen(mq).controller
    led = [partition.partition for partition in mq.admin.describe_topic(f"{TOPIC}0").partitions if partition.leader == controller]
    started = time.monotonic()
    made.processes[controller].kill()
    mq.produce(f"{TOPIC}0", b"here", partition=led[0])
    yield Figure("kill -9 of the controller to a write to a partition that it led", time.monotonic() - started, "s", 3)
    made.wait_healthy(mq)
    yield Figure("… until every partition is led again, as all know", time.monotonic() - started, "s", 3)
    made.start(controller)
    yield Figure("… its return until all replicas are in sync", _timed(lambda: made.wait_healthy(mq)), "s")


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


CASES = {
    "failover": failover,
    "failover-controller": failover_controller,
    "shutdown": shutdown,
    "speed": speed,
    "latency": latency,
    "lossy": lossy,
    "scale": scale,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"default all: {' '.join(CASES)}")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--partitions", type=int, default=SCALE_PARTITIONS, help=f"of each of {SCALE_TOPICS} topics")
    parser.add_argument("--json", type=Path, help="append the figures to this file, one JSON object a line")
    parser.add_argument("--profile", default="")
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no case is called {' or '.join(sorted(unknown))}; there are {' '.join(CASES)}")
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))  # so that no broker outlives it
    all_met = True
    print("| case | figure | asked | measured | |\n|---|---|---:|---:|---|")
    for name in options.cases or CASES:
        for figure in CASES[name](options):
            all_met &= figure.is_met
            verdict = "" if figure.limit is None else "met" if figure.is_met else "MISSED"
            print(f"| {name} | {figure.what} | {figure.asked} | {figure.measured:.3g} {figure.unit} | {verdict} |", flush=True)
            if options.json is not None:
                line = {"case": name, "what": figure.what, "measured": figure.measured, "unit": figure.unit, "asked": figure.asked}
                with options.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return 0 if all_met else 1


if __name__ == "__main__":
    sys.exit(main())
