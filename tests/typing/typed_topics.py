"""What a user's own mypy --strict sees. A line with ``# error:`` must be refused for that reason; every other line must pass."""

from typing import assert_type

import msgspec

import zmqmq


class Order(msgspec.Struct):
    id: int
    customer: str


class Refund(msgspec.Struct):
    id: int


OrderJson = zmqmq.json(Order)


def produce(mq: zmqmq.Client) -> None:
    with mq.producer("orders", value=OrderJson) as out:
        assert_type(out, zmqmq.Producer[Order])
        out.send(Order(1, "ann"), key="ann")
        out.send_many([Order(2, "bob")])
        out.send(Refund(1))  # error: arg-type
        out.send_many([Refund(1)])  # error: list-item
    with mq.producer("lines") as lines:
        assert_type(lines, zmqmq.Producer[bytes])
        lines.send("text")  # error: arg-type


def consume(mq: zmqmq.Client) -> None:
    with mq.reader("orders", value=OrderJson, stop=zmqmq.Offset.END) as orders:
        for message in orders:
            assert_type(message, zmqmq.Message[Order])
            assert_type(message.value.customer, str)
            print(message.value.colour)  # error: attr-defined
        for batch in orders.batches():
            assert_type(batch, list[zmqmq.Message[Order]])
    with mq.reader("orders", value=zmqmq.msgpack(Refund)) as refunds:
        total: int = refunds.poll(1.0).value.id  # error: union-attr
        assert_type(refunds.batch(10, timeout=1.0)[0].value, Refund)
        print(total)


def embedded() -> None:
    with zmqmq.open("./data") as mq:
        produce(mq)
        receipt = mq.produce("orders", b"raw", key=b"ann")
        assert_type(receipt, zmqmq.Delivery)
        assert_type(receipt.offset, int | None)
