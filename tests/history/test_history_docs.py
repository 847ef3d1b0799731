"""The page about histories says what the code does: its history, its commands, its program, every name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from zmqmq.testing.history import ANOMALIES, Options, lines, load
from zmqmq.testing.history.model import Operation
from zmqmq.testing.history.report import EXAMPLES_MAX, allowed
from zmqmq_cli.main import run

PAGE = (Path(__file__).parent.parent.parent / "docs" / "history.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "history.jsonl").write_text(block("jsonl"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_print_what_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = ""
    for step in block("console").split("$ zmqmq ")[1:]:
        command, _, _ = step.partition("\n")
        run(command.split())
        out, err = capsys.readouterr()
        shown += f"$ zmqmq {command}\n{out}{err}"
    assert shown == block("console")
    assert folder.is_dir()


def test_the_lines_shown_are_the_lines_written(folder: Path) -> None:
    operations = load("history.jsonl")
    assert b"".join(map(lines.encode, operations)) == (folder / "history.jsonl").read_bytes()


def test_the_program_records_a_valid_history() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", block("python")], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "10 sent, 10 read\n", "")


def test_every_name_and_member_is_explained() -> None:
    named = set(re.findall(r"`([\w-]+)`", PAGE))
    assert named >= set(ANOMALIES)
    assert named >= set(Operation.__struct_fields__)
    assert f"at most {EXAMPLES_MAX} for each name" in PAGE
    assert f"{lines.LINE_BYTES_MAX >> 20} MiB" in PAGE
    assert f"{lines.OPERATIONS_MAX:,} operations" in PAGE


def test_the_anomalies_in_the_first_table_are_those_that_invalidate() -> None:
    table = PAGE.split("**Wrong in any history**")[1].split("**Not wrong by itself**")[0]
    assert set(re.findall(r"^\| `([\w-]+)`", table, re.MULTILINE)) == set(ANOMALIES) - allowed(Options())
