"""The metadata partition of a store that forgets: what is read, what is synced, and what a crash leaves of the difference."""

from __future__ import annotations

import random
from collections.abc import Callable

from zmqmq import batch
from zmqmq.batch import StampedBatch
from zmqmq.effects import Append
from zmqmq.errors import DiskFull
from zmqmq.facts import EpochStart, LogState
from zmqmq.metadata.quorum.disk import Save, Truncate, Write


class Contents:
    """Batches and saved bytes; as they are read, or as they are on disk."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int, bytes]] = []
        """(base offset, end offset, bytes)"""
        self.saved = b""

    @property
    def end(self) -> int:
        return self.batches[-1][1] if self.batches else 0

    def copy(self) -> Contents:
        made = Contents()
        made.batches, made.saved = self.batches[:], self.saved
        return made

    def append(self, stamped: StampedBatch) -> None:
        assert stamped.header.base_offset == self.end, f"{stamped.header} does not follow {self.end}"
        self.batches.append((self.end, stamped.header.end_offset, b"".join(bytes(buffer) for buffer in stamped.buffers)))

    def truncate(self, end: int) -> None:
        while self.end > end:
            self.batches.pop()
        assert self.end == end, "cut inside an entry"

    def save(self, data: bytes) -> None:
        self.saved = data


class EngineDisk:
    """``perform`` as the shell of a broker does it."""

    def __init__(self) -> None:
        self.visible = Contents()
        self.synced = Contents()
        self._pending: list[Callable[[Contents], None]] = []
        self._syncing = 0
        self.is_full = False

    def save_at_once(self, data: bytes) -> None:
        self.visible.save(data)
        self.synced.save(data)

    def perform(self, writes: tuple[Write, ...]) -> None:
        """Raises DiskFull; some of the writes may be done then, but no batch."""
        for write in writes:
            match write:
                case Truncate(end):
                    self._check_space()
                    self._sync(len(self._pending))
                    self.visible.truncate(end)
                    self.synced.truncate(end)
                case Save(data):
                    self._check_space()
                    self._do(lambda contents, data=data: contents.save(data))  # type: ignore[misc]
                case Append(_, batches):
                    self._check_space()
                    for stamped in batches:
                        self._do(lambda contents, stamped=stamped: contents.append(stamped))  # type: ignore[misc]

    def begin_sync(self) -> bool:
        self._syncing = len(self._pending)
        return self._syncing > 0

    def end_sync(self) -> bool:
        """Whether the partition is reported."""
        self._sync(min(self._syncing, len(self._pending)))
        self._syncing = 0
        return True

    def crash(self, chance: random.Random) -> None:
        """A beginning of what was not synced survives."""
        self._sync(chance.randint(0, len(self._pending)))
        self._pending.clear()
        self._syncing = 0
        self.visible = self.synced.copy()

    def read(self, offset: int, end: int, bytes_max: int) -> bytes:
        found: list[bytes] = []
        for base, batch_end, data in self.visible.batches:
            if batch_end > offset and batch_end <= end and (not found or sum(map(len, found)) + len(data) <= bytes_max):
                assert found or base == offset, f"no entry begins at {offset}"
                found.append(data)
        return b"".join(found)

    def state(self) -> LogState:
        epochs: list[EpochStart] = []
        for base, _, data in self.visible.batches:
            epoch = batch.parse_header(data).leader_epoch
            if not epochs or epochs[-1].epoch < epoch:
                epochs.append(EpochStart(epoch, base))
        end = self.visible.end
        return LogState(0, end, end, tuple(epochs), {}, 0, 0)

    def _check_space(self) -> None:
        if self.is_full:
            raise DiskFull("no space is left", outcome="not_written")

    def _do(self, step: Callable[[Contents], None]) -> None:
        step(self.visible)
        self._pending.append(step)

    def _sync(self, count: int) -> None:
        """The sync that runs began with so many of these, or fewer."""
        for step in self._pending[:count]:
            step(self.synced)
        del self._pending[:count]
        self._syncing = max(0, self._syncing - count)
