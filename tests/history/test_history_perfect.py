"""A perfect log with concurrent producers, transactions and consumers is always valid; any one wrong planted into it is found."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from histories import found_in
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from zmqmq.testing.history import ANOMALIES, Batch, Operation, Options, Poll, Recorder, Seen, Send, check

KEYS = ("t-0", "t-1")
MUTATIONS = ("drop", "swap", "duplicate", "backwards", "abort", "invent", "vanish")
CPU_SECONDS_MAX = 3.0


class PerfectLog:
    """Processes take turns at random; what one sends lands in the log at some time between its invocation and its completion."""

    def __init__(self, rng: random.Random, turns: int) -> None:
        self.rng = rng
        self.recorder = Recorder()
        self.logs: dict[str, list[int]] = {key: [] for key in KEYS}
        self.places: dict[int, int] = {}
        self.positions: dict[tuple[int, str], int] = {}
        self.pending: dict[int, tuple[str, list[Send], dict[str, list[tuple[int, int | str]]]]] = {}
        self.next_value = 0
        self.now_ns = 0
        self.process = dict(enumerate(range(6)))
        for _ in range(turns):
            self.turn(rng.randrange(6))
        self.finish()

    def turn(self, seat: int) -> None:
        process = self.process[seat]
        self.now_ns += self.rng.randrange(1_000_000)
        if process in self.pending:
            self.complete(seat, process)
        else:
            self.invoke(process, "poll" if seat >= 4 else self.rng.choice(("send", "send", "txn")))

    def invoke(self, process: int, f: str) -> None:
        sends = [Send(self.rng.choice(KEYS), self.next_value + i) for i in range(self.rng.randint(1, 3))] if f != "poll" else []
        self.next_value += len(sends)
        self.recorder.invoke(process, f, [*sends, *([Poll()] if f != "send" else [])], self.now_ns)  # type: ignore[arg-type]
        self.pending[process] = (f, sends, self.read(process) if f != "send" else {})

    def read(self, process: int) -> dict[str, list[tuple[int, int | str]]]:
        found: dict[str, list[tuple[int, int | str]]] = {}
        for key in KEYS:
            start = self.positions.get((process, key), 0)
            found[key] = list(enumerate(self.logs[key]))[start : start + self.rng.randrange(5)]
        return found

    def complete(self, seat: int, process: int) -> None:
        f, sends, reads = self.pending.pop(process)
        type = self.rng.choices(("ok", "fail", "info"), (8, 1, 1))[0]
        happens = type == "ok" or (type == "info" and self.rng.random() < 0.5)
        done = [self.append(send) if happens else send for send in sends]
        steps = [send if type == "ok" else replace(send, offset=None) for send in done]
        polls = [Poll(reads, {key: self.seen(key) for key in KEYS})] if f != "send" else []
        self.recorder.complete(process, type, [*steps, *polls], self.now_ns)  # type: ignore[arg-type]
        if type == "ok":
            for key, records in reads.items():
                self.positions[process, key] = self.positions.get((process, key), 0) + len(records)
        elif type == "info":
            self.process[seat] = process + 6

    def append(self, send: Send) -> Send:
        assert isinstance(send.value, int)
        log = self.logs[send.key]
        self.places[send.value] = len(log)
        log.append(send.value)
        return replace(send, offset=len(log) - 1, leader_epoch=len(log) // 10)

    def seen(self, key: str) -> Seen:
        log = self.logs[key]
        batches = tuple(Batch(offset, 1, (offset + 1) // 10, 1, 0, offset) for offset in range(len(log)))
        return Seen(high_watermark=len(log), leader_epoch=0, batches=batches)

    def finish(self) -> None:
        self.recorder.invoke("last", "poll", [Poll()], self.now_ns, final=True)
        self.recorder.complete("last", "ok", [Poll({key: list(enumerate(log)) for key, log in self.logs.items()})], self.now_ns)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 120))
def test_a_perfect_log_is_valid(seed: int, turns: int) -> None:
    operations = PerfectLog(random.Random(seed), turns).recorder.operations
    for options in (Options(), Options(ww=True), Options(read_committed=False)):
        report = check(operations, options)
        assert report.is_valid, str(report)
    assert set(check(operations).counts()) <= {"int-send-skip"}


def perfect(seed: int) -> PerfectLog:
    return PerfectLog(random.Random(seed), 80)


def rewritten(operations: list[Operation], change: dict[int, list[Send | Poll]]) -> list[Operation]:
    return [replace(operation, value=change.get(operation.index, operation.value)) for operation in operations]


def in_final(operations: list[Operation], key: str, records: list[tuple[int, int | str]]) -> list[Operation]:
    (poll,) = operations[-1].value or []
    assert isinstance(poll, Poll)
    return rewritten(operations, {operations[-1].index: [Poll(poll.records | {key: records})]})


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(MUTATIONS), st.randoms(use_true_random=False))
def test_one_wrong_in_a_perfect_log_is_always_found(seed: int, mutation: str, rng: random.Random) -> None:
    world = perfect(seed)
    operations = world.recorder.operations
    key = max(KEYS, key=lambda name: len(world.logs[name]))
    records: list[tuple[int, int | str]] = list(enumerate(world.logs[key]))
    if len(records) < 3:
        return
    place = rng.randrange(len(records) - 1)
    acked = {send.value for done in operations if done.type == "ok" for send in done.value or () if isinstance(send, Send)}
    match mutation:
        case "drop":
            value = rng.choice([value for _, value in records if value in acked] or [None])
            if value is None:
                return
            changed = [replace(done, value=without(done.value, value)) for done in operations]
            expected = {"unseen", "lost-write"}
        case "swap":
            (a, x), (b, y) = records[place], records[place + 1]
            changed = in_final(operations, key, [*records[:place], (a, y), (b, x), *records[place + 2 :]])
            expected = {"inconsistent-offsets", "duplicate", "nonmonotonic-send", "int-nonmonotonic-send"}
            if not any(shows(done, {x, y}) for done in operations[:-1]):
                return
        case "duplicate":
            changed = in_final(operations, key, [*records, (len(records), records[place][1])])
            expected = {"duplicate"}
        case "backwards":
            changed = in_final(operations, key, [*records[: place + 1], records[place], *records[place + 1 :]])
            expected = {"int-nonmonotonic-poll"}
        case "abort":
            failed = [send for done in operations if done.type == "fail" for send in done.value or () if isinstance(send, Send)]
            if not failed:
                return
            world.logs[failed[0].key].append(-1)
            end = len(world.logs[failed[0].key]) - 1
            there: list[tuple[int, int | str]] = [*enumerate(world.logs[failed[0].key][:-1]), (end, failed[0].value)]
            changed = in_final(operations, failed[0].key, there)
            expected = {"G1a"}
        case "invent":
            changed = in_final(operations, key, [*records, (len(records), "nobody's")])
            expected = {"no-writer"}
        case _:
            changed = in_final(operations, key, records[:-1])
            expected = {"vanished", "unseen"}
            if records[-1][1] not in acked and not any(shows(done, {records[-1][1]}) for done in operations[:-1]):
                return
    assert expected & set(found_in(changed)), (mutation, found_in(changed))
    assert not check(changed).is_valid


def without(steps: list[Send | Poll] | None, value: object) -> list[Send | Poll] | None:
    """No poll sees the value any more; its acknowledgement stays."""
    if steps is None:
        return None
    return [
        Poll({key: [record for record in records if record[1] != value] for key, records in step.records.items()}, step.seen)
        if isinstance(step, Poll)
        else step
        for step in steps
    ]


def shows(done: Operation, values: set[int | str]) -> bool:
    """Whether the operation says where one of the values is."""
    for step in done.value or ():
        if isinstance(step, Send) and step.offset is not None and step.value in values:
            return True
        if isinstance(step, Poll) and any(value in values for records in step.records.values() for _, value in records):
            return True
    return False


def test_a_report_does_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    world = perfect(5)
    changed = in_final(world.recorder.operations, "t-0", [(0, "x"), (0, "y"), (3, "x"), (1, "y")])
    for operation in changed:
        world.recorder.operations[operation.index] = operation
    path = tmp_path / "history.jsonl"
    world.recorder.save(str(path))
    code = (
        "import sys, msgspec; from zmqmq.testing.history import *;"
        "print(msgspec.json.encode(check(load(sys.argv[1]), Options(ww=True)).to_dict()).decode())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code, str(path)], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, timeout=30, check=True
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(said) == 1
    assert "no-writer" in said.pop()


@pytest.mark.parametrize("wrong", [False, True])
def test_time_grows_with_the_length_of_the_history_and_not_faster(wrong: bool) -> None:
    recorder = Recorder()
    count = 20_000
    for i in range(count):
        recorder.invoke(i % 7, "send", [Send("t-0", i)], i)
        recorder.complete(i % 7, "ok", [Send("t-0", i, i)], i)
    for start in range(0, count, 50):
        recorder.invoke(9, "poll", [Poll()], count)
        recorder.complete(9, "ok", [Poll({"t-0": [(offset, offset) for offset in range(start, start + 50)]})], count)
    if wrong:
        recorder.invoke(10, "poll", [Poll()], count, final=True)
        recorder.complete(10, "ok", [Poll({"t-0": [(i, i + 1) for i in range(0, count, 2)]})], count)
    began = time.process_time()
    report = check(recorder.operations, Options(ww=True))
    assert time.process_time() - began < CPU_SECONDS_MAX
    assert report.is_valid is not wrong
    assert all(len(anomaly.examples) <= 8 for anomaly in report.anomalies)
    assert set(report.counts()) <= set(ANOMALIES)
