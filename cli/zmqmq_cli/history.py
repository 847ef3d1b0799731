"""``zmqmq history``: what clients did and saw, checked against what a log promises. Needs no broker, changes nothing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import click

from zmqmq_cli.lazy import Command, LazyGroup
from zmqmq_cli.output import Column
from zmqmq_cli.settings import Settings

if TYPE_CHECKING:
    from zmqmq.testing.history import Anomaly, Finding, Operation, Report

_FILE: Final = click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
_SUBSCRIBE: Final = click.option(
    "--subscribe/--no-subscribe", default=None, help="Whether groups assigned the keys, so that polls may skip and repeat. [as FILE says]"
)
_COLUMNS: Final = (
    Column("anomaly"), Column("invalidates", "BAD"), Column("count"), Column("key", wide=True), Column("offsets", wide=True),
    Column("values", wide=True), Column("operations"), Column("what"),
)  # fmt: skip
_ANOMALY_COLUMNS: Final = (Column("anomaly"), Column("what"))
_NS_PER_MS: Final = 1e6


@click.group("history", cls=LazyGroup)
def history() -> None:
    """Check what clients saw against what a log promises."""


@history.command("check", cls=Command)
@_FILE
@_SUBSCRIBE
@click.option("--ww", is_flag=True, help="Look for circles of writes too; then circles of information are shown, but not held to be wrong.")
@click.option("--read-uncommitted", is_flag=True, help="Polls may show what transactions have not committed.")
@click.pass_obj
def check(settings: Settings, *, file: str, subscribe: bool | None, ww: bool, read_uncommitted: bool) -> int:
    """Find every anomaly in the history FILE (JSON lines; - is stdin). Exit code 1 if one makes it wrong, 2 if FILE is no history."""
    from zmqmq.testing.history import Options
    from zmqmq.testing.history import check as check_operations
    from zmqmq_cli import errors

    options = Options(subscribe=subscribe, ww=ww, read_committed=not read_uncommitted)
    report = check_operations(_read(file), options)
    if report.anomalies:
        settings.output.rows([_row(anomaly, found) for anomaly in report.anomalies for found in anomaly.examples], _COLUMNS)
    settings.output.note(_summary(report))
    if report.is_valid:
        return errors.OK
    settings.output.error(_verdict(report, file))
    return errors.FAILED


@history.command("stats", cls=Command)
@_FILE
@click.pass_obj
def stats(settings: Settings, *, file: str) -> None:
    """Figures of the history FILE: sends by outcome, and for each key what nobody read and how late records were seen."""
    from zmqmq.testing.history import check as check_operations

    metrics = check_operations(_read(file)).metrics
    lines = [
        f"operations {metrics.operations:,}",
        f"sends ok {metrics.sends_ok:,}, failed {metrics.sends_failed:,}, unknown {metrics.sends_unknown:,}",
        f"values read {metrics.values_read:,}",
        *(f"unseen {key} {count:,}" for key, count in metrics.unseen.items()),
        *(f"lag {key} {lag / _NS_PER_MS:,.3f} ms" for key, lag in metrics.lag_ns.items()),
        *(f"consumed {times:,} times {count:,} values" for times, count in metrics.consumed.items()),
    ]
    settings.output.one(_builtins(metrics), "\n".join(lines))


@history.command("anomalies", cls=Command)
@click.pass_obj
def anomalies(settings: Settings) -> None:
    """The anomalies that are looked for."""
    from zmqmq.testing.history import ANOMALIES

    settings.output.rows([{"anomaly": name, "what": what} for name, what in ANOMALIES.items()], _ANOMALY_COLUMNS)


def _read(file: str) -> list[Operation]:
    from zmqmq.testing.history import load, read

    return list(read(sys.stdin.buffer, "stdin")) if file == "-" else load(file)


def _builtins(value: object) -> dict[str, Any]:
    import msgspec

    built: dict[str, Any] = msgspec.to_builtins(value, str_keys=True)
    return built


def _row(anomaly: Anomaly, found: Finding) -> dict[str, Any]:
    return {
        "anomaly": anomaly.name,
        "invalidates": anomaly.invalidates,
        "count": anomaly.count,
        "key": found.key,
        "offsets": list(found.offsets),
        "values": list(found.values),
        "operations": list(found.operations),
        "what": found.what,
    }


def _summary(report: Report) -> str:
    metrics = report.metrics
    sends = f"{metrics.sends_ok:,} sends acknowledged, {metrics.sends_failed:,} failed, {metrics.sends_unknown:,} unknown"
    unseen = sum(metrics.unseen.values())
    late = f", {unseen:,} acknowledged and not read" if unseen else ""
    verdict = "valid" if report.is_valid else "not valid"
    return f"{metrics.operations:,} operations, {sends}, {metrics.values_read:,} values read{late}: {verdict}"


def _verdict(report: Report, file: str) -> tuple[str, str, str]:
    wrong = [anomaly for anomaly in report.anomalies if anomaly.invalidates]
    named = ", ".join(f"{anomaly.name} ({anomaly.count:,})" for anomaly in wrong)
    first = wrong[0].examples[0]
    at = f", operation{'s' if len(first.operations) > 1 else ''} {', '.join(map(str, first.operations))}" if first.operations else ""
    return (
        f"Error: the history is not what a log promises: {named}",
        f"  First: {first.what} ({'stdin' if file == '-' else file}{at})",
        "  What each name means:  zmqmq history anomalies",
    )
