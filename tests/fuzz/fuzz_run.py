"""Fuzz the decoders from the command line: ``python tests/fuzz/fuzz_run.py --executions 10000000``. Exit code 1 for a failure.

One process per target, two at a time. Failing inputs are made small and put into ``tests/fuzz/corpus``, which every test run replays.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed

from fuzzing import Result, fuzz, keep
from targets import TARGETS

PROGRESS_SECONDS = 10.0


def work(name: str, executions: int, seed: int) -> Result:
    said = time.monotonic()

    def progress(result: Result) -> None:
        nonlocal said
        if time.monotonic() - said >= PROGRESS_SECONDS:
            said = time.monotonic()
            print(f"  … {result}", file=sys.stderr, flush=True)

    return fuzz(TARGETS[name], executions, seed, progress)


def run_all(names: list[str], executions: int, seed: int, processes: int = 2) -> list[Result]:
    """In the order in which they end."""
    results = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(names)), mp_context=context, max_tasks_per_child=1) as pool:
        for future in as_completed([pool.submit(work, name, executions, seed) for name in names]):
            results.append(future.result())
            print(results[-1], flush=True)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=10_000_000, help="of each target")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="this one only; may be given again")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    print(f"seed {seed}")
    results = run_all(options.target or list(TARGETS), options.executions, seed, processes=os.cpu_count() or 1)
    for result in results:
        for failure in result.failures:
            print(f"FAILED {result.target}: {failure}\n  kept: {keep(result.target, failure)}")
    print(f"{sum(result.executions for result in results):,} executions, {sum(len(result.failures) for result in results)} failures")
    return 1 if any(result.failures for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
