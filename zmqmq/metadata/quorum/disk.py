"""Between Raft and the store: entries are read as batches, and what Raft wants on disk becomes writes, in order.

Promise: a Persist counts as done when all of it was written before a sync began that is done; what was refused for a passing reason is
tried again whole, and nothing overtakes it. At most one group of writes is handed out, and one more is gathered meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from msgspec import Struct

from zmqmq.effects import Append
from zmqmq.errors import CorruptLog, InvalidRecord
from zmqmq.marks import reached
from zmqmq.metadata.quorum.format import base_snapshot, decode_entries, encode_entry, encode_saved
from zmqmq.model import METADATA_PARTITION

if TYPE_CHECKING:
    from zmqmq.metadata.quorum.effects import Persist
    from zmqmq.metadata.quorum.format import SavedState
    from zmqmq.metadata.quorum.state import Configuration, Entry, HardState


class ReadBatches(Protocol):
    """Whole batches of the metadata partition from ``offset`` on, none beyond ``end``; about so many bytes, but at least one."""

    def __call__(self, offset: int, end: int, bytes_max: int) -> bytes: ...


class Truncate(Struct, frozen=True):
    """``Store.truncate`` the metadata partition to ``end``."""

    end: int


class Save(Struct, frozen=True):
    """``Store.save`` these bytes with the metadata partition."""

    data: bytes


Write: TypeAlias = Truncate | Save | Append


class Batches:
    """Implements EntryStore: what Raft reads of the store."""

    def __init__(self, saved: SavedState, end: int, read: ReadBatches) -> None:
        self.hard_state = saved.hard_state
        self.snapshot = base_snapshot(saved.base)
        self.start = self.start_term = 0
        self.end = end
        """When it was opened; Raft counts on from there."""
        self._read = read

    def read(self, start: int, end: int, bytes_max: int) -> tuple[Entry, ...]:
        """Raises CorruptLog and whatever else the store raises."""
        chosen: list[Entry] = []
        size = 0
        try:
            for entry in decode_entries(self._read(start, end, bytes_max)):
                size += entry.size_bytes
                if entry.end > end or (chosen and size > bytes_max):
                    break
                chosen.append(entry)
        except InvalidRecord as error:
            raise CorruptLog(f"the metadata log is damaged behind index {start}: {error}", hint="restore this broker's disk") from error
        return tuple(chosen)

    def read_snapshot(self, position: int, size: int) -> bytes:
        """The log begins at 0, and so with nothing."""
        del position, size
        return b""


class _Group:
    """Several Persists as one: what they do, one after the other."""

    def __init__(self) -> None:
        self.number = 0
        self.truncate_from = -1
        self.entries: list[Entry] = []
        self.hard_state: HardState | None = None

    def add(self, persist: Persist) -> None:
        assert persist.snapshot is None
        assert not persist.replaces_log
        self.number = persist.number
        if persist.truncate_from >= 0:
            self._truncate(persist.truncate_from)
        self.entries.extend(persist.entries)
        if persist.hard_state is not None:
            self.hard_state = persist.hard_state

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.entries)

    def _truncate(self, index: int) -> None:
        if self.entries and self.entries[0].index < index:
            while self.entries[-1].index >= index:
                self.entries.pop()
            return
        self.entries.clear()
        self.truncate_from = index if self.truncate_from < 0 else min(self.truncate_from, index)


class Writes:
    """See the module. ``hard_state`` is the newest one that was asked for."""

    def __init__(self, saved: SavedState) -> None:
        self._base: Configuration = saved.base
        self._hard_state = saved.hard_state
        self._gathered = _Group()
        self._handed: _Group | None = None
        self._is_out = False
        self._retry_at_ms: int | None = None
        self._written = self._begun = self._synced = 0
        """Numbers of Persists: written, written before the sync that runs, on disk."""

    @property
    def retry_at_ms(self) -> int | None:
        """When a refused group is to be tried again."""
        return self._retry_at_ms

    @property
    def backlog_bytes(self) -> int:
        return self._gathered.size_bytes + (self._handed.size_bytes if self._handed else 0)

    def add(self, persist: Persist) -> None:
        self._gathered.add(persist)

    def take(self, now_ms: int, wall_ms: int) -> tuple[Write, ...]:
        """What is to be written now, in this order; nothing while the last answer is missing."""
        if self._is_out or (self._retry_at_ms is not None and now_ms < self._retry_at_ms):
            return ()
        if self._handed is None:
            if not self._gathered.number:
                return ()
            self._handed, self._gathered = self._gathered, _Group()
        self._is_out = True
        return self._writes(self._handed, wall_ms)

    def on_written(self) -> None:
        assert self._handed is not None
        self._written = self._handed.number
        self._handed, self._is_out, self._retry_at_ms = None, False, None

    def on_refused(self, retry_at_ms: int) -> None:
        """Nothing of the group's batches was written, and maybe what stands before them; doing that twice does no harm."""
        reached("metadata write tried again")
        self._is_out = False
        self._retry_at_ms = retry_at_ms

    def on_sync_begun(self) -> None:
        self._begun = self._written

    def on_synced(self) -> int:
        """The Persist up to which all are on disk now; 0: as before."""
        if self._begun <= self._synced:
            return 0
        self._synced = self._begun
        return self._synced

    def _writes(self, group: _Group, wall_ms: int) -> tuple[Write, ...]:
        writes: list[Write] = []
        if group.truncate_from >= 0:
            writes.append(Truncate(group.truncate_from))
        self._hard_state = group.hard_state or self._hard_state
        if group.hard_state is not None or not group.entries:  # without any of both the sync would not report the partition
            writes.append(Save(encode_saved(self._hard_state, self._base)))
        if group.entries:
            writes.append(Append(METADATA_PARTITION, tuple(encode_entry(entry, wall_ms) for entry in group.entries)))
        return tuple(writes)
