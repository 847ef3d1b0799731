"""``zmqmq cluster reassign``: replicas on other brokers. A plan is made, looked at, applied, followed."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from zmqmq_cli.cluster import LOOK_S, partition_row
from zmqmq_cli.lazy import Command, LazyGroup
from zmqmq_cli.output import Column
from zmqmq_cli.params import DURATION, NODES, PLACE
from zmqmq_cli.settings import Settings

if TYPE_CHECKING:
    from zmqmq import Client
    from zmqmq.wire.replies import ClusterReply
    from zmqmq_cli.reassigning import Move

PLAN_BYTES_MAX: Final = 64 << 20
_PLAN_COLUMNS: Final = (Column("name", "PARTITION"), Column("before"), Column("replicas", "AFTER"))
_STATUS_COLUMNS: Final = (Column("name", "PARTITION"), Column("replicas"), Column("isr"), Column("adding"), Column("removing"))


@click.group("reassign", cls=LazyGroup)
def reassign() -> None:
    """Move replicas: plan, apply, status, cancel.

    \b
    zmqmq cluster reassign plan --from 3 > plan.json     off broker 3
    zmqmq cluster reassign apply plan.json               shows what would move
    zmqmq cluster reassign apply plan.json --execute     moves it
    """


@reassign.command("plan", cls=Command)
@click.argument("topics", nargs=-1, metavar="[TOPIC…]")
@click.option("--from", "from_", type=NODES, default=(), help="Keep nothing on these brokers: 3 or 3,4.")
@click.option("--to", type=NODES, help="Only use these brokers. [all that run]")
@click.option("-r", "--replication-factor", type=click.IntRange(min=1), help="So many replicas of each. [as many as there are]")
@click.pass_obj
def plan(
    settings: Settings, *, topics: tuple[str, ...], from_: tuple[int, ...], to: tuple[int, ...] | None, replication_factor: int | None
) -> None:
    """Print a plan that spreads the replicas evenly and moves as few as it can; of all topics, or of some."""
    import json

    from zmqmq_cli.reassigning import make_plan, to_json

    with settings.client() as client:
        found = client.admin.describe_cluster()
        described = [client.admin.describe_topic(name) for name in topics] if topics else client.admin.topics(internal=True)
    targets = _targets(found, to, from_)
    racks = {broker.node_id: broker.rack for broker in found.brokers if broker.node_id in targets}
    current = {(topic.name, partition.partition): partition.replicas for topic in described for partition in topic.partitions}
    moves = make_plan(current, racks, sorted(targets), replication_factor or 0)
    settings.output.text(json.dumps(to_json(moves), indent=1))
    settings.output.note(f"{len(moves)} of {len(current)} partitions would move")


def _targets(found: ClusterReply, to: tuple[int, ...] | None, from_: tuple[int, ...]) -> set[int]:
    """Brokers that may keep replicas. Raises InvalidConfig for those that are named and cannot."""
    from zmqmq.errors import InvalidConfig

    states = {broker.node_id: "fenced" if broker.is_fenced else "draining" if broker.is_draining else "" for broker in found.brokers}
    for node in (*(to or ()), *from_):
        if node not in states:
            raise InvalidConfig(f"there is no broker {node}", hint=f"there are: {', '.join(map(str, sorted(states)))}")
    for node in to or ():
        if states[node]:
            raise InvalidConfig(f"broker {node} is {states[node]} and takes no replicas", hint="see  zmqmq cluster brokers")
    return {node for node in (to if to is not None else states) if not states[node] and node not in from_}


@reassign.command("apply", cls=Command)
@click.argument("file", metavar="FILE|-")
@click.option("--execute", is_flag=True, help="Do it; without this it is only shown.")
@click.option("-w", "--wait", is_flag=True, help="Wait until everything has moved.")
@click.option("--within", type=DURATION, default="1h", show_default=True, help="How long -w waits.")
@click.pass_obj
def apply(settings: Settings, *, file: str, execute: bool, wait: bool, within: float) -> int:
    """Move replicas as a plan says. Old replicas stay until the new ones are in sync."""
    from zmqmq_cli import errors
    from zmqmq_cli.reassigning import Move

    wanted = _read_plan(file)
    with settings.client() as client:
        names = {topic for topic, _ in wanted}
        described = {topic.name: topic for topic in (client.admin.describe_topic(name) for name in sorted(names))}
        before = {(name, partition.partition): partition.replicas for name, topic in described.items() for partition in topic.partitions}
        moves = [Move(*place, tuple(before.get(place, ())), tuple(nodes)) for place, nodes in wanted.items()]
        moves = [move for move in moves if move.before != move.replicas]
        settings.output.rows([_move_row(move) for move in moves], _PLAN_COLUMNS)
        settings.output.flush()
        if not execute:
            settings.output.note("dry run: nothing changed; add --execute")
            return errors.OK
        count = client.admin.reassign({(move.topic, move.partition): move.replicas for move in moves}).count if moves else 0
        settings.output.note(f"{count} partitions begin to move; see  zmqmq cluster reassign status")
        if wait and not _wait(settings, client, len(moves), within):
            settings.output.note("the time is over; what moves goes on moving")
            return errors.UNREACHABLE
    return errors.OK


def _wait(settings: Settings, client: Client, total: int, within: float) -> bool:
    deadline = time.monotonic() + within
    with settings.output.progress("moving", total) as told:
        while (left := client.admin.describe_cluster().moving) and time.monotonic() + LOOK_S < deadline:
            told(max(0, total - left))
            time.sleep(LOOK_S)
    return not left


def _read_plan(path: str) -> dict[tuple[str, int], list[int]]:
    """Raises InvalidConfig, OSError."""
    import json

    from zmqmq.errors import InvalidConfig
    from zmqmq_cli.reassigning import from_json

    if path == "-":
        data = sys.stdin.buffer.read(PLAN_BYTES_MAX + 1)
    else:
        with open(path, "rb") as file:
            data = file.read(PLAN_BYTES_MAX + 1)
    name = "stdin" if path == "-" else path
    if len(data) > PLAN_BYTES_MAX:
        raise InvalidConfig(f"{name} is longer than {PLAN_BYTES_MAX} bytes", hint="plan fewer topics at once")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f"{name} is not JSON: {error}", hint="make a plan with  zmqmq cluster reassign plan") from error
    return from_json(value, name)


def _move_row(move: Move) -> dict[str, Any]:
    return {
        "name": f"{move.topic}-{move.partition}", "topic": move.topic, "partition": move.partition,
        "before": list(move.before), "replicas": list(move.replicas),
    }  # fmt: skip


@reassign.command("status", cls=Command)
@click.pass_obj
def status(settings: Settings) -> None:
    """What moves now."""
    with settings.client() as client:
        found = client.admin.describe_cluster()
    settings.output.rows([partition_row(partition) for partition in found.reassigning], _STATUS_COLUMNS)
    settings.output.note(f"{found.moving} partitions moving")


@reassign.command("cancel", cls=Command)
@click.argument("places", type=PLACE, nargs=-1, metavar="[TOPIC:PARTITION…]")
@click.pass_obj
def cancel(settings: Settings, *, places: tuple[tuple[str, int], ...]) -> None:
    """Go back to the replicas that were there before; all moves, or some."""
    with settings.client() as client:
        changed = client.admin.cancel_reassign(places or None)
    settings.output.rows([partition_row(partition) for partition in changed.partitions], _STATUS_COLUMNS)
    settings.output.note(f"{changed.count} partitions go back")
