"""A store on a simulated disk, with a memory of what was appended and what was acknowledged."""

from __future__ import annotations

import random

from zmqmq import batch
from zmqmq.effects import Append
from zmqmq.errors import ZmqmqError
from zmqmq.model import PartitionId
from zmqmq.store.store import Store, StoreOptions
from zmqmq.testing.sim.disk import PowerCut, SimDisk
from zmqmq.topic_config import TopicConfig

ROOT = "data"
OPTIONS = StoreOptions(journal_bytes_max=16 << 10, journal_allocate_bytes=4 << 10, open_files_max=8, disk_reserve_bytes=0)
CONFIG = TopicConfig(segment_bytes=4096, retention_ms=-1)


class ManualClock:
    def __init__(self) -> None:
        self.now = 1_000_000

    def wall_ms(self) -> int:
        return self.now

    def wall_ns(self) -> int:
        return self.now * 1_000_000

    def monotonic_ms(self) -> int:
        return self.now

    def monotonic_us(self) -> int:
        return self.now * 1000


def partition(number: int, topic: bytes = b"t" * 16) -> PartitionId:
    return PartitionId(topic, number)


def stamped(
    where: PartitionId,
    offset: int,
    payload: bytes,
    *,
    count: int = 1,
    time_ms: int = 0,
    epoch: int = 1,
    producer: int = -1,
    sequence: int = -1,
):
    values = [batch.Record(None, payload if i == 0 else b"", 0) for i in range(count)]
    data = batch.build(
        batch.encode_records(values),
        record_count=count,
        base_timestamp_ms=time_ms,
        max_timestamp_ms=time_ms,
        compress=False,
        producer_id=producer,
        base_sequence=sequence,
    )
    header = batch.parse_header(data)
    return batch.stamp(header, data, seed=batch.stamp_seed(where), base_offset=offset, leader_epoch=epoch, append_time_ms=time_ms)


def bytes_of(found: batch.StampedBatch) -> bytes:
    return b"".join(found.buffers)


def open_store(disk, *, clock=None, options=OPTIONS, seed=0, root=ROOT) -> Store:
    return Store.open(disk, root, clock=clock or ManualClock(), random=random.Random(seed), options=options)


def sync(store: Store) -> dict[PartitionId, int]:
    job = store.begin_sync()
    if job is None:
        return {}
    try:
        job.run()
    except OSError as error:
        return {synced.partition: synced.end for synced in store.end_sync(job, error)}
    return {synced.partition: synced.end for synced in store.end_sync(job)}


def checkpoint(store: Store) -> None:
    job = store.begin_checkpoint()
    if job is None:
        return
    try:
        job.run()
    except OSError as error:
        store.end_checkpoint(job, error)
    else:
        store.end_checkpoint(job)


def read_all(store: Store, where: PartitionId, bytes_max: int = 700) -> list[bytes]:
    """Every batch of a partition from its log start on, each checked in full."""
    state = store.state(where)
    offset, found = state.log_start, []
    while offset < state.log_end:
        data = store.read(where, offset, state.log_end, bytes_max)
        assert data
        position = 0
        while position < len(data):
            header = batch.parse_header(data, position)
            batch.check_body(header, data, position)
            assert header.base_offset <= offset < header.end_offset or header.base_offset == offset
            found.append(data[position : position + header.length])
            position += header.length
            offset = header.end_offset
    return found


class World:
    """Appends, syncs, checkpoints, cuts the power. ``check`` says whether the store kept its promises."""

    def __init__(self, seed: int, partitions: int = 3) -> None:
        self.random = random.Random(seed)
        self.clock = ManualClock()
        self.disk = SimDisk(random.Random(seed + 1))
        self.partitions = [partition(number) for number in range(partitions)]
        self.history: dict[PartitionId, list[bytes]] = {each: [] for each in self.partitions}
        self.ends: dict[PartitionId, list[int]] = {each: [0] for each in self.partitions}
        self.acknowledged = dict.fromkeys(self.partitions, 0)
        self.started = dict.fromkeys(self.partitions, 0)
        self.in_flight: dict[PartitionId, list[batch.StampedBatch]] = {}
        self.crashes = 0
        self.store = self._open()

    def _open(self) -> Store:
        store = open_store(self.disk, clock=self.clock, seed=self.random.randrange(1 << 30))
        for each in self.partitions:
            store.create(each, CONFIG)
        return store

    def run(self, steps: int) -> None:
        for _ in range(steps):
            try:
                self.step()
            except PowerCut:
                self.restart()

    def step(self) -> None:
        self.clock.now += 7
        choice = self.random.random()
        if choice < 0.55:
            self.append()
        elif choice < 0.80:
            for where, end in sync(self.store).items():
                self.acknowledged[where] = max(self.acknowledged[where], end)
        elif choice < 0.90 or self.store.checkpoint_due():
            checkpoint(self.store)
        elif choice < 0.91:
            self.retain()
        elif choice < 0.93:
            where = self.random.choice(self.partitions)
            start = self.random.randrange(0, self.acknowledged[where] + 1)
            self.started[where] = max(self.started[where], start)
            self.store.move_log_start(where, start)
        elif choice < 0.96:
            self.store.close()
            for where in self.partitions:
                self.acknowledged[where] = self.ends[where][-1]
            self.store = self._open()
            self.check()
        else:
            self.check()

    def retain(self) -> None:
        """Retention by size, for one step; it never takes what is not acknowledged."""
        where = self.random.choice(self.partitions)
        self.store.create(where, TopicConfig(segment_bytes=4096, retention_ms=-1, retention_bytes=6000))
        for moved in self.store.maintain(self.clock.now, self.acknowledged):
            assert moved.log_start <= self.acknowledged[moved.partition]
            self.started[moved.partition] = max(self.started[moved.partition], moved.log_start)
        self.store.create(where, CONFIG)

    def append(self) -> None:
        self.in_flight = {}
        for where in self.random.sample(self.partitions, self.random.randint(1, len(self.partitions))):
            end, batches = self.ends[where][-1], []
            for _ in range(self.random.randint(1, 3)):
                count = self.random.randint(1, 3)
                payload = self.random.randbytes(self.random.choice((10, 100, 900)))
                batches.append(stamped(where, end, payload, count=count, time_ms=self.clock.now))
                end += count
            self.in_flight[where] = batches
        failed = self.store.append([Append(where, tuple(batches)) for where, batches in self.in_flight.items()])
        for where in list(self.in_flight):
            if where in failed:
                assert isinstance(failed[where], ZmqmqError)
                del self.in_flight[where]
        self._learn_in_flight({where: len(batches) for where, batches in self.in_flight.items()})

    def _learn_in_flight(self, counts: dict[PartitionId, int]) -> None:
        for where, count in counts.items():
            for each in self.in_flight[where][:count]:
                self.history[where].append(bytes_of(each))
                self.ends[where].append(each.header.end_offset)
        self.in_flight = {}

    def restart(self) -> None:
        is_down = True
        while is_down:
            self.crashes += 1
            self.end_process()
            if self.random.random() < 0.3:
                self.disk.fuse = self.random.randrange(1, 60)
            try:
                self.store = self._open()
            except PowerCut:
                continue
            self.disk.fuse = None
            self.forget_unacknowledged()
            self.check()
            is_down = self.random.random() < 0.3

    def end_process(self) -> None:
        """Pull the plug, or only kill the process: then what it wrote is there, and still not synced."""
        if self.random.random() < 0.4:
            self.disk.kill()
        else:
            self.disk.crash()

    def forget_unacknowledged(self) -> None:
        """What was not synced may be gone, from some batch on; what came back is a prefix."""
        for where in self.partitions:
            end = self.store.state(where).log_end
            for each in self.in_flight.get(where, ()):
                self.history[where].append(bytes_of(each))
                self.ends[where].append(each.header.end_offset)
            assert end in self.ends[where], f"{where} ends inside a batch, at {end}"
            assert end >= self.acknowledged[where], f"{where} lost {self.acknowledged[where] - end} acknowledged records"
            kept = self.ends[where].index(end)
            del self.history[where][kept:], self.ends[where][kept + 1 :]
            self.acknowledged[where] = end
        self.in_flight = {}

    def check(self) -> None:
        for where in self.partitions:
            state = self.store.state(where)
            assert not state.error
            assert state.log_end == self.ends[where][-1]
            assert state.log_start <= self.started[where]
            expected = [data for data, end in zip(self.history[where], self.ends[where][1:], strict=True) if end > state.log_start]
            assert read_all(self.store, where) == expected

    def arm(self) -> None:
        self.disk.fuse = self.random.randrange(1, 120)
