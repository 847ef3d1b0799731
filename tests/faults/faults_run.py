"""Real faults: ``python tests/faults/faults_run.py``. Exit code 1 when a promise was broken.

Prints a row for each scenario, and for one that cannot run here the reason. Ctrl-C ends the scenario at work, which unmounts and
removes what it made.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).parent.parent / "kill")]

from scenarios import SCENARIOS, Outcome, Scenario  # noqa: E402 - the path comes first
from tools import refused  # noqa: E402

WRONG_MAX = 20


class Row(NamedTuple):
    name: str
    state: str
    """``held``, ``BROKEN`` or ``not run``."""
    seconds: float
    words: str


class OutOfTime(Exception):
    """A scenario reached the bound on its time."""


@contextmanager
def alarm(seconds: int) -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise OutOfTime(f"not over within {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def end(*_: Any) -> None:
    """SIGTERM cleans up like Ctrl-C."""
    raise KeyboardInterrupt


def play(scenario: Scenario, seed: int) -> Row:
    scratch = Path(tempfile.mkdtemp(prefix="zmqmq-faults-"))
    started = time.monotonic()
    outcome = Outcome("", [])
    try:
        (scratch / "try").mkdir()
        reason = scenario.reason(scratch / "try")
        if reason:
            return Row(scenario.name, "not run", 0.0, reason)
        (scratch / "run").mkdir()
        with alarm(scenario.seconds_max):
            outcome = scenario.act(scratch / "run", seed)
    except Exception as error:  # noqa: BLE001 - one scenario's failure does not keep the others from running
        outcome = Outcome("", [f"{type(error).__name__}: {refused(error)}"])
    finally:
        if not outcome.wrong:
            shutil.rmtree(scratch, ignore_errors=True)
    for words in outcome.wrong[:WRONG_MAX]:
        print(f"WRONG  {scenario.name}: {words}", flush=True)
    words = outcome.figures if not outcome.wrong else f"{len(outcome.wrong)} wrong; kept: {scratch}; {outcome.figures}"
    return Row(scenario.name, "BROKEN" if outcome.wrong else "held", time.monotonic() - started, words)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="of the order of faults; the moments themselves are never twice the same")
    parser.add_argument("--only", action="append", choices=[scenario.name for scenario in SCENARIOS], help="may be given again")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, end)
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    print(f"seed {seed}", flush=True)
    rows = []
    for scenario in SCENARIOS:
        if not options.only or scenario.name in options.only:
            rows.append(play(scenario, seed))
            print("{:24} {:8} {:6.0f} s  {}".format(*rows[-1]), flush=True)
    states = [row.state for row in rows]
    print(f"{states.count('held')} held, {states.count('BROKEN')} broken, {states.count('not run')} not run")
    for row in rows:
        if row.state == "not run":
            print(f"  not run: {row.name}: {row.words}")
    return 1 if "BROKEN" in states else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
