"""``zmqmq version``: this program's, and the brokers' if they answer."""

from __future__ import annotations

import platform
from typing import Any, Final

import click

from zmqmq_cli.lazy import Command
from zmqmq_cli.settings import Settings

ANSWER_SECONDS_MAX: Final = 1.0
"""Nobody waits long to learn a version."""


@click.command("version", cls=Command)
@click.pass_obj
def version(settings: Settings) -> None:
    """Versions of the client, of the protocol, and of the brokers that answer."""
    from zmqmq import __version__
    from zmqmq.errors import BrokerUnavailable, TimeoutError
    from zmqmq.wire.requests import PROTOCOL_VERSION

    settings.timeout = min(settings.timeout, ANSWER_SECONDS_MAX)
    brokers: list[dict[str, Any]] = []
    try:
        with settings.client() as client:
            brokers = [{"node": stats.node_id, "software": stats.software} for stats in client.admin.stats(partitions=False)]
    except (BrokerUnavailable, TimeoutError):
        settings.output.note(f"no broker answers at {settings.brokers}")
    row = {"client": __version__, "python": platform.python_version(), "protocol": PROTOCOL_VERSION, "brokers": brokers}
    lines = [f"client   {__version__} (Python {row['python']}, protocol {PROTOCOL_VERSION})"]
    lines += [f"broker {broker['node']}  {broker['software']}" for broker in brokers]
    settings.output.one(row, "\n".join(lines))
