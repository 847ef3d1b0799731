"""What a history says about each key: who sent and who read which value, and which value has which offset.

Acts are operations with both ends, numbered as they were completed; those that never completed come last and count as ``info``.
The log of a key is made of every offset that a poll showed, whatever became of the poll, and of the receipts of sends that
must have happened. Positions in it are dense: offsets that hold no record (a transaction's marker) do not count as a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Final, TypeAlias

from msgspec import Struct

from zmqmq.errors import InvalidHistory
from zmqmq.testing.history.model import Kind, Operation, Poll, Process, Send, Step, Value

Records: TypeAlias = Sequence[tuple[int, Value]]
READING: Final = frozenset({"poll", "txn"})
SENDING: Final = frozenset({"send", "txn"})


class Act(Struct, gc=False, eq=False):
    """An operation with both ends. ``done`` is the invocation itself where no completion came."""

    number: int
    invoked: Operation
    done: Operation
    type: Kind
    sends: dict[str, list[Send]]
    reads: dict[str, Records]

    @property
    def is_txn(self) -> bool:
        return self.done.f == "txn"

    @property
    def is_final(self) -> bool:
        return self.done.final or self.invoked.final


class KeyLog:
    """One key. Values at an offset beyond the first are ``rivals``, offsets of a value beyond the first ``copies``."""

    __slots__ = (
        "copies",
        "end",
        "final_reads",
        "first",
        "known_ns",
        "log",
        "offsets",
        "ok_reads",
        "places",
        "positions",
        "read_end",
        "rivals",
        "writers",
    )

    def __init__(self) -> None:
        self.writers: dict[Value, Act] = {}
        self.log: dict[int, Value] = {}
        self.known_ns: dict[int, int] = {}
        """When a completion first showed the offset."""
        self.places: dict[Value, int] = {}
        self.rivals: dict[int, list[Value]] = {}
        self.copies: dict[Value, list[int]] = {}
        self.ok_reads: set[Value] = set()
        self.final_reads: set[Value] = set()
        self.offsets: list[int] = []
        self.positions: dict[int, int] | None = None
        """Dense position by offset; None while there is no hole, when offsets do as well."""
        self.first = self.end = 0
        self.read_end = 0
        """Behind the last value that was read for sure; a value with several offsets counts at its first."""

    def add(self, offset: int, value: Value, time_ns: int) -> None:
        known = self.known_ns.get(offset)
        if known is None or time_ns < known:
            self.known_ns[offset] = time_ns
        there = self.log.setdefault(offset, value)
        if there != value and value not in self.rivals.setdefault(offset, []):
            self.rivals[offset].append(value)
        place = self.places.setdefault(value, offset)
        if place != offset and offset not in self.copies.setdefault(value, []):
            self.copies[value].append(offset)

    def seal(self) -> None:
        """All offsets are known: give them their positions."""
        self.offsets = sorted(self.log)
        if self.offsets:
            self.first, self.end = self.offsets[0], self.offsets[-1] + 1
        if self.end - self.first != len(self.offsets):
            self.positions = {offset: position for position, offset in enumerate(self.offsets)}
        for value, copies in self.copies.items():
            self.places[value], *copies[:] = sorted((self.places[value], *copies))
        self.read_end = self._read_end()

    def delta(self, before: int | None, after: int | None) -> int:
        """How many steps it is from one offset to another; 1, the step of a perfect log, where one is not known."""
        if before is None or after is None or before not in self.log or after not in self.log:
            return 1
        return after - before if self.positions is None else self.positions[after] - self.positions[before]

    def next_offset(self, offset: int) -> int | None:
        """The offset of the record behind the one at ``offset``, which is in the log; None at the end."""
        position = offset - self.first if self.positions is None else self.positions[offset]
        return self.offsets[position + 1] if position + 1 < len(self.offsets) else None

    def place(self, send: Send) -> int | None:
        """Where a send went, as its receipt says, or as polls showed."""
        return send.offset if send.offset is not None else self.places.get(send.value)

    def _read_end(self) -> int:
        for offset in reversed(self.offsets):
            value = self.log[offset]
            if value in self.ok_reads and self.places[value] == offset:
                return offset + 1
        return self.first


class History:
    """Acts, and the log of each key in the order of the keys' names."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.acts, self.count = _pair(operations)
        self.keys: dict[str, KeyLog] = {}
        self.strangers: list[tuple[Act, str, int, Value]] = []
        """Polled, but sent by nobody."""
        self.aborted: list[tuple[Act, str, int, Value]] = []
        """Read for sure, though their sends failed."""
        self.flows: list[tuple[Act, Act]] = []
        """(who sent, who polled what it sent), each pair at least once."""
        for act in self.acts:
            for key, sends in act.sends.items():
                self._on_sends(act, key, sends)
        for act in self.acts:
            for key, records in act.reads.items():
                self._on_reads(act, key, records)
        for act in self.acts:
            if act.sends:
                self._on_receipts(act)
        self.keys = {key: self.keys[key] for key in sorted(self.keys)}
        for log in self.keys.values():
            log.seal()
        self.has_final = any(act.is_final and act.type == "ok" and act.done.f in READING for act in self.acts)

    @cached_property
    def witnesses(self) -> dict[tuple[str, int, Value], Act]:
        """The first act that showed a value at an offset of a key. Only wanted where something is wrong."""
        found: dict[tuple[str, int, Value], Act] = {}
        for act in self.acts:
            for key, records in act.reads.items():
                for offset, value in records:
                    found.setdefault((key, offset, value), act)
            for key, sends in act.sends.items():
                for send in sends:
                    if send.offset is not None and self.must_have_happened(act, send):
                        found.setdefault((key, send.offset, send.value), act)
        return found

    def _log(self, key: str) -> KeyLog:
        found = self.keys.get(key)
        if found is None:
            found = self.keys[key] = KeyLog()
        return found

    def _on_sends(self, act: Act, key: str, sends: list[Send]) -> None:
        writers = self._log(key).writers
        for send in sends:
            writer = writers.setdefault(send.value, act)
            if writer is not act:
                raise InvalidHistory(
                    f"operations {writer.invoked.index} and {act.invoked.index} both send {send.value!r} to {key}",
                    hint="give every record of a key a value of its own",
                )

    def _on_reads(self, act: Act, key: str, records: Records) -> None:
        log, time_ns, is_ok = self._log(key), act.done.time_ns, act.type == "ok"
        values, writers, last = log.log, log.writers, None
        for offset, value in records:
            if values.get(offset) != value:
                log.add(offset, value, time_ns)
            writer = writers.get(value)
            if writer is None:
                self.strangers.append((act, key, offset, value))
            elif writer is not last:
                self.flows.append((writer, act))
                last = writer
            if is_ok and writer is not None and writer.type == "fail":
                self.aborted.append((act, key, offset, value))
        if is_ok:
            read = [value for _, value in records]
            log.ok_reads.update(read)
            if act.is_final:
                log.final_reads.update(read)

    def _on_receipts(self, act: Act) -> None:
        """After all reads: what was read tells which uncertain sends happened."""
        for key, sends in act.sends.items():
            log = self.keys[key]
            for send in sends:
                if send.offset is not None and self.must_have_happened(act, send):
                    log.add(send.offset, send.value, act.done.time_ns)

    def must_have_happened(self, act: Act, send: Send) -> bool:
        """A transaction happens whole, so one of its values read for sure is enough; other sends stand for themselves, and a receipt
        proves them."""
        if act.type != "info":
            return act.type == "ok"
        if act.is_txn:
            return any(other.value in self.keys[key].ok_reads for key, sends in act.sends.items() for other in sends)
        return send.offset is not None or send.value in self.keys[send.key].ok_reads


def _pair(operations: Iterable[Operation]) -> tuple[list[Act], int]:
    """Acts, and how many operations there were."""
    pending: dict[Process, Operation] = {}
    acts: list[Act] = []
    index, time_ns, count = -1, None, 0
    for operation in operations:
        if operation.index <= index or (time_ns is not None and operation.time_ns < time_ns):
            raise _out_of_order(operation)
        index, time_ns, count = operation.index, operation.time_ns, count + 1
        if operation.type == "invoke":
            if operation.process in pending:
                raise _at(operation, f"process {operation.process} begins a second operation before its first ended")
            pending[operation.process] = operation
            continue
        invoked = pending.pop(operation.process, None)
        if invoked is None or invoked.f != operation.f:
            raise _at(operation, f"process {operation.process} ends a {operation.f} that it did not begin")
        acts.append(_act(len(acts), invoked, operation, operation.type))
    acts += [_act(number, invoked, invoked, "info") for number, invoked in enumerate(pending.values(), len(acts))]
    return acts, count


def _act(number: int, invoked: Operation, done: Operation, type: Kind) -> Act:
    steps = done.value if done.value is not None else invoked.value
    if steps is None:
        if done.type == "ok" and done.f in {"send", "poll", "txn"}:
            raise _at(done, f"a {done.f} that is ok has no value")
        return Act(number, invoked, done, type, _NO_SENDS, _NO_READS)
    sends, reads = _steps(steps) if len(steps) != 1 else _step(steps[0])
    if done.f not in _CARRIES or (sends and done.f not in SENDING) or (reads and done.f not in READING):
        raise _at(done, f"a {done.f} has steps that do not belong to it")
    return Act(number, invoked, done, type, sends, reads)


_NO_SENDS: Final[dict[str, list[Send]]] = {}
_NO_READS: Final[dict[str, Records]] = {}
_CARRIES: Final = SENDING | READING


def _step(step: Step) -> tuple[dict[str, list[Send]], dict[str, Records]]:
    if isinstance(step, Send):
        return {step.key: [step]}, _NO_READS
    return _NO_SENDS, dict(step.records)


def _steps(steps: list[Step]) -> tuple[dict[str, list[Send]], dict[str, Records]]:
    """Sends and records by key, each in their order."""
    sends: dict[str, list[Send]] = {}
    reads: dict[str, list[tuple[int, Value]]] = {}
    for step in steps:
        if isinstance(step, Poll):
            for key, records in step.records.items():
                reads.setdefault(key, []).extend(records)
        else:
            sends.setdefault(step.key, []).append(step)
    return sends, dict(reads)


def _out_of_order(operation: Operation) -> InvalidHistory:
    return _at(operation, "its index does not rise, or its time_ns falls")


def _at(operation: Operation, what: str) -> InvalidHistory:
    return InvalidHistory(f"operation {operation.index}: {what}", hint="correct what recorded it; the format is in docs/history.md")
