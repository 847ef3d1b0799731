"""The command tree without a broker: help, suggestions, usage errors, where options come from."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from zmqmq_cli.errors import EXIT_CODES
from zmqmq_cli.main import COMMANDS, cli, excepthook, run
from zmqmq_cli.settings import Settings

HEAVY = ("zmq", "msgspec", "rich", "zstandard", "crc32c", "asyncio", "zmqmq.client", "zmqmq.broker", "zmqmq.store")
DEAD = "tcp://127.0.0.1:1"


@pytest.mark.parametrize(
    "command",
    [
        [*words, "--help"]
        for words in ([], ["topic"], ["bench"], ["log"], ["serve"], ["dev"], ["cluster", "reassign"], ["events"], ["context"])
    ],
)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "zmqmq_cli", *command], capture_output=True, text=True, check=True, timeout=20
    )
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert imported
    assert not [name for name in HEAVY if name in imported]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_shows_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert f"Usage: zmqmq {name}" in capsys.readouterr().out


def test_the_tree_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    assert re.findall(r"^  (\w+)  ", capsys.readouterr().out.split("Commands:")[1], re.MULTILINE) == list(COMMANDS)
    assert not cli.commands


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tpoic", "list"], "Did you mean topic?"),
        (["topic", "creat", "x"], "Did you mean create"),
        (["topic", "list", "--brokrs", "x"], "--brokers"),
        (["topic", "create"], "Missing argument"),
        (["--timeout", "soon", "ping"], "not a duration"),
        (["topic", "list", "-f", "xml"], "is not one of"),
        (["topic", "delete", "orders"], "add --yes"),
        (["topic", "trim", "orders", "--to", "5"], "add --yes"),
        (["topic", "trim", "orders", "--to", "5:9", "--yes"], "is a span"),
        (["topic", "alter", "orders"], "nothing to change"),
        (["consume", "orders", "-o", "x"], "not understood"),
        (["consume", "orders", "-f", "%z"], "no field %z"),
        (["consume", "orders", "--grep", "("], "not a regular expression"),
        (["produce", "orders", "1", "--file", __file__], "not both"),
        (["produce", "orders", "1", "-f", "%k"], "no value"),
        (["bench", "produce", "-s", "3"], "--size 3"),
        (["bench", "produce", "--duration", "3s"], "needs --rate"),
        (["-b", "nonsense", "topic", "list"], "nonsense"),
        (["-b", "tcp://127.0.0.1:99999", "topic", "list"], "no port from 1 to 65535"),
        (["topic", "list", "-b", "tcp://127.0.0.1"], "no port"),
        (["-b", "tcp://127.0.0.1:5570,udp://x:1", "ping"], "udp://x:1"),
    ],
)
def test_wrong_usage_is_three_lines_and_exit_code_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("Error: ")
    assert said in lines[0]


def test_groups_without_a_command_show_their_help_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["topic"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Usage: zmqmq topic")


def test_exit_codes_are_documented_as_rows(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(["help", "exit-codes", "--json"]) == 0
    rows = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert [row["code"] for row in rows] == [code for code, _ in EXIT_CODES] == [0, 1, 2, 3, 4, 10, 130]


def test_global_options_work_before_and_behind_the_command_and_behind_wins(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(["--json", "help", "exit-codes"]) == 0
    before = capsysbinary.readouterr().out
    assert run(["-f", "csv", "help", "exit-codes", "-f", "jsonl"]) == 0
    assert capsysbinary.readouterr().out == before


def test_options_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    monkeypatch.setenv("ZMQMQ_FORMAT", "csv")
    assert run(["help", "exit-codes"]) == 0
    assert capsysbinary.readouterr().out.startswith(b"code,meaning\n")


def test_options_come_from_a_file(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    config = tmp_path / "cli.toml"
    config.write_text('format = "yaml"\n[bench.produce]\nsize = "3"\n')
    assert run(["--config", str(config), "help", "exit-codes"]) == 0
    assert capsysbinary.readouterr().out.startswith(b"- code: 0\n")
    assert run(["--config", str(config), "bench", "produce"]) == 2
    assert b"--size 3" in capsysbinary.readouterr().err


def test_a_file_names_options_as_the_command_line_does(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    config = tmp_path / "cli.toml"
    config.write_text("[consume]\nexit-at-end = true\noffset = ['x']\n[produce]\nacks = '1'\nkey_sep = ':'\n")
    assert run(["--config", str(config), "consume", "t"]) == 2
    assert b"offset 'x' is not understood" in capsysbinary.readouterr().err


def test_a_variable_that_sets_nothing_is_warned_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ZMQMQ_PRODUCE_AKCS", "1")
    monkeypatch.setenv("ZMQMQ_PRODUCE_RATE", "10/s")
    arguments = ["produce", "t", "x", "-b", DEAD, "--timeout", "100ms"]
    assert run(arguments) == 3
    first, *error = capsys.readouterr().err.splitlines()
    assert first == "warning: no option is set by ZMQMQ_PRODUCE_AKCS; did you mean ZMQMQ_PRODUCE_ACKS?"
    assert len(error) == 3
    assert run([*arguments, "-q"]) == 3
    assert len(capsys.readouterr().err.splitlines()) == 3


@pytest.mark.parametrize("topic", ["offsets", "formats"])
def test_help_topics_speak_to_users(topic: str, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    from zmqmq_cli import formats, offsets

    assert run(["help", topic]) == 0
    text = capsysbinary.readouterr().out.decode()
    assert "zmqmq consume orders" in text
    assert "``" not in text
    assert "Pure" not in text
    for field in formats.FIELDS.split() if topic == "formats" else ():
        assert f"%{field}" in text
    assert offsets.__doc__ not in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = ", "not TOML"),
        ("brokres = 'x'", "nothing is called brokres; did you mean brokers?"),
        ("[produce]\nakcs = '1'", "nothing is called produce.akcs; did you mean acks?"),
        ("[topic.create]\npartition = 1", "did you mean partitions?"),
        ("[prduce]\nacks = '1'", "did you mean produce?"),
        ("produce = 1", "produce is a command"),
    ],
)
def test_a_wrong_file_is_a_usage_error_that_names_it(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "cli.toml"
    config.write_text(text)
    assert run(["--config", str(config), "ping"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert str(config) in err


def test_the_version_is_the_package_s(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    from zmqmq import __version__

    assert run(["--version"]) == 0
    assert capsysbinary.readouterr().out.decode() == f"zmqmq {__version__}\n"


@pytest.mark.parametrize("arguments", [["topic", "list"], ["produce", "orders", "1"], ["consume", "orders", "-e"], ["ping"]])
def test_no_broker_is_exit_code_3_and_names_the_address(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-b", DEAD, "--timeout", "200ms", *arguments]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert DEAD in lines[0]
    assert lines[2].strip()
    assert len(lines) == 3


def test_what_nobody_expected_is_three_lines_and_with_v_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings()
    try:
        raise RuntimeError("a bug")
    except RuntimeError as error:
        excepthook(settings)(RuntimeError, error, error.__traceback__)
        lines = capsys.readouterr().err.splitlines()
        settings.verbose = 1
        excepthook(settings)(RuntimeError, error, error.__traceback__)
    assert lines[0] == "Error: RuntimeError: a bug"
    assert "test_cli_main.py:" in lines[1]
    assert "-v" in lines[2]
    assert len(lines) == 3
    assert "Traceback" in capsys.readouterr().err
