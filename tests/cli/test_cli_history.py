"""``zmqmq history``: verdicts by exit code, findings as rows, malformed files in three lines."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from zmqmq.testing.history import ANOMALIES, Poll, Recorder, Send
from zmqmq_cli.main import run


def history(path: Path, *, lose: bool = False) -> str:
    recorder = Recorder()
    for value in range(2):
        recorder.invoke("writer", "send", [Send("orders-0", value)], 0)
        recorder.complete("writer", "ok", [Send("orders-0", value, value)], 0)
    recorder.invoke("reader", "poll", [Poll()], 0)
    recorder.complete("reader", "ok", [Poll({"orders-0": [(value, value) for value in range(int(lose), 2)]})], 0)
    recorder.save(str(path))
    return str(path)


def test_a_valid_history_prints_nothing_but_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["history", "check", history(tmp_path / "h.jsonl")]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "6 operations, 2 sends acknowledged, 0 failed, 0 unknown, 2 values read: valid\n")


def test_an_anomaly_is_a_row_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = history(tmp_path / "h.jsonl", lose=True)
    assert run(["history", "check", path]) == 1
    out, err = capsys.readouterr()
    assert out == "lost-write  yes  1  1  0 at offset 0 of orders-0 was never read, though offset 1 was\n"
    note, what, where, then = err.splitlines()
    assert note.endswith("1 acknowledged and not read: not valid")
    assert what == "Error: the history is not what a log promises: lost-write (1)"
    assert where == f"  First: 0 at offset 0 of orders-0 was never read, though offset 1 was ({path}, operation 1)"
    assert then == "  What each name means:  zmqmq history anomalies"


def test_rows_for_programs_carry_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["history", "check", history(tmp_path / "h.jsonl", lose=True), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "anomaly": "lost-write", "invalidates": True, "count": 1, "key": "orders-0", "offsets": [0], "values": [0], "operations": [1],
        "what": "0 at offset 0 of orders-0 was never read, though offset 1 was",
    }  # fmt: skip


def test_a_dash_is_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    data = Path(history(tmp_path / "h.jsonl")).read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert run(["history", "check", "-"]) == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data + b"{")))
    assert run(["history", "check", "-"]) == 2
    assert "Error: stdin:7: " in capsys.readouterr().err


def test_a_malformed_history_is_three_lines_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text('{"index": 0}\n')
    assert run(["history", "check", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    what, where, then = err.splitlines()
    assert what == f"Error: {path}:1: Object missing required field `process`"
    assert where == "  Where: zmqmq history check"
    assert "docs/history.md" in then


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["history", "check", str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_options_change_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder()
    for key, value in (("a-0", 0), ("a-1", 1)):
        recorder.invoke(key, "txn", [Send(key, value), Poll()], 0)
    recorder.complete("a-0", "ok", [Send("a-0", 0, 0), Poll({"a-1": [(0, 1)]})], 0)
    recorder.complete("a-1", "ok", [Send("a-1", 1, 0), Poll({"a-0": [(0, 0)]})], 0)
    path = str(tmp_path / "h.jsonl")
    recorder.save(path)
    assert run(["history", "check", path]) == 1
    assert run(["history", "check", path, "--ww"]) == 0
    assert run(["history", "check", path, "--read-uncommitted"]) == 0
    assert capsys.readouterr().out.count("G1c") == 3


def test_stats_are_figures_without_a_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = history(tmp_path / "h.jsonl", lose=True)
    assert run(["history", "stats", path]) == 0
    assert capsys.readouterr().out == (
        "operations 6\nsends ok 2, failed 0, unknown 0\nvalues read 1\nunseen orders-0 1\nlag orders-0 0.000 ms\n"
    )
    assert run(["history", "stats", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unseen"] == {"orders-0": 1}


def test_every_anomaly_is_listed_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["history", "anomalies", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["anomaly"]: row["what"] for row in rows} == ANOMALIES
