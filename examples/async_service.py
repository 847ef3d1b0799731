"""A small service in one event loop: orders come in, are charged, and the receipts go out.

zmqmq serve &
python examples/async_service.py            # or give its address: tcp://127.0.0.1:5570
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

import zmqmq


class Order(msgspec.Struct, frozen=True):
    id: int
    customer: str
    amount: float


OrderJson = zmqmq.json(Order)


async def take_orders(mq: zmqmq.AsyncClient) -> None:
    async with mq.producer("orders", value=OrderJson, key=zmqmq.text()) as out:
        for number in range(6):
            customer = ("ann", "bob")[number % 2]
            await out.send(Order(id=number, customer=customer, amount=10.0 + number), key=customer)
    # Leaving the block waited for the broker's disk; an order that was not written would have raised.


async def charge_orders(mq: zmqmq.AsyncClient, count: int) -> None:
    async with mq.reader("orders", value=OrderJson, timeout=10) as orders:
        async for message in orders:
            receipt = await mq.produce("receipts", f"charged {message.value.amount}".encode(), key=message.value.customer)
            print(f"order {message.value.id} of {message.value.customer}: on {receipt.synced} of {receipt.replicas} disks")
            count -= 1
            if not count:
                break


async def main(address: str = "tcp://127.0.0.1:5570") -> None:
    async with zmqmq.AsyncClient(address) as mq:
        await mq.admin.create_topic("orders", exist_ok=True)
        await mq.admin.create_topic("receipts", exist_ok=True)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(charge_orders(mq, count=6))
            tasks.create_task(take_orders(mq))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
