"""The ledger of seeds, the report, and the command that runs them."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from zmqmq.testing.sim import campaign
from zmqmq.testing.sim.__main__ import main


def test_what_the_ledger_holds_for_the_same_code_is_not_run_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    assert campaign.missing(range(250), campaign.load(path), "one") == [range(100), range(100, 200), range(200, 250)]
    campaign.append(path, range(100, 200), [], "one")
    assert campaign.missing(range(250), campaign.load(path), "one") == [range(100), range(200, 250)]
    assert len(campaign.missing(range(250), campaign.load(path), "another")) == 3


def test_the_command_runs_a_range_reports_it_and_keeps_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    done = CliRunner().invoke(main, ["0..3", "--jobs", "1", "--ledger", str(path)])
    assert done.exit_code == 0, done.output
    assert "3 seeds in" in done.output
    assert "failures: 0" in done.output
    assert "ledger: 3 runs of 3 seeds, 0 failed when last run" in done.output
    again = CliRunner().invoke(main, ["0..3", "--jobs", "1", "--ledger", str(path)])
    assert "3 seeds are in the ledger already" in again.output
    assert len(campaign.load(path)) == 1


def test_one_seed_prints_its_trace() -> None:
    done = CliRunner().invoke(main, ["2", "--trace"])
    assert done.exit_code == 0
    assert "serving" in done.output
    assert "seed 2: every promise kept" in done.output


def test_what_is_no_range_is_refused() -> None:
    done = CliRunner().invoke(main, ["one..2"])
    assert done.exit_code == 2
    assert "neither a seed nor a range" in done.output
