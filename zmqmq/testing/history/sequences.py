"""Checks of order: what one operation, and one process, polled and sent of a key lies in the log one behind another.

Steps are counted in records that exist, so a hole in the offsets is no skip. Where an offset is not known the step counts as right.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from zmqmq.testing.history.findings import Finding
from zmqmq.testing.history.model import Process
from zmqmq.testing.history.order import Act, History, KeyLog, Records


def inside_polls(history: History) -> Iterator[Finding]:
    for act in history.acts:
        moved = (*(act.done.rebalanced or ()), *(act.invoked.rebalanced or ()))
        for key, records in act.reads.items():
            if len(records) > 1 and key not in moved:
                yield from _inside_poll(act, key, history.keys[key], records)


def _inside_poll(act: Act, key: str, log: KeyLog, records: Records) -> Iterator[Finding]:
    first, last = records[0][0], records[-1][0]
    if log.positions is None and last - first == len(records) - 1 and [offset for offset, _ in records] == list(range(first, last + 1)):
        return  # nearly always
    for (before, _), (after, value) in itertools.pairwise(records):
        delta = log.delta(before, after)
        if delta != 1:
            name = "int-poll-skip" if delta > 1 else "int-nonmonotonic-poll"
            what = f"offset {after} of {key} came behind offset {before} in one operation, {_step(delta)}"
            yield Finding(name, what, key, (before, after), (value,), (act.done.index,))


def outside_polls(history: History) -> Iterator[Finding]:
    """A process's position advances only by operations that are ok: behind any other it has to start again from where it was."""
    positions: dict[Process, dict[str, tuple[int, Act]]] = {}
    for act in history.acts:
        process, f = act.invoked.process, act.done.f
        if act.reads:
            own = positions.setdefault(process, {})
            for key, records in act.reads.items():
                if not records:
                    continue
                if (last := own.get(key)) is not None:
                    delta = history.keys[key].delta(last[0], records[0][0])
                    if delta != 1:
                        yield _outside_poll(key, last, act, records, delta)
                if act.type == "ok":
                    own[key] = (records[-1][0], act)
        elif f == "crash":
            positions.pop(process, None)
        elif act.type != "fail" and f in {"assign", "subscribe", "seek"}:
            _reposition(positions.get(process, {}), act)


def _reposition(own: dict[str, tuple[int, Act]], act: Act) -> None:
    keys = act.done.keys if act.done.keys is not None else act.invoked.keys or []
    for key in [key for key in own if (key in keys) == (act.done.f == "seek")]:
        del own[key]


def _outside_poll(key: str, last: tuple[int, Act], act: Act, records: Records, delta: int) -> Finding:
    name = "poll-skip" if delta > 1 else "nonmonotonic-poll"
    (before, earlier), (after, value) = last, records[0]
    what = f"process {act.invoked.process} polled offset {after} of {key} next behind offset {before}, {_step(delta)}"
    return Finding(name, what, key, (before, after), (value,), (earlier.done.index, act.done.index))


def sends(history: History) -> Iterator[Finding]:
    last: dict[tuple[Process, str], tuple[int, Act]] = {}
    for act in history.acts:
        if act.type == "fail":
            continue
        for key, found in act.sends.items():
            log = history.keys[key]
            places = [place for send in found if (place := log.place(send)) is not None and place in log.log]
            if not places:
                continue
            earlier = last.get((act.invoked.process, key))
            if earlier is not None and log.delta(earlier[0], places[0]) < 1:
                what = f"process {act.invoked.process} sent to offset {places[0]} of {key} after it had sent to offset {earlier[0]}"
                offsets = (earlier[0], places[0])
                yield Finding("nonmonotonic-send", what, key, offsets, (), (earlier[1].done.index, act.done.index))
            last[act.invoked.process, key] = (places[-1], act)
            if len(places) > 1:
                yield from _inside_send(act, key, log, places)


def _inside_send(act: Act, key: str, log: KeyLog, places: list[int]) -> Iterator[Finding]:
    for before, after in itertools.pairwise(places):
        delta = log.delta(before, after)
        if delta != 1:
            name = "int-send-skip" if delta > 1 else "int-nonmonotonic-send"
            what = f"one operation sent to offset {before} of {key}, then to offset {after}, {_step(delta)}"
            yield Finding(name, what, key, (before, after), (), (act.done.index,))


def _step(delta: int) -> str:
    if delta > 1:
        return f"past {delta - 1:,} record{'s' if delta > 2 else ''}"
    return "the same again" if delta == 0 else f"{-delta:,} back"
