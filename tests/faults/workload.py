"""A fixed piece of work for a store on real files: the same system calls in the same order, each time.

    python workload.py <data directory> <testimony>

It opens, appends, syncs, rolls, checkpoints, trims, deletes a topic, closes, opens again and appends. Each step is sworn to in the
testimony, which lies elsewhere:

    wrote <partition> <offset> <number>     an append that did not fail; may be on disk
    ack <partition> <end>                   everything before it is on disk
    start <partition> <offset>              records before it are gone, durably
    deleted <partition>
    refused <step> <error>                  a named error; what it refused is not in the log
    over                                    the end was reached
"""

from __future__ import annotations

import os
import random
import sys
from typing import Final

from zmqmq import batch
from zmqmq.effects import Append
from zmqmq.errors import ZmqmqError
from zmqmq.model import PartitionId
from zmqmq.store.disk import RealDisk
from zmqmq.store.store import Store, StoreOptions
from zmqmq.topic_config import TopicConfig

OPTIONS: Final = StoreOptions(journal_bytes_max=64 << 10, journal_allocate_bytes=4096, open_files_max=8, disk_reserve_bytes=0)
CONFIG: Final = TopicConfig(segment_bytes=4096, retention_ms=-1)
PARTITIONS: Final = (PartitionId(b"a" * 16, 0), PartitionId(b"a" * 16, 1), PartitionId(b"b" * 16, 0))
DOOMED: Final = 2
"""The partition whose topic is deleted."""
PAYLOAD_BYTES: Final = 900


class StillClock:
    def wall_ms(self) -> int:
        return 1_000_000

    def monotonic_ms(self) -> int:
        return 1_000_000


def value_of(number: int) -> bytes:
    return b"%06d" % number * (PAYLOAD_BYTES // 6)


def open_store(root: str) -> Store:
    return Store.open(RealDisk(), root, clock=StillClock(), random=random.Random(1), options=OPTIONS)


def stamped(where: PartitionId, offset: int, number: int) -> batch.StampedBatch:
    records = batch.encode_records([batch.Record(None, value_of(number), 0)])
    data = batch.build(records, record_count=1, base_timestamp_ms=number, max_timestamp_ms=number, compress=False)
    seed = batch.stamp_seed(where)
    return batch.stamp(batch.parse_header(data), data, seed=seed, base_offset=offset, leader_epoch=1, append_time_ms=number)


class Work:
    """See the module."""

    def __init__(self, root: str, testimony: int) -> None:
        self._root = root
        self._testimony = testimony
        self._number = 0
        self._partitions = list(range(len(PARTITIONS)))

    def run(self) -> None:
        for life in range(2):
            try:
                store = open_store(self._root)
            except ZmqmqError as error:
                self._say(f"refused open {type(error).__name__}")
                return
            for partition in self._partitions:
                store.create(PARTITIONS[partition], CONFIG)
            self._live(store, life)
            try:
                store.close()
            except (ZmqmqError, OSError) as error:
                self._say(f"refused close {type(error).__name__}")
        self._say("over")

    def _live(self, store: Store, life: int) -> None:
        for turn in range(6):
            self._append(store, self._partitions[: 1 + turn % len(self._partitions)])
            self._append(store, self._partitions[-1:])
            self._sync(store)
            if turn == 2:
                self._checkpoint(store)
            if turn == 3:
                self._trim(store, 0)
            if turn == 4 and life == 0:
                self._delete(store)
                self._checkpoint(store)

    def _append(self, store: Store, partitions: list[int]) -> None:
        appends, wrote = [], {}
        for partition in partitions:
            where = PARTITIONS[partition]
            offset = store.state(where).log_end
            wrote[where] = f"wrote {partition} {offset} {self._number}"
            appends.append(Append(where, (stamped(where, offset, self._number),)))
            self._number += 1
        self._say(*wrote.values())  # before: the process may die in the call
        for where, error in store.append(appends).items():
            self._say(f"refused {wrote[where]} {type(error).__name__}")

    def _sync(self, store: Store) -> None:
        job = store.begin_sync()
        if job is None:
            return
        try:
            job.run()
        except OSError as error:
            found = store.end_sync(job, error)
        else:
            found = store.end_sync(job)
        self._say(*(f"ack {PARTITIONS.index(synced.partition)} {synced.end}" for synced in found))

    def _checkpoint(self, store: Store) -> None:
        job = store.begin_checkpoint()
        if job is None:
            return
        try:
            job.run()
        except OSError as error:
            store.end_checkpoint(job, error)
            self._say("refused checkpoint OSError")
        else:
            store.end_checkpoint(job)

    def _trim(self, store: Store, partition: int) -> None:
        start = store.state(PARTITIONS[partition]).synced_end
        self._say(f"trim {partition} {start}")
        try:
            store.move_log_start(PARTITIONS[partition], start)
        except ZmqmqError as error:
            self._say(f"refused trim {type(error).__name__}")
            return
        self._sync(store)
        if not store.offline:
            self._say(f"start {partition} {start}")

    def _delete(self, store: Store) -> None:
        self._say(f"delete {DOOMED}")
        self._partitions.remove(DOOMED)
        try:
            store.delete_topic(PARTITIONS[DOOMED].topic_id)
        except ZmqmqError as error:
            self._say(f"refused delete {type(error).__name__}")
        else:
            self._say(f"deleted {DOOMED}")

    def _say(self, *lines: str) -> None:
        os.write(self._testimony, "".join(f"{line}\n" for line in lines).encode())


if __name__ == "__main__":
    root, path = sys.argv[1:]
    Work(root, os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)).run()
