"""A small service: for each order one invoice, whatever happens.

It may be killed and started again. Then it looks up how far it came, in the topic that it writes, and goes on from there. One
hole is left: what the killed one had sent and the broker had not yet read may arrive behind that look.

Run it against a broker: python examples/simulated/invoices.py tcp://127.0.0.1:5570
"""

from __future__ import annotations

import asyncio
import sys

import zmqmq
from zmqmq.errors import RetriableError


async def make_invoices(mq: zmqmq.AsyncClient) -> None:
    """Read orders, write invoices, for ever. Cancel it to end it."""
    while True:
        try:
            await _go_on(mq)
        except RetriableError:  # the broker is away: look again where we are, and go on
            await asyncio.sleep(0.2)


async def _go_on(mq: zmqmq.AsyncClient) -> None:
    billed = await _last_billed(mq)
    async with mq.reader("orders", start=zmqmq.Offset.exact(billed + 1)) as orders:
        async for order in orders:
            await mq.produce("invoices", b"%d:invoice for %s" % (order.offset, order.value))


async def _last_billed(mq: zmqmq.AsyncClient) -> int:
    """The offset of the last order that has an invoice; -1 before the first."""
    async with mq.reader("invoices", start=zmqmq.Offset.last(1), stop=zmqmq.Offset.END) as invoices:
        async for invoice in invoices:
            return int(invoice.value.partition(b":")[0])
    return -1


async def main(url: str) -> None:
    async with zmqmq.AsyncClient(url) as mq:
        await make_invoices(mq)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
