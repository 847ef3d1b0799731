"""The verdict: what was found, whether it makes the history wrong, and figures of what was seen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import Struct

from zmqmq.testing.history.findings import ANOMALIES, Finding

EXAMPLES_MAX: Final = 8
"""Findings of one name that a report keeps; all are counted."""
_CIRCLES_OF_WRITES: Final = frozenset({"G0", "G0-process", "G0-realtime"})
_CIRCLES_OF_INFORMATION: Final = frozenset({"G1c", "G1c-process", "G1c-realtime"})


class Options(Struct, frozen=True):
    """What the history's clients were allowed to meet."""

    subscribe: bool | None = None
    """Groups assigned the keys, so a process may lose its place between two polls. None: if the history has a ``subscribe``."""
    ww: bool = False
    """Infer edges between sends for circles. Finds G0 and more of G1c; then neither says that anything is wrong."""
    read_committed: bool = True
    """Polls never show what a transaction has not committed."""


class Metrics(Struct, frozen=True):
    """Figures; none of them is a verdict."""

    operations: int
    sends_ok: int
    sends_failed: int
    sends_unknown: int
    values_read: int
    """Distinct ones, by operations that are ok."""
    unseen: dict[str, int]
    """By key: acknowledged values that no poll found. Without final polls they may only be late."""
    lag_ns: dict[str, int]
    """By key: the longest time for which a record was known to exist when a process that had not read it yet began to poll."""
    consumed: dict[int, int]
    """How many values were read so many times by processes that subscribed; exactly-once has only the entry for 1."""


class Anomaly(Struct, frozen=True):
    """All findings of one name."""

    name: str
    invalidates: bool
    count: int
    examples: tuple[Finding, ...]


class Report(Struct, frozen=True):
    """``is_valid`` unless some anomaly invalidates. Equal histories give equal reports, byte for byte."""

    is_valid: bool
    anomalies: tuple[Anomaly, ...]
    metrics: Metrics

    def counts(self) -> dict[str, int]:
        """By name, as far as any were found."""
        return {anomaly.name: anomaly.count for anomaly in self.anomalies}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        built: dict[str, Any] = msgspec.to_builtins(self, str_keys=True)
        return built

    def __str__(self) -> str:
        """A line for each anomaly that invalidates, with its first example; for assertions and logs."""
        wrong = [anomaly for anomaly in self.anomalies if anomaly.invalidates]
        lines = [f"{anomaly.name} ({anomaly.count:,}): {anomaly.examples[0].what}" for anomaly in wrong]
        return "\n".join(lines) or f"valid: {self.metrics.operations:,} operations"


def allowed(options: Options) -> frozenset[str]:
    """The names that do not invalidate."""
    names = _CIRCLES_OF_WRITES | {"int-send-skip"}
    if options.subscribe:
        names |= {"poll-skip", "nonmonotonic-poll"}
    if options.ww or not options.read_committed:
        names |= _CIRCLES_OF_INFORMATION
    return names


def report(findings: Iterable[Finding], metrics: Metrics, options: Options) -> Report:
    """Findings by name, in the order of ``ANOMALIES``."""
    counts = dict.fromkeys(ANOMALIES, 0)
    examples: dict[str, list[Finding]] = {name: [] for name in ANOMALIES}
    for finding in findings:
        counts[finding.anomaly] += 1
        if len(kept := examples[finding.anomaly]) < EXAMPLES_MAX:
            kept.append(finding)
    pardoned = allowed(options)
    anomalies = tuple(Anomaly(name, name not in pardoned, count, tuple(examples[name])) for name, count in counts.items() if count)
    return Report(not any(anomaly.invalidates for anomaly in anomalies), anomalies, metrics)
