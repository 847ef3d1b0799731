"""The journal: every append of every partition, made durable by one sync.

Two preallocated files alternate. A file's *life* begins when a checkpoint switches to it and ends when a
later checkpoint has made everything in it superfluous; each life has a random generation, so that stale
bytes of an earlier one are never taken for entries. Entries are numbered across files and lives, and a
number that ever was on disk is not used again.

Invariant: ``synced <= last written``; entries are contiguous in each file from its first byte on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zmqmq.errors import Throttled
from zmqmq.marks import reached
from zmqmq.store.files import write_all
from zmqmq.store.formats import encode_entry, entry_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmqmq.ports import Buffer, File, Random

_GENERATION_BYTES: Final = 8
_RETRY_AFTER_MS: Final = 50


class _Slot:
    """One of the two files."""

    __slots__ = ("allocated", "file", "generation", "is_live", "position")

    def __init__(self, file: File) -> None:
        self.file = file
        self.position = 0
        self.allocated = file.size()
        self.generation = 0
        self.is_live = False
        """Holds entries that the checkpoint on disk does not cover."""


class Journal:
    """The writer. Belongs to one thread, but for the sync of its files."""

    def __init__(self, files: tuple[File, File], *, next_sequence: int, random: Random, bytes_max: int, allocate_bytes: int) -> None:
        self._slots = tuple(_Slot(file) for file in files)
        self._active = 0
        self._random = random
        self._bytes_max = bytes_max
        self._allocate_bytes = allocate_bytes
        self._unsynced: dict[int, None] = {}
        self.next_sequence = next_sequence
        self.synced = next_sequence - 1
        self._begin_life()

    @property
    def is_half_full(self) -> bool:
        return self._slots[self._active].position * 2 >= self._bytes_max

    @property
    def live_bytes(self) -> int:
        """Bytes that recovery would replay."""
        return sum(slot.position for slot in self._slots if slot.is_live)

    @property
    def size_bytes(self) -> int:
        return sum(slot.allocated for slot in self._slots)

    def check_room(self, *, is_urgent: bool = False) -> None:
        """Raises Throttled while the journal is full. One round may go over its limit, and what is urgent over twice of it."""
        slot = self._slots[self._active]
        if slot.position >= self._bytes_max * (1 + is_urgent):
            raise Throttled(
                f"the journal is full ({slot.position} bytes) until a checkpoint is done",
                retry_after_ms=_RETRY_AFTER_MS,
                hint="the disk is slower than the producers; the client retries by itself",
                outcome="not_written",
            )

    def write(self, items: Sequence[Buffer], *, length: int, item_count: int) -> None:
        """Write one entry, unsynced. Raises OSError; then it is as if nothing had been written."""
        slot = self._slots[self._active]
        size = entry_size(length)
        self._allocate(slot, slot.position + size)
        entry = encode_entry(
            items,
            length=length,
            item_count=item_count,
            generation=slot.generation,
            sequence=self.next_sequence,
            synced=self.synced,
        )
        write_all(slot.file, entry, slot.position)
        slot.position += size
        self.next_sequence += 1
        self._unsynced[self._active] = None

    def begin_sync(self) -> tuple[list[File], int]:
        """The files to sync, and the sequence that is on disk when they are."""
        files = [self._slots[slot].file for slot in self._unsynced]
        self._unsynced = {}
        return files, self.next_sequence - 1

    def end_sync(self, sequence: int) -> None:
        self.synced = max(self.synced, sequence)

    def sync(self) -> None:
        """Sync everything in the caller's thread, besides what a job may be doing: no entry is on disk before this one's
        predecessors are. Raises OSError; then nobody knows what is on disk."""
        for slot in self._slots:
            if slot.is_live:
                slot.file.fdatasync()
        self.synced = self.next_sequence - 1

    @property
    def has_unsynced(self) -> bool:
        return bool(self._unsynced)

    def switch(self) -> None:
        """Go on in the other file if it is free. Everything before ``next_sequence`` may then be retired."""
        other = 1 - self._active
        if not self._slots[other].is_live and self._slots[self._active].position:
            reached("journal switched")
            self._active = other
            self._begin_life()

    def retire(self) -> None:
        """A checkpoint on disk covers everything before the last ``switch``: free the other file."""
        slot = self._slots[1 - self._active]
        slot.is_live = False
        reached("journal retired")
        if slot.allocated > self._bytes_max:
            slot.file.truncate(self._bytes_max)
            slot.allocated = self._bytes_max

    def close(self) -> None:
        for slot in self._slots:
            slot.file.close()

    def _begin_life(self) -> None:
        slot = self._slots[self._active]
        slot.position = 0
        slot.generation = int.from_bytes(self._random.randbytes(_GENERATION_BYTES), "little")
        slot.is_live = True

    def _allocate(self, slot: _Slot, end: int) -> None:
        while slot.allocated < end:
            slot.file.allocate(slot.allocated, self._allocate_bytes)
            slot.allocated += self._allocate_bytes

    def __repr__(self) -> str:
        slot = self._slots[self._active]
        return f"<Journal file {self._active} at {slot.position} next {self.next_sequence} synced {self.synced}>"
