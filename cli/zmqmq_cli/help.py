"""``zmqmq help``: what belongs to no single command."""

from __future__ import annotations

import click

from zmqmq_cli.errors import exit_code_rows
from zmqmq_cli.lazy import Command, LazyGroup
from zmqmq_cli.output import Column
from zmqmq_cli.settings import Settings


@click.group("help", cls=LazyGroup)
def help_() -> None:
    """Topics that belong to no single command."""


@help_.command("exit-codes", cls=Command)
@click.pass_obj
def exit_codes(settings: Settings) -> None:
    """What each exit code means."""
    settings.output.rows(exit_code_rows(), (Column("code"), Column("meaning")))


@help_.command("formats", cls=Command)
@click.pass_obj
def formats(settings: Settings) -> None:
    """The fields of message formats (consume -f, produce -f and -o)."""
    from zmqmq_cli import formats as module

    settings.output.text((module.__doc__ or "").strip())


@help_.command("offsets", cls=Command)
@click.pass_obj
def offsets(settings: Settings) -> None:
    """The forms of an offset (consume -o)."""
    from zmqmq_cli import offsets as module

    settings.output.text((module.__doc__ or "").strip())
