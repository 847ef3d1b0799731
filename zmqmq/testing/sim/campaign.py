"""Many seeds on all cores: progress, a report of medians, and a ledger of what has been run.

The ledger is a file of JSON lines, one for each chunk of seeds. A chunk that it holds for the same code is not run again, so that a
campaign that was interrupted goes on; the code is known by a digest of the package's sources.
"""

from __future__ import annotations

import datetime as dt
import gc
import hashlib
import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Final

import msgspec
from msgspec import Struct

import zmqmq
from zmqmq.marks import MARKS
from zmqmq.testing.sim.run import Result, run
from zmqmq.testing.sim.shrink import Shrunk

CHUNK_SEEDS: Final = 100
EVENTS_SHOWN_MAX: Final = 200
LINE_CHARS_MAX: Final = 160
_DIGEST_CHARS: Final = 12


class Entry(Struct, frozen=True):
    """One line of the ledger: the seeds from ``first`` up to and without ``end``."""

    first: int
    end: int
    failed: list[int]
    sources: str
    day: str
    simulated_s: int
    openings: int
    acknowledged: int
    faults: int


class Tally:
    """What a campaign found so far."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.failures: list[Result] = []
        self.started_s = monotonic()

    def add(self, result: Result) -> None:
        self.results.append(msgspec.structs.replace(result, trace=(), allowed=(), steps=()))
        if result.failure:
            self.failures.append(result)

    def progress(self) -> str:
        minutes = (monotonic() - self.started_s) / 60
        return f"{len(self.results)} seeds, {len(self.failures)} failed, {len(self.results) / max(minutes, 1e-9):.0f} a minute"

    def report(self) -> str:
        """Medians per seed, sums, and the marks that nobody reached."""
        results = self.results
        if not results:
            return "nothing was run"
        elapsed_s = monotonic() - self.started_s
        classes = sorted({name for result in results for name in result.struck})
        hours = sum(result.simulated_s for result in results) / 3600
        reached = Counter(name for result in results for name in result.marks)
        lines = [
            f"{len(results):,} seeds in {elapsed_s:.0f} s, {len(results) / elapsed_s * 60:.0f} a minute; {hours:.1f} simulated hours",
            "a seed (median): "
            + ", ".join(
                (
                    f"{median(result.simulated_s for result in results):.0f} simulated s",
                    f"{median(result.events for result in results):,.0f} events",
                    f"{median(result.openings for result in results) - 1:.0f} restarts",
                    f"{median(result.acknowledged for result in results):,.0f} records acknowledged",
                    f"{median(sum(result.struck.values()) for result in results):.0f} faults",
                    f"{median(result.leader_changes for result in results):.0f} leader changes",
                )
            ),
            "faults by class: strikes per seed that has it (median), seeds that have it",
        ]
        for name in classes:
            counts = [result.struck[name] for result in results if name in result.struck]
            lines.append(f"  {name:<22} {median(counts):>6.0f}  {len(counts):>6,}")
        lines.append("marks: seeds that reached it")
        lines += [f"  {name:<34} {reached[name]:>6,}" for name in MARKS]
        lines.append(f"failures: {len(self.failures)}")
        return "\n".join(lines)


def sources_digest() -> str:
    """Of every module of the package: two runs of the same digest ran the same code."""
    root = Path(zmqmq.__file__).parent
    digest = hashlib.blake2b()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:_DIGEST_CHARS]


def load(path: Path) -> list[Entry]:
    return [msgspec.json.decode(line, type=Entry) for line in path.read_bytes().splitlines()] if path.exists() else []


def missing(seeds: range, ledger: Iterable[Entry], sources: str) -> list[range]:
    """What these sources have not run yet of ``seeds``, in chunks. Of a chunk with a failure nothing counts as run."""
    missing: list[range] = []
    first = seeds.start
    for done_first, done_end in sorted((entry.first, entry.end) for entry in ledger if entry.sources == sources and not entry.failed):
        missing.append(range(first, min(done_first, seeds.stop)))
        first = max(first, done_end)
    missing.append(range(first, seeds.stop))
    return [gap[start : start + CHUNK_SEEDS] for gap in missing for start in range(0, len(gap), CHUNK_SEEDS)]


def append(path: Path, chunk: range, results: Sequence[Result], sources: str) -> None:
    entry = Entry(
        chunk.start,
        chunk.stop,
        [result.seed for result in results if result.failure],
        sources,
        dt.datetime.now(dt.UTC).date().isoformat(),
        round(sum(result.simulated_s for result in results)),
        sum(result.openings for result in results),
        sum(result.acknowledged for result in results),
        sum(sum(result.struck.values()) for result in results),
    )
    with path.open("ab") as file:
        file.write(msgspec.json.encode(entry) + b"\n")


def summary(ledger: Sequence[Entry]) -> str:
    """What may be claimed: the sums of the ledger, and the seeds whose last run failed; then the same for each state of the code."""
    by_sources: dict[str, list[Entry]] = {}
    for entry in ledger:
        by_sources.setdefault(entry.sources, []).append(entry)
    return "\n".join([f"ledger: {_sums(ledger)}", *(f"  {sources}: {_sums(entries)}" for sources, entries in by_sources.items())])


def _sums(entries: Sequence[Entry]) -> str:
    last = {seed: seed in entry.failed for entry in entries for seed in range(entry.first, entry.end)}
    hours = sum(entry.simulated_s for entry in entries) / 3600
    return (
        f"{sum(entry.end - entry.first for entry in entries):,} runs of {len(last):,} seeds, {sum(last.values())} failed when last run; "
        f"{hours:,.1f} simulated hours, {sum(entry.openings for entry in entries):,} openings, "
        f"{sum(entry.acknowledged for entry in entries):,} records acknowledged, {sum(entry.faults for entry in entries):,} faults"
    )


def results_of(seeds: Sequence[int], jobs: int) -> Iterator[Result]:
    """Run them, in order of seeds. Interrupted, it ends the other processes."""
    if jobs == 1 or len(seeds) == 1:
        yield from map(run, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=gc.freeze) as pool:  # each seed ends with a collection
        yield from pool.imap(run, seeds, chunksize=1)


def story(shrunk: Shrunk) -> str:
    """A failing seed as a report: what to run, what was taken away, what happened."""
    result = shrunk.result
    events = result.trace[-EVENTS_SHOWN_MAX:]
    cut = [f"  … {len(result.trace) - len(events):,} events before these …"] if len(events) < len(result.trace) else []
    left_out = ", ".join(sorted(shrunk.omissions.classes)) or "no class"
    size = f"{shrunk.fault_count} faults and {len(result.steps)} steps in {shrunk.trouble_s:.1f} s, {len(result.trace):,} events"
    report = [
        f"seed {result.seed} fails: {result.failure}",
        f"again: make sim SEED={result.seed}",
        f"shrunk in {shrunk.runs} runs to {size}",
        f"left out: {left_out}; {len(shrunk.omissions.singles)} single faults, steps and programs",
    ]
    return "\n".join([*report, *cut, *(str(event)[:LINE_CHARS_MAX] for event in events)])
