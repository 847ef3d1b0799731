"""A topic of typed values: what goes in is checked by mypy, what comes out is an Order.

python examples/typed_topic.py
"""

from __future__ import annotations

import sys
import tempfile

import msgspec

import zmqmq


class Order(msgspec.Struct, frozen=True):
    id: int
    customer: str
    amount: float


OrderJson = zmqmq.json(Order)


def total_by_customer(orders: zmqmq.Reader[Order]) -> dict[str, float]:
    totals: dict[str, float] = {}
    for message in orders:
        order = message.value
        totals[order.customer] = totals.get(order.customer, 0.0) + order.amount
    return totals


def main(directory: str) -> None:
    with zmqmq.open(directory) as mq:
        mq.admin.create_topic("orders", partitions=3)
        with mq.producer("orders", value=OrderJson, key=zmqmq.text()) as out:
            for number in range(6):
                customer = ("ann", "bob")[number % 2]
                out.send(Order(id=number, customer=customer, amount=10.0 + number), key=customer)

        mq.produce("orders", b'{"id": "six"}')  # somebody else's mistake
        with mq.reader("orders", value=OrderJson, stop=zmqmq.Offset.END) as orders:
            try:
                print(total_by_customer(orders))
            except zmqmq.errors.DeserializationError as error:
                print(f"bad record {error.message.topic}-{error.message.partition}@{error.message.offset}: {error}", file=sys.stderr)

        with mq.reader("orders", value=OrderJson, stop=zmqmq.Offset.END) as orders:
            good = [message for batch in orders.batches() for message in batch if message.key is not None]
            print({customer: sum(m.value.amount for m in good if m.value.customer == customer) for customer in ("ann", "bob")})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(scratch)
