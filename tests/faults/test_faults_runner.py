"""The parts of ``make faults`` that need no rights: who is dealt which fault, what is said when one cannot run."""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent.parent / "kill")]

import faults_run  # noqa: E402 - the path comes first
import tools  # noqa: E402
from nemesis import Action, Nemesis  # noqa: E402
from scenarios import Outcome, Scenario  # noqa: E402
from syscalls import check  # noqa: E402
from workload import Work  # noqa: E402


@pytest.fixture(autouse=True)
def scratch_below_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def recording(name: str, log: list[str]) -> Action:
    return Action(name, lambda: log.append(f"begin {name}"), lambda: log.append(f"end {name}"), seconds_max=0.1)


def test_a_nemesis_does_everything_before_it_does_anything_twice() -> None:
    log: list[str] = []
    nemesis = Nemesis([recording(name, log) for name in "abcd"], random.Random(1))
    assert sorted(nemesis.draw().name for _ in range(4)) == list("abcd")
    assert sorted(nemesis.draw().name for _ in range(4)) == list("abcd")


def test_what_a_nemesis_began_it_ends_whatever_happens() -> None:
    log: list[str] = []
    nemesis = Nemesis([recording("a", log)], random.Random(1))
    with pytest.raises(KeyboardInterrupt), nemesis.during(nemesis.draw()):
        raise KeyboardInterrupt
    assert nemesis.strike() == "a"
    assert log == ["begin a", "end a"] * 2
    assert nemesis.done["a"] == 2


def scenario(outcome: Outcome | Exception, reason: str = "") -> Scenario:
    def act(scratch: Path, seed: int) -> Outcome:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return Scenario("one", 5, lambda scratch: reason, act)


def test_a_scenario_that_cannot_run_says_why() -> None:
    row = faults_run.play(scenario(Outcome("", []), reason="no such device"), 1)
    assert (row.state, row.words) == ("not run", "no such device")


def test_a_broken_promise_and_an_error_are_both_told() -> None:
    assert faults_run.play(scenario(Outcome("figures", [])), 1).state == "held"
    assert faults_run.play(scenario(Outcome("", ["lost"])), 1).state == "BROKEN"
    assert faults_run.play(scenario(OSError("gone")), 1).state == "BROKEN"


def test_a_program_that_is_missing_is_named() -> None:
    assert "no-such-program" in tools.missing("no-such-program", root=False)


def test_the_workload_of_the_system_calls_ends_as_it_swears_to(tmp_path: Path) -> None:
    data, testimony = tmp_path / "data", tmp_path / "testimony"
    with testimony.open("wb") as file:
        Work(str(data), file.fileno()).run()
    lines = testimony.read_text().splitlines()
    assert lines[-1] == "over"
    assert list(check(data, lines)) == []


def test_an_acknowledged_record_that_is_gone_is_noticed(tmp_path: Path) -> None:
    data, testimony = tmp_path / "data", tmp_path / "testimony"
    with testimony.open("wb") as file:
        Work(str(data), file.fileno()).run()
    lines = testimony.read_text().splitlines()
    assert list(check(data, [*lines, "ack 1 99"]))
    assert list(check(data, [line.replace("wrote 1 3 ", "wrote 1 3 9") for line in lines]))
