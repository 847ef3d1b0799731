"""Defaults of options from a file (``--config``) and from the environment: what they name has to exist.

Keys are the long options, with - or _ between words: ``brokers = "…"`` at the top, ``[produce]`` for one command,
``[topic.create]`` for one of a group. Click wants its own parameter names; ``default_map`` translates.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import click

_KNOWN_MAX: Final = 12
"""Names listed when none is near."""


def default_map(ctx: click.Context, command: click.Command, values: Mapping[str, Any], path: str, where: str = "") -> dict[str, Any]:
    """The file's values by click's names. Raises UsageError for a name that nothing has."""
    names = spellings(command)
    commands = command.list_commands(ctx) if isinstance(command, click.Group) else []
    found: dict[str, Any] = {}
    for name, value in values.items():
        parameter = names.get(name.replace("-", "_"))
        if name in commands:
            inner = command.get_command(ctx, name) if isinstance(command, click.Group) else None
            assert inner is not None
            if not isinstance(value, dict):
                raise click.UsageError(f"config {path}: {where}{name} is a command; write its options below [{where}{name}]", ctx)
            found[name] = default_map(ctx, inner, value, path, f"{where}{name}.")
        elif parameter is not None:
            found[parameter] = value
        else:
            raise click.UsageError(f"config {path}: nothing is called {where}{name}; {_suggestion(name, [*names, *commands])}", ctx)
    return found


def spellings(command: click.Command) -> dict[str, str]:
    """Click's name for each way to write an option of the command."""
    names: dict[str, str] = {}
    for parameter in command.params:
        if not parameter.name or not isinstance(parameter, click.Option):
            continue
        for option in parameter.opts:
            if option.startswith("--"):
                names.setdefault(option[2:].replace("-", "_"), parameter.name)
        names.setdefault(parameter.name, parameter.name)
    return names


def unknown_variables(ctx: click.Context, environment: Mapping[str, str]) -> list[str]:
    """A line for each variable that is meant for this command and that no option of it reads."""
    prefix = f"{ctx.auto_envvar_prefix}_" if ctx.auto_envvar_prefix else ""
    known = {f"{prefix}{(parameter.name or '').upper()}" for parameter in ctx.command.params}
    return [
        f"warning: no option is set by {name}; {_suggestion(name, known)}"
        for name in sorted(environment)
        if prefix and name.startswith(prefix) and name not in known
    ]


def _suggestion(name: str, known: Iterable[str]) -> str:
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"known: {', '.join(names[:_KNOWN_MAX])}" + (", …" if len(names) > _KNOWN_MAX else "")
