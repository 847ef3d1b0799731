"""Plant bugs into copies of the product and see the simulator find them: ``python tests/sim/plant.py [name …]``.

For each mutation the package is copied, changed, and run in a process of its own from its first seed on, until a seed fails; the same
seed must pass without the mutation. Where chance would take too long the mutation names stories: tests that must fail with it and pass
without. A mutation that is not found within the seeds, or does not fit the code any more, means exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Final

from msgspec import Struct, structs
from mutants import MUTATIONS
from mutation import PACKAGE, ROOT, Mutation, NoLongerApplies, mutate

SEEDS_MAX: Final = 5_000
"""A mutation that lives longer shows that the simulator is too kind."""
SEED_S_MAX: Final = 120
"""A seed that takes longer hangs: its process is ended, which counts as found."""
STORY_S_MAX: Final = 120
NOT_FOUND: Final = -1
BY_STORY: Final = -2
LINE_CHARACTERS_MAX: Final = 150
_CALLBACK: Final = re.compile(r"world: Exception in callback .*? at \S+: ")
"""What asyncio says before it says what happened."""
_CHILD: Final = """
import json, signal, sys
from zmqmq.testing.sim.run import run
for seed in range(int(sys.argv[1]), int(sys.argv[2])):
    signal.alarm(int(sys.argv[3]))
    print(json.dumps([seed, run(seed).failure]), flush=True)
"""


class Verdict(Struct, frozen=True):
    """What became of a mutation: the seed that found it, BY_STORY or NOT_FOUND. ``failure`` says how, or why it was not."""

    name: str
    seed: int
    seconds: float
    failure: str

    @property
    def is_found(self) -> bool:
        return self.seed != NOT_FOUND

    def __str__(self) -> str:
        place = {NOT_FOUND: "NOT FOUND", BY_STORY: "story"}.get(self.seed, f"seed {self.seed}")
        failure = _CALLBACK.sub("", self.failure.partition("\n")[0])
        return f"{self.name:<56} {place:>10} {self.seconds:7.1f} s  {failure[:LINE_CHARACTERS_MAX]}"


def try_out(mutation: Mutation, first: int, end: int) -> Verdict:
    """Run the mutated product from seed ``first`` to before ``end``. Raises NoLongerApplies."""
    began = time.monotonic()
    changed = mutate(mutation, ROOT)
    with tempfile.TemporaryDirectory(prefix="zmqmq-plant-") as directory:
        copy = Path(directory)
        shutil.copytree(ROOT / PACKAGE, copy / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
        for file, text in changed.items():
            (copy / PACKAGE / file).write_text(text, encoding="utf-8")
        if mutation.stories:
            return _told(mutation, copy, began)
        seed, failure = _first_failure(copy, first, end)
    if seed == NOT_FOUND:
        failure = f"{end - first} seeds passed: the simulator is too kind"
    else:
        _, clean = _first_failure(ROOT, seed, seed + 1)
        if clean:
            seed, failure = NOT_FOUND, f"seed {seed} fails without the mutation too: {clean}"
    return Verdict(mutation.name, seed, time.monotonic() - began, failure)


def _told(mutation: Mutation, copy: Path, began: float) -> Verdict:
    """Whether each of the mutation's stories fails with it and passes without."""
    for story in mutation.stories:
        is_missed = _passes(story, copy)
        if is_missed or not _passes_clean(story):
            failure = f"{story} {'passes with the mutation' if is_missed else 'fails without the mutation too'}"
            return Verdict(mutation.name, NOT_FOUND, time.monotonic() - began, failure)
    return Verdict(mutation.name, BY_STORY, time.monotonic() - began, ", ".join(mutation.stories))


@cache
def _passes_clean(story: str) -> bool:
    return _passes(story, ROOT)


def _passes(story: str, root: Path) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(ROOT / story)]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    return not subprocess.run(command, env=environment, cwd=root, capture_output=True, timeout=STORY_S_MAX, check=False).returncode


def _first_failure(root: Path, first: int, end: int) -> tuple[int, str]:
    """The first seed that fails with the package below ``root``, and how; (NOT_FOUND, "") when none does."""
    reached = first - 1
    for seed, failure in _results(root, first, end):
        reached = seed
        if failure:
            return seed, failure
    if reached == end - 1:
        return NOT_FOUND, ""
    return reached + 1, f"the process ended in seed {reached + 1}, or hung for {SEED_S_MAX} s"


def _results(root: Path, first: int, end: int) -> Iterator[tuple[int, str]]:
    """(seed, failure) as they come, until the process ends or hangs."""
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", _CHILD, str(first), str(end), str(SEED_S_MAX)]
    with subprocess.Popen(command, env=environment, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                seed, failure = json.loads(line)
                yield seed, failure
        finally:
            process.kill()


def plant(mutations: Sequence[Mutation], seeds: int, jobs: int) -> list[Verdict]:
    """Try all, each with so many seeds; each is printed as it ends."""
    verdicts: list[Verdict] = []

    def tried(mutation: Mutation) -> Verdict:
        try:
            return try_out(mutation, mutation.first_seed, mutation.first_seed + seeds)
        except NoLongerApplies as error:
            return Verdict(mutation.name, -1, 0.0, str(error))

    with ThreadPoolExecutor(jobs) as pool:
        for future in as_completed([pool.submit(tried, mutation) for mutation in mutations]):
            verdicts.append(future.result())
            print(verdicts[-1], flush=True)
    return verdicts


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="name", help="mutations whose name contains this; all of them by default")
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX, help="until a mutation counts as not found (default: %(default)s)")
    parser.add_argument("--no-stories", action="store_true", help="look for seeds even where stories find the mutation")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutations at a time (default: one per core)")
    arguments = parser.parse_args()
    exact = [each for each in MUTATIONS if each.name in arguments.names]
    chosen = exact or [each for each in MUTATIONS if not arguments.names or any(name in each.name for name in arguments.names)]
    if not chosen:
        print(f"no mutation is named like {' or '.join(arguments.names)}", file=sys.stderr)
        return 2
    if arguments.no_stories:
        chosen = [structs.replace(mutation, stories=()) for mutation in chosen]
    verdicts = plant(chosen, arguments.seeds, arguments.jobs)
    missed = [verdict.name for verdict in verdicts if not verdict.is_found]
    print(f"{len(verdicts) - len(missed)} of {len(verdicts)} planted bugs found" + (f"; not found: {', '.join(missed)}" if missed else ""))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
