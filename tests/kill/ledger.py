"""What everybody swore to, and whether it can all be true.

Witnesses speak in lines (``hear``): a producer that got a receipt, a reader that saw a record, anyone who saw something
wrong. An audit reads the log itself (``Pass``). For each offset of each partition all of them have to name the same
record and the same leader epoch; what was sworn to may be missing only below the log start of a topic that removes.

Pure: knows no broker, no file, no clock. ``wrong`` is what cannot be true; empty means that the promises held.

    ack  <topic> <partition> <offset> <epoch> <lane> <number>     a receipt; offset -1: delivered, the place is not told
    saw  <topic> <partition> <offset> <epoch> <lane> <number>     a reader was given it
    fail <lane> <number> <not_written|unknown> <error>            a produce that ended without a receipt
    wrong <words>                                                 a witness caught a broken promise by itself
"""

from __future__ import annotations

from array import array
from collections import Counter
from typing import NamedTuple

from values import Identity

WRONG_MAX = 50
"""Further ones say nothing new."""
NOTHING = -1
_NUMBER_BITS = 40


class Place(NamedTuple):
    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class Row:
    """One partition: at each offset the record and the epoch that witnesses swore to, or NOTHING."""

    def __init__(self) -> None:
        self.records = array("q")
        self.epochs = array("q")
        self.keeps_all = True
        self.log_start = 0

    @property
    def end(self) -> int:
        return len(self.records)


class Ledger:
    """See the module."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        """Lines by their first word; failures as ``fail <outcome> <error>``."""
        self.epochs_acked: set[int] = set()
        self._rows: dict[Place, Row] = {}
        self._lanes: dict[str, int] = {}
        self._lane_names: list[str] = []
        self._not_written: set[int] = set()
        self._somewhere: dict[int, str] = {}
        """Acknowledged without a place, and in which topic."""

    def __repr__(self) -> str:
        return f"Ledger({self.counts['ack']} acks, {self.counts['saw']} seen, {len(self.wrong)} wrong)"

    def accuse(self, words: str) -> None:
        if len(self.wrong) < WRONG_MAX:
            self.wrong.append(words)

    def row(self, place: Place) -> Row:
        found = self._rows.get(place)
        if found is None:
            found = self._rows[place] = Row()
        return found

    def hear(self, line: str) -> None:
        """Take one line of testimony."""
        kind, _, rest = line.partition(" ")
        self.counts[kind] += 1
        if kind == "wrong":
            self.accuse(rest)
            return
        words = rest.split(" ")
        if kind == "fail":
            lane, number, outcome, error = words
            self.counts[f"fail {outcome} {error}"] += 1
            if outcome == "not_written":
                self._not_written.add(self._pack(lane, int(number)))
            elif outcome != "unknown":
                self.accuse(f"{lane}#{number} failed with {error} and the outcome {outcome}")
            return
        topic, partition, offset, epoch, lane, number = words
        record = self._pack(lane, int(number))
        if kind == "ack":
            self.epochs_acked.add(int(epoch))
        if int(offset) == NOTHING:
            self._somewhere[record] = topic
        else:
            self.note(Place(topic, int(partition)), int(offset), int(epoch), record, kind)

    def note(self, place: Place, offset: int, epoch: int, record: int, witness: str) -> None:
        """Somebody says what is at an offset; nobody may have said otherwise."""
        row = self.row(place)
        missing = offset + 1 - row.end
        if missing > 0:
            row.records.extend([NOTHING] * missing)
            row.epochs.extend([NOTHING] * missing)
        known = row.records[offset]
        if known == NOTHING:
            row.records[offset], row.epochs[offset] = record, epoch
        elif known != record or row.epochs[offset] != epoch:
            before = f"{self._name(known)} of epoch {row.epochs[offset]}"
            self.accuse(f"{place}@{offset}: {witness} says {self._name(record)} of epoch {epoch}, it was {before}")

    def begin_pass(self, place: Place, log_start: int) -> Pass:
        """Begin to read a log from its start, or to read on (``Pass.expected``)."""
        row = self.row(place)
        if log_start < row.log_start:
            self.accuse(f"{place}: the log starts at {log_start}, it was {row.log_start}")
        if log_start and row.keeps_all:
            self.accuse(f"{place}: the log starts at {log_start}, nothing of this topic may be removed")
        row.log_start = max(row.log_start, log_start)
        return Pass(self, place, row, log_start)

    def finish(self, passes: list[Pass]) -> None:
        """After all logs were read from their starts to their ends: what only the whole can tell."""
        placed: dict[int, str] = {}
        removing = {one.place.topic for one in passes if not one.row.keeps_all}
        for one in passes:
            for offset in range(one.start, one.expected):
                record = one.row.records[offset]
                where = f"{one.place}@{offset}"
                if record in placed:
                    self.accuse(f"{self._name(record)} is at {placed[record]} and at {where}")
                placed[record] = where
                if record in self._not_written:
                    self.accuse(f"{self._name(record)} was reported as not written and is at {where}")
        for record, topic in self._somewhere.items():
            if record not in placed and topic not in removing:
                self.accuse(f"{self._name(record)} was acknowledged as delivered to {topic} and is nowhere")

    def _pack(self, lane: str, number: int) -> int:
        index = self._lanes.get(lane)
        if index is None:
            index = self._lanes[lane] = len(self._lane_names)
            self._lane_names.append(lane)
        return index << _NUMBER_BITS | number

    def _name(self, record: int) -> str:
        return str(Identity(self._lane_names[record >> _NUMBER_BITS], record & ((1 << _NUMBER_BITS) - 1)))


class Pass:
    """One reading of one partition's log, in order. May go on in parts: ``read`` …, ``end``, ``read`` …, ``end``."""

    def __init__(self, ledger: Ledger, place: Place, row: Row, start: int) -> None:
        self.place = place
        self.row = row
        self.start = self.expected = start
        self._ledger = ledger
        self._epoch = NOTHING
        self._last: dict[str, int] = {}

    def skip_to(self, log_start: int) -> None:
        """The log was cut below ``log_start`` since the last part."""
        if log_start > self.expected:
            self.expected = log_start
        if self.row.keeps_all and log_start:
            self._ledger.accuse(f"{self.place}: the log starts at {log_start}, nothing of this topic may be removed")
        self.start = max(self.start, log_start)
        self.row.log_start = max(self.row.log_start, log_start)

    def read(self, offset: int, epoch: int, identity: Identity | None) -> None:
        accuse, place = self._ledger.accuse, self.place
        if offset != self.expected:
            accuse(f"{place}: offset {offset} follows {self.expected - 1}")
        self.expected = offset + 1
        if epoch < self._epoch:
            accuse(f"{place}@{offset}: epoch {epoch} behind epoch {self._epoch}")
        self._epoch = epoch
        if identity is None:
            accuse(f"{place}@{offset}: the value is none that was sent")
            return
        lane, number = identity
        last = self._last.get(lane, NOTHING)
        if number <= last:
            accuse(f"{place}@{offset}: {identity} {'again' if number == last else f'behind {lane}#{last}'}")
        self._last[lane] = max(number, last)
        self._ledger.note(place, offset, epoch, self._ledger._pack(lane, number), "the log")

    def end(self, heard: int) -> None:
        """The log's end is reached; it must hold everything below ``heard``, which witnesses spoke of before it was asked for."""
        lost = [offset for offset in range(self.expected, heard) if self.row.records[offset] != NOTHING]
        if lost:
            name = self._ledger._name(self.row.records[lost[0]])
            self._ledger.accuse(f"{self.place}: the log ends at {self.expected}, lost are {len(lost)} records from {lost[0]} ({name}) on")
