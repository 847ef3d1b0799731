"""How fast this machine is: broker, producer and consumer in processes of their own, TCP over loopback.

    make bench                                     # medians of five, all cases
    python benchmarks/run.py --runs 1 --records 500000 send_many consume

Prints a table, and writes it as JSON lines with ``--json FILE``. The raw limit (``bare``) is taken in the same run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bare
from values import json_values

import zmqmq

RATE_PER_SECOND = 1_000
LATENCY_SECONDS = 5
KEYS = 1_000
CHUNK = 50_000
START_SECONDS_MAX = 10


@contextmanager
def broker(folder: str) -> Iterator[str]:
    """A broker in its own process; yields its address."""
    command = [sys.executable, "-m", "zmqmq_cli", "serve", "--data", folder, "--listen", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "tcp://" in line:
                yield next(word for word in line.split() if word.startswith("tcp://"))
                break
    finally:
        process.terminate()
        process.wait(START_SECONDS_MAX)


def in_process(work: Callable[..., Any], *arguments: object) -> Any:
    """The result of ``work`` run in a fresh process."""
    spawn = mp.get_context("spawn")
    with spawn.Pool(1) as pool:
        return pool.apply(work, arguments)


def send_many(address: str, topic: str, records: int) -> float:
    values = json_values(CHUNK)
    with zmqmq.Client(address) as mq, mq.producer(topic) as out:
        started = time.perf_counter()
        for _ in range(records // CHUNK):
            out.send_many(values)
        out.flush(60)
        return records / (time.perf_counter() - started)


def send(address: str, topic: str, records: int, how: str) -> float:
    values = json_values(CHUNK)
    keys = [b"key-%d" % (number % KEYS) for number in range(CHUNK)]
    with zmqmq.Client(address) as mq, mq.producer(topic) as out:
        started = time.perf_counter()
        for _ in range(records // CHUNK):
            if how == "keyed":
                for value, key in zip(values, keys, strict=True):
                    out.send(value, key=key)
            else:
                for value in values:
                    out.send(value)
        out.flush(60)
        return records / (time.perf_counter() - started)


def consume(address: str, topic: str, how: str) -> float:
    with zmqmq.Client(address) as mq:
        started = time.perf_counter()
        count = 0
        with mq.reader(topic, stop=zmqmq.Offset.END) as reader:
            if how == "batches":
                for batch in reader.batches():
                    count += len(batch)
            else:
                for _message in reader:
                    count += 1
        return count / (time.perf_counter() - started)


def paced(rate: int, seconds: float, how: str = "sleeping") -> Iterator[float]:
    """The moments at which something is due. What is late because of the sleep counts from the wake-up, what is late
    because of the caller from the moment it was due."""
    started = time.monotonic()
    for number in range(int(rate * seconds)):
        due = started + number / rate
        delay = due - time.monotonic()
        if delay > 0 and how == "sleeping":
            time.sleep(delay)
            due = time.monotonic()
        while time.monotonic() < due:
            pass
        yield due


def receipt_latency(address: str, topic: str) -> dict[str, float]:
    """From the moment a single record was due to its receipt."""
    value = json_values(1)[0]
    waits = []
    with zmqmq.Client(address) as mq:
        mq.produce(topic, value)
        for due in paced(RATE_PER_SECOND, LATENCY_SECONDS):
            mq.produce(topic, value)
            waits.append((time.monotonic() - due) * 1e3)
    return percentiles(waits)


def sent_latency(address: str, topic: str) -> dict[str, float]:
    """From the moment a single record was due to its receipt, without waiting for one before sending the next."""
    value = json_values(1)[0]
    waits: list[float] = []
    with zmqmq.Client(address) as mq, mq.producer(topic, linger=0) as out:
        out.send(value).result()
        for due in paced(RATE_PER_SECOND, LATENCY_SECONDS):
            out.send(value).add_done_callback(lambda _handle, due=due: waits.append((time.monotonic() - due) * 1e3))
        out.flush(60)
    return percentiles(waits)


def closed_loop_latency(address: str, topic: str) -> dict[str, float]:
    """From ``produce`` to its receipt, one after the other as fast as they go."""
    value = json_values(1)[0]
    waits = []
    with zmqmq.Client(address) as mq:
        mq.produce(topic, value)
        for _ in range(RATE_PER_SECOND * LATENCY_SECONDS):
            started = time.monotonic()
            mq.produce(topic, value)
            waits.append((time.monotonic() - started) * 1e3)
    return percentiles(waits)


def read_ages(address: str, topic: str, count: int, ready: Any, pipe: Any) -> None:
    """A consumer in its own process: the age of each record when it arrives, by the clock that all processes share."""
    ages = []
    with zmqmq.Client(address) as mq, mq.reader(topic, start=zmqmq.Offset.END) as reader:
        reader.poll(0.2)
        ready.set()
        for message in reader:
            ages.append((time.monotonic() - float(message.value)) * 1e3)
            if len(ages) == count:
                break
    pipe.send(ages)


def end_to_end_latency(address: str, topic: str, how: str) -> dict[str, float]:
    """From the moment a record was due to its arrival at a reader in another process. ``busy``: the producer's thread
    spins until the next record is due, and so never gives up the interpreter by itself."""
    spawn = mp.get_context("spawn")
    mine, theirs = spawn.Pipe()
    ready = spawn.Event()
    count = RATE_PER_SECOND * LATENCY_SECONDS
    consumer = spawn.Process(target=read_ages, args=(address, topic, count, ready, theirs))
    consumer.start()
    assert ready.wait(START_SECONDS_MAX)
    with zmqmq.Client(address) as mq, mq.producer(topic, linger=0) as out:
        for due in paced(RATE_PER_SECOND, LATENCY_SECONDS, how):
            out.send(repr(due).encode())
    ages = mine.recv()
    consumer.join()
    return percentiles(ages)


def percentiles(milliseconds: list[float]) -> dict[str, float]:
    ordered = sorted(milliseconds)
    return {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}


def one_run(records: int, wanted: set[str]) -> dict[str, float]:
    figures: dict[str, float] = {}
    if "bare" in wanted:
        figures["bare in"], figures["bare out"] = bare.measure(records)
    for durability in ("fsync", "replicated"):
        with tempfile.TemporaryDirectory() as folder, broker(folder) as address, zmqmq.Client(address) as mq:

            def topic(name: str, partitions: int = 1, mq: zmqmq.Client = mq, durability: str = durability) -> str:
                mq.admin.create_topic(name, partitions=partitions, config={"durability": durability})
                return name

            if "send_many" in wanted or "consume" in wanted:
                figures[f"send_many {durability}"] = in_process(send_many, address, topic("many"), records)
            if "consume" in wanted and durability == "fsync":
                figures["consume batches()"] = in_process(consume, address, "many", "batches")
                figures["consume for"] = in_process(consume, address, "many", "one by one")
            if "send" in wanted:
                figures[f"send {durability}"] = in_process(send, address, topic("one"), records // 3, "unkeyed")
                figures[f"send keyed, 4 partitions, {durability}"] = in_process(send, address, topic("keyed", 4), records // 3, "keyed")
            if "latency" in wanted:
                for what, measure in (("sent", sent_latency), ("produce()", receipt_latency), ("produce() in a row", closed_loop_latency)):
                    for name, value in in_process(measure, address, topic(measure.__name__)).items():
                        figures[f"receipt ms {name}, {what}, {durability}"] = value
                for how in ("sleeping", "busy"):
                    for name, value in end_to_end_latency(address, topic(how), how).items():
                        figures[f"end to end ms {name}, {how} producer, {durability}"] = value
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=[], help="bare send_many send consume latency; default all")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--records", type=int, default=3_000_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    wanted = set(options.cases) or {"bare", "send_many", "send", "consume", "latency"}
    runs = [one_run(options.records, wanted) for _ in range(options.runs)]
    for name in runs[0]:
        values = [run[name] for run in runs]
        median = statistics.median(values)
        unit = f"{median:10.2f}" if " ms " in name else f"{median / 1e6:8.2f} M/s"
        print(f"{name:48} {unit}   ({min(values):,.2f} .. {max(values):,.2f})")
        if options.json:
            with options.json.open("a") as file:
                file.write(json.dumps({"case": name, "median": median, "runs": values}) + "\n")


if __name__ == "__main__":
    main()
