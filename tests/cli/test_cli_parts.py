"""Options, errors, measuring: the small parts of the command line."""

from __future__ import annotations

import io
import json
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqmq import errors
from zmqmq_cli import errors as cli_errors
from zmqmq_cli import inputs, measure, params
from zmqmq_cli.input_formats import Given, plain_input


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (params.DURATION, "5", 5.0),
        (params.DURATION, "250ms", 0.25),
        (params.DURATION, "2m", 120.0),
        (params.SIZE, "1KiB", 1024),
        (params.SIZE, "100", 100),
        (params.RATE, "1000/s", 1000.0),
        (params.RATE, "10k", 10_000.0),
        (params.RATE, "60/m", 1.0),
        (params.COUNT, "1_000_000", 1_000_000),
        (params.COUNT, "2k", 2_000),
        (params.PARTITIONS, "0,3", (0, 3)),
        (params.PARTITIONS, "2-4,3", (2, 3, 4)),
        (params.SETTING, "a=b=c", ("a", "b=c")),
        (params.PARTITIONS_AND_REPLICAS, "6:3", (6, 3)),
        (params.PARTITIONS_AND_REPLICAS, "6", (6, 0)),
        (params.SHARE, "10%", 0.1),
        (params.SHARE, "0.5", 0.5),
    ],
)
def test_options_are_read_as_people_write_them(kind: click.ParamType, text: str, value: Any) -> None:
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (params.DURATION, "soon"), (params.DURATION, "0"), (params.DURATION, "-1s"), (params.DURATION, "nan"), (params.SIZE, "-5"),
        (params.SIZE, "big"), (params.RATE, "0"), (params.RATE, "5/y"), (params.RATE, "x"), (params.COUNT, "0"), (params.COUNT, "1.5"),
        (params.PARTITIONS, "a"), (params.PARTITIONS, "1-"), (params.PARTITIONS, "0-9999999999"), (params.SETTING, "x"),
        (params.SETTING, "=x"), (params.SHARE, "100%"), (params.SHARE, "x"), (params.PARTITIONS_AND_REPLICAS, "3:"),
    ],
)  # fmt: skip
def test_wrong_options_are_usage_errors(kind: click.ParamType, text: str) -> None:
    with pytest.raises(click.BadParameter):
        kind.convert(text, None, None)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ZmqmqError("x"), 1),
        (errors.DiskFull("x"), 1),
        (errors.TopicExists("x"), 1),
        (errors.InvalidConfig("x"), 2),
        (errors.BrokerUnavailable("x"), 3),
        (errors.TimeoutError("x"), 3),
        (errors.UnknownTopic("x"), 4),
    ],
)
def test_each_error_has_its_exit_code(error: errors.ZmqmqError, code: int) -> None:
    assert cli_errors.exit_code(error) == code


@pytest.mark.parametrize("kind", list(errors.BY_CODE.values()), ids=lambda kind: kind.__name__)
def test_every_error_has_three_lines_even_with_nothing_to_say(kind: type[errors.ZmqmqError]) -> None:
    lines = cli_errors.three_lines(kind(), "Where: zmqmq consume")
    assert lines[0] == f"Error: {kind.__name__}"
    assert lines[1] == "  Where: zmqmq consume"
    assert len(lines[2].strip()) > 5
    assert not any("\n" in line for line in lines)


@pytest.mark.parametrize("kind", list(errors.BY_CODE.values()), ids=lambda kind: kind.__name__)
def test_the_next_step_is_something_to_do_and_no_docstring(kind: type[errors.ZmqmqError]) -> None:
    step = cli_errors.three_lines(kind("x"), "w", command="zmqmq topic create")[2].strip()
    assert step not in " ".join((kind.__doc__ or "").split())
    assert "{" not in step
    assert "names field, value and rule" not in step
    assert "``" not in step
    if kind is errors.InvalidConfig:
        assert step.endswith("zmqmq topic create --help")


@pytest.mark.parametrize(
    ("hint", "shown"),
    [
        ("choose another name, or create with exist_ok=True", "choose another name, or add --if-not-exists"),
        ("go on behind it with seek(17, partition=3); then …", "go on behind it with -p 3 -o 17; then …"),
        ("read on from log_start, and lengthen it", "read from what is left with -o start, and lengthen it"),
        ("make a new one with client.reader()", "run the command again"),
    ],
)
def test_hints_for_programs_become_hints_for_people(hint: str, shown: str) -> None:
    assert cli_errors.three_lines(errors.ZmqmqError("x", hint=hint), "w")[2] == f"  {shown}"


def test_errors_that_know_a_better_place_name_it() -> None:
    assert cli_errors.three_lines(errors.UnknownTopic("x", similar=["a", "b"]), "w")[1] == "  Similar: a, b"
    assert cli_errors.three_lines(errors.CorruptLog("x", file="f.log", position=7), "w")[1] == "  In f.log at byte 7"
    assert "3 up to, not including, 9" in cli_errors.three_lines(errors.DataLost("x", log_start=3, log_end=9), "w")[1]
    assert cli_errors.three_lines(errors.ZmqmqError("a\nb", hint="do\nthis"), "w") == ("Error: a b", "  w", "  do this")


@given(st.lists(st.binary(max_size=8).map(lambda data: data.replace(b"\n", b""))), st.integers(1, 5))
def test_splitting_gives_back_what_was_joined(pieces: list[bytes], step: int) -> None:
    class Trickle(io.BytesIO):
        def read1(self, _size: int | None = -1, /) -> bytes:
            return super().read1(step)

    assert list(inputs.split(Trickle(b"".join(piece + b"\n" for piece in pieces)), b"\n")) == pieces


def test_the_last_line_counts_without_its_end() -> None:
    assert list(inputs.split(io.BytesIO(b"a\n\nb"), b"\n")) == [b"a", b"", b"b"]
    assert list(inputs.split(io.BytesIO(b""), b"\n")) == []


def test_input_without_delimiters_is_bounded() -> None:
    with pytest.raises(errors.MessageTooLarge):
        list(inputs.split(io.BytesIO(b"x" * (inputs.RECORD_BYTES_MAX + inputs.READ_BYTES + 1)), b"\n"))


def test_messages_of_a_stream_carry_its_keys() -> None:
    assert list(inputs.messages(io.BytesIO(b"a:1\nb\n"), plain_input(b":", b"\n"), "stdin")) == [Given(b"1", b"a"), Given(b"b")]


@given(st.integers(measure.VALUE_BYTES_MIN, 400), st.integers(0, 10**9))
def test_bench_payloads_are_json_of_the_size_asked_for(size: int, number: int) -> None:
    payload = measure.numbered(measure.payloads(size)[number % measure.POOL], number)
    assert len(payload) == size
    assert int(json.loads(payload)["n"]) == number == measure.number_of(payload)


def test_percentiles_are_nearest_rank_in_milliseconds() -> None:
    assert measure.percentiles([]) is None
    assert measure.percentiles([0.001]) == (1, 1, 1, 1)
    found = measure.percentiles([i / 1000 for i in range(1000)])
    assert found == pytest.approx((500, 990, 999, 999))


def test_a_pacer_never_sends_early_and_counts_from_the_plan() -> None:
    pacer = measure.Pacer(1000, start=-100.0)
    assert pacer.wait(50) == pytest.approx(-99.95)
