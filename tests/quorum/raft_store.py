"""A disk for one member: what it reads back, what is synced, and what a crash leaves of the difference."""

from __future__ import annotations

import random
from collections.abc import Callable

from zmqmq.metadata.quorum.effects import Persist
from zmqmq.metadata.quorum.state import Configuration, Entry, HardState, Snapshot, SnapshotMeta


class MemoryStore:
    """Implements EntryStore."""

    def __init__(self, configuration: Configuration) -> None:
        self.hard_state = HardState()
        self.snapshot = SnapshotMeta(configuration=configuration)
        self.data = b""
        self.start = self.start_term = 0
        self.entries: list[Entry] = []

    @property
    def end(self) -> int:
        return self.entries[-1].end if self.entries else self.start

    def copy(self) -> MemoryStore:
        made = MemoryStore(Configuration())
        made.__dict__ |= self.__dict__ | {"entries": self.entries[:]}
        return made

    def read(self, start: int, end: int, bytes_max: int) -> tuple[Entry, ...]:
        chosen: list[Entry] = []
        size = 0
        for entry in self.entries[self._position(start) :]:
            size += entry.size_bytes
            if entry.end > end or (chosen and size > bytes_max):
                break
            chosen.append(entry)
        return tuple(chosen)

    def read_snapshot(self, position: int, size: int) -> bytes:
        return self.data[position : position + size]

    def steps(self, persist: Persist) -> list[Callable[[], None]]:
        """What a Persist does, but for the hard state, in the order of its fields; a crash may come between any two."""
        steps: list[Callable[[], None]] = []
        if persist.snapshot is not None:
            snapshot = persist.snapshot
            steps.append(lambda: self._save_snapshot(snapshot))
        if persist.replaces_log:
            steps.append(self._replace_log)
        if persist.log_start > self.start:
            steps.append(lambda: self._move_start(persist.log_start))
        if persist.truncate_from >= 0:
            steps.append(lambda: self._truncate(persist.truncate_from))
        steps.extend(lambda entry=entry: self._append(entry) for entry in persist.entries)  # type: ignore[misc]
        return steps

    def perform(self, persist: Persist) -> None:
        if persist.hard_state is not None:
            self.hard_state = persist.hard_state
        for step in self.steps(persist):
            step()

    def _position(self, index: int) -> int:
        low, high = 0, len(self.entries)
        while low < high:
            middle = (low + high) // 2
            if self.entries[middle].index < index:
                low = middle + 1
            else:
                high = middle
        assert low == len(self.entries) or self.entries[low].index == index, f"no entry begins at {index}"
        return low

    def _save_snapshot(self, snapshot: Snapshot) -> None:
        self.snapshot, self.data = snapshot.meta, snapshot.data

    def _replace_log(self) -> None:
        self.entries = []
        self.start, self.start_term = self.snapshot.end, self.snapshot.term

    def _move_start(self, start: int) -> None:
        """To where an entry begins; a replaced log has nothing before its start."""
        position = self._position(start)
        if position:
            self.start, self.start_term = start, self.entries[position - 1].term
            del self.entries[:position]

    def _truncate(self, index: int) -> None:
        del self.entries[self._position(index) :]

    def _append(self, entry: Entry) -> None:
        assert entry.index == self.end, f"{entry} does not follow {self.end}"
        self.entries.append(entry)


class MemoryDisk:
    """``visible`` is what the process reads; ``synced`` survives."""

    def __init__(self, configuration: Configuration) -> None:
        self.visible = MemoryStore(configuration)
        self.synced = self.visible.copy()
        self._pending: list[Persist] = []

    def perform(self, persist: Persist) -> None:
        self.visible.perform(persist)
        self._pending.append(persist)

    def sync(self, number: int) -> None:
        while self._pending and self._pending[0].number <= number:
            self.synced.perform(self._pending.pop(0))

    def crash(self, chance: random.Random, *, keeps_nothing: bool = False) -> None:
        """Some of what was not synced survives: whole Persists, then a beginning of the next one."""
        pending, self._pending = self._pending, []
        whole = 0 if keeps_nothing else chance.randint(0, len(pending))
        for persist in pending[:whole]:
            self.synced.perform(persist)
        if whole < len(pending) and not keeps_nothing:
            torn = pending[whole]
            if torn.hard_state is not None and chance.random() < 0.5:
                self.synced.hard_state = torn.hard_state
            steps = self.synced.steps(torn)
            for step in steps[: chance.randint(0, len(steps))]:
                step()
        self.visible = self.synced.copy()
