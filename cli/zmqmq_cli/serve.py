"""``zmqmq serve``: one broker in the foreground, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import resource
import signal
import time
from typing import TYPE_CHECKING, Any, Final

import click

from zmqmq_cli.lazy import Command
from zmqmq_cli.settings import Settings

if TYPE_CHECKING:
    from types import FrameType

    from zmqmq.broker.config import BrokerConfig
    from zmqmq.broker.server import Broker
    from zmqmq.store.recovery import RecoveryReport
    from zmqmq_cli.output import Output

CLUSTER_CHARACTERS = 4
_PLAIN: Final = ("node_id", "data", "advertise", "control", "replication", "stream", "rack")
"""Options that are settings of the broker as they are."""


@click.command("serve", cls=Command)
@click.option("--config", "config_file", type=click.Path(dir_okay=False), help="TOML file; the options here win over it.")
@click.option("--node-id", type=int, help="Number of this broker. [0]")
@click.option("--data", type=click.Path(file_okay=False), help="Directory of everything durable. [./zmqmq-data]")
@click.option("--listen", multiple=True, metavar="URL", help="Where clients connect; port 0 takes any. [tcp://127.0.0.1:5570]")
@click.option("--advertise", metavar="URL", help="The address that clients are told. [the first of --listen]")
@click.option("--peers", multiple=True, metavar="N@URL,…", help="Node and control address of each first broker of a cluster, this one too.")
@click.option("--control", metavar="URL", help="Where other brokers reach this one for decisions. [its address in --peers]")
@click.option("--replication", metavar="URL", help="Where other brokers fetch from this one. [any free port of that host]")
@click.option("--stream", metavar="URL", help="Where this one publishes what it appends. [any free port of that host]")
@click.option("--rack", metavar="NAME", help="Replicas are spread over racks: a word for what fails together.")
@click.option("--http", metavar="HOST:PORT|none", help="Where /livez and /readyz are. [127.0.0.1:5571]")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--insecure-plaintext", is_flag=True, help="Allow to listen beyond this machine, unencrypted, for anybody.")
@click.option("--check", is_flag=True, help="Only check the configuration: exit code 0 or 2.")
@click.option("--print-config", is_flag=True, help="Only print the effective configuration as TOML.")
@click.pass_obj
def serve(settings: Settings, /, **options: Any) -> int:
    """Run one broker in the foreground."""
    from zmqmq_cli.logging_config import configure

    config = _config(options)
    if options["print_config"]:
        from zmqmq_cli.toml import toml

        settings.output.text(toml(config).rstrip("\n"))
        return 0
    if options["check"]:
        settings.output.note("the configuration is fine")
        return 0
    configure("debug" if settings.verbose else options["log_level"], options["log_format"])
    return _run(config, settings.output)


def _config(options: dict[str, Any]) -> BrokerConfig:
    """The file, then the options over it, checked together."""
    import msgspec

    from zmqmq.broker.config import BrokerConfig, check_config, load_config

    given = {name: options[name] for name in _PLAIN if options[name] is not None}
    if options["listen"]:
        given["listen"] = options["listen"]
    if options["peers"]:
        given["peers"] = tuple(part.strip() for text in options["peers"] for part in text.split(","))
    if options["http"] is not None:
        given["http"] = "" if options["http"] == "none" else options["http"]
    if options["insecure_plaintext"]:
        given["insecure_plaintext"] = True
    base = load_config(options["config_file"]) if options["config_file"] else BrokerConfig()
    return check_config(msgspec.structs.replace(base, **given))


def _run(config: BrokerConfig, output: Output) -> int:
    """Signals are caught before the broker opens, so that none can end it in the middle of anything."""
    from zmqmq.broker.server import Broker
    from zmqmq_cli import errors

    _raise_descriptors()
    received: list[int] = []
    broker = Broker(config)

    def stop(number: int, _frame: FrameType | None) -> None:
        """The first signal asks the broker to end; a second one ends the process."""
        received.append(number)
        signal.signal(number, signal.SIG_DFL)
        broker.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        started = time.monotonic()
        broker.open()
        _tell_recovery(broker.report, output)
        _print_banner(broker, output, time.monotonic() - started)
        broker.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    output.note("stopped")
    return errors.INTERRUPTED if signal.SIGINT in received else errors.OK


def _raise_descriptors() -> None:
    """As many open files as the system allows: the bound for connections follows from it."""
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems promise more than they give
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))


def _tell_recovery(report: RecoveryReport, output: Output) -> None:
    """What recovery had to do, and what somebody has to look at."""
    if report.replayed_batches:
        output.note(f"recovered {report.replayed_batches:,} batches ({report.replayed_bytes:,} bytes) from the journal")
    if report.torn:
        output.note(f"a torn end of the journal, never acknowledged, is kept as {report.torn}")
    for partition, reason in report.out_of_service:
        output.note(f"partition {partition} is out of service: {reason}")


def _print_banner(broker: Broker, output: Output, seconds: float) -> None:
    """Scripts read the real ports here, and wait for the line that begins with ``ready``; a member of a cluster has only ``started``
    then, and /readyz tells the rest."""
    from zmqmq import __version__
    from zmqmq.broker.config import control_address, peer_addresses

    identity, config = broker.identity, broker.config
    cluster = identity.cluster_id[:CLUSTER_CHARACTERS] + "…"
    data = config.data if config.data.startswith(("/", ".")) else f"./{config.data}"
    http = f"     http  {broker.http_url}  (/livez /readyz)" if broker.http_url else ""
    output.text(f"zmqmq {__version__}  node {config.node_id}  cluster {cluster}  data {data}")
    output.text(f"  clients  {', '.join(broker.endpoints)}{http}")
    if config.peers:
        nodes = ", ".join(str(node) for node in sorted(peer_addresses(config)))
        output.text(f"  brokers  {control_address(config)}     cluster of nodes {nodes}")
        output.text(f"started in {seconds:.2f} s — see:  zmqmq cluster health          (Ctrl-C to stop)")
    else:
        output.text(f"ready in {seconds:.2f} s — try:  zmqmq topic create hello          (Ctrl-C to stop)")
    output.flush()
