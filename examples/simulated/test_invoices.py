"""Does every order get exactly one invoice when machines lose power and the network parts? Run: pytest examples/simulated"""

from __future__ import annotations

import asyncio

import pytest
from invoices import make_invoices

from zmqmq.testing.sim import MakeCluster, Nemesis, SimClient

ORDERS = 40


@pytest.mark.parametrize("seed", range(20))
def test_every_order_gets_one_invoice(zmqmq_sim: MakeCluster, seed: int) -> None:
    cluster = zmqmq_sim(seed, is_supervised=True)
    cluster.start()
    shop = cluster.client("shop", timeout=120)
    cluster.run(shop, create_topics(shop))
    Nemesis(cluster, 30, classes=("power cut", "broker killed", "partition", "link clogged"))
    service = cluster.spawn("billing", make_invoices)
    cluster.run(shop, order(shop))
    cluster.kill_client("billing")  # whatever it was doing
    service = cluster.spawn("billing", make_invoices)
    cluster.heal()
    billed = cluster.run(shop, invoices(shop))
    assert not service.done()
    assert billed == [b"%d:invoice for %d" % (number, number) for number in range(ORDERS)]


async def create_topics(mq: SimClient) -> None:
    for topic in ("orders", "invoices"):
        await mq.admin.create_topic(topic)


async def order(mq: SimClient) -> None:
    for number in range(ORDERS):
        await mq.produce("orders", b"%d" % number)
        await asyncio.sleep(0.5)


async def invoices(mq: SimClient) -> list[bytes]:
    """As many as there are orders, and a while later there are no more."""
    async with mq.reader("invoices", timeout=20) as reader:
        return [invoice.value async for invoice in reader]
