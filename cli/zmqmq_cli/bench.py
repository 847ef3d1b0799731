"""``zmqmq bench``: how fast this client and this broker are together.

produce and consume run as fast as they can; with --rate, produce is an open loop whose latency counts from the time a message
was due. e2e is always an open loop: from the time a message was due to the time a reader has it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from zmqmq_cli.lazy import Command, LazyGroup
from zmqmq_cli.output import Column
from zmqmq_cli.params import ACKS, COUNT, DURATION, LINGER, PARTITIONS_AND_REPLICAS, RATE, SHARE, SIZE
from zmqmq_cli.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from zmqmq import Client
    from zmqmq_cli.bench_runs import Plan, Result

MESSAGES_DEFAULT: Final = 1_000_000
SIZE_MAX: Final = 1_000_000
"""Below the message limit that topics have unless it is raised."""
E2E_RATE_DEFAULT: Final = 20_000.0
E2E_SECONDS_MAX: Final = 10.0
"""How long the open loop of ``bench all`` lasts at most."""

_COLUMNS: Final = tuple(
    Column(name)
    for name in (
        "test", "messages", "size", "acks", "seconds", "messages_per_second", "megabytes_per_second",
        "rate", "p50_ms", "p99_ms", "p999_ms", "max_ms",
    )
)  # fmt: skip

_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    click.option("-n", "--num", type=COUNT, help=f"Messages. [{MESSAGES_DEFAULT:,}, or what --duration and --rate give]"),
    click.option("-s", "--size", type=SIZE, default="1KiB", show_default=True, help="Bytes of a value."),
    click.option("--keys", type=click.IntRange(min=0), default=0, show_default=True, help="Different keys; 0 for none."),
    click.option("--clients", type=click.IntRange(1, 64), default=1, show_default=True, help="Producing processes."),
    click.option("--batch", type=click.IntRange(min=1), default=500, show_default=True, help="Messages per call; 1 sends one by one."),
    click.option("--acks", type=click.Choice(list(ACKS)), default="all", show_default=True),
    click.option("-z", "--compression", type=click.Choice(["none", "zstd"]), help="[the topic's]"),
    click.option("--linger", type=LINGER, help="How long a message waits for company. [5ms; with --rate and e2e 1ms]"),
    click.option("--rate", type=RATE, metavar="N/s", help="Open loop at this rate. [as fast as possible; e2e: 20000/s]"),
    click.option("--duration", type=DURATION, help="With --rate: how long."),
    click.option("--warmup", type=SHARE, default="10%", show_default=True, help="Share sent before, not counted."),
    click.option("--topic", help="An existing topic. [a temporary one]"),
    click.option("--create", type=PARTITIONS_AND_REPLICAS, default="0", metavar="P[:RF]", help="Size of the temporary topic. [1]"),
    click.option("--durability", type=click.Choice(["fsync", "replicated"]), default="fsync", show_default=True),
    click.option("--keep", is_flag=True, help="Do not delete the temporary topic."),
    click.option("--csv", "csv_file", type=click.Path(dir_okay=False, writable=True), help="Write the results to this file too."),
    click.option("--no-progress", is_flag=True, help="No progress bar."),
)  # fmt: skip


@click.group("bench", cls=LazyGroup)
def bench() -> None:
    """Measure produce, consume and end-to-end speed."""


def _test(name: str, tests: tuple[str, ...], help: str) -> None:
    @click.pass_obj
    def command(settings: Settings, /, **options: Any) -> None:
        _run(settings, tests, **options)

    for option in reversed(_OPTIONS):
        command = option(command)
    bench.add_command(click.command(name, cls=Command, help=help)(command))


_test("produce", ("produce",), "Messages acknowledged per second, and how long each took.")
_test("consume", ("consume",), "Messages read per second.")
_test("e2e", ("e2e",), "Time from when a message was due to when a reader has it.")
_test("all", ("produce", "consume", "e2e"), "All three, one after the other.")


def _run(settings: Settings, tests: tuple[str, ...], **options: Any) -> None:
    from zmqmq_cli import bench_runs

    plan = _plan(settings, options, measured_by_e2e="e2e" in tests)
    results = []
    with settings.client() as client, _topic(client, plan, options):
        if tests == ("consume",) and options["topic"] is None:
            bench_runs.fill(client, plan)
        for test in tests:
            each = plan.for_e2e(E2E_RATE_DEFAULT, E2E_SECONDS_MAX if len(tests) > 1 else None) if test == "e2e" else plan
            with settings.output.progress(test, each.messages, wanted=not options["no_progress"]) as progress:
                results.append(bench_runs.RUNS[test](client, each, progress))
            _show(settings, results[-1])
    rows = [result.row() for result in results]
    if settings.output.format not in {"text", "wide"}:
        settings.output.rows(rows, _COLUMNS)
    if options["csv_file"]:
        settings.output.csv_file(options["csv_file"], rows, _COLUMNS)


def _show(settings: Settings, result: Result) -> None:
    """People see each line as soon as it is there."""
    if settings.output.format in {"text", "wide"}:
        settings.output.text(result.line())
        settings.output.flush()


def _plan(settings: Settings, options: Mapping[str, Any], *, measured_by_e2e: bool) -> Plan:
    """The options as a plan; what does not fit together is a usage error."""
    from uuid import uuid4

    from zmqmq_cli.bench_runs import Plan
    from zmqmq_cli.measure import VALUE_BYTES_MIN

    context = click.get_current_context()
    rate, size = options["rate"], options["size"]
    if options["duration"] and not (rate or measured_by_e2e):
        raise click.UsageError("--duration needs --rate; else say how many messages (-n)", context)
    if not VALUE_BYTES_MIN <= size <= SIZE_MAX:
        raise click.UsageError(f"--size {size} is not in {VALUE_BYTES_MIN}..{SIZE_MAX}", context)
    messages = options["num"] or (int((rate or E2E_RATE_DEFAULT) * options["duration"]) if options["duration"] else MESSAGES_DEFAULT)
    return Plan(
        brokers=settings.brokers,
        topic=options["topic"] or f"bench-{uuid4().hex[:12]}",
        messages=max(1, messages),
        size=size,
        warmup=int(messages * options["warmup"]),
        keys=options["keys"],
        clients=options["clients"],
        batch=options["batch"],
        acks=options["acks"],
        compression=options["compression"],
        rate=rate,
        linger=options["linger"],
    )


@contextmanager
def _topic(client: Client, plan: Plan, options: Mapping[str, Any]) -> Iterator[None]:
    """The topic to measure on: an existing one as it is, or a temporary one that goes afterwards."""
    if options["topic"] is not None:
        client.admin.describe_topic(plan.topic)
        yield
        return
    partitions, replicas = options["create"]
    client.admin.create_topic(plan.topic, partitions=partitions, replication_factor=replicas, config={"durability": options["durability"]})
    try:
        yield
    finally:
        if not options["keep"]:
            client.admin.delete_topic(plan.topic)
