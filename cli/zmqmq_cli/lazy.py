"""Click, taught three things: commands loaded when they run, global options allowed behind the command, names suggested.

A group knows its commands by (module, attribute, help line) only, so that ``--help`` imports none of them.
"""

from __future__ import annotations

import difflib
import importlib
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from zmqmq_cli.params import BROKERS, DURATION, FORMAT
from zmqmq_cli.settings import Given, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Entry(NamedTuple):
    """Where a command lives."""

    target: str
    """``module:attribute`` below ``zmqmq_cli``."""
    help: str


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run."""

    def __init__(self, *args: Any, entries: Mapping[str, Entry] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.entries = dict(entries or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.entries, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self.entries.get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = entry.target.partition(":")
        found = getattr(importlib.import_module(f"zmqmq_cli.{module}"), attribute)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and name not in self.list_commands(ctx):
            near = difflib.get_close_matches(name, self.list_commands(ctx))
            raise click.UsageError(f"No such command {name!r}." + (f" Did you mean {' or '.join(near)}?" if near else ""), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        helps = [(name, self.entries[name].help if name in self.entries else self._help_of(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(helps)

    def _help_of(self, ctx: click.Context, name: str) -> str:
        command = self.get_command(ctx, name)
        return command.get_short_help_str() if command else ""


class Command(click.Command):
    """A leaf command. It takes the global options too, but for those whose letters it uses itself."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = {name for parameter in self.params for name in parameter.opts}
        self.params.extend(option for option in global_options() if not own & set(option.opts))

    def invoke(self, ctx: click.Context) -> Any:
        settings = ctx.ensure_object(Settings)
        settings.command = ctx.command_path
        if ctx.auto_envvar_prefix and any(name.startswith(f"{ctx.auto_envvar_prefix}_") for name in os.environ):
            from zmqmq_cli.config_file import unknown_variables

            for line in unknown_variables(ctx, os.environ):
                settings.output.note(line)
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = [record for parameter in self.params if not is_global(parameter) and (record := parameter.get_help_record(ctx))]
        shared = [record for parameter in self.params if is_global(parameter) and (record := parameter.get_help_record(ctx))]
        for title, records in (("Options", own), ("Global options", shared)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class CommandGroup(LazyGroup):
    """A group that is a command too when none of its own follows; it takes the global options, as a leaf does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = {name for parameter in self.params for name in parameter.opts}
        self.params.extend(option for option in global_options() if not own & set(option.opts))

    def invoke(self, ctx: click.Context) -> Any:
        ctx.ensure_object(Settings).command = ctx.command_path
        return super().invoke(ctx)


class GlobalOption(click.Option):
    """An option that goes to ``Settings`` and not to the command."""


def is_global(parameter: click.Parameter) -> bool:
    return isinstance(parameter, GlobalOption)


def _setter(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def set_(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        source = ctx.get_parameter_source(parameter.name or "")
        if value is not None and source is not click.core.ParameterSource.DEFAULT:
            setattr(ctx.ensure_object(Settings), name, value)

    return set_


def _set_given(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """With the knowledge whether it was typed, since what is typed wins over the environment."""

    def set_(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value is not None:
            is_typed = ctx.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE
            setattr(ctx.ensure_object(Settings), name, Given(value, is_typed))

    return set_


def _set_json(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Settings).format = "jsonl"


def _set_no_color(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Settings).color = False


def global_options() -> list[click.Option]:
    """A fresh set: an option object belongs to one command."""

    def option(*names: str, **kwargs: Any) -> click.Option:
        return GlobalOption(names, expose_value=False, **kwargs)

    return [
        option(
            "-b",
            "--brokers",
            type=BROKERS,
            callback=_set_given("given_brokers"),
            metavar="URL,…",
            help="Where the brokers are. [the context's, or tcp://127.0.0.1:5570]",
        ),
        option(
            "-C",
            "--context",
            callback=_set_given("given_context"),
            metavar="NAME",
            help="The cluster of that name. [zmqmq context use NAME]",
        ),
        option("--timeout", type=DURATION, callback=_setter("timeout"), help="How long to wait for an answer. [5s]"),
        option("-f", "--format", type=FORMAT, callback=_setter("format"), help="text, wide, json, jsonl, yaml or csv."),
        option("--json", is_flag=True, callback=_set_json, help="One JSON object a line."),
        option("-q", "--quiet", is_flag=True, default=None, callback=_setter("quiet"), help="Say nothing on stderr but errors."),
        option("-v", "--verbose", count=True, default=None, callback=_setter("verbose"), help="Log more; show tracebacks."),
        option("--no-color", is_flag=True, callback=_set_no_color, help="No colour, as NO_COLOR does."),
    ]
