"""``zmqmq cluster leaders``: which replica leads."""

from __future__ import annotations

from typing import Final

import click

from zmqmq_cli.cluster import partition_row
from zmqmq_cli.lazy import Command, LazyGroup
from zmqmq_cli.output import Column
from zmqmq_cli.params import PLACE
from zmqmq_cli.settings import Settings

_COLUMNS: Final = (Column("name", "PARTITION"), Column("leader"), Column("replicas"), Column("isr"))


@click.group("leaders", cls=LazyGroup)
def leaders() -> None:
    """Move leaders: balance, move."""


@leaders.command("balance", cls=Command)
@click.pass_obj
def balance(settings: Settings) -> None:
    """Give each partition back to its first replica, where that is in sync."""
    with settings.client() as client:
        changed = client.admin.balance_leaders()
    settings.output.rows([partition_row(partition) for partition in changed.partitions], _COLUMNS)
    settings.output.note(f"{changed.count} leaders moved")


@leaders.command("move", cls=Command)
@click.argument("places", type=PLACE, nargs=-1, required=True, metavar="TOPIC:PARTITION…")
@click.option("--to", type=click.IntRange(min=0), required=True, metavar="N", help="The broker that shall lead; in sync already.")
@click.pass_obj
def move(settings: Settings, *, places: tuple[tuple[str, int], ...], to: int) -> None:
    """Let another in-sync replica lead."""
    with settings.client() as client:
        changed = client.admin.move_leaders(dict.fromkeys(places, to))
    settings.output.rows([partition_row(partition) for partition in changed.partitions], _COLUMNS)
    settings.output.note(f"{changed.count} leaders moved" if changed.count else f"broker {to} leads already")
