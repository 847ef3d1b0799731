"""Every system call of a fixed workload, killed at and made to fail, one run of the workload for each.

strace counts calls by name in the whole process, so a first run without faults tells which of them touch the data directory. A run
in which nothing was injected (the calls before came out differently) is counted apart.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Final, NamedTuple

from tools import CALL_SECONDS_MAX
from workload import DOOMED, PARTITIONS, open_store, value_of

from zmqmq import batch
from zmqmq.errors import ZmqmqError
from zmqmq.store.store import Store

CALLS: Final = (
    "pwritev", "pwritev2", "pwrite64", "pread64", "fdatasync", "fsync", "rename", "unlink", "rmdir", "mkdir", "ftruncate", "openat",
    "fallocate", "flock",
)  # fmt: skip
FAULTS: Final = ("KILL", "EIO", "ENOSPC")
KILL_SKIPS: Final = frozenset({"pread64", "flock"})
"""Killing there is killing at the next call that changes something."""
PROCESSES: Final = 2
WORKLOAD: Final = Path(__file__).parent / "workload.py"
_LINE: Final = re.compile(r"^(?:\d+ +)?(\w+)\((.*)$")
_ENVIRONMENT: Final = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}


class Point(NamedTuple):
    """The ``nth`` call of a name, and what happens to it."""

    call: str
    nth: int
    fault: str

    @property
    def injection(self) -> str:
        what = f"signal={self.fault}" if self.fault == "KILL" else f"error={self.fault}"
        return f"inject={self.call}:{what}:when={self.nth}"

    def __str__(self) -> str:
        return f"{self.fault} at {self.call} {self.nth}"


class Swept(NamedTuple):
    points: Counter[str]
    """Runs by fault."""
    missed: int
    refusals: Counter[str]
    """What the workload was told, by step and error."""
    wrong: list[str]


def points(scratch: Path) -> list[Point]:
    """Every call that touches the data directory, with each fault."""
    data, testimony, trace = _paths(scratch / "plain")
    _work(data, testimony, trace, f"trace={','.join(CALLS)}")
    assert testimony.read_text().endswith("over\n"), "the workload does not reach its end without faults"
    counts: Counter[str] = Counter()
    found = []
    for line in trace.read_text().splitlines():
        match = _LINE.match(line)
        if match is None or match[1] not in CALLS:
            continue
        counts[match[1]] += 1
        if str(data) in match[2]:
            found += [Point(match[1], counts[match[1]], fault) for fault in FAULTS if fault != "KILL" or match[1] not in KILL_SKIPS]
    return found


def sweep(scratch: Path, *, first: int = 0, every: int = 1) -> Swept:
    """All points, or every so many-th."""
    result = Swept(Counter(), 0, Counter(), [])
    missed = 0
    with ThreadPoolExecutor(PROCESSES) as pool:
        jobs = {pool.submit(_one, scratch, number, point): point for number, point in enumerate(points(scratch)[first::every])}
        for job in as_completed(jobs):
            was_hit, refused, wrong = job.result()
            result.points[jobs[job].fault] += was_hit
            missed += not was_hit
            result.refusals.update(refused)
            result.wrong.extend(f"{jobs[job]}: {words}" for words in wrong)
    return result._replace(missed=missed)


def _one(scratch: Path, number: int, point: Point) -> tuple[bool, list[str], list[str]]:
    data, testimony, trace = _paths(scratch / str(number))
    errors = _work(data, testimony, trace, f"trace={point.call}", point.injection)
    lines = testimony.read_text().splitlines() if testimony.exists() else []
    traced = trace.read_text()
    was_hit = "(INJECTED)" in traced or "+++ killed by SIGKILL" in traced
    wrong = [f"the workload ended with {errors[-300:]}"] if errors else []
    wrong += list(check(data, lines))
    if not wrong:
        shutil.rmtree(data.parent, ignore_errors=True)
    return was_hit, [line for line in lines if line.startswith("refused")], wrong


def _paths(directory: Path) -> tuple[Path, Path, Path]:
    """Of the data, the testimony and the trace of one run; no name is in another."""
    directory.mkdir()
    return directory / "data", directory / "testimony", directory / "trace"


def _work(data: Path, testimony: Path, trace: Path, *expressions: str) -> str:
    """Run it. What it said on stderr if it ended otherwise than in order or by SIGKILL."""
    options = [word for expression in expressions for word in ("-e", expression)]
    fast = [] if any(":signal=" in expression for expression in expressions) else ["--seccomp-bpf"]  # with it no signal is sent
    command = ["strace", "-f", *fast, "-y", "-qq", "-o", trace, *options, sys.executable, WORKLOAD, data, testimony]
    quiet = {**os.environ, **_ENVIRONMENT}
    found = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=CALL_SECONDS_MAX, env=quiet, check=False
    )
    return "" if found.returncode in {0, -9, 137} else f"status {found.returncode}: {found.stderr}"


def check(data: Path, lines: list[str]) -> Iterator[str]:
    """What a directory does not hold that was sworn to, or holds otherwise. Opens it as the next broker would."""
    try:
        store = open_store(str(data))
    except ZmqmqError as error:
        yield f"it does not open any more: {type(error).__name__} {error}"
        return
    try:
        for partition in range(len(PARTITIONS)):
            yield from _check_partition(store, partition, [line.split() for line in lines])
    finally:
        store.close()


def _check_partition(store: Store, partition: int, lines: list[list[str]]) -> Iterator[str]:
    name = str(partition)
    where = PARTITIONS[partition]
    refused = [line[1:5] for line in lines if line[:2] == ["refused", "wrote"]]
    values: dict[int, set[int]] = {}
    for line in lines:
        if line[:2] == ["wrote", name] and line not in refused:
            values.setdefault(int(line[2]), set()).add(int(line[3]))
    acked = max((int(line[2]) for line in lines if line[:2] == ["ack", name]), default=0)
    start = max((int(line[2]) for line in lines if line[:2] == ["start", name]), default=0)
    asked = max((int(line[2]) for line in lines if line[:2] == ["trim", name]), default=0)
    if partition == DOOMED and ["delete", name] in lines:
        if ["deleted", name] in lines and where in store.partitions():
            yield "a deleted topic is back"
        return
    if where not in store.partitions():
        if acked:
            yield f"partition {name} is gone, {acked} records were acknowledged"
        return
    state = store.state(where)
    if state.error or not start <= state.log_start <= asked or state.log_end < acked:
        yield f"partition {name} goes from {state.log_start} to {state.log_end}, sworn were {start}..{asked} to {acked}: {state.error}"
        return
    for offset, value in enumerate(_read(store, partition), state.log_start):
        if value not in {value_of(number) for number in values.get(offset, ())}:
            yield f"partition {name} holds {value[:6]!r} at {offset}, sent were {values.get(offset)}"


def _read(store: Store, partition: int) -> Iterator[bytes]:
    where = PARTITIONS[partition]
    state = store.state(where)
    offset = state.log_start
    while offset < state.log_end:
        data = store.read(where, offset, state.log_end, 1)
        header = batch.parse_header(data)
        batch.check_body(header, data)
        for number, record in enumerate(batch.records(header, data), header.base_offset):
            if number >= offset:
                yield (record.value if record else None) or b""
        offset = header.end_offset
