"""``zmqmq dev``: a cluster on this machine in one command, to try things out and to throw away."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import click

from zmqmq_cli.lazy import Command, CommandGroup
from zmqmq_cli.output import Column, table
from zmqmq_cli.params import NEW_TOPICS
from zmqmq_cli.settings import Settings

if TYPE_CHECKING:
    from types import FrameType

    from zmqmq.wire.replies import ClusterReply
    from zmqmq_cli.dev_cluster import DevCluster
    from zmqmq_cli.output import Output

NODES_MAX: Final = 9
LOOK_S: Final = 0.2
_COLUMNS: Final = (Column("node"), Column("clients"), Column("http"), Column("pid", wide=True), Column("log", wide=True))


@click.group("dev", cls=CommandGroup, invoke_without_command=True)
@click.option("-n", "--nodes", type=click.IntRange(1, NODES_MAX), default=3, show_default=True, help="How many brokers.")
@click.option("--data", type=click.Path(file_okay=False), help="Keep everything in this directory.")
@click.option("--ephemeral", is_flag=True, help="Keep nothing: a temporary directory, deleted at the end. [without --data]")
@click.option("--port", type=click.IntRange(0, 65_535), default=5570, show_default=True,
              help="The first port; node i has +2i for clients and +2i+1 for http. 0: any that are free.")  # fmt: skip
@click.option("--topics", type=NEW_TOPICS, default=(), metavar="NAME[:P[:RF]],…", help="Topics to create: orders:6,events.")
@click.option("--detach", is_flag=True, help="Leave it running; end it with  zmqmq dev stop.")
@click.pass_context
def dev(ctx: click.Context, /, **options: Any) -> int | None:
    """A throw-away cluster on this machine, which commands use while it runs. Ctrl-C ends it.

    Its address is selected as context "dev".
    """
    if ctx.invoked_subcommand is not None:
        return None
    if options["data"] is not None and options["ephemeral"]:
        raise click.UsageError("--data keeps everything and --ephemeral nothing: give one of them", ctx)
    return _run(ctx.ensure_object(Settings), options)


@dev.command("stop", cls=Command)
@click.pass_obj
def stop(settings: Settings) -> int:
    """End the dev cluster, from any terminal."""
    from zmqmq_cli import dev_cluster, errors

    note = dev_cluster.read_note()
    if note is None:
        settings.output.note("no dev cluster runs")
        return errors.OK
    count = dev_cluster.stop(note)
    settings.output.one(
        {"stopped": count},
        f"stopped {count} broker{'s' * (count != 1)}" + ("" if note.is_ephemeral else f"; their data is in {note.directory}"),
    )
    return errors.OK


def _run(settings: Settings, options: dict[str, Any]) -> int:
    """Signals are caught before the first broker starts, so that none is left behind."""
    from zmqmq.testing.processes import START_SECONDS_MAX, end_all
    from zmqmq_cli import dev_cluster, errors

    dev_cluster.check_none_runs()
    asked: list[int] = []
    is_asked = threading.Event()

    def end(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        is_asked.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    cluster = dev_cluster.DevCluster(options["nodes"], options["data"], options["port"])
    is_left, is_well = False, False
    try:
        started = time.monotonic()
        cluster.start(started + START_SECONDS_MAX)
        found = _formed(cluster, started + START_SECONDS_MAX, is_asked)
        if found is not None:
            _create_topics(cluster, settings.timeout, options["topics"])
            cluster.select()
            _print(cluster, found, settings.output, time.monotonic() - started, is_detached=options["detach"])
            is_left = options["detach"]
        died = [] if is_left else _watch(cluster, settings.output, is_asked)
        is_well = not died
    finally:
        if not is_left:
            end_all(cluster.processes)
            dev_cluster.forget(cluster.note, keeps_files=not is_well)
        for number, handler in before.items():
            signal.signal(number, handler)
    if is_left:
        return errors.OK
    settings.output.note("stopped" + ("" if cluster.is_ephemeral else f"; the data is in {cluster.directory}"))
    return errors.FAILED if died else errors.INTERRUPTED if signal.SIGINT in asked else errors.OK


def _formed(cluster: DevCluster, deadline: float, ended: threading.Event) -> ClusterReply | None:
    """The cluster once all brokers belong to it and one decides; None when it shall end. Raises TimeoutError, or why a broker ended."""
    from zmqmq import Client
    from zmqmq.errors import RetriableError, TimeoutError

    with Client(cluster.brokers, client_id="zmqmq-dev", timeout=1.0) as client:
        while not ended.is_set():
            for process in cluster.processes:
                if not process.is_running:
                    raise process.ended_error()
            try:
                found = client.admin.describe_cluster()
            except RetriableError as error:
                why = str(error)
            else:
                running = sum(not broker.is_fenced for broker in found.brokers)
                if running == len(cluster.plans) and found.controller >= 0:
                    return found
                why = f"{running} of {len(cluster.plans)} brokers belong to it"
            if time.monotonic() > deadline:
                raise TimeoutError(f"the cluster did not form in time: {why}", hint=f"look at the logs in {cluster.directory}")
            ended.wait(LOOK_S / 4)
    return None


def _create_topics(cluster: DevCluster, timeout: float, topics: tuple[tuple[str, int, int], ...]) -> None:
    from zmqmq import Client

    if not topics:
        return
    with Client(cluster.brokers, client_id="zmqmq-dev", timeout=timeout) as client:
        for name, partitions, replicas in topics:
            client.admin.create_topic(name, partitions, replicas, exist_ok=True)


def _print(cluster: DevCluster, found: ClusterReply, output: Output, seconds: float, *, is_detached: bool) -> None:
    rows = [
        {
            "node": plan.node_id, "clients": plan.url, "http": plan.http,
            "pid": process.pid, "log": str(process.log),
        }
        for plan, process in zip(cluster.plans, cluster.processes, strict=True)
    ]  # fmt: skip
    if output.format == "text":
        output.text(table(rows, [column for column in _COLUMNS if not column.wide], header=True).rstrip("\n"))
        output.text(f"export ZMQMQ_BROKERS={cluster.brokers}")
    else:
        output.rows(rows, _COLUMNS)
    output.flush()
    end = "end it with  zmqmq dev stop" if is_detached else "Ctrl-C to stop"
    output.note(f'context "dev" selected; controller {found.controller}; ready in {seconds:.1f} s          ({end})')


def _watch(cluster: DevCluster, output: Output, ended: threading.Event) -> list[int]:
    """Until somebody asks for the end, or no broker is left. Those that ended by themselves."""
    died: list[int] = []
    while not ended.wait(LOOK_S):
        for process in cluster.processes:
            node = process.plan.node_id
            if not process.is_running and node not in died:
                died.append(node)
                output.note(f"node {node} ended with code {process.exit_code}; its log is {process.log}")
        if len(died) == len(cluster.processes):
            break
    return died
