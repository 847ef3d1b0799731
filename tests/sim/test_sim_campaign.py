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


def test_what_was_run_in_other_chunks_is_not_run_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for chunk in (range(30, 130), range(120, 160), range(10)):
        campaign.append(path, chunk, [], "one")
    assert campaign.missing(range(5, 270), campaign.load(path), "one") == [range(10, 30), range(160, 260), range(260, 270)]
    assert campaign.missing(range(40, 150), campaign.load(path), "one") == []


def test_the_summary_gives_sums_for_each_state_of_the_code(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for chunk, sources in ((range(100), "one"), (range(50), "two"), (range(100, 130), "one")):
        campaign.append(path, chunk, [], sources)
    all_of_it, one, two = campaign.summary(campaign.load(path)).splitlines()
    assert "180 runs of 130 seeds" in all_of_it
    assert "one: 130 runs of 130 seeds" in one
    assert "two: 50 runs of 50 seeds" in two


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
