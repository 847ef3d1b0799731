"""``python -m zmqmq.testing.sim 0..300 1000000..1000030``: run seeds; ``… 4711``: run one again, and shrink it if it fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from zmqmq.testing.sim import campaign
from zmqmq.testing.sim.run import Result, run
from zmqmq.testing.sim.shrink import shrink

SEEDS: Final = (range(292), range(1_000_000, 1_000_008))
"""Of one broker and of three, in the time that a test run has for them."""


class Seeds(click.ParamType[range]):
    """``a..b`` without b, or one seed."""

    name = "seeds"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> range:
        if isinstance(value, range):
            return value
        first, separator, end = str(value).partition("..")
        if not first.isdecimal() or (separator and not end.isdecimal()):
            self.fail(f"{value!r} is neither a seed nor a range like 0..300", param, ctx)
        seeds = range(int(first), int(end) if separator else int(first) + 1)
        if not seeds:
            self.fail(f"{value!r} names no seed: the second number is the end, and does not belong to it", param, ctx)
        return seeds


@click.command()
@click.argument("ranges", type=Seeds(), nargs=-1, metavar="[SEEDS]...")
@click.option(
    "--jobs",
    default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
    type=click.IntRange(1),
    help="Processes; all cores.",
)
@click.option("--ledger", type=click.Path(path_type=Path), help="Append to this file, and leave out what it holds for the same code.")
@click.option("--trace", is_flag=True, help="Print all that happened, of one seed.")
@click.option("--no-shrink", is_flag=True, help="Print failures as they are.")
def main(ranges: tuple[range, ...], jobs: int, ledger: Path | None, *, trace: bool, no_shrink: bool) -> None:
    """Run seeds of the simulator: one, or ranges like 0..300. Seeds from 1000000 on have three brokers, from 2000000 on five. Exits with
    1 when one fails."""
    tally = campaign.Tally()
    ranges = ranges or SEEDS
    if sum(map(len, ranges)) == 1 and ledger is None:
        result = run(ranges[0].start)
        tally.add(result)
        if trace:
            click.echo("\n".join(map(str, result.trace)))
        click.echo(f"seed {result.seed}: {result.failure or 'every promise kept'}, digest {result.digest:08x}, {result.elapsed_s:.1f} s")
    else:
        _run_many(ranges, jobs, ledger, tally)
        click.echo(tally.report())
    for failed in tally.failures[: 1 if not no_shrink else None]:
        _explain(failed, is_shrunk=not no_shrink)
    sys.exit(1 if tally.failures else 0)


def _run_many(ranges: Sequence[range], jobs: int, ledger: Path | None, tally: campaign.Tally) -> None:
    sources = campaign.sources_digest()
    known = campaign.load(ledger) if ledger is not None else []
    chunks = [chunk for seeds in ranges for chunk in campaign.missing(seeds, known, sources)]
    wanted = [seed for chunk in chunks for seed in chunk]
    left_out = sum(map(len, ranges)) - len(wanted)
    if left_out:
        click.echo(f"{left_out:,} seeds are in the ledger already", err=True)
    results = campaign.results_of(wanted, jobs)
    is_terminal = sys.stderr.isatty()
    for chunk in chunks:
        done: list[Result] = []
        for _ in chunk:
            done.append(next(results))
            tally.add(done[-1])
            if done[-1].failure:
                click.echo(f"seed {done[-1].seed} fails: {done[-1].failure}", err=True)
            if is_terminal:
                click.echo(f"\r{tally.progress()}  ", nl=False, err=True)
        click.echo(f"{chr(13) if is_terminal else ''}{tally.progress()}, up to seed {chunk.stop - 1}", err=True)
        if ledger is not None:
            campaign.append(ledger, chunk, done, sources)
    if ledger is not None:
        click.echo(campaign.summary(campaign.load(ledger)))


def _explain(failed: Result, *, is_shrunk: bool) -> None:
    if not is_shrunk:
        click.echo(f"seed {failed.seed} fails: {failed.failure}")
        return
    again = run(failed.seed)
    if again.digest != failed.digest:
        click.echo(f"seed {failed.seed} does not take the same way twice: that is a bug of its own", err=True)
    click.echo(campaign.story(shrink(again, say=_say)))


def _say(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    argv: Sequence[str] = sys.argv[1:]
    main(list(argv))
