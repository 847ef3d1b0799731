"""``zmqmq consume`` and ``zmqmq tail``: messages of topics to stdout, as lines for people, JSON or any format.

Without -n and -e it follows until Ctrl-C, which is a normal end.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from zmqmq_cli.lazy import Command
from zmqmq_cli.params import COUNT, DURATION, PARTITIONS, SIZE
from zmqmq_cli.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from zmqmq import Client, Message, Reader
    from zmqmq_cli.formats import Renderer
    from zmqmq_cli.offsets import Span
    from zmqmq_cli.output import Output

_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    click.argument("topics", nargs=-1, required=True, metavar="TOPIC…"),
    click.option("-o", "--offset", "offsets", multiple=True, metavar="SPEC",
                 help="start, end, 42, -10, +10, 10:20, :end, @-1h, @2026-01-31; see zmqmq help offsets."),
    click.option("-p", "--partitions", type=PARTITIONS, help="Only these: 0,3 or 0-5."),
    click.option("-n", "--num", type=COUNT, help="Stop after so many messages."),
    click.option("-e", "--exit-at-end", is_flag=True, help="Stop at what is the end now."),
    click.option("-f", "--format", "template", metavar="FMT|json", help=r"How to print: '%p %o %k=%v\n'; see zmqmq help formats."),
    click.option("-J", "--json", "as_json", is_flag=True, help="One JSON object a line."),
    click.option("--grep", metavar="REGEX", help="Only messages whose value matches."),
    click.option("--where", metavar="COND", help="""Only messages for which it holds: 'key == "ann" and value.amount > 10'."""),
    click.option("--headers", is_flag=True, help="Show headers too."),
    click.option("--decode", type=click.Choice(["utf8", "json", "msgpack", "hex", "base64"]), help="How to show values. [utf8]"),
    click.option("--max-bytes", type=SIZE, help="Stop before keys and values printed exceed this size."),
    click.option("--idle-timeout", type=DURATION, help="Stop when nothing came for so long."),
    click.option("--truncate", type=click.IntRange(min=1), help="Cut values after so many characters; only on a terminal."),
    click.option("-r", "--regex", is_flag=True, help="TOPICs are regular expressions."),
)  # fmt: skip


class Job(NamedTuple):
    """The options, typed."""

    topics: tuple[str, ...]
    offsets: tuple[str, ...]
    partitions: tuple[int, ...] | None
    num: int | None
    exit_at_end: bool
    template: str | None
    as_json: bool
    grep: str | None
    where: str | None
    headers: bool
    decode: str | None
    max_bytes: int | None
    idle_timeout: float | None
    truncate: int | None
    regex: bool


def _consume_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command("consume", cls=Command)
@_consume_options
@click.pass_obj
def consume(settings: Settings, /, **options: Any) -> None:
    """Read messages of TOPICs, from the start unless -o says otherwise, and follow what comes."""
    run(settings, Job(**options), start="start")


@click.command("tail", cls=Command)
@_consume_options
@click.pass_obj
def tail(settings: Settings, /, **options: Any) -> None:
    """Follow TOPICs: consume from the end unless -o says otherwise."""
    run(settings, Job(**options), start="end")


def run(settings: Settings, job: Job, *, start: str) -> None:
    """Both commands, which differ only in where they start."""
    import datetime as dt

    from zmqmq_cli import offsets

    span = offsets.parse_all(job.offsets or (start,), dt.datetime.now(dt.UTC))
    assert span is not None
    printer = Printer(settings.output, job)
    try:
        with settings.client() as client:
            _print_all(printer, _batches(client, job, span, settings.output))
    except KeyboardInterrupt:
        settings.output.flush()


def _print_all(printer: Printer, batches: Iterable[Sequence[Message[bytes]]]) -> None:
    for batch in batches:
        if not printer.print(batch):
            return


class Printer:
    """Prints what passes the filter and knows when it has printed enough."""

    def __init__(self, output: Output, job: Job) -> None:
        self._output = output
        self._render = renderer(job, truncate=(job.truncate or 0) if output.stdout_tty else 0)
        self._wanted = _filters(job)
        self._left = job.num
        self._bytes_left = job.max_bytes

    def print(self, batch: Sequence[Message[bytes]]) -> bool:
        """False once nothing more is wanted."""
        for wanted in self._wanted:
            batch = [message for message in batch if wanted(message)]
        if self._left is not None:
            batch = batch[: self._left]
            self._left -= len(batch)
        batch, more = self._within_bytes(batch)
        render = self._render
        self._output.data(b"".join([render(message) for message in batch]))
        self._output.flush()
        return more and self._left != 0

    def _within_bytes(self, batch: Sequence[Message[bytes]]) -> tuple[Sequence[Message[bytes]], bool]:
        if self._bytes_left is None:
            return batch, True
        for index, message in enumerate(batch):
            self._bytes_left -= len(message.raw_key or b"") + len(message.raw_value or b"")
            if self._bytes_left < 0:
                return batch[:index], False
        return batch, True


def renderer(job: Job, *, truncate: int = 0) -> Renderer:
    """The function that makes bytes of a message."""
    from zmqmq_cli import formats

    decode = job.decode or ""
    if job.as_json or job.template == "json":
        return lambda message: formats.json_line(message, decode=decode)
    if job.template is not None:
        return formats.compile_output(job.template, decode=decode)
    return lambda message: formats.line(message, decode=decode, headers=job.headers, truncate=truncate)


def _filters(job: Job) -> list[Callable[[Message[bytes]], Any]]:
    filters: list[Callable[[Message[bytes]], Any]] = []
    if job.grep is not None:
        search = _regex(job.grep, job.grep.encode()).search
        filters.append(lambda message: message.raw_value is not None and search(message.raw_value))
    if job.where is not None:
        from zmqmq_cli.where import compile_where

        filters.append(compile_where(job.where))
    return filters


def _regex(shown: str, pattern: Any) -> re.Pattern[Any]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise click.UsageError(f"{shown!r} is not a regular expression: {error}", click.get_current_context()) from error


def _batches(client: Client, job: Job, span: Span, output: Output) -> Iterator[Sequence[Message[bytes]]]:
    """Batches of all topics, ending at -e, at the stop of the offset, or when idle for too long."""
    from contextlib import ExitStack

    from zmqmq_cli.merge import batches, merged
    from zmqmq_cli.waiting import while_read

    topics = _matching(client, job.topics) if job.regex else list(dict.fromkeys(job.topics))
    follows = not job.exit_at_end and job.num is None and span.stop is None
    tell = output.note if follows else None
    with ExitStack() as stack:
        readers = [stack.enter_context(_reader(client, job, span, topic)) for topic in topics]
        stack.enter_context(while_read([reader.stop for reader in readers]))
        if len(readers) == 1:
            yield from batches(readers[0], tell)
        else:
            yield from merged(readers, job.idle_timeout, tell)


def _matching(client: Client, patterns: Sequence[str]) -> list[str]:
    from zmqmq.errors import UnknownTopic

    compiled = [_regex(pattern, pattern) for pattern in patterns]
    found = [topic.name for topic in client.admin.topics() if any(pattern.fullmatch(topic.name) for pattern in compiled)]
    if not found:
        raise UnknownTopic(f"no topic matches {' or '.join(patterns)}", hint="List them with:  zmqmq topic list")
    return found


def _reader(client: Client, job: Job, span: Span, topic: str) -> Reader[bytes]:
    from zmqmq import Offset

    stop = span.stop if span.stop is not None else (Offset.END if job.exit_at_end else None)
    if span.start.kind == "exact":
        _check_start(client, topic, job.partitions, span.start.value, may_miss_some=stop is not None)
    return client.reader(topic, partitions=job.partitions, start=span.start, stop=stop, timeout=job.idle_timeout)


def _check_start(client: Client, topic: str, partitions: Sequence[int] | None, start: int, *, may_miss_some: bool) -> None:
    """An offset beyond the end would be waited for in vain, or give nothing and look like success. When reading ends by
    itself, partitions that are shorter than others are no mistake, as long as one reaches so far."""
    from zmqmq.errors import OffsetOutOfRange

    found = client.admin.offsets(topic, partitions=partitions)
    beyond = {number: offsets for number, offsets in found.items() if start > offsets.end}
    if not beyond or (may_miss_some and len(beyond) < len(found)):
        return
    number, offsets = max(beyond.items(), key=lambda item: item[1].end)
    others = f"; {len(beyond) - 1} more partitions end before it too" if len(beyond) > 1 else ""
    raise OffsetOutOfRange(
        f"offset {start} is beyond the end of {topic}-{number}, which is {offsets.end}{others}",
        log_start=offsets.start,
        log_end=offsets.end,
        hint="read from the end with -o end, the last ten with -o -10, all with -o start"
        + ("" if partitions else "; one partition with -p"),
    )
