"""What the global options said: made once by ``main``, read by every command."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import click

from zmqmq_cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zmqmq import Client

BROKERS_DEFAULT = "tcp://127.0.0.1:5570"


class Given(NamedTuple):
    """What an option said. ``is_typed``: on the command line, and not by the environment or a file."""

    value: str
    is_typed: bool


class Settings:
    """Global options may stand before the command or behind it; behind wins."""

    def __init__(self) -> None:
        self.given_brokers: Given | None = None
        self.given_context: Given | None = None
        self.timeout = 5.0
        self.format = "text"
        self.quiet = False
        self.verbose = 0
        self.color = True
        self.command = "zmqmq"
        self.uses_brokers = False
        self._output: Output | None = None
        self._chosen: tuple[str, str] | None = None

    @property
    def brokers(self) -> str:
        """Whom to ask: what was given, or the context's, or the default. Raises InvalidConfig for a context that is not there."""
        return self.choose()[0]

    def choose(self) -> tuple[str, str]:
        """The brokers, and the name of the context that they come from; empty when they come from none."""
        if self._chosen is None:
            from zmqmq_cli.contexts import Contexts

            brokers, context = self.given_brokers, self.given_context
            if brokers is not None and (context is None or brokers.is_typed or not context.is_typed):
                self._chosen = brokers.value, ""
            else:
                found = Contexts().find(context.value if context else None)
                self._chosen = (found.brokers, found.name) if found else (BROKERS_DEFAULT, "")
        return self._chosen

    @property
    def output(self) -> Output:
        """Made on first use, when all options are known."""
        if self._output is None:
            self._output = Output(self.format, quiet=self.quiet, color=self.color)
        return self._output

    def output_for_errors(self) -> Output:
        return Output(quiet=self.quiet, color=self.color)

    def flush(self) -> None:
        """Bring out what was printed; may raise BrokenPipeError."""
        if self._output is not None:
            self._output.flush()

    def maybe_traceback(self) -> None:
        """The exception being handled, in full, when ``-v`` was given."""
        if self.verbose:
            import traceback

            traceback.print_exc()

    @property
    def where(self) -> str:
        """The second line of errors that name no place themselves."""
        return f"Where: {self.command}" + (f", brokers {self.asked}" if self.uses_brokers else "")

    @property
    def asked(self) -> str:
        """The brokers, as errors name them."""
        brokers, context = self.choose()
        return f"{brokers} (context {context})" if context else brokers

    @property
    def interactive(self) -> bool:
        """Somebody is there to be asked."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client, closed at the end. It connects when it is used; a note says when it waits for its brokers."""
        from zmqmq import Client
        from zmqmq_cli.waiting import told

        brokers = self.brokers
        self.uses_brokers = True
        with Client(brokers, client_id="zmqmq-cli", timeout=self.timeout) as client, told(client, self.output):
            yield client

    def confirm(self, question: str, *, yes: bool, does: str = "deletes records") -> None:
        """Go on only if somebody said yes, now or by ``--yes``. With nobody to ask it is a usage error."""
        if yes:
            return
        context = click.get_current_context()
        if not self.interactive:
            raise click.UsageError(f"{context.command_path} {does}, and nobody is there to be asked; add --yes", context)
        click.confirm(question, abort=True, err=True)
