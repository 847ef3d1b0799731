"""``zmqmq produce``: messages from arguments, files or stdin into a topic; receipts on request.

Whatever happens, the last line of talk says how many were acknowledged and how many were not.
"""

from __future__ import annotations

import datetime as dt
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import click

from zmqmq.errors import DeliveryFailed, UnknownTopic, ZmqmqError
from zmqmq_cli import errors, formats, input_formats, inputs
from zmqmq_cli.formats import Renderer
from zmqmq_cli.input_formats import Given, InputFormat
from zmqmq_cli.lazy import Command
from zmqmq_cli.params import ACKS, PARTITIONS_AND_REPLICAS, RATE, SETTING
from zmqmq_cli.settings import Settings

if TYPE_CHECKING:
    from zmqmq import Client, Delivery, Producer
    from zmqmq.client.accumulator import Batch
    from zmqmq.client.handles import Handle

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
PROGRESS_EVERY = 1000
CLOSE_SECONDS_MAX = 30.0
"""How long the end of the input waits for outstanding acknowledgements; the delivery deadline of the producer."""


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
    source = _source(job)
    render = formats.compile_output(job.output_format) if job.output_format else None
    headers = {name: value.encode() for name, value in job.headers} or None
    with settings.client() as client:
        _prepare_topic(client, job)
        tally = Tally(settings, render)
        with settings.output.progress("produced", None, wanted=job.progress) as progress:
            interrupted = _send_all(client, job, _dressed(source, job, headers), tally, progress)
    tally.report(job.acks)
    if tally.error is not None:
        raise tally.error
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


def _source(job: Job) -> Iterator[Given]:
    """Where the messages come from; what makes no sense together is a usage error."""
    if job.values and job.files:
        raise click.UsageError("give VALUEs or --file, not both", click.get_current_context())
    form = _input_form(job)
    if job.values:
        return (form.parse(value.encode(errors="surrogateescape")) for value in job.values)
    if job.files:
        return inputs.from_files(job.files, form if job.lines or job.input_format else None)
    if not sys.stdin.isatty():
        return inputs.messages(sys.stdin.buffer, form, "stdin")  # type: ignore[arg-type]  # a BufferedReader, which has read1
    if job.tombstone and job.key is not None:
        return iter([Given(None)])
    raise click.UsageError("nothing to send: give a VALUE, --file, or something on stdin", click.get_current_context())


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
    """Send what comes, then wait for what is outstanding. True if Ctrl-C ended it."""
    from zmqmq_cli.measure import Pacer

    interrupted = False
    out = client.producer(job.topic, acks=ACKS[job.acks], compression=job.compression)
    pacer = Pacer(job.rate) if job.rate else None
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
        interrupted = True
    with suppress(DeliveryFailed):  # each failure was counted by its own receipt
        out.close(CLOSE_SECONDS_MAX)
    return interrupted


class Receipt:
    """A message with its place, for ``-o``. At acks=0 nobody knows the offset: -1."""

    def __init__(self, given: Given, delivery: Delivery) -> None:
        self.topic = delivery.topic
        self.partition = delivery.partition
        self.offset = -1 if delivery.offset is None else delivery.offset
        self.timestamp_ms = int(delivery.timestamp.timestamp() * 1000)
        self.leader_epoch = delivery.leader_epoch
        self.key = given.key
        self.value = given.value
        self.headers = given.headers or {}


class Tally:
    """Counts what became of each message. Receipts arrive in the client's thread; everything else is the caller's.

    Invariant: acked + failed <= sent; equal once the producer is closed.
    """

    def __init__(self, settings: Settings, render: Renderer | None) -> None:
        self.settings = settings
        self.render = render
        self.sent = 0
        self.acked = 0
        self.failed = 0
        self.error: ZmqmqError | None = None
        self.started = time.perf_counter()
        self._lock = threading.Lock()
        self._under_way: dict[Batch, list[tuple[Given, Handle]]] = {}

    def send(self, out: Producer[bytes], given: Given) -> None:
        """Hand one message over and count what becomes of it."""
        self.sent += 1
        try:
            when = None if given.timestamp_ms is None else _EPOCH + dt.timedelta(milliseconds=given.timestamp_ms)
            handle = out.send(given.value, key=given.key, headers=given.headers, partition=given.partition, timestamp=when)
        except ZmqmqError:
            with self._lock:
                self.failed += 1
            raise
        with self._lock:
            waiting = self._under_way.get(handle.batch)
            if waiting is not None:
                waiting.append((given, handle))
                return
            self._under_way[handle.batch] = [(given, handle)]
        handle.add_done_callback(self._on_decided)

    def stopped_by(self, error: ZmqmqError) -> None:
        """Nothing more is sent; the first error is the one that is shown."""
        with self._lock:
            self.error = self.error or error

    def _on_decided(self, handle: Handle) -> None:
        """The messages of a batch share its fate, so one of them reports for all that are known by now; one that is handed
        over at this very moment reports for itself."""
        with self._lock:
            decided = self._under_way.pop(handle.batch)
            outcome = handle.batch.outcome
            if isinstance(outcome, ZmqmqError):
                self.failed += len(decided)
                self.error = self.error or outcome
                return
            self.acked += len(decided)
        if self.render is not None:
            self._print(self.render, decided)

    def _print(self, render: Renderer, decided: list[tuple[Given, Handle]]) -> None:
        """A reader of the receipts that goes away does not stop the sending."""
        try:
            self.settings.output.data(b"".join([render(Receipt(given, handle.result(0))) for given, handle in decided]))
            self.settings.output.flush()
        except BrokenPipeError:
            self.render = None

    def report(self, acks: str) -> None:
        elapsed = time.perf_counter() - self.started
        done = f"{self.acked:,} acked" if acks != "0" else f"{self.acked:,} sent unacknowledged"
        self.settings.output.note(
            f"{self.sent:,} {'message' if self.sent == 1 else 'messages'}, {done}, {self.failed:,} failed, {_span(elapsed)}"
        )


def _span(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
