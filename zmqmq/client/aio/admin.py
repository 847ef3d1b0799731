"""Topics, offsets, brokers and statistics: ``await client.admin.…``. What the calls do stands in ``operations``."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from zmqmq.client import operating, operations
from zmqmq.client.aio.driver import LoopDriver
from zmqmq.client.steps import Steps, shown_as

P = ParamSpec("P")
T = TypeVar("T")


def _awaited(operation: Callable[P, Steps[T]]) -> Callable[Concatenate[AsyncAdmin, P], Coroutine[Any, Any, T]]:
    async def method(self: AsyncAdmin, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._driver.run(operation(*args, **kwargs))

    return shown_as(operation, method)


class AsyncAdmin:
    """As ``Admin``, with awaits."""

    def __init__(self, driver: LoopDriver) -> None:
        self._driver = driver

    create_topic = _awaited(operations.create_topic)
    delete_topic = _awaited(operations.delete_topic)
    alter_topic = _awaited(operations.alter_topic)
    topics = _awaited(operations.topics)
    describe_topic = _awaited(operations.describe_topic)
    offsets = _awaited(operations.offsets)
    delete_records = _awaited(operations.delete_records)
    cluster = _awaited(operations.cluster)
    brokers = _awaited(operations.brokers)
    stats = _awaited(operations.stats)
    ping = _awaited(operations.ping)

    describe_cluster = _awaited(operating.describe_cluster)
    events = _awaited(operating.events)
    move_leaders = _awaited(operating.move_leaders)
    balance_leaders = _awaited(operating.balance_leaders)
    reassign = _awaited(operating.reassign)
    cancel_reassign = _awaited(operating.cancel_reassign)
    drain_broker = _awaited(operating.drain_broker)
    remove_broker = _awaited(operating.remove_broker)
