"""Produce a few lines and read them back, from a broker that runs elsewhere.

zmqmq serve &
python examples/produce_and_tail.py            # or give its address: tcp://127.0.0.1:5570
"""

from __future__ import annotations

import sys

import zmqmq


def main(address: str = "tcp://127.0.0.1:5570") -> None:
    with zmqmq.Client(address) as mq:
        mq.admin.create_topic("greetings", partitions=2, exist_ok=True)

        with mq.producer("greetings", value=zmqmq.text(), key=zmqmq.text()) as out:
            for number, name in enumerate(["ann", "bob", "ann", "cid"]):
                out.send(f"hello {name}, this is line {number}", key=name)
        # Leaving the block waited for the broker's disk; a line that was not written would have raised.

        receipt = mq.produce("greetings", b"one more, with its receipt", key=b"ann")
        print(f"{receipt.topic}-{receipt.partition}@{receipt.offset} on {receipt.synced} of {receipt.replicas} disks", file=sys.stderr)

        with mq.reader("greetings", value=zmqmq.text(), stop=zmqmq.Offset.END) as lines:
            for message in lines:
                print(f"{message.partition}@{message.offset}  {message.value}")


if __name__ == "__main__":
    main(*sys.argv[1:])
