"""Written stories, for promises that chance would take thousands of seeds to test. ``make plant`` sees each of them fail when its
promise is broken (``Mutation.stories``)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from zmqmq import batch as format_
from zmqmq.client.aio.producer import AsyncProducer
from zmqmq.errors import DeliveryFailed, OutcomeUnknown
from zmqmq.ports import Buffer
from zmqmq.testing.sim import Cluster, MakeCluster, SimClient


def holds(value: bytes) -> Callable[[Sequence[Buffer]], bool]:
    """Messages that carry a batch with this value."""

    def is_wanted(frames: Sequence[Buffer]) -> bool:
        return any(value in bytes(frame) for frame in frames[2:])

    return is_wanted


def is_receipt(frames: Sequence[Buffer]) -> bool:
    """Answers without a batch; greetings and metadata come before they are lost."""
    return not any(bytes(frame).startswith(format_.MAGIC) for frame in frames[2:])


async def read(mq: SimClient) -> list[bytes]:
    async with mq.reader("t", timeout=2) as reader:
        return [message.value async for message in reader]


def started(zmqmq_sim: MakeCluster, seed: int) -> tuple[Cluster, SimClient]:
    cluster = zmqmq_sim(seed)
    cluster.start()
    mq = cluster.client("c")

    async def begin() -> None:
        await mq.admin.create_topic("t")
        await mq.produce("t", b"first")

    cluster.run(mq, begin())
    return cluster, mq


def producer(mq: SimClient) -> AsyncProducer[bytes]:
    """One record a batch, at once."""
    return mq.producer("t", linger=0, delivery_timeout=2, compression="none", batch_bytes=1)


def test_the_first_batch_of_a_new_producer_epoch_is_not_overtaken(zmqmq_sim: MakeCluster) -> None:
    cluster, mq = started(zmqmq_sim, 1)

    async def main() -> None:
        with contextlib.suppress(DeliveryFailed):
            await tell()

    async def tell() -> None:
        async with producer(mq) as out:
            await (await out.send(b"known"))
            loss = cluster.network.lose("c", "b0", holds(b"lost"))
            failed = await out.send(b"lost")
            try:
                await failed
            except OutcomeUnknown:
                loss.stop()
            assert loss.count
            again = cluster.network.lose("c", "b0", holds(b"new 1"))
            sent = [await out.send(value) for value in (b"new 1", b"new 2", b"new 3")]
            await asyncio.sleep(0.5)
            again.stop()
            assert again.count == 1
            cluster.network.break_links("c")
            for handle in sent:
                await handle

    cluster.run(mq, main())
    assert cluster.run(mq, read(mq)) == [b"first", b"known", b"new 1", b"new 2", b"new 3"]


def test_what_may_be_written_keeps_its_sequence_when_a_predecessor_ends_as_unknown(zmqmq_sim: MakeCluster) -> None:
    cluster, mq = started(zmqmq_sim, 2)

    async def main() -> None:
        with contextlib.suppress(DeliveryFailed):
            await tell()

    async def tell() -> None:
        async with producer(mq) as out:
            await (await out.send(b"known"))
            loss = cluster.network.lose("b0", "c", is_receipt)
            early = await out.send(b"early")
            await asyncio.sleep(1)
            late = await out.send(b"late")
            try:
                await early
            except OutcomeUnknown:
                loss.stop()
            assert loss.count
            cluster.network.break_links("c")  # so that it is sent again
            await late

    cluster.run(mq, main())
    assert cluster.run(mq, read(mq)) == [b"first", b"known", b"early", b"late"]
