"""Checks of single records: that each is at one place, from somebody, whole, and not lost. Each yields its findings by key."""

from __future__ import annotations

from collections.abc import Iterator

from zmqmq.testing.history.findings import Finding
from zmqmq.testing.history.model import Value
from zmqmq.testing.history.order import History, KeyLog


def inconsistent_offsets(history: History) -> Iterator[Finding]:
    for key, log in history.keys.items():
        for offset in sorted(log.rivals):
            values = (log.log[offset], *log.rivals[offset])
            what = f"offset {offset} of {key} holds {_listed(values)}"
            yield Finding("inconsistent-offsets", what, key, (offset,), values, _witnesses(history, key, values, (offset,)))


def duplicates(history: History) -> Iterator[Finding]:
    for key, log in history.keys.items():
        for value, copies in log.copies.items():
            offsets = (log.places[value], *copies)
            what = f"{value!r} is at offsets {_listed(offsets)} of {key}"
            yield Finding("duplicate", what, key, offsets, (value,), _witnesses(history, key, (value,), offsets))


def no_writers(history: History) -> Iterator[Finding]:
    for act, key, offset, value in history.strangers:
        yield Finding("no-writer", f"{value!r} at offset {offset} of {key} was sent by nobody", key, (offset,), (value,), (act.done.index,))


def aborted_reads(history: History, *, of_transactions: bool) -> Iterator[Finding]:
    """Whoever reads uncommitted records may well see those of transactions that failed."""
    for act, key, offset, value in history.aborted:
        writer = history.keys[key].writers[value]
        if writer.is_txn and not of_transactions:
            continue
        what = f"{value!r} was read at offset {offset} of {key}, and its send failed"
        yield Finding("G1a", what, key, (offset,), (value,), (writer.done.index, act.done.index))


def precommitted_reads(history: History) -> Iterator[Finding]:
    for act in history.acts:
        if not (act.sends and act.reads):
            continue
        for key, sends in act.sends.items():
            own = {send.value for send in sends}
            for offset, value in act.reads.get(key, ()):
                if value in own:
                    what = f"{value!r} was polled at offset {offset} of {key} by the transaction that sent it"
                    yield Finding("precommitted-read", what, key, (offset,), (value,), (act.done.index,))


def lost_writes(history: History) -> Iterator[Finding]:
    """Below the last value read for sure, every value that must have been written was read by somebody."""
    for key, log in history.keys.items():
        end = log.read_end
        for offset in log.offsets:
            if offset >= end:
                break
            value = log.log[offset]
            if value in log.ok_reads or max(log.copies.get(value, (offset,))) >= end or not _happened(history, log, key, value):
                continue
            what = f"{value!r} at offset {offset} of {key} was never read, though offset {end - 1} was"
            yield Finding("lost-write", what, key, (offset,), (value,), (log.writers[value].done.index,))


def unseen(history: History) -> Iterator[Finding]:
    if not history.has_final:
        return  # it could still be on its way
    for key, log in history.keys.items():
        for value, act in log.writers.items():
            if act.type == "ok" and value not in log.ok_reads:
                at = f" at offset {log.places[value]}" if value in log.places else ""
                offsets = (log.places[value],) if value in log.places else ()
                what = f"{value!r} was acknowledged{at} of {key}, and no poll found it"
                yield Finding("unseen", what, key, offsets, (value,), (act.done.index,))


def vanished(history: History) -> Iterator[Finding]:
    if not history.has_final:
        return
    for key, log in history.keys.items():
        for offset in log.offsets:
            value = log.log[offset]
            if value in log.ok_reads and value not in log.final_reads and log.places[value] == offset:
                what = f"{value!r} was read at offset {offset} of {key}, and the final polls did not find it"
                yield Finding("vanished", what, key, (offset,), (value,), _witnesses(history, key, (value,), (offset,)))


def torn_transactions(history: History) -> Iterator[Finding]:
    for act in history.acts:
        if not act.is_txn or act.type == "fail":
            continue
        sends = [send for found in act.sends.values() for send in found]
        if all(send.value not in history.keys[send.key].ok_reads for send in sends):
            continue
        for send in sends:
            log = history.keys[send.key]
            if send.value not in log.ok_reads and (history.has_final or _is_passed(log, send.value)):
                what = f"{send.value!r}, sent to {send.key}, was not read, and other sends of its transaction were"
                place = log.place(send)
                offsets = (place,) if place is not None else ()
                yield Finding("torn-transaction", what, send.key, offsets, (send.value,), (act.done.index,))


def _is_passed(log: KeyLog, value: Value) -> bool:
    place = log.places.get(value)
    return place is not None and place < log.read_end


def _happened(history: History, log: KeyLog, key: str, value: Value) -> bool:
    writer = log.writers.get(value)
    if writer is None:
        return False
    send = next(send for send in writer.sends[key] if send.value == value)
    return history.must_have_happened(writer, send)


def _witnesses(history: History, key: str, values: tuple[Value, ...], offsets: tuple[int, ...]) -> tuple[int, ...]:
    """The first operation that showed each value at each offset."""
    shown = (history.witnesses.get((key, offset, value)) for offset in offsets for value in values)
    return tuple(sorted({act.done.index for act in shown if act is not None}))


def _listed(items: tuple[Value, ...]) -> str:
    return ", ".join(repr(item) for item in items[:-1]) + f" and {items[-1]!r}"
