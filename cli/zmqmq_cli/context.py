"""``zmqmq context``: names for clusters, and which of them commands talk to."""

from __future__ import annotations

from typing import Final

import click

from zmqmq_cli.lazy import Command, LazyGroup
from zmqmq_cli.output import Column
from zmqmq_cli.settings import Settings

_COLUMNS: Final = (Column("selected", "", lambda selected: "*" if selected else " "), Column("name"), Column("brokers"))


@click.group("context", cls=LazyGroup)
def context() -> None:
    """Names for clusters: which brokers commands talk to.

    What -b names wins over -C and $ZMQMQ_CONTEXT, and these over the context that is selected.
    """


@context.command("add", cls=Command)
@click.argument("name")
@click.option("--select", is_flag=True, help="Use it from now on.")
@click.pass_obj
def add(settings: Settings, *, name: str, select: bool) -> None:
    """Make a context of the brokers that -b names, or replace one."""
    from zmqmq_cli.contexts import Context, Contexts

    if settings.given_brokers is None:
        raise click.UsageError(f"which brokers? Write: zmqmq context add {name} -b tcp://HOST:PORT,…", click.get_current_context())
    contexts, brokers = Contexts(), settings.given_brokers.value
    is_new = contexts.add(Context(name, brokers))
    if select:
        contexts.use(name)
    row = {"name": name, "brokers": brokers, "selected": contexts.selected == name}
    settings.output.one(row, f"{'added' if is_new else 'replaced'} {name}  {brokers}{'  selected' if select else ''}")


@context.command("use", cls=Command)
@click.argument("name")
@click.pass_obj
def use(settings: Settings, *, name: str) -> None:
    """Select a context; - is the one before."""
    from zmqmq_cli.contexts import Contexts

    found = Contexts().use(name)
    settings.output.one({**found._asdict(), "selected": True}, f"context {found.name}  {found.brokers}")


@context.command("list", cls=Command)
@click.pass_obj
def list_(settings: Settings) -> None:
    """All contexts; a star marks the one that is selected."""
    from zmqmq_cli.contexts import Contexts

    contexts = Contexts()
    selected = contexts.selected
    rows = [{**contexts.get(name)._asdict(), "selected": name == selected} for name in contexts.names()]
    settings.output.rows(rows, _COLUMNS)


@context.command("show", cls=Command)
@click.argument("name", required=False)
@click.pass_obj
def show(settings: Settings, *, name: str | None) -> None:
    """One context; the one that commands use now, without a name."""
    from zmqmq_cli.contexts import Contexts

    if name is None:
        brokers, name = settings.choose()
    else:
        brokers = Contexts().get(name).brokers
    settings.output.one({"name": name, "brokers": brokers}, f"{name or '(no context)'}  {brokers}")


@context.command("delete", cls=Command)
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.pass_obj
def delete(settings: Settings, *, names: tuple[str, ...]) -> None:
    """Delete contexts; the clusters stay as they are."""
    from zmqmq_cli.contexts import Contexts

    for name in names:
        Contexts().delete(name)
        settings.output.one({"name": name}, f"deleted {name}")
