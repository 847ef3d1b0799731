"""``zmqmq cluster``: how a cluster is, who its brokers and its controller are, and brokers that leave it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import click

from zmqmq_cli.lazy import Command, Entry, LazyGroup
from zmqmq_cli.output import Column, table
from zmqmq_cli.params import DURATION
from zmqmq_cli.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zmqmq import Client
    from zmqmq.wire.replies import BrokerStatus, ClusterReply, PartitionStatus

LOOK_S: Final = 1.0
"""Between two looks of a watching command."""
SHOWN_MAX: Final = 20
"""Troubled partitions printed for people; programs get all that the broker names."""
_BROKER_COLUMNS: Final = (
    Column("node"), Column("state"), Column("endpoint"), Column("leaders"), Column("replicas"), Column("in_sync"),
    Column("rack"), Column("control", wide=True), Column("epoch", wide=True), Column("software", wide=True),
)  # fmt: skip
_TROUBLED_COLUMNS: Final = (
    Column("name", "PARTITION"), Column("trouble"), Column("leader"), Column("replicas"), Column("isr"), Column("min_insync", "MIN"),
)  # fmt: skip
_ENTRIES: Final = {
    "leaders": Entry("leaders:leaders", "Move leaders: balance, move."),
    "reassign": Entry("reassign:reassign", "Move replicas: plan, apply, status, cancel."),
}


@click.group("cluster", cls=LazyGroup, entries=_ENTRIES)
def cluster() -> None:
    """State, health, leaders and replicas of a cluster."""


@cluster.command("info", cls=Command)
@click.pass_obj
def info(settings: Settings) -> None:
    """The cluster in a few lines."""
    with settings.client() as client:
        found = client.admin.describe_cluster()
    running = sum(not broker.is_fenced for broker in found.brokers)
    row = {
        "cluster": found.cluster_id, "brokers": len(found.brokers), "running": running,
        "controller": _node(found.controller), "controller_epoch": found.controller_epoch, "voters": found.voters,
        "observers": found.observers, "topics": found.topics, "partitions": found.partitions, "moving": found.moving,
        "metadata_index": found.metadata_index, "healthy": not troubles(found), "answered_by": found.node_id,
    }  # fmt: skip
    decides = f"{_said(found.controller)} (epoch {found.controller_epoch}); voters {_listed(found.voters)}"
    lines = [
        f"cluster     {found.cluster_id}  ({'; '.join(troubles(found)) or 'healthy'})",
        f"brokers     {len(found.brokers)}, {running} running",
        f"controller  {decides}; metadata index {found.metadata_index}",
        f"topics      {found.topics}, {found.partitions} partitions" + (f", {found.moving} moving" if found.moving else ""),
    ]
    settings.output.one(row, "\n".join(lines))


@cluster.command("brokers", cls=Command)
@click.pass_obj
def brokers(settings: Settings) -> None:
    """The brokers: state, addresses, what they lead and keep."""
    with settings.client() as client:
        found = client.admin.describe_cluster()
    settings.output.rows([_broker_row(broker) for broker in found.brokers], _BROKER_COLUMNS)


@cluster.command("controller", cls=Command)
@click.pass_obj
def controller(settings: Settings) -> None:
    """Who decides, and who votes about that."""
    with settings.client() as client:
        found = client.admin.describe_cluster()
    row = {
        "controller": _node(found.controller),
        "epoch": found.controller_epoch,
        "voters": found.voters,
        "observers": found.observers,
        "metadata_index": found.metadata_index,
    }
    text = f"controller {_said(found.controller)}  epoch {found.controller_epoch}  voters {_listed(found.voters)}"
    text += f"  observers {_listed(found.observers)}" if found.observers else ""
    settings.output.one(row, f"{text}  metadata index {found.metadata_index}")


@cluster.command("health", cls=Command)
@click.option("-w", "--watch", is_flag=True, help="Go on looking; print each change.")
@click.option("-e", "--exit-when-healthy", is_flag=True, help="Wait until the cluster is healthy; exit code 10 when it does not become so.")
@click.option("--within", type=DURATION, default="5m", show_default=True, help="How long -e waits.")
@click.pass_obj
def health(settings: Settings, *, watch: bool, exit_when_healthy: bool, within: float) -> int:
    """Is everything led and replicated? Exit code 0, or 10 when something is wrong.

    Wrong are: no controller, fenced brokers, partitions without a leader, with fewer in-sync replicas than min_insync_replicas, or with
    fewer than replicas.
    """
    from zmqmq_cli import errors

    is_healthy = False
    said = ""
    try:
        with settings.client() as client:
            for found in _looks(client, within if exit_when_healthy else None, is_once=not (watch or exit_when_healthy)):
                is_healthy = found is not None and not troubles(found)
                text = health_text(found)
                if text != said:
                    said = text
                    settings.output.one(health_row(found), text)
                    settings.output.flush()
                if is_healthy and exit_when_healthy:
                    break
    except KeyboardInterrupt:
        if exit_when_healthy:
            raise
    return errors.OK if is_healthy else errors.UNHEALTHY


def _looks(client: Client, within: float | None, *, is_once: bool) -> Iterator[ClusterReply | None]:
    """States of the cluster, once or for ever or within so many seconds; None while no broker answers. The only look raises instead."""
    from zmqmq.errors import RetriableError

    deadline = None if within is None else time.monotonic() + within
    while True:
        try:
            yield client.admin.describe_cluster()
        except RetriableError:
            if is_once:
                raise
            yield None
        if is_once or (deadline is not None and time.monotonic() + LOOK_S > deadline):
            return
        time.sleep(LOOK_S)


def troubles(found: ClusterReply) -> list[str]:
    """What is wrong, the worst first; empty when all is well."""
    fenced = [broker.node_id for broker in found.brokers if broker.is_fenced]
    return [
        *(["no controller"] if found.controller < 0 else []),
        *([f"leaderless {found.leaderless}"] if found.leaderless else []),
        *([f"under min_insync_replicas {found.under_min}"] if found.under_min else []),
        *([f"under-replicated {found.under_replicated}"] if found.under_replicated else []),
        *([f"fenced broker{'s' * (len(fenced) > 1)} {_listed(fenced)}"] if fenced else []),
    ]


def health_text(found: ClusterReply | None) -> str:
    """For people."""
    if found is None:
        return "UNHEALTHY  no broker answers"
    wrong = troubles(found)
    if not wrong:
        draining = [broker.node_id for broker in found.brokers if broker.is_draining]
        notes = [f"{found.moving} partitions moving"] * bool(found.moving) + [f"draining {_listed(draining)}"] * bool(draining)
        counts = f"{len(found.brokers)} broker{'s' * (len(found.brokers) != 1)}, {found.partitions} partitions"
        return "  ".join(("healthy", counts, *notes))
    rows = [_troubled_row(partition) for partition in found.troubled[:SHOWN_MAX]]
    text = f"UNHEALTHY  {'; '.join(wrong)}\n" + (table(rows, _TROUBLED_COLUMNS, header=True) if rows else "")
    more = len(found.troubled) - SHOWN_MAX
    return (text + (f"and {more} more\n" if more > 0 else "")).removesuffix("\n")


def health_row(found: ClusterReply | None) -> dict[str, Any]:
    """For programs."""
    if found is None:
        return {"healthy": False, "troubles": ["no broker answers"], "partitions": []}
    rows = [_troubled_row(partition) for partition in found.troubled]
    return {"healthy": not troubles(found), "troubles": troubles(found), "partitions": rows}


@cluster.command("drain", cls=Command)
@click.argument("node", type=click.IntRange(min=0))
@click.option("--within", type=DURATION, default="30s", show_default=True, help="How long to wait until it leads nothing.")
@click.pass_obj
def drain(settings: Settings, *, node: int, within: float) -> int:
    """Move everything that a broker leads away, before it is stopped. It leads again when it was started anew."""
    from zmqmq_cli import errors

    with settings.client() as client:
        moved = client.admin.drain_broker(node).count
        left = 0
        for found in _looks(client, within, is_once=False):
            left = next((broker.leaders for broker in found.brokers if broker.node_id == node), 0) if found else left
            if found and not left:
                break
    text = f"drained {node}  {moved} partitions changed" if not left else f"broker {node} still leads {left} partitions"
    settings.output.one({"node": node, "changed": moved, "leads": left}, text)
    if left:
        settings.output.note("no other in-sync replica can lead them; see  zmqmq cluster health  and  zmqmq cluster brokers")
    return errors.FAILED if left else errors.OK


@cluster.command("remove", cls=Command)
@click.argument("node", type=click.IntRange(min=0))
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def remove(settings: Settings, *, node: int, yes: bool) -> None:
    """Forget a broker for good, once it is stopped and keeps no replicas."""
    settings.confirm(f"Forget broker {node}?", yes=yes, does="forgets a broker for good")
    with settings.client() as client:
        client.admin.remove_broker(node)
    settings.output.one({"node": node}, f"removed {node}")


def partition_row(partition: PartitionStatus) -> dict[str, Any]:
    """A partition, for programs and tables."""
    return {
        "name": f"{partition.topic}-{partition.partition}",
        "topic": partition.topic,
        "partition": partition.partition,
        "leader": _node(partition.leader),
        "replicas": partition.replicas,
        "isr": partition.isr,
        "adding": partition.adding,
        "removing": partition.removing,
    }


def _troubled_row(partition: PartitionStatus) -> dict[str, Any]:
    trouble = "leaderless" if partition.leader < 0 else "under min" if len(partition.isr) < partition.min_insync else "under-replicated"
    return {**partition_row(partition), "trouble": trouble, "min_insync": partition.min_insync}


def _broker_row(broker: BrokerStatus) -> dict[str, Any]:
    return {
        "node": broker.node_id,
        "state": "fenced" if broker.is_fenced else "draining" if broker.is_draining else "running",
        "endpoint": broker.endpoint,
        "control": broker.control,
        "rack": broker.rack,
        "leaders": broker.leaders,
        "replicas": broker.replicas,
        "in_sync": broker.in_sync,
        "epoch": broker.broker_epoch,
        "software": broker.software,
    }


def _node(node_id: int) -> int | None:
    return None if node_id < 0 else node_id


def _said(node_id: int) -> str:
    return "none" if node_id < 0 else str(node_id)


def _listed(nodes: list[int]) -> str:
    return ",".join(map(str, nodes)) or "none"
