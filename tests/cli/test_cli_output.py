"""Tables in every format, and nothing but data on stdout."""

from __future__ import annotations

import csv
import io
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqmq_cli.output import Column, Output, table, yaml

ROWS: list[dict[str, Any]] = [
    {"topic": "orders", "partitions": 3, "isr": [0, 1], "note": ""},
    {"topic": "a", "partitions": 12, "isr": [0], "note": "x y"},
]
COLUMNS = (Column("topic"), Column("partitions"), Column("isr"), Column("note", wide=True))


def printed(capsysbinary: pytest.CaptureFixture[bytes], format: str) -> str:
    output = Output(format)
    output.rows(ROWS, COLUMNS)
    output.flush()
    return capsysbinary.readouterr().out.decode()


def test_text_is_aligned_without_a_header_when_piped(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert printed(capsysbinary, "text") == "orders   3  0,1\na       12  0\n"


def test_wide_has_more_columns(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert printed(capsysbinary, "wide") == "orders   3  0,1  -\na       12  0    x y\n"


def test_a_header_names_the_columns_and_nothing_trails() -> None:
    assert table(ROWS, COLUMNS[:3], header=True) == "TOPIC   PARTITIONS  ISR\norders           3  0,1\na               12  0\n"
    assert table([], COLUMNS[:1], header=True) == "TOPIC\n"


def test_json_is_one_array_and_jsonl_one_object_a_line(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert json.loads(printed(capsysbinary, "json")) == ROWS
    assert [json.loads(line) for line in printed(capsysbinary, "jsonl").splitlines()] == ROWS


def test_csv_has_all_columns_with_a_header(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert list(csv.reader(io.StringIO(printed(capsysbinary, "csv")))) == [
        ["topic", "partitions", "isr", "note"],
        ["orders", "3", "[0,1]", ""],
        ["a", "12", "[0]", "x y"],
    ]


def test_yaml_writes_maps_lists_and_quotes_what_needs_it(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert printed(capsysbinary, "yaml").startswith('- topic: orders\n  partitions: 3\n  isr:\n    - 0\n    - 1\n  note: ""\n- topic: a\n')
    assert yaml({"a": "yes", "b": "1", "c": {}, "d": {"e": None}}) == 'a: "yes"\nb: "1"\nc: {}\nd:\n  e: null\n'


@given(st.text(max_size=10))
def test_a_yaml_string_never_becomes_something_else(text: str) -> None:
    scalar = yaml(text).removesuffix("\n")
    assert scalar == text or json.loads(scalar) == text
    if scalar == text:
        assert text[0].isalpha() or text[0] in "_/"


def test_talk_goes_to_stderr_and_quiet_drops_it_but_not_errors(capsys: pytest.CaptureFixture[str]) -> None:
    Output(quiet=True).note("talk")
    Output().note("more talk")
    Output(quiet=True).error(["Error: what", "  where", "  next"])
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "more talk\nError: what\n  where\n  next\n"


def test_no_color_wins_over_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    Output().error(["Error: x"])
    assert capsys.readouterr().err.startswith("\x1b[31mError:")
    monkeypatch.setenv("NO_COLOR", "1")
    Output().error(["Error: x"])
    assert capsys.readouterr().err == "Error: x\n"


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Output().progress("working", 10) as progress:
        progress(5)
    assert capsys.readouterr() == ("", "")
