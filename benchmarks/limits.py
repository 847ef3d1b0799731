"""Start, recovery, size and stubbornness: the figures that are not about records per second.

    python benchmarks/limits.py [open spread slow_sync idle recovery lookup memory]

Each case prints what it measured. ``lookup`` writes 10 GB, ``memory`` runs for five minutes (``--seconds`` for less).
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from run import CHUNK, broker, in_process, send_many
from values import json_values

import zmqmq
from zmqmq.broker.config import BrokerConfig
from zmqmq.broker.server import Broker
from zmqmq.clock import SystemClock
from zmqmq.ports import File
from zmqmq.store.disk import RealDisk
from zmqmq.store.store import Store

SLOW_SYNC_S = 0.005


def opened() -> None:
    times = []
    for _ in range(20):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            mq = zmqmq.open(folder + "/data")
            times.append(time.perf_counter() - started)
            mq.close()
    print(f"open an embedded broker on an empty directory: median {statistics.median(times) * 1e3:.1f} ms")


def spread() -> None:
    rates = {}
    for partitions in (1, 256):
        with tempfile.TemporaryDirectory() as folder, broker(folder) as address, zmqmq.Client(address) as mq:
            mq.admin.create_topic("t", partitions=partitions)
            rates[partitions] = in_process(_send_spread if partitions > 1 else send_many, address, "t", 2_000_000)
    share = rates[256] / rates[1]
    print(f"send_many under fsync: 1 partition {rates[1] / 1e6:.2f} M/s, 256 partitions {rates[256] / 1e6:.2f} M/s, ratio {share:.2f}")


def _send_spread(address: str, topic: str, records: int) -> float:
    values = json_values(CHUNK)
    keys = [b"key-%d" % number for number in range(CHUNK)]
    with zmqmq.Client(address) as mq, mq.producer(topic) as out:
        started = time.perf_counter()
        for _ in range(records // CHUNK):
            out.send_many(values, keys=keys)
        out.flush(120)
        return records / (time.perf_counter() - started)


class _SlowFile:
    def __init__(self, file: File) -> None:
        self._file = file

    def fdatasync(self) -> None:
        time.sleep(SLOW_SYNC_S)
        self._file.fdatasync()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _SlowDisk(RealDisk):
    """Each sync takes 5 ms longer."""

    def open(self, path: str, *, create: bool = False, write: bool = True) -> Any:
        return _SlowFile(super().open(path, create=create, write=write))


def _serve_slowly(folder: str, pipe: Any) -> None:
    server = Broker(BrokerConfig(data=folder, listen=("tcp://127.0.0.1:0",), http=""), disk=_SlowDisk())
    server.start()
    pipe.send(server.endpoints[0])
    pipe.recv()
    server.close()


def _flat_out(address: str, stop: Any) -> None:
    values = json_values(CHUNK)
    with zmqmq.Client(address) as mq, mq.producer("flat-out") as out:
        while not stop.is_set():
            out.send_many(values)


def slow_sync() -> None:
    spawn = mp.get_context("spawn")
    mine, theirs = spawn.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        server = spawn.Process(target=_serve_slowly, args=(folder, theirs))
        server.start()
        address = mine.recv()
        stop = spawn.Event()
        with zmqmq.Client(address) as mq:
            mq.admin.create_topic("flat-out")
            mq.admin.create_topic("quiet")
            with mq.producer("quiet") as out:
                for number in range(1000):
                    out.send(b"%d" % number)
            producer = spawn.Process(target=_flat_out, args=(address, stop))
            producer.start()
            time.sleep(2)
            times = []
            for number in range(500):
                started = time.perf_counter()
                with mq.reader("quiet", start=number, stop=number + 1) as reader:
                    opened_s = time.perf_counter() - started
                    assert reader.poll(5) is not None
                times.append(time.perf_counter() - started - opened_s)
            stop.set()
            producer.join()
        mine.send("stop")
        server.join()
    print(f"another client's fetch beside a producer flat out, each sync 5 ms slower: p50 {statistics.median(times) * 1e3:.2f} ms")


def idle() -> None:
    with tempfile.TemporaryDirectory() as folder, broker(folder) as address, zmqmq.Client(address) as mq:
        pid = _pid_of(folder)
        before, files = mq.admin.stats()[0].rss_bytes, len(os.listdir(f"/proc/{pid}/fd"))
        for number in range(10):
            mq.admin.create_topic(f"t{number}", partitions=1000)
        after = mq.admin.stats()[0].rss_bytes
        more = len(os.listdir(f"/proc/{pid}/fd")) - files
    print(f"10,000 idle partitions: {(after - before) / 1e6:.1f} MB more, {more} more open files")


def _pid_of(folder: str) -> int:
    found = subprocess.run(["pgrep", "-f", folder], capture_output=True, text=True, check=True).stdout.split()
    return int(found[0])


def recovery() -> None:
    with tempfile.TemporaryDirectory() as folder:
        with broker(folder) as address, zmqmq.Client(address) as mq:
            mq.admin.create_topic("big", config={"compression": "none"})
            noise = [random.randbytes(10_000) for _ in range(1000)]
            with mq.producer("big") as out:
                for _ in range(110):
                    out.send_many(noise)
            os.kill(_pid_of(folder), signal.SIGKILL)
        print(f"recovery after kill -9 with 1 GiB of log: {_recovery_ms(folder)} ms")
    with tempfile.TemporaryDirectory() as folder:
        with broker(folder) as address, zmqmq.Client(address) as mq:
            for number in range(10):
                mq.admin.create_topic(f"t{number}", partitions=1000)
            for number in range(10):
                with mq.producer(f"t{number}") as out:
                    for partition in range(1000):
                        out.send(b"x" * 100, partition=partition)
            os.kill(_pid_of(folder), signal.SIGKILL)
        print(f"recovery after kill -9 with 10,000 partitions, all of them in the journal: {_recovery_ms(folder)} ms")


def _recovery_ms(folder: str) -> int:
    started = time.perf_counter()
    store = Store.open(RealDisk(), folder, clock=SystemClock(), random=random.SystemRandom(), node_id=0)
    elapsed = time.perf_counter() - started
    store.close()
    return round(elapsed * 1e3)


def lookup() -> None:
    medians = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder, broker(folder) as address, zmqmq.Client(address) as mq:
        for name, count in (("small", 250), ("large", 2_500_000)):
            mq.admin.create_topic(name, config={"compression": "none"})
            noise = [random.randbytes(4000) for _ in range(250)]
            with mq.producer(name) as out:
                for _ in range(count // 250):
                    out.send_many(noise)
            for how in ("offset", "time"):
                times = []
                first = mq.admin.offsets(name)[0]
                chance = random.Random(1)
                for _ in range(300):
                    offset = chance.randrange(first.start, first.end)
                    started = time.perf_counter()
                    if how == "time":
                        mq.admin.offsets(name, at=zmqmq.Offset("time", int(time.time() * 1000) - chance.randrange(0, 60_000)))
                    else:
                        with mq.reader(name, start=offset, stop=offset + 1) as reader:
                            assert reader.poll(5) is not None
                    times.append(time.perf_counter() - started)
                medians[name, how] = statistics.median(times) * 1e3
    for how in ("offset", "time"):
        small, large = medians["small", how], medians["large", how]
        print(f"one record by {how}: 1 MB {small:.2f} ms, 10 GB {large:.2f} ms, ratio {large / small:.2f}")


def memory(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder, broker(folder) as address, zmqmq.Client(address) as mq:
        mq.admin.create_topic("t", config={"retention_bytes": "1GiB", "segment_bytes": "64MiB"})
        consumer = subprocess.Popen(
            [sys.executable, "-m", "zmqmq_cli", "-b", address, "tail", "t", "-o", "start"], stdout=subprocess.DEVNULL
        )
        stop = threading.Event()

        def produce() -> None:
            values = json_values(CHUNK)
            with mq.producer("t") as out:
                while not stop.is_set():
                    out.send_many(values)

        thread = threading.Thread(target=produce)
        thread.start()
        time.sleep(3)
        consumer.send_signal(signal.SIGSTOP)
        before = mq.admin.stats()[0].rss_bytes
        top = before
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(1)
            top = max(top, mq.admin.stats()[0].rss_bytes)
        count = mq.admin.stats()[0].messages_in
        stop.set()
        thread.join()
        consumer.kill()
        consumer.wait()
    print(
        f"{seconds:.0f} s at full speed, a consumer stopped: {count:,} records, broker {before / 1e6:.0f} then {top / 1e6:.0f} MB at most"
    )


def main() -> None:
    cases = {"open": opened, "spread": spread, "slow_sync": slow_sync, "idle": idle, "recovery": recovery, "lookup": lookup}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="default: all")
    parser.add_argument("--seconds", type=float, default=300.0)
    options = parser.parse_args()
    assert Path("/proc").exists(), "these measurements read /proc"
    for name in options.cases or [*cases, "memory"]:
        if name == "memory":
            memory(options.seconds)
        else:
            cases[name]()


if __name__ == "__main__":
    main()
