"""``zmqmq produce``: messages from arguments, files or stdin into a topic; receipts on request.

Whatever happens, the last line of talk says how many were acknowledged and how many were not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import click

from zmqmq.errors import ClosedError, DeliveryFailed, TimeoutError, UnknownTopic, ZmqmqError
from zmqmq_cli import errors, formats, input_formats, inputs
from zmqmq_cli.input_formats import Given, InputFormat
from zmqmq_cli.lazy import Command
from zmqmq_cli.params import ACKS, PARTITIONS_AND_REPLICAS, RATE, SETTING
from zmqmq_cli.settings import Settings
from zmqmq_cli.tally import HAND_OVER_S, Tally

if TYPE_CHECKING:
    from zmqmq import Client, Producer
    from zmqmq_cli.output import Output

PROGRESS_EVERY: Final = 1000
CLOSE_SECONDS_MAX: Final = 30.0
"""How long the end of the input waits for outstanding acknowledgements; the delivery deadline of the producer."""
INTERRUPTED_SECONDS: Final = 1.0
"""How long Ctrl-C waits for them before it says so."""


@click.command("produce", cls=Command)
@click.argument("topic")
@click.argument("values", nargs=-1, metavar="[VALUE]…")
@click.option("-k", "--key", help="Key of every message.")
@click.option("-K", "--key-sep", help="The key stands before this on each line.")
@click.option(
    "-H", "--header", "headers", type=SETTING, multiple=True, metavar="NAME=VALUE", help="Header of every message; repeat for more."
)
@click.option("-p", "--partition", type=click.IntRange(min=0), help="Partition of every message. [by key]")
@click.option("-f", "--input-format", metavar="FMT|json", help=r"How the input is written: '%k\t%v\n', or json as consume -J prints it.")
@click.option("-D", "--delimiter", default=r"\n", show_default=True, help="What ends a message on the input.")
@click.option("--null", is_flag=True, help="A zero byte ends a message on the input.")
@click.option("--file", "files", type=click.Path(exists=True, dir_okay=False), multiple=True, help="One message per file; repeat for more.")
@click.option("-l", "--lines", is_flag=True, help="With --file: one message per line.")
@click.option("--acks", type=click.Choice(list(ACKS)), default="all", show_default=True, help="Who has to have it before it counts.")
@click.option("-z", "--compression", type=click.Choice(["none", "zstd"]), help="[the topic's]")
@click.option("-Z", "--tombstone", is_flag=True, help="An empty value becomes a tombstone.")
@click.option("--rate", type=RATE, metavar="N/s", help="Send no faster than this.")
@click.option("--repeat", type=click.IntRange(min=1), default=1, show_default=True, help="Send each message that often.")
@click.option(
    "--create",
    type=PARTITIONS_AND_REPLICAS,
    metavar="[P[:RF]]",
    is_flag=False,
    flag_value="0",
    help="Create the topic if it does not exist.",
)
@click.option("-o", "--output-format", metavar="FMT", help=r"Print each receipt: '%t-%p@%o\n'.")
@click.option("--progress", is_flag=True, help="Show a progress bar on a terminal.")
@click.pass_obj
def produce(settings: Settings, /, **options: Any) -> int:
    """Send messages to TOPIC: the VALUEs, the files, or what comes on stdin, a line each."""
    job = Job(**options)
    source = _source(job, settings.output)
    render = formats.compile_output(job.output_format) if job.output_format else None
    headers = {name: value.encode() for name, value in job.headers} or None
    with settings.client() as client:
        _prepare_topic(client, job)
        tally = Tally(settings, render)
        with settings.output.progress("produced", None, wanted=job.progress) as progress:
            interrupted = _send_all(client, job, _dressed(source, job, headers), tally, progress)
    tally.report(job.topic, job.acks)
    failure = tally.failure()
    if failure is not None and not interrupted:
        raise failure
    return errors.INTERRUPTED if interrupted else errors.OK


class Job(NamedTuple):
    """The options, typed."""

    topic: str
    values: tuple[str, ...]
    key: str | None
    key_sep: str | None
    headers: tuple[tuple[str, str], ...]
    partition: int | None
    input_format: str | None
    delimiter: str
    null: bool
    files: tuple[str, ...]
    lines: bool
    acks: str
    compression: Literal["zstd", "none"] | None
    tombstone: bool
    rate: float | None
    repeat: int
    create: tuple[int, int] | None
    output_format: str | None
    progress: bool


def _source(job: Job, output: Output) -> Iterator[Given]:
    """Where the messages come from; what makes no sense together is a usage error."""
    if job.values and job.files:
        raise click.UsageError("give VALUEs or --file, not both", click.get_current_context())
    form = _input_form(job)
    if job.values:
        return (form.parse(value.encode(errors="surrogateescape")) for value in job.values)
    if job.files:
        return inputs.from_files(job.files, form if job.lines or job.input_format else None)
    if sys.stdin.isatty() and job.tombstone and job.key is not None:
        return iter([Given(None)])
    return _from_stdin(form, output)


def _from_stdin(form: InputFormat, output: Output) -> Iterator[Given]:
    if sys.stdin.isatty():
        output.note("type lines, Ctrl-D to end")
    yield from inputs.messages(sys.stdin.buffer, form, "stdin")  # type: ignore[arg-type]  # a BufferedReader, which has read1


def _input_form(job: Job) -> InputFormat:
    delimiter = b"\0" if job.null else formats.literal(job.delimiter)
    if not delimiter:
        raise click.UsageError("the delimiter is empty", click.get_current_context())
    if job.input_format == "json":
        return input_formats.json_input()
    if job.input_format:
        return input_formats.compile_input(job.input_format, delimiter)
    return input_formats.plain_input(formats.literal(job.key_sep or ""), delimiter)


def _dressed(source: Iterator[Given], job: Job, headers: dict[str, bytes] | None) -> Iterator[Given]:
    """Each message with what the options say of all of them; its own fields win."""
    key = job.key.encode(errors="surrogateescape") if job.key is not None else None
    for given in source:
        dressed = given._replace(
            value=None if job.tombstone and not given.value else given.value,
            key=given.key if given.key is not None else key,
            headers={**headers, **(given.headers or {})} if headers else given.headers,
            partition=given.partition if job.partition is None else job.partition,
        )
        for _ in range(job.repeat):
            yield dressed


def _prepare_topic(client: Client, job: Job) -> None:
    """Create it if asked; else make sure that it is there, before the input is read."""
    if job.create is not None:
        partitions, replicas = job.create
        client.admin.create_topic(job.topic, partitions=partitions, replication_factor=replicas, exist_ok=True)
        return
    try:
        client.admin.describe_topic(job.topic)
    except UnknownTopic as error:
        raise UnknownTopic(
            str(error), similar=error.similar, hint=f"Create it with:  zmqmq topic create {job.topic}   (or add --create to produce)"
        ) from error


def _send_all(client: Client, job: Job, messages: Iterator[Given], tally: Tally, progress: Callable[[int], None]) -> bool:
    """Send what comes, then wait for what is outstanding. True if Ctrl-C ended it before anything failed; a second one ends the
    waiting too."""
    from zmqmq_cli.measure import Pacer

    interrupted = False
    out = client.producer(job.topic, acks=ACKS[job.acks], compression=job.compression, max_block=HAND_OVER_S)
    pacer = Pacer(job.rate) if job.rate else None
    with tally.interruptible():
        try:
            for index, given in enumerate(messages):
                if pacer is not None:
                    pacer.wait(index)
                tally.send(out, given)
                if index % PROGRESS_EVERY == 0:
                    progress(index)
        except ZmqmqError as error:
            tally.stopped_by(error)
        except KeyboardInterrupt:
            interrupted = tally.error is None
        try:
            if tally.is_interrupted:
                _wait_a_little(out, tally)
            with suppress(DeliveryFailed):  # each failure was counted by its own receipt
                out.close(CLOSE_SECONDS_MAX)
        except KeyboardInterrupt:
            interrupted = interrupted or tally.error is None
            out.abandon(ClosedError("Ctrl-C came before the receipt"))
    return interrupted


def _wait_a_little(out: Producer[bytes], tally: Tally) -> None:
    """Most receipts come at once; whoever has to wait for them is told."""
    try:
        with suppress(DeliveryFailed):
            out.flush(INTERRUPTED_SECONDS)
    except TimeoutError:
        tally.settings.output.note(f"waiting for {tally.outstanding:,} receipts … (Ctrl-C again to stop at once)")
