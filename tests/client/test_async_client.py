"""The async client against real brokers, in both kinds of loops: all is well."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from loops import LOOPS, Loop, until

import zmqmq
from zmqmq import AsyncClient, Offset, errors


class Order(msgspec.Struct, frozen=True):
    id: int
    customer: str


@pytest.fixture(params=sorted(LOOPS))
def loop(request: pytest.FixtureRequest) -> Loop:
    return Loop(request.param)


async def values(mq: AsyncClient, topic: str, **arguments: Any) -> list[bytes]:
    async with mq.reader(topic, stop=Offset.END, **arguments) as reader:
        return [message.value async for message in reader]


def test_records_come_back_with_their_receipts_and_no_thread_is_started(loop: Loop, zmqmq_broker: Any) -> None:
    async def body() -> None:
        threads = threading.active_count()
        async with AsyncClient(zmqmq_broker.url) as mq:
            await mq.admin.create_topic("orders", 3)
            receipt = await mq.produce("orders", b"first", key="ann", headers={"src": b"web"})
            assert (receipt.topic, receipt.offset, receipt.replicas, receipt.synced) == ("orders", 0, 1, 1)
            async with mq.producer("orders", value=zmqmq.text()) as out:
                handle = await out.send("second", key="ann")
                assert (await handle).offset == 1
                assert handle.done()
                assert handle.result() == await handle
                many = await out.send_many([f"{i}" for i in range(3_000)], keys=["ann"] * 3_000)
                assert [receipt.offset for receipt in await many] == list(range(2, 3_002))
            async with mq.reader("orders", value=zmqmq.text(), key=zmqmq.text(), stop=Offset.END) as reader:
                found = [message async for message in reader]
            assert [message.value for message in found] == ["first", "second", *map(str, range(3_000))]
            assert {(message.key, message.partition) for message in found} == {("ann", receipt.partition)}
            assert threading.active_count() == threads
            assert mq.stats().buffered_bytes == 0

    loop.run(body())


def test_typed_values_and_what_does_not_decode(loop: Loop, zmqmq_broker: Any) -> None:
    async def body() -> None:
        async with AsyncClient(zmqmq_broker.inproc_url) as mq:
            await mq.admin.create_topic("t")
            async with mq.producer("t", value=zmqmq.json(Order)) as out:
                await out.send(Order(1, "ann"))
                await out.send(None, key="ann")
            await mq.produce("t", b"{")
            async with mq.reader("t", value=zmqmq.json(Order), stop=Offset.END) as reader:
                good, tombstone, bad = [message async for message in reader]
            assert good.value == Order(1, "ann")
            assert tombstone.is_tombstone
            with pytest.raises(errors.DeserializationError, match="t-0@2"):
                _ = bad.value

    loop.run(body())


def test_a_producer_and_a_reader_open_by_themselves_when_they_are_used_first(loop: Loop, zmqmq_broker: Any) -> None:
    async def body() -> None:
        mq = AsyncClient(zmqmq_broker.url)
        out, reader = mq.producer("t"), mq.reader("t", stop=Offset.last(0))
        await mq.admin.create_topic("t")
        handles = await asyncio.gather(*(out.send(b"%d" % i) for i in range(10)))
        assert [(await handle).offset for handle in handles] == list(range(10))
        assert await reader.batch() != []
        assert await reader.position() == {0: 10}
        nowhere = mq.producer("nowhere")
        with pytest.raises(errors.UnknownTopic):
            await nowhere.send(b"x")
        with pytest.raises(errors.UnknownTopic) as caught:
            await mq.produce("nowhere", b"x")
        assert caught.value.outcome == "not_written"
        await mq.close()

    loop.run(body())


def test_a_reader_reads_in_pieces_seeks_and_ends_when_idle(loop: Loop, zmqmq_broker: Any) -> None:
    async def body() -> None:
        async with AsyncClient(zmqmq_broker.url) as mq:
            await mq.admin.create_topic("t")
            async with mq.producer("t") as out:
                await out.send_many([b"%d" % i for i in range(1_000)])
            async with mq.reader("t", timeout=0.05) as reader:
                first = await reader.poll(5)
                assert first is not None
                found = [first, *await reader.batch(10)]
                async for message in reader:
                    found.append(message)
                    if message.offset == 500:
                        break
                assert await reader.position() == {0: 501}
                async for batch in reader.batches(100):
                    assert 0 < len(batch) <= 100
                    found += batch
                assert [message.offset for message in found] == list(range(1_000))
                assert await reader.poll() is None
                assert await reader.batch(10, 0.01) == []
                await reader.seek(Offset.last(2))
                assert [message.offset async for message in reader] == [998, 999]
                assert reader.high_watermarks() == {0: 1_000}

    loop.run(body())


def test_a_waiting_reader_is_stopped_from_another_thread(loop: Loop, zmqmq_broker: Any) -> None:
    async def body() -> None:
        async with AsyncClient(zmqmq_broker.url) as mq:
            await mq.admin.create_topic("t")
            async with mq.reader("t") as reader:
                threading.Timer(0.05, reader.stop).start()
                assert [message async for message in reader] == []

    loop.run(body())


def test_many_tasks_share_a_client_and_each_keeps_its_order(loop: Loop, zmqmq_broker: Any) -> None:
    async def body() -> None:
        async with AsyncClient(zmqmq_broker.url) as mq:
            await mq.admin.create_topic("t", 4)

            async def write(name: int, out: zmqmq.AsyncProducer[bytes]) -> None:
                for i in range(100):
                    if i % 10:
                        await out.send(b"%d" % i, key=b"%d" % name)
                    else:
                        await (await out.send(b"%d" % i, key=b"%d" % name))

            async with mq.producer("t", batch_bytes=500, linger=0.001) as out, mq.reader("t") as reader, asyncio.TaskGroup() as tasks:
                for name in range(40):
                    tasks.create_task(write(name, out))
                found: dict[bytes, list[int]] = {}
                count = 0
                async for message in reader:
                    found.setdefault(message.key, []).append(int(message.value))
                    count += 1
                    if count == 4_000:
                        break
            assert found == {b"%d" % name: list(range(100)) for name in range(40)}

    loop.run(body())


def test_a_task_that_never_has_to_wait_lets_the_others_run(loop: Loop, zmqmq_broker: Any) -> None:
    async def body() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        async with AsyncClient(zmqmq_broker.url) as mq:
            await mq.admin.create_topic("t")
            ticking = asyncio.create_task(tick())
            async with mq.producer("t", linger=60) as out:
                before = ticks
                for _ in range(20_000):
                    await out.send(bytes(100))
                assert ticks > before + 1
                before = ticks
                await out.send_many([bytes(100)] * 100_000)
                assert ticks > before + 1
            async with mq.reader("t", stop=Offset.END) as reader:
                before = ticks
                assert len([message async for message in reader]) == 120_000
                assert ticks > before + 1
            ticking.cancel()

    loop.run(body())


def test_callbacks_run_in_the_loop(loop: Loop, zmqmq_broker: Any) -> None:
    async def body() -> None:
        async with AsyncClient(zmqmq_broker.url) as mq:
            await mq.admin.create_topic("t")
            heard: list[tuple[int | None, int]] = []
            out = mq.producer("t")
            handle = await out.send(b"x")
            with pytest.raises(errors.TimeoutError):
                handle.result()
            for _ in range(2):  # before and after
                handle.add_done_callback(lambda done: heard.append((done.result().offset, threading.get_ident())))
                await handle
            await until(lambda: len(heard) == 2)
            assert heard == [(0, threading.get_ident())] * 2

    loop.run(body())


def test_admin_says_the_same_as_the_sync_one(loop: Loop, zmqmq_broker: Any) -> None:
    async def body() -> None:
        async with AsyncClient(zmqmq_broker.url) as mq:
            await mq.admin.create_topic("t", 2)
            assert (await mq.admin.create_topic("t", exist_ok=True)).partition_count == 2
            with pytest.raises(errors.TopicExists):
                await mq.admin.create_topic("t")
            with pytest.raises(errors.UnknownTopic) as caught:
                await mq.admin.describe_topic("tt")
            assert caught.value.similar == ("t",)
            assert (await mq.admin.offsets("t"))[1] == zmqmq.Offsets(0, 0)
            assert (await mq.admin.ping())[0].seconds < 1
            await mq.admin.delete_topic("t")
            assert await mq.admin.topics() == []

    loop.run(body())


def arguments_of(function: Callable[..., Any]) -> dict[str, Any]:
    return {name: (parameter.kind, parameter.default) for name, parameter in inspect.signature(function).parameters.items()}


@pytest.mark.parametrize(
    ("sync", "asynchronous", "apart"),
    [
        (zmqmq.Client, zmqmq.AsyncClient, set()),
        (zmqmq.Reader, zmqmq.AsyncReader, set()),
        (zmqmq.BatchHandle, zmqmq.AsyncBatchHandle, set()),
        (zmqmq.Producer, zmqmq.AsyncProducer, set()),
        (zmqmq.Handle, zmqmq.AsyncHandle, {"result"}),  # it does not wait
    ],
)
def test_both_faces_have_the_same_names_and_arguments(sync: type, asynchronous: type, apart: set[str]) -> None:
    names = {name for name in dir(sync) if not name.startswith("_") and callable(getattr(sync, name))} - apart
    for name in sorted(names):
        assert arguments_of(getattr(sync, name)) == arguments_of(getattr(asynchronous, name)), name


def test_every_name_of_the_package_is_there() -> None:
    for name in zmqmq.__all__:
        assert getattr(zmqmq, name) is not None
