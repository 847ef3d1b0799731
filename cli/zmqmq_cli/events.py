"""``zmqmq events``: what changed in a cluster, as it happens.

It goes on with another broker when the one it asks goes away: numbers of events mean the same on all.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

import click

from zmqmq_cli.lazy import Command
from zmqmq_cli.params import COUNT, DURATION
from zmqmq_cli.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zmqmq import Client
    from zmqmq.wire.replies import Event
    from zmqmq_cli.output import Output

WAIT_S: Final = 2.0
"""One question to a broker; then it is asked again."""
RETRY_S: Final = 0.5
KIND_WIDTH: Final = 18


@click.command("events", cls=Command)
@click.option("--since", type=DURATION, help="Begin with what happened so long ago at most. [all that is known]")
@click.option("--type", "kinds", multiple=True, metavar="TYPE", help="Only these, as isr-shrink; repeat for more.")
@click.option("-n", "--num", type=COUNT, help="Stop after so many.")
@click.option("-e", "--exit-at-end", is_flag=True, help="Stop at what happened until now.")
@click.option("-J", "as_json", is_flag=True, help="One JSON object a line, as --json.")
@click.pass_obj
def events(settings: Settings, *, since: float | None, kinds: tuple[str, ...], num: int | None, exit_at_end: bool, as_json: bool) -> int:
    """Follow what changes in a cluster: leaders, in-sync replicas, brokers, topics.

    A broker remembers the last 1,000 events since its start.
    """
    from zmqmq.broker.events import KINDS
    from zmqmq_cli import errors
    from zmqmq_cli.waiting import while_read

    if wrong := [kind for kind in kinds if kind not in KINDS]:
        raise click.UsageError(f"no event is called {wrong[0]!r}; there are: {', '.join(KINDS)}", click.get_current_context())
    if as_json:
        settings.format = "jsonl"
    oldest_ms = 0 if since is None else int((time.time() - since) * 1000)
    shown = 0
    ended = threading.Event()
    try:
        with settings.client() as client, while_read([ended.set]):
            for event in _follow(client, kinds, settings.output, ended, is_endless=not exit_at_end):
                if event.time_ms < oldest_ms:
                    continue
                settings.output.one(event_row(event), event_line(event))
                settings.output.flush()
                shown += 1
                if shown == num:
                    break
    except KeyboardInterrupt:
        return errors.OK
    return errors.OK


def _follow(client: Client, kinds: tuple[str, ...], output: Output, ended: threading.Event, *, is_endless: bool) -> Iterator[Event]:
    """Events in order, each once from one broker. Raises when no broker can be asked at the start."""
    from zmqmq.errors import RetriableError

    after, node = -1, -1
    while not ended.is_set():
        try:
            reply = client.admin.events(
                after, kinds=kinds, wait=WAIT_S if is_endless and after >= 0 else 0, node=None if node < 0 else node
            )
        except RetriableError:
            if after < 0 or not is_endless:
                raise
            node = -1
            ended.wait(RETRY_S)
            continue
        if 0 <= after < reply.known_after:
            output.note(f"events {after + 1} to {reply.known_after} are forgotten, or were before broker {reply.node_id} started")
        node, after = reply.node_id, max(after, reply.last_number)
        yield from reply.events
        if not is_endless:
            return


def event_row(event: Event) -> dict[str, Any]:
    """For programs. What an event says nothing of is null."""
    return {
        "number": event.number,
        "time": _time(event.time_ms, local=False),
        "type": event.kind,
        "topic": event.topic or None,
        "partition": None if event.partition < 0 else event.partition,
        "node": None if event.node_id < 0 else event.node_id,
        "text": event.text,
    }


def event_line(event: Event) -> str:
    """``12:04:20  isr-shrink  payments-1  [0,1,2] → [0,1]``."""
    if event.topic:
        what = event.topic if event.partition < 0 else f"{event.topic}-{event.partition}"
    else:
        what = "" if event.node_id < 0 else f"broker {event.node_id}"
    return "  ".join(filter(None, (_time(event.time_ms, local=True), event.kind.ljust(KIND_WIDTH), what, event.text))).rstrip()


def _time(time_ms: int, *, local: bool) -> str:
    import datetime as dt

    time = dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC)
    return f"{time.astimezone():%H:%M:%S}" if local else time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
