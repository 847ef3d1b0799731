"""Contexts: made, selected, used, deleted; and who wins when several say whom to ask."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from zmqmq_cli.main import run

A = "tcp://127.0.0.1:1001"
B = "tcp://127.0.0.1:1002,tcp://127.0.0.1:1003"
Zmqmq = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's config folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("ZMQMQ_BROKERS", "ZMQMQ_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "zmqmq"


@pytest.fixture
def zmqmq(capsysbinary: pytest.CaptureFixture[bytes]) -> Zmqmq:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments)
        out, err = capsysbinary.readouterr()
        return code, out.decode(), err.decode()

    return call


def test_contexts_are_made_listed_selected_and_deleted(zmqmq: Zmqmq) -> None:
    assert zmqmq("context", "list") == (0, "", "")
    assert zmqmq("context", "add", "home", "-b", A) == (0, f"added home  {A}\n", "")
    assert zmqmq("-b", B, "context", "add", "work", "--select") == (0, f"added work  {B}  selected\n", "")
    assert zmqmq("context", "list")[1] == f"   home  {A}\n*  work  {B}\n"
    assert zmqmq("context", "use", "home")[1] == f"context home  {A}\n"
    assert zmqmq("context", "use", "-")[1] == f"context work  {B}\n"
    assert zmqmq("context", "show")[1] == f"work  {B}\n"
    assert zmqmq("context", "show", "home", "--json")[1] == json.dumps({"name": "home", "brokers": A}, separators=(",", ":")) + "\n"
    assert zmqmq("context", "add", "home", "-b", B)[1] == f"replaced home  {B}\n"
    assert zmqmq("context", "delete", "work")[1] == "deleted work\n"
    assert zmqmq("context", "list")[1] == f"*  home  {B}\n"
    assert zmqmq("context", "delete", "home")[0] == 0
    assert zmqmq("context", "show")[1] == "(no context)  tcp://127.0.0.1:5570\n"


@pytest.mark.parametrize(
    ("environment", "arguments", "chosen"),
    [
        ({}, [], "selected"),
        ({"ZMQMQ_CONTEXT": "other"}, [], "other"),
        ({"ZMQMQ_BROKERS": A}, [], "given"),
        ({"ZMQMQ_BROKERS": A, "ZMQMQ_CONTEXT": "other"}, [], "given"),
        ({"ZMQMQ_BROKERS": A}, ["-C", "other"], "other"),
        ({"ZMQMQ_CONTEXT": "other"}, ["-b", A], "given"),
        ({"ZMQMQ_CONTEXT": "other"}, ["-C", "selected"], "selected"),
        ({}, ["-b", A, "-C", "other"], "given"),
    ],
)
def test_what_is_typed_wins_over_the_environment_and_brokers_over_contexts(
    environment: dict[str, str], arguments: list[str], chosen: str, zmqmq: Zmqmq, monkeypatch: pytest.MonkeyPatch
) -> None:
    zmqmq("context", "add", "selected", "-b", "tcp://127.0.0.1:1", "--select")
    zmqmq("context", "add", "other", "-b", "tcp://127.0.0.1:2")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    brokers = {"given": A, "selected": "tcp://127.0.0.1:1", "other": "tcp://127.0.0.1:2"}[chosen]
    assert zmqmq("context", "show", *arguments)[1] == f"{'(no context)' if chosen == 'given' else chosen}  {brokers}\n"


def test_an_error_names_the_context_whose_brokers_were_asked(zmqmq: Zmqmq) -> None:
    zmqmq("context", "add", "dead", "-b", "tcp://127.0.0.1:1", "--select")
    code, _, said = zmqmq("topic", "list", "--timeout", "100ms")
    assert code == 3
    assert said.splitlines()[-2] == "  Where: zmqmq topic list, brokers tcp://127.0.0.1:1 (context dead)"


@pytest.mark.parametrize(
    ("arguments", "what", "next_step"),
    [
        (["context", "add", "x"], "Error: which brokers? Write: zmqmq context add x -b tcp://HOST:PORT,…", "--help"),
        (["context", "add", "../x", "-b", A], "Error: context name '../x' is not allowed", "a-z A-Z 0-9"),
        (["context", "use", "hoem"], "Error: there is no context 'hoem'", "did you mean home?"),
        (["context", "use", "zzz"], "Error: there is no context 'zzz'", "there are: home"),
        (["context", "use", "-"], "Error: no context was selected before", "context list"),
        (["context", "delete", "hoem"], "Error: there is no context 'hoem'", "did you mean home?"),
        (["-C", "hoem", "topic", "list"], "Error: there is no context 'hoem'", "did you mean home?"),
    ],
)
def test_what_cannot_be_is_refused_in_three_lines(arguments: list[str], what: str, next_step: str, zmqmq: Zmqmq) -> None:
    zmqmq("context", "add", "home", "-b", A)
    code, out, said = zmqmq(*arguments)
    lines = said.splitlines()
    assert (code, out, len(lines), lines[0]) == (2, "", 3, what)
    assert next_step in lines[2]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"brokers": 7}', "{}", "x" * 70_000, "\udcff"])
def test_a_damaged_file_is_named(content: str, zmqmq: Zmqmq, user: Path) -> None:
    zmqmq("context", "add", "home", "-b", A, "--select")
    file = user / "context" / "home.json"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    code, _, said = zmqmq("topic", "list")
    assert code == 2
    assert str(file) in said.splitlines()[0]
    assert len(said.splitlines()) == 3
