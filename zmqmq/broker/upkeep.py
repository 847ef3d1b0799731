"""What a broker does beside its requests: checkpoints, retention, a look whether its directory is still its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from zmqmq.broker.worker import Worker
from zmqmq.errors import UnknownTopic
from zmqmq.model import PartitionId
from zmqmq.store.store import CheckpointJob, Store

if TYPE_CHECKING:
    from zmqmq.broker.dispatch import Now
    from zmqmq.facts import StartMoved
    from zmqmq.ports import Disk

TICK_MS: Final = 1_000
CHECKPOINT_LOOK_US: Final = 20_000
"""How often the store is asked whether a checkpoint is due."""


class _Watermarks(Mapping[PartitionId, int]):
    """What retention may remove up to, looked up when it is asked."""

    def __init__(self, watermark: Callable[[PartitionId], int]) -> None:
        self._watermark = watermark

    def __getitem__(self, partition: PartitionId) -> int:
        try:
            return self._watermark(partition)
        except UnknownTopic as error:
            raise KeyError(partition) from error

    def __iter__(self) -> Iterator[PartitionId]:
        return iter(())

    def __len__(self) -> int:
        return 0


class Upkeep:
    """``turn`` it often; it works when something is due."""

    def __init__(self, store: Store, disk: Disk, root: str, worker: Worker[CheckpointJob], watermark: Callable[[PartitionId], int]) -> None:
        self.checkpoint_count = 0
        self._store = store
        self._disk = disk
        self._root = root
        self._ends = _Watermarks(watermark)
        self._worker = worker
        self._tick_ms = 0
        self._looked_us = 0
        self._moved: list[StartMoved] = []

    def turn(self, now: Now) -> None:
        """Begin what is due. Cheap when nothing is."""
        if now.us - self._looked_us < CHECKPOINT_LOOK_US:
            return
        self._looked_us = now.us
        if now.ms - self._tick_ms >= TICK_MS:
            self._tick_ms = now.ms
            self._store.look_after_directory()
            self._moved.extend(self._store.maintain(now.wall_ms, self._ends))
        if not self._worker.is_busy and self._store.checkpoint_due():
            job = self._store.begin_checkpoint()
            if job is not None:
                self._worker.submit(job)

    def after_jobs(self) -> list[StartMoved]:
        """Take in a finished checkpoint; the log starts that retention moved."""
        done = self._worker.take_done()
        if done is not None:
            self._store.end_checkpoint(done.job, done.error)
            self.checkpoint_count += done.error is None
        moved, self._moved = self._moved, []
        return moved

    def free_bytes(self) -> int:
        try:
            return self._disk.free_bytes(self._root)
        except OSError:
            return -1

    def close(self, timeout_s: float) -> bool:
        """Whether the running checkpoint ended, well or not, so that the store can be closed."""
        self._worker.wait(timeout_s)
        if not self._worker.has_crashed:
            done = self._worker.take_done()
            if done is not None:
                self._store.end_checkpoint(done.job, done.error)
        self._worker.close(timeout_s)
        return not self._worker.is_busy
