"""A short run of the kill test, and the proof that it finds what it is for. ``make kills`` is the long one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from campaign import Campaign, Report
from too_early import PLANTS

KILLS = 25
SECONDS_MAX = 25.0
PLANT_KILLS_MAX = 40
PLANT_SECONDS_MAX = 30.0
"""Usually 5; a busy machine leaves the broker less work to lose."""


def run(directory: Path, *, kills: int, seconds_max: float, plant: str = "", audit_every: int = 12) -> Report:
    seed = time.time_ns() % 1_000_000
    again = f"python tests/kill/run.py --kills {kills} --seed {seed} --audit-every {audit_every}"
    print(f"again with: {again} --plant {plant}" if plant else f"again with: {again}")
    report = Campaign(directory, seed, plant=plant, audit_every=audit_every).run(kills, seconds_max)
    print(report.text())
    return report


def test_promises_hold_over_kills_at_random_moments(tmp_path: Path) -> None:
    report = run(tmp_path, kills=KILLS, seconds_max=SECONDS_MAX)
    assert report.wrong == []
    assert report.killed >= KILLS // 2, "the machine is too slow for this test to mean anything"
    assert report.lives_with_receipts >= report.killed // 4
    assert report.counts["saw"] > 0
    assert report.audits > 0


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_bug_is_found(tmp_path: Path, plant: str) -> None:
    report = run(tmp_path, kills=PLANT_KILLS_MAX, seconds_max=PLANT_SECONDS_MAX, plant=plant, audit_every=2)
    assert report.wrong, f"{plant} was not found within {report.killed} kills"
