"""``zmqmq ping``: round trips to each broker."""

from __future__ import annotations

import time
from typing import Final

import click

from zmqmq_cli.lazy import Command
from zmqmq_cli.output import Column
from zmqmq_cli.params import DURATION
from zmqmq_cli.settings import Settings


def _milliseconds(value: float) -> str:
    return f"{value:.2f} ms"


_COLUMNS: Final = (
    Column("node", "NODE"),
    Column("address"),
    Column("count"),
    Column("min_ms", "MIN", _milliseconds),
    Column("avg_ms", "AVG", _milliseconds),
    Column("p99_ms", "P99", _milliseconds),
)


@click.command("ping", cls=Command)
@click.option("-n", "--count", type=click.IntRange(1, 100_000), default=10, show_default=True, help="Round trips to each broker.")
@click.option("-i", "--interval", type=DURATION, default="10ms", show_default=True, help="Between round trips.")
@click.pass_obj
def ping(settings: Settings, *, count: int, interval: float) -> None:
    """Round trip to each broker: the shortest, the mean, the 99th percentile."""
    trips: dict[tuple[int, str], list[float]] = {}
    with settings.client() as client:
        for turn in range(count):
            if turn:
                time.sleep(interval)
            for pong in client.admin.ping():
                trips.setdefault((pong.node_id, pong.address), []).append(pong.seconds * 1000)
    rows = [_row(node, address, sorted(times)) for (node, address), times in sorted(trips.items())]
    settings.output.rows(rows, _COLUMNS)


def _row(node: int, address: str, times: list[float]) -> dict[str, object]:
    return {
        "node": node,
        "address": address,
        "count": len(times),
        "min_ms": round(times[0], 3),
        "avg_ms": round(sum(times) / len(times), 3),
        "p99_ms": round(times[min(len(times) - 1, int(len(times) * 0.99))], 3),
    }
