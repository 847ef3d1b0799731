"""What the async ``send`` and ``send_many`` give back: await it for the receipt, as often and from as many tasks as you like."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

from msgspec import Struct

from zmqmq.client.accumulator import Batch
from zmqmq.client.aio.waiting import call_from_anywhere, wait
from zmqmq.client.arguments import Seconds, maybe_seconds_of
from zmqmq.client.handles import Handles, check_callback, delivery
from zmqmq.client.waiting import no_receipt
from zmqmq.errors import ZmqmqError
from zmqmq.model import Delivery


class AsyncHandle(Struct, gc=False, eq=False):
    """The future of one record. ``await handle`` is its receipt; cancelling that await does not take the record back."""

    batch: Batch
    index: int

    def __await__(self) -> Generator[Any, None, Delivery]:
        if self.batch.outcome is None:
            yield from wait(self.batch, None).__await__()
        return delivery(self.batch, self.index)

    def done(self) -> bool:
        return self.batch.outcome is not None

    def result(self) -> Delivery:
        """The receipt of a record that is decided, or its error raised; TimeoutError when it is still under way."""
        if self.batch.outcome is None:
            raise no_receipt(self.batch, 0)
        return delivery(self.batch, self.index)

    def add_done_callback(self, callback: Callable[[AsyncHandle], Any]) -> None:
        """Call ``callback(handle)`` from the loop when the record is decided; soon, if it is already."""
        check_callback(callback)
        loop = asyncio.get_running_loop()
        self.batch.watch(lambda: call_from_anywhere(loop, callback, self))


class AsyncBatchHandle(Handles[AsyncHandle]):
    """The futures of all records of one ``send_many``; ``await`` it for all receipts."""

    __slots__ = ()

    def __init__(self, count: int) -> None:
        super().__init__(count, AsyncHandle)

    def __await__(self) -> Generator[Any, None, list[Delivery]]:
        yield from self.wait().__await__()
        return self.deliveries()

    async def wait(self, timeout: Seconds | None = None) -> None:
        """Until every record is decided; cheaper than the receipts. Raises the first error."""
        seconds = maybe_seconds_of("timeout", timeout)
        deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
        for batch, _, _ in self.parts:
            await wait_for_batch(batch, None if deadline is None else deadline - asyncio.get_running_loop().time())
            if isinstance(batch.outcome, ZmqmqError):
                raise batch.outcome.again()

    async def result(self, timeout: Seconds | None = None) -> list[Delivery]:
        """All receipts. Raises the first error."""
        await self.wait(timeout)
        return self.deliveries()


async def wait_for_batch(batch: Batch, timeout: float | None) -> None:
    """Until the batch is resolved. Raises TimeoutError."""
    if batch.outcome is None and not await wait(batch, timeout):
        raise no_receipt(batch, timeout)
