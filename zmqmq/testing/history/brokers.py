"""Checks of what brokers tell beside the records: high watermarks, leader epochs, producers' sequences. No facts, no findings.

A watermark is compared within one process only: an answer may have been fetched ahead, before another process's later poll.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from zmqmq.testing.history.findings import Finding
from zmqmq.testing.history.model import Batch, Poll, Process, Seen
from zmqmq.testing.history.order import Act, History


def watermarks(history: History) -> Iterator[Finding]:
    highest: dict[tuple[Process, str, int], tuple[int, Act]] = {}
    for act, key, seen, poll in _seen(history):
        if seen.high_watermark < 0:
            continue
        place = (act.invoked.process, key, seen.leader_epoch)
        before = highest.get(place)
        if before is not None and seen.high_watermark < before[0]:
            what = f"process {place[0]} saw the high watermark of {key} at {before[0]}, then at {seen.high_watermark}, in one epoch"
            offsets = (before[0], seen.high_watermark)
            yield Finding("watermark-regression", what, key, offsets, (), (before[1].done.index, act.done.index))
        else:
            highest[place] = (seen.high_watermark, act)
        for offset, value in poll.records.get(key, ()):
            if offset >= seen.high_watermark:
                what = f"offset {offset} of {key} was polled with a high watermark of {seen.high_watermark}"
                yield Finding("watermark-overrun", what, key, (offset, seen.high_watermark), (value,), (act.done.index,))
                break


def epochs(history: History) -> Iterator[Finding]:
    """Of fetched batches and of receipts."""
    found: dict[str, dict[tuple[int, int], Act]] = {}
    for act in history.acts:
        for key, sends in act.sends.items():
            for send in sends:
                if send.offset is not None and send.leader_epoch >= 0 and act.type == "ok":
                    found.setdefault(key, {}).setdefault((send.offset, send.leader_epoch), act)
    for act, key, seen, _ in _seen(history):
        for batch in seen.batches:
            if batch.leader_epoch >= 0:
                found.setdefault(key, {}).setdefault((batch.base_offset, batch.leader_epoch), act)
    for key, points in sorted(found.items()):
        yield from _epochs_of(key, points)


def _epochs_of(key: str, points: dict[tuple[int, int], Act]) -> Iterator[Finding]:
    """An offset with two epochs is a finding as well."""
    ordered = sorted(points)
    for before, after in itertools.pairwise(ordered):
        if after[1] < before[1] or after[0] == before[0]:
            what = f"{key} has epoch {before[1]} at offset {before[0]} and epoch {after[1]} at offset {after[0]}"
            yield Finding("epoch-regression", what, key, (before[0], after[0]), (), (points[before].done.index, points[after].done.index))


def sequences(history: History) -> Iterator[Finding]:
    """Distinct batches of one producer and epoch never share a sequence number."""
    found: dict[tuple[str, int, int], dict[tuple[int, int, int], Act]] = {}
    for act, key, seen, _ in _seen(history):
        for batch in seen.batches:
            if batch.producer_id >= 0 and batch.base_sequence >= 0:
                found.setdefault((key, batch.producer_id, batch.producer_epoch), {}).setdefault(_span(batch), act)
    for (key, producer_id, producer_epoch), spans in sorted(found.items()):
        ordered = sorted(spans)
        for before, after in itertools.pairwise(ordered):
            if after[0] < before[0] + before[1]:
                who = f"producer {producer_id} in epoch {producer_epoch}"
                what = f"sequence {after[0]} of {who} is at offset {before[2]} of {key} and at offset {after[2]}"
                operations = (spans[before].done.index, spans[after].done.index)
                yield Finding("sequence-reuse", what, key, (before[2], after[2]), (), operations)


def _span(batch: Batch) -> tuple[int, int, int]:
    return batch.base_sequence, batch.count, batch.base_offset


def _seen(history: History) -> Iterator[tuple[Act, str, Seen, Poll]]:
    for act in history.acts:
        if act.reads or act.done.f in {"poll", "txn"}:
            for step in act.done.value or ():
                if isinstance(step, Poll) and step.seen:
                    for key, seen in step.seen.items():
                        yield act, key, seen, step
