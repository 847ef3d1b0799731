"""The file of a history: what is written is read again, and what is malformed is an error that says where."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from histories import KEY, Story
from hypothesis import given
from hypothesis import strategies as st

from zmqmq.errors import InvalidHistory
from zmqmq.testing.history import Batch, Operation, Poll, Recorder, Seen, Send, check, lines, load

VALUES = st.one_of(st.integers(-(2**63), 2**64 - 1), st.text(st.characters(exclude_categories=["Cs"]), max_size=5))
OFFSETS = st.integers(0, 2**63 - 1)
NAMES = st.text("abc-0", max_size=4)
BATCHES = st.builds(Batch, OFFSETS, st.integers(1, 9), st.integers(-1, 3), st.integers(-1, 3), st.integers(-1, 3), st.integers(-1, 9))
SEENS = st.builds(Seen, st.integers(-1, 9), st.integers(-1, 9), st.lists(BATCHES, max_size=2).map(tuple))
POLLS = st.builds(
    Poll, st.dictionaries(NAMES, st.lists(st.tuples(OFFSETS, VALUES), max_size=3), max_size=2), st.dictionaries(NAMES, SEENS, max_size=2)
)
STEPS = st.one_of(st.builds(Send, NAMES, VALUES, st.none() | OFFSETS, st.integers(-1, 3)), POLLS)
OPERATIONS = st.builds(
    Operation,
    st.integers(0, 99),
    st.integers(0, 9) | NAMES,
    st.sampled_from(["invoke", "ok", "fail", "info"]),
    st.sampled_from(["send", "poll", "txn", "assign", "subscribe", "seek", "crash"]),
    st.integers(0, 2**62),
    st.none() | st.lists(STEPS, max_size=3),
    st.none() | st.lists(NAMES, max_size=2),
    st.none() | st.lists(NAMES, max_size=2),
    st.booleans(),
)


def read(text: str | bytes) -> list[Operation]:
    return list(lines.read(io.BytesIO(text if isinstance(text, bytes) else text.encode()), "some.jsonl"))


@given(st.lists(OPERATIONS, max_size=4))
def test_what_is_written_is_read_again(operations: list[Operation]) -> None:
    assert read(b"".join(map(lines.encode, operations))) == operations


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused_by_name(data: bytes) -> None:
    with suppress(InvalidHistory):
        read(data)


def test_a_line_leaves_off_what_it_does_not_say() -> None:
    operation = Operation(
        0, 0, "ok", "txn", 5, [Send(KEY, 1), Send(KEY, "x", 0), Poll(), Poll({KEY: [(0, 1)]}, {KEY: Seen(batches=(Batch(0, 1),))})]
    )
    assert lines.encode(operation) == (
        b'{"index":0,"process":0,"type":"ok","f":"txn","time_ns":5,"value":[["send","t-0",1],["send","t-0","x",0],["poll"],'
        b'["poll",{"t-0":[[0,1]]},{"t-0":{"batches":[[0,1]]}}]]}\n'
    )


def test_a_recorder_saves_what_it_recorded(tmp_path: Path) -> None:
    story = Story()
    story.send(0, "a", 0)
    story.poll(1, [(0, "a")], final=True)
    path = str(tmp_path / "history.jsonl")
    story.save(path)
    assert load(path) == story.operations
    assert repr(story) == "Recorder(4 operations, 0 pending)"


GOOD = '{"index":0,"process":0,"type":"invoke","f":"poll","time_ns":0}\n'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "truncated"),
        ("[]", "got `array`"),
        ("\xff", "malformed"),
        ('{"index":1}', "missing required field"),
        (GOOD.replace("poll", "pol"), "Invalid enum value 'pol'"),
        (GOOD.replace("invoke", "done"), "Invalid enum value 'done'"),
        (GOOD.replace("time_ns", "time"), "unknown field `time`"),
        (GOOD.replace("0}", '0,"value":[["sent","k",1]]}'), "Invalid value 'sent'"),
        (GOOD.replace("0}", '0,"value":[["send","k"]]}'), "Expected `array`"),
        (GOOD.replace("0}", '0,"value":[["send","k",true]]}'), "got `bool`"),
        (GOOD.replace("0}", '0,"value":[["send","k",1.5]]}'), "got `float`"),
        (GOOD.replace("0}", '0,"value":[["send","k",1,-1]]}'), ">= 0"),
        (GOOD.replace("0}", '0,"value":[["poll",{"k":[[0]]}]]}'), "length 2"),
        (GOOD.replace("0}", '0,"value":' + "[" * 10_000), "nested too deeply"),
    ],
)
def test_a_malformed_line_is_named_by_its_number(line: str, said: str) -> None:
    with pytest.raises(InvalidHistory) as raised:
        read(f"{GOOD}\n{line}\n")
    assert str(raised.value).startswith("some.jsonl:3: ")
    assert said in str(raised.value)
    assert "docs/history.md" in raised.value.hint


def test_a_line_has_a_longest_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LINE_BYTES_MAX", len(GOOD))
    assert len(read(GOOD)) == 1
    with pytest.raises(InvalidHistory, match=r"some\.jsonl:2: a line is longer than"):
        read(GOOD + " " + GOOD)


def test_a_history_has_a_largest_number_of_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "OPERATIONS_MAX", 1)
    assert len(read(GOOD)) == 1
    with pytest.raises(InvalidHistory, match=r"some\.jsonl:2: more than 1 operations"):
        read(GOOD * 2)


def operation(index: int, process: int, type: Any, f: Any = "poll", time_ns: int = 0, **more: Any) -> Operation:
    return Operation(index, process, type, f, time_ns, **more)


@pytest.mark.parametrize(
    ("operations", "said"),
    [
        ([operation(0, 0, "ok")], "operation 0: process 0 ends a poll that it did not begin"),
        ([operation(0, 0, "invoke"), operation(1, 0, "ok", "send")], "operation 1: process 0 ends a send"),
        ([operation(0, 0, "invoke"), operation(1, 0, "invoke")], "operation 1: process 0 begins a second operation"),
        ([operation(0, 0, "invoke"), operation(0, 1, "invoke")], "operation 0: its index does not rise"),
        (
            [operation(0, 0, "invoke", time_ns=5), operation(1, 1, "invoke", time_ns=4)],
            "operation 1: its index does not rise, or its time_ns",
        ),
        ([operation(0, 0, "invoke", "send"), operation(1, 0, "ok", "send")], "operation 1: a send that is ok has no value"),
        (
            [operation(0, 0, "invoke", "poll"), operation(1, 0, "ok", "poll", value=[Send(KEY, 1)])],
            "operation 1: a poll has steps that do not belong to it",
        ),
        (
            [operation(0, 0, "invoke", "crash"), operation(1, 0, "info", "crash", value=[Poll()])],
            "operation 1: a crash has steps that do not belong to it",
        ),
    ],
)
def test_operations_that_do_not_fit_together_are_named(operations: list[Operation], said: str) -> None:
    with pytest.raises(InvalidHistory) as raised:
        check(operations)
    assert str(raised.value).startswith(said)


def test_a_value_sent_twice_to_a_key_is_refused() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.send(1, "a", 1)
    with pytest.raises(InvalidHistory, match="operations 0 and 2 both send 'a' to t-0"):
        story.report()


def test_an_empty_history_is_valid() -> None:
    report = check([])
    assert (report.is_valid, report.metrics.operations) == (True, 0)


def test_a_recorder_refuses_what_a_process_cannot_do() -> None:
    recorder = Recorder()
    with pytest.raises(InvalidHistory, match="process 0 ends what it did not begin"):
        recorder.complete(0, "ok", None, 0)
    assert recorder.invoke(0, "poll", None, 0) == 0
    with pytest.raises(InvalidHistory, match="process 0 begins a send before its poll ended"):
        recorder.invoke(0, "send", None, 0)
    assert recorder.complete(0, "fail", None, 0) == 1


def test_figures_tell_outcomes_lag_and_how_often_values_were_consumed() -> None:
    story = Story()
    story.place(1, "subscribe", [KEY])
    story.send(0, "a", 0)
    story.send(0, "b", 1)
    story.send(0, "c", type="fail")
    story.send(0, "d", type="info")
    story.poll(1, [(0, "a")])
    story.poll(1, [(1, "b")])
    story.poll(2, [(0, "a")])
    metrics = story.report().metrics
    assert (metrics.sends_ok, metrics.sends_failed, metrics.sends_unknown, metrics.values_read) == (2, 1, 1, 2)
    assert metrics.consumed == {1: 2}
    assert metrics.unseen == {}
    assert metrics.lag_ns == {KEY: 9_000_000}


def test_a_reader_at_the_end_has_no_lag() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.poll(1, [(0, "a")])
    story.send(0, "b", 1)
    story.poll(1, [(1, "b")])
    assert story.report().metrics.lag_ns == {KEY: 0}
