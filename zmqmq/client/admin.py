"""Topics, offsets, brokers and statistics: ``client.admin``.

Every call is one question, or one to each broker concerned, and ends within ``timeout`` (the client's, unless given). What the
calls do stands in ``operations``; here they wait for it in the caller's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from zmqmq.client import operating, operations
from zmqmq.client.asking import Asker
from zmqmq.client.operations import Cluster, Offsets, Partition, Pong, Topic
from zmqmq.client.steps import Steps, shown_as

P = ParamSpec("P")
T = TypeVar("T")


def _waiting(operation: Callable[P, Steps[T]]) -> Callable[Concatenate[Admin, P], T]:
    def method(self: Admin, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._asker.run(operation(*args, **kwargs))

    return shown_as(operation, method)


class Admin:
    """See the module. Safe to use from many threads."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    create_topic = _waiting(operations.create_topic)
    delete_topic = _waiting(operations.delete_topic)
    alter_topic = _waiting(operations.alter_topic)
    topics = _waiting(operations.topics)
    describe_topic = _waiting(operations.describe_topic)
    offsets = _waiting(operations.offsets)
    delete_records = _waiting(operations.delete_records)
    cluster = _waiting(operations.cluster)
    brokers = _waiting(operations.brokers)
    stats = _waiting(operations.stats)
    ping = _waiting(operations.ping)

    describe_cluster = _waiting(operating.describe_cluster)
    events = _waiting(operating.events)
    move_leaders = _waiting(operating.move_leaders)
    balance_leaders = _waiting(operating.balance_leaders)
    reassign = _waiting(operating.reassign)
    cancel_reassign = _waiting(operating.cancel_reassign)
    drain_broker = _waiting(operating.drain_broker)
    remove_broker = _waiting(operating.remove_broker)


__all__ = ["Admin", "Cluster", "Offsets", "Partition", "Pong", "Topic"]
