"""Plant bugs into copies of Raft and see them found: ``python tests/quorum/raft_plant.py [part of a name …]``.

Each is looked for by the written scenarios and by seeds of the simulator; one of them must find it. Exit code 1 if any is missed, or does
not fit the code any more.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from msgspec import Struct
from raft_mutants import MUTATIONS
from sim.mutation import PACKAGE, ROOT, Mutation, mutate

SEEDS_MAX: Final = 1_000
HERE: Final = Path(__file__).parent
SCENARIOS: Final = ("test_raft_scenarios.py", "test_raft_parts.py")
_CHILD: Final = """
import json, sys
sys.path.insert(0, sys.argv[1])
from raft_run import run
for seed in range(int(sys.argv[2]), int(sys.argv[3])):
    print(json.dumps([seed, run(seed).failure]), flush=True)
"""


class Verdict(Struct, frozen=True):
    """``scenario`` is the test that failed, ``seed`` the first seed; "" and -1 if there is none."""

    name: str
    scenario: str
    seed: int
    failure: str
    seconds: float

    @property
    def is_found(self) -> bool:
        return bool(self.scenario) or self.seed >= 0

    def __str__(self) -> str:
        seed = f"seed {self.seed}" if self.seed >= 0 else "no seed"
        return f"{self.name:<48} {seed:>9} {self.scenario or '-':<60} {self.seconds:5.1f} s  {self.failure[:110]}"


@contextmanager
def planted(mutation: Mutation) -> Iterator[Path]:
    """A copy of the package that has the bug; who runs in this directory imports it. Raises NoLongerApplies."""
    changed = mutate(mutation, ROOT)
    with tempfile.TemporaryDirectory(prefix="zmqmq-raft-") as directory:
        copy = Path(directory)
        shutil.copytree(ROOT / PACKAGE, copy / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
        for file, text in changed.items():
            (copy / PACKAGE / file).write_text(text, encoding="utf-8")
        yield copy


def _environment(copy: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}


def first_failure(copy: Path, first: int, end: int) -> tuple[int, str]:
    command = [sys.executable, "-c", _CHILD, str(HERE), str(first), str(end)]
    with subprocess.Popen(command, env=_environment(copy), cwd=copy, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                seed, failure = json.loads(line)
                if failure:
                    return seed, failure
        finally:
            process.kill()
    return -1, ""


def failing_scenario(copy: Path) -> str:
    """The first written scenario that fails."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=no", *(str(HERE / name) for name in SCENARIOS)]
    done = subprocess.run(command, env=_environment(copy), cwd=copy, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    failed = [line.partition("::")[2].partition(" ")[0] for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return failed[0] if failed else done.stdout[-200:]


def try_out(mutation: Mutation, seeds: int) -> Verdict:
    began = time.monotonic()
    with planted(mutation) as copy:
        scenario = failing_scenario(copy)
        seed, failure = first_failure(copy, 0, seeds)
    return Verdict(mutation.name, scenario, seed, failure, time.monotonic() - began)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="name", help="mutations whose name contains this; all of them by default")
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX)
    parsed = parser.parse_args(arguments)
    chosen = [each for each in MUTATIONS if not parsed.names or any(name in each.name for name in parsed.names)]
    verdicts = []
    for mutation in chosen:
        verdicts.append(try_out(mutation, parsed.seeds))
        print(verdicts[-1], flush=True)
    missed = [verdict.name for verdict in verdicts if not verdict.is_found]
    print(f"{len(verdicts) - len(missed)} of {len(verdicts)} planted bugs found" + (f"; not found: {', '.join(missed)}" if missed else ""))
    return 1 if missed or not verdicts else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
