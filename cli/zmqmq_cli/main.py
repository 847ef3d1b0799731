"""The root of the command tree, and the one place where exceptions become lines and exit codes."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from zmqmq_cli import errors
from zmqmq_cli.lazy import Entry, LazyGroup, global_options
from zmqmq_cli.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "serve": Entry("serve:serve", "Run one broker in the foreground."),
    "dev": Entry("dev:dev", "A throw-away cluster on this machine."),
    "produce": Entry("produce:produce", "Send messages to a topic."),
    "consume": Entry("consume:consume", "Read messages of topics."),
    "tail": Entry("consume:tail", "Follow topics: consume from the end."),
    "topic": Entry("topic:topic", "Create, list, describe, alter, delete, trim topics."),
    "cluster": Entry("cluster:cluster", "State, health, leaders and replicas of a cluster."),
    "events": Entry("events:events", "Follow what changes in a cluster."),
    "log": Entry("log:log", "Look into a data directory, offline."),
    "history": Entry("history:history", "Check what clients saw against what a log promises."),
    "ping": Entry("ping:ping", "Round trip to each broker."),
    "bench": Entry("bench:bench", "Measure produce, consume and end-to-end speed."),
    "context": Entry("context:context", "Names for clusters: which brokers commands talk to."),
    "version": Entry("version:version", "Versions of the client and of the brokers."),
    "help": Entry("help:help_", "Topics that belong to no single command."),
}
_CONTEXT = {"auto_envvar_prefix": "ZMQMQ", "help_option_names": ["-h", "--help"], "max_content_width": 120}


def _load_config(ctx: click.Context, _parameter: click.Parameter, path: str | None) -> None:
    """Defaults of options from a TOML file: ``brokers = "…"`` at the top, ``[produce]`` for one command."""
    if path is None:
        return
    import tomllib

    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise click.UsageError(f"config {path} is not TOML: {error}", ctx) from error
    from zmqmq_cli.config_file import default_map

    ctx.default_map = default_map(ctx, ctx.command, values, path)


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from zmqmq import __version__

        ctx.ensure_object(Settings).output.text(f"zmqmq {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, entries=COMMANDS, context_settings=_CONTEXT, invoke_without_command=False)
@click.option("--config", type=click.Path(exists=True, dir_okay=False), is_eager=True, expose_value=False, callback=_load_config,
              help="TOML file with defaults for these options, and a table for each command.")  # fmt: skip
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version.")
def cli() -> None:
    """A durable message log on ZeroMQ.

    Start a broker with `zmqmq serve`, then try `zmqmq topic create hello`. Every option can be set by the
    environment: ZMQMQ_BROKERS, ZMQMQ_PRODUCE_ACKS and so on.
    """


cli.params.extend(global_options())


def run(arguments: Sequence[str], settings: Settings | None = None) -> int:
    """Run one command line; the exit code. What went wrong is on stderr by then, in three lines."""
    from zmqmq.errors import ZmqmqError

    settings = settings or Settings()
    output = settings.output_for_errors
    try:
        code = _invoke(list(arguments), settings)
        settings.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        output().error([error.format_message()])
        return errors.USAGE
    except click.Abort:
        return errors.INTERRUPTED
    except click.ClickException as error:
        output().error(errors.usage_lines(error))
        return error.exit_code
    except ZmqmqError as error:
        settings.maybe_traceback()
        output().error(errors.three_lines(error, settings.where, settings.asked if settings.uses_brokers else "", settings.command))
        return errors.exit_code(error)
    except KeyboardInterrupt:
        return errors.INTERRUPTED
    except BrokenPipeError:
        _drop_stdout()
        return errors.OK
    except OSError as error:
        settings.maybe_traceback()
        output().error(errors.system_lines(error, settings.where))
        return errors.FAILED
    return code


def _invoke(arguments: list[str], settings: Settings) -> int:
    """What a command returns is its exit code; click's own ``main`` would turn a broken pipe into 1."""
    try:
        with cli.make_context("zmqmq", arguments, obj=settings) as context:
            code = cli.invoke(context)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    return code if isinstance(code, int) else errors.OK


def _drop_stdout() -> None:
    """Nobody reads any more; the interpreter must not complain when it flushes at the end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def excepthook(settings: Settings) -> Any:
    """For what nobody expected: one look at it in three lines, all of it with ``-v``."""

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if settings.verbose:
            sys.__excepthook__(kind, error, trace)
        else:
            settings.output_for_errors().error(errors.unexpected_lines(error))

    return hook


def main() -> NoReturn:
    """The entry point."""
    settings = Settings()
    sys.excepthook = excepthook(settings)
    sys.exit(run(sys.argv[1:], settings))
