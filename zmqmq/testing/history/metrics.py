"""Figures of a history: what was sent and read, how late, how often."""

from __future__ import annotations

from collections import Counter

from zmqmq.testing.history.model import Process, Value
from zmqmq.testing.history.order import Act, History, KeyLog
from zmqmq.testing.history.report import Metrics


def measure(history: History) -> Metrics:
    sent = Counter(act.type for act in history.acts for sends in act.sends.values() for _ in sends)
    unseen = {
        key: count
        for key, log in history.keys.items()
        if (count := sum(act.type == "ok" and value not in log.ok_reads for value, act in log.writers.items()))
    }
    return Metrics(
        operations=history.count,
        sends_ok=sent["ok"],
        sends_failed=sent["fail"],
        sends_unknown=sent["info"],
        values_read=sum(len(log.ok_reads) for log in history.keys.values()),
        unseen=unseen,
        lag_ns=_lags(history),
        consumed=_consumed(history),
    )


def _lags(history: History) -> dict[str, int]:
    """The final polls begin again at the start, so they tell nothing of lag."""
    positions: dict[tuple[Process, str], int] = {}
    worst: dict[str, int] = {}
    for act in history.acts:
        if act.type != "ok" or act.is_final:
            continue
        for key, records in act.reads.items():
            place = (act.invoked.process, key)
            if records:
                positions[place] = records[-1][0]
            lag = _lag(history.keys[key], positions.get(place), act)
            if lag > worst.get(key, -1):
                worst[key] = lag
    return {key: worst[key] for key in history.keys if key in worst}


def _lag(log: KeyLog, last: int | None, act: Act) -> int:
    following = (log.offsets[0] if log.offsets else None) if last is None else log.next_offset(last)
    return 0 if following is None else max(0, act.invoked.time_ns - log.known_ns[following])


def _consumed(history: History) -> dict[int, int]:
    subscribed: set[Process] = set()
    counts: Counter[tuple[str, Value]] = Counter()
    for act in history.acts:
        process = act.invoked.process
        if act.done.f == "subscribe" and act.type != "fail":
            subscribed.add(process)
        elif act.done.f == "assign" and act.type != "fail":
            subscribed.discard(process)
        elif act.type == "ok" and act.reads and process in subscribed:
            counts.update((key, value) for key, records in act.reads.items() for _, value in records)
    return dict(sorted(Counter(counts.values()).items()))
