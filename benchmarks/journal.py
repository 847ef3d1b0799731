"""One journal against one sync per partition: the cost of a durable round that touches many partitions.

Run: ``python benchmarks/journal.py [DIRECTORY]``. Each line is the median of the rounds; 4 KiB go to each partition.
The directory must be on a real disk: on tmpfs a sync costs nothing.
"""

from __future__ import annotations

import random
import shutil
import statistics
import sys
import tempfile
import time

from zmqmq import batch
from zmqmq.clock import SystemClock
from zmqmq.effects import Append
from zmqmq.model import PartitionId
from zmqmq.store.disk import RealDisk
from zmqmq.store.files import write_all
from zmqmq.store.store import Store, StoreOptions
from zmqmq.topic_config import TopicConfig

PARTITIONS = (1, 16, 256, 1000)
BYTES = 4096
ROUNDS = {1: 200, 16: 100, 256: 30, 1000: 15}


def stamped(partition: PartitionId, offset: int) -> batch.StampedBatch:
    payload = random.randbytes(BYTES - batch.HEADER_BYTES)
    data = batch.seal(
        payload, codec=batch.CODEC_NONE, uncompressed_bytes=len(payload), record_count=1, base_timestamp_ms=0, max_timestamp_ms=0
    )
    header = batch.parse_header(data)
    seed = batch.stamp_seed(partition)
    return batch.stamp(header, data, seed=seed, base_offset=offset, leader_epoch=1, append_time_ms=offset)


def summary(took: list[float]) -> tuple[float, float]:
    """Median and 95th percentile, in milliseconds. The first round makes the files and does not count."""
    return statistics.median(took[1:]) * 1000, statistics.quantiles(took[1:], n=20)[-1] * 1000


def plain(directory: str, count: int) -> tuple[float, float]:
    """A file per partition, written and then synced one after the other."""
    disk = RealDisk()
    disk.mkdir(directory)
    files = [disk.open(f"{directory}/{number}", create=True) for number in range(count)]
    data = random.randbytes(BYTES)
    took = []
    for number in range(ROUNDS[count] + 1):
        started = time.perf_counter()
        for file in files:
            write_all(file, (data,), number * BYTES)
        for file in files:
            file.fdatasync()
        took.append(time.perf_counter() - started)
    for file in files:
        file.close()
    return summary(took)


def journal(directory: str, count: int) -> tuple[float, float, float]:
    """The store: every segment written, one journal entry, one sync. Also the median of the checkpoints, which
    run between the rounds here and in a thread of their own in a broker."""
    options = StoreOptions(open_files_max=4 * count + 8)
    store = Store.open(RealDisk(), directory, clock=SystemClock(), random=random.Random(1), options=options)
    partitions = [PartitionId(b"benchmark-topic!", number) for number in range(count)]
    for partition in partitions:
        store.create(partition, TopicConfig())
    took, checkpoints = [], []
    for number in range(ROUNDS[count] + 1):
        appends = [Append(partition, (stamped(partition, number),)) for partition in partitions]
        started = time.perf_counter()
        assert store.append(appends) == {}
        sync = store.begin_sync()
        assert sync is not None
        sync.run()
        store.end_sync(sync)
        took.append(time.perf_counter() - started)
        if (store.checkpoint_due() or number == ROUNDS[count]) and (checkpoint := store.begin_checkpoint()):
            started = time.perf_counter()
            checkpoint.run()
            checkpoints.append(time.perf_counter() - started)
            store.end_checkpoint(checkpoint)
    store.close()
    return (*summary(took), statistics.median(checkpoints) * 1000)


def main() -> None:
    where = tempfile.mkdtemp(prefix="zmqmq-bench-", dir=sys.argv[1] if len(sys.argv) > 1 else ".")
    try:
        print("| partitions a round | sync per partition p50 (p95) | journal p50 (p95) | ratio | checkpoint |")
        print("|---|---|---|---|---|")
        for count in PARTITIONS:
            plain_ms, plain_95 = plain(f"{where}/plain-{count}", count)
            journal_ms, journal_95, checkpoint_ms = journal(f"{where}/journal-{count}", count)
            print(
                f"| {count} | {plain_ms:.2f} ms ({plain_95:.2f}) | {journal_ms:.2f} ms ({journal_95:.2f})"
                f" | {plain_ms / journal_ms:.1f} | {checkpoint_ms:.0f} ms |"
            )
    finally:
        shutil.rmtree(where)


if __name__ == "__main__":
    main()
