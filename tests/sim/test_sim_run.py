"""Whole seeds: they take the same way every time, fail when the product is broken, and shrink."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zmqmq.store.jobs import SyncJob
from zmqmq.testing.sim import Result, run
from zmqmq.testing.sim.chance import Omissions
from zmqmq.testing.sim.run import TROUBLE_S
from zmqmq.testing.sim.shrink import kind_of, shrink

REGRESSIONS = Path(__file__).parent / "regressions.jsonl"
EVENTS_MAX = 200
"""Of a shrunk trace that a person reads."""
DIGESTS = "from zmqmq.testing.sim import run; print([run(seed).digest for seed in (3, 5, 8, 13)])"


def acknowledge_before_the_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker believes that its disk has what it has not."""
    monkeypatch.setattr(SyncJob, "run", lambda _self: None)


def failing_seed() -> Result:
    return next(result for result in map(run, range(50)) if result.failure)


def test_a_seed_takes_the_same_way_whatever_the_hash_seed() -> None:
    told = {
        subprocess.run(
            [sys.executable, "-c", DIGESTS],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for hash_seed in ("0", "4711")
    }
    assert len(told) == 1


def test_a_seed_lives_a_minute_of_trouble_and_keeps_its_promises() -> None:
    result = run(4)
    assert result.failure == ""
    assert result.simulated_s >= TROUBLE_S
    assert result.openings > 1
    assert result.acknowledged > 100
    assert result.values_read >= result.acknowledged
    assert result.checks > 100


def test_a_run_without_any_fault_has_none() -> None:
    struck = frozenset(run(4).struck)
    assert run(4, Omissions(struck)).struck == {}


def test_a_broker_that_acknowledges_too_early_is_found_and_its_seed_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    acknowledge_before_the_sync(monkeypatch)
    failed = failing_seed()
    small = shrink(failed, limit_s=12)
    assert kind_of(small.result.failure) == kind_of(failed.failure)
    assert small.fault_count < max(2, len(failed.allowed) // 2)
    assert len(small.result.trace) <= EVENTS_MAX
    assert small.result.steps, "somebody wrote what was lost"
    again = run(failed.seed, small.omissions, trouble_s=small.trouble_s)
    assert again.digest == small.result.digest


def test_every_seed_that_once_failed_passes() -> None:
    seeds = [json.loads(line)["seed"] for line in REGRESSIONS.read_text().splitlines()]
    assert seeds == sorted(set(seeds))
    assert [(seed, failure) for seed in seeds if (failure := run(seed).failure)] == []
