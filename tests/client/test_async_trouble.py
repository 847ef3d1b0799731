"""The async client when tasks are cancelled, brokers die and programs misuse it: nothing is lost, nothing hangs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_broker import KillableBroker, interrupt_when_asleep
from loops import LOOPS, Loop, cancel, until

import zmqmq
from zmqmq import AsyncClient, Offset, errors


@pytest.fixture(params=sorted(LOOPS))
def loop(request: pytest.FixtureRequest) -> Loop:
    return Loop(request.param)


@pytest.fixture
def killable(tmp_path: Path) -> Iterator[KillableBroker]:
    broker = KillableBroker(tmp_path / "data")
    yield broker
    broker.close()


def test_a_cancelled_wait_for_a_receipt_takes_nothing_back_and_leaves_nothing_behind(loop: Loop, zmqmq_broker: Any) -> None:
    async def body() -> None:
        async with AsyncClient(zmqmq_broker.url) as mq:
            await mq.admin.create_topic("t")
            out = mq.producer("t", linger=60)
            handle = await out.send(b"x")
            waiting = [asyncio.ensure_future(handle) for _ in range(3)]
            await asyncio.sleep(0)
            assert len(handle.batch.watchers) == 3
            await cancel(waiting[0])
            assert len(handle.batch.watchers) == 2
            await out.flush(5)
            assert (await handle).offset == (await waiting[1]).offset == (await waiting[2]).offset == 0

            producing = asyncio.create_task(mq.produce("t", b"y"))
            while not mq.stats().buffered_bytes:
                await asyncio.sleep(0)
            await cancel(producing)
            async with mq.reader("t") as reader:
                assert [message.value for message in [await reader.poll(5), await reader.poll(5)] if message] == [b"x", b"y"]

    loop.run(body())


def test_a_cancelled_send_has_added_nothing_and_the_others_find_room(loop: Loop, killable: KillableBroker) -> None:
    async def body() -> None:
        async with AsyncClient(killable.url, timeout=10) as mq:
            await mq.admin.create_topic("t")
            async with mq.producer("t", batch_bytes=1_000, buffer_bytes=5_000, compression="none", linger=0) as out:
                killable.freeze()
                sent: list[int] = []

                async def send(number: int) -> None:
                    await out.send(b"%03d" % number * 30)
                    sent.append(number)

                tasks = [asyncio.create_task(send(number)) for number in range(200)]
                await asyncio.sleep(0.05)
                waiting = [number for number, task in enumerate(tasks) if not task.done()]
                assert waiting
                for number in waiting[::2]:
                    await cancel(tasks[number])
                killable.thaw()
                await asyncio.gather(*(tasks[number] for number in waiting[1::2]))
                await out.flush(10)
            async with mq.reader("t", stop=Offset.END) as reader:
                found = [int(message.value[:3]) async for message in reader]
            assert sorted(found) == sorted(sent) == sorted(set(range(200)) - set(waiting[::2]))

    loop.run(body())


@pytest.mark.parametrize("how", ["iterate", "batch", "poll"])
def test_reading_that_is_cancelled_again_and_again_skips_nothing(loop: Loop, zmqmq_broker: Any, how: str) -> None:
    chance = random.Random(7)
    found: list[int] = []

    async def read(reader: zmqmq.AsyncReader[bytes]) -> None:
        if how == "iterate":
            async for message in reader:
                found.append(message.offset)  # noqa: PERF401 - each counts as soon as it is handed out
        while True:
            got = await reader.batch(chance.randrange(1, 500)) if how == "batch" else [await reader.poll(1)]
            found.extend(message.offset for message in got if message is not None)

    async def body() -> None:
        async with AsyncClient(zmqmq_broker.url) as mq:
            await mq.admin.create_topic("t")
            async with mq.producer("t", batch_bytes=3_000, linger=0.001) as out:
                reader = mq.reader("t")
                cancelled = 0
                sent = 0
                while len(found) < 20_000:
                    if sent < 20_000:
                        await out.send_many([b"%d" % i for i in range(500)])
                        sent += 500
                    task = asyncio.create_task(read(reader))
                    for _ in range(chance.randrange(4)):
                        await asyncio.sleep(0)
                    await asyncio.wait([task], timeout=chance.random() * 0.003)
                    await cancel(task)
                    cancelled += 1
                assert await reader.position() == {0: 20_000}
            assert found == list(range(20_000))
            assert cancelled > 20

    loop.run(body())


def test_who_opens_first_may_be_cancelled(loop: Loop, killable: KillableBroker) -> None:
    async def body() -> None:
        async with AsyncClient(killable.url, timeout=10) as mq:
            await mq.admin.create_topic("t")
            killable.freeze()
            out = mq.producer("t")
            first, second = (asyncio.create_task(out.send(name)) for name in (b"1", b"2"))
            await asyncio.sleep(0.01)
            await cancel(first)
            killable.thaw()
            assert (await (await second)).offset == 0

    loop.run(body())


def test_kill_9_under_load_leaves_each_record_once_and_in_order(loop: Loop, killable: KillableBroker) -> None:
    async def body() -> None:
        async with AsyncClient(killable.url, timeout=20) as mq:
            await mq.admin.create_topic("t", 2)
            wanted = [b"%08d" % i for i in range(20_000)]
            handles = []
            async with mq.producer("t", batch_bytes=4_000, linger=0.001) as out:
                for start in range(0, len(wanted), 1_000):
                    handles += [await out.send(value, key=value[-1:]) for value in wanted[start : start + 1_000]]
                    if start == 10_000:
                        await handles[5_000]
                        killable.kill()
                        killable.start()
            receipts = [handle.result() for handle in handles]
            async with mq.reader("t", stop=Offset.END) as reader:
                found = {(message.partition, message.offset): message.value async for message in reader}
            assert [found[receipt.partition, receipt.offset or 0] for receipt in receipts] == wanted
            assert len(found) == len(wanted)

    loop.run(body())


@pytest.mark.parametrize("place", ["url", "inproc_url"])
def test_a_client_outlives_its_broker(loop: Loop, zmqmq_broker: Any, place: str) -> None:
    async def body() -> None:
        async with AsyncClient(getattr(zmqmq_broker, place), timeout=10) as mq:
            await mq.admin.create_topic("t")
            reader = mq.reader("t")
            assert (await mq.produce("t", b"1")).offset == 0
            assert [message.value for message in await reader.batch(1, 5)] == [b"1"]
            await asyncio.to_thread(zmqmq_broker.restart)
            assert (await mq.produce("t", b"2")).offset == 1
            assert [message.value for message in await reader.batch(1, 10)] == [b"2"]

    loop.run(body())


def test_a_hanging_broker_means_timeouts_that_tell_the_truth_and_a_close_that_ends(loop: Loop, killable: KillableBroker) -> None:
    async def body() -> None:
        mq = AsyncClient(killable.url, timeout=5)
        await mq.admin.create_topic("t")
        await mq.produce("t", b"1", timeout=0.3)
        out = mq.producer("t", max_block=0.1, batch_bytes=1_000, buffer_bytes=3_000, compression="none")
        await (await out.send(b"2"))
        reader = mq.reader("t", start=Offset.END)
        assert await reader.poll(0.05) is None
        killable.freeze()
        with pytest.raises(errors.OutcomeUnknown):
            await mq.produce("t", b"3", timeout=0.3)
        with pytest.raises((errors.BrokerUnavailable, errors.TimeoutError)):
            await mq.admin.topics(timeout=0.2)
        with pytest.raises(errors.BufferFull) as caught:
            await send_for_ever(out)
        assert caught.value.outcome == "not_written"
        with pytest.raises(errors.TimeoutError):
            await out.flush(0.05)
        waiting = asyncio.create_task(reader.poll(60))
        await asyncio.sleep(0)
        started = time.monotonic()
        with pytest.raises(errors.DeliveryFailed) as failed:
            await mq.close(0.1)
        assert {failure.outcome for failure in failed.value.failures} <= {"unknown", "not_written"}
        assert time.monotonic() - started < 2
        with pytest.raises(errors.ClosedError):
            await waiting
        await mq.close()

    loop.run(body())


async def send_for_ever(out: zmqmq.AsyncProducer[bytes]) -> None:
    while True:
        await out.send(bytes(100))


def test_a_cancelled_close_still_closes(loop: Loop, killable: KillableBroker) -> None:
    async def body() -> None:
        mq = AsyncClient(killable.url, timeout=10)
        await mq.admin.create_topic("t")
        out = mq.producer("t")
        handle = await out.send(b"x")
        killable.freeze()
        closing = asyncio.create_task(mq.close())
        await asyncio.sleep(0.05)
        await cancel(closing)
        with pytest.raises(errors.ZmqmqError):
            await handle
        with pytest.raises(errors.ClosedError):
            await mq.admin.topics()

    loop.run(body())


def test_what_is_closed_says_so_and_closing_twice_is_fine(loop: Loop, zmqmq_broker: Any) -> None:
    async def body() -> None:
        mq = AsyncClient(zmqmq_broker.url)
        await mq.admin.create_topic("t")
        out, reader, unused = mq.producer("t"), mq.reader("t"), mq.producer("t")
        await out.send(b"x")
        await reader.poll(5)
        waiting = asyncio.create_task(anext(aiter(mq.reader("t", start=Offset.END))))
        await until(lambda: mq.stats().readers == 2)
        for thing in (out, reader, mq):
            await thing.close()
            await thing.close()
        for use in (out.send(b"x"), reader.poll(), mq.produce("t", b"x"), mq.admin.topics(), unused.send(b"x"), waiting):
            with pytest.raises(errors.ClosedError):
                await use

    loop.run(body())


def test_another_loop_and_another_thread_are_refused(loop: Loop, zmqmq_broker: Any) -> None:
    async def use(mq: AsyncClient, out: zmqmq.AsyncProducer[bytes], reader: zmqmq.AsyncReader[bytes]) -> None:
        for call in (mq.admin.topics(), out.send(b"x"), reader.poll(), mq.produce("t", b"x"), mq.close(), out.flush()):
            with pytest.raises(errors.ClosedError, match="another event loop"):
                await call

    async def body() -> None:
        async with AsyncClient(zmqmq_broker.url) as mq:
            await mq.admin.create_topic("t")
            out, reader = mq.producer("t", linger=60), mq.reader("t")
            handle = await out.send(b"mine")
            assert await reader.poll() is None
            await asyncio.to_thread(asyncio.run, use(mq, out, reader))
            await out.flush(5)
            assert (await handle).offset == 0
            assert [message.value for message in await reader.batch()] == [b"mine"]

    loop.run(body())


def test_a_client_that_is_dropped_unclosed_is_warned_of_and_lets_go_of_everything(loop: Loop, zmqmq_broker: Any) -> None:
    async def body() -> None:
        mq = AsyncClient(zmqmq_broker.url)
        await mq.admin.create_topic("t")
        out = mq.producer("t", linger=60)
        handle = await out.send(b"x")
        with pytest.warns(ResourceWarning, match="AsyncProducer.*undelivered"):
            del out
        with pytest.warns(ResourceWarning, match="without close"):
            del mq
        with pytest.raises(errors.ZmqmqError):
            await handle
        AsyncClient(zmqmq_broker.url)  # was never used: nothing to close

    loop.run(body())


def test_a_client_that_outlives_its_loop_is_warned_of_and_lets_go_of_everything(loop: Loop, zmqmq_broker: Any) -> None:
    kept: list[AsyncClient] = []

    async def body() -> None:
        kept.append(AsyncClient(zmqmq_broker.url))
        await kept[0].admin.create_topic("t")

    loop.run(body())
    with pytest.warns(ResourceWarning, match="without close"):
        kept.clear()
    gc.collect()


def test_after_fork_the_child_is_told_and_the_parent_goes_on(loop: Loop, zmqmq_broker: Any) -> None:
    program = """
import asyncio, os, sys, time, warnings, zmqmq
from zmqmq.errors import ClosedError
from loops import LOOPS
warnings.simplefilter("ignore", DeprecationWarning)
async def main():
    mq = zmqmq.AsyncClient(sys.argv[1])
    await mq.admin.create_topic("t")
    out = mq.producer("t", linger=60)
    reader = mq.reader("t")
    await reader.poll()
    handle = await out.send(b"parent")
    pid = os.fork()
    if pid == 0:
        async def wait(): await handle
        uses = (out.send(b"child"), mq.produce("t", b"child"), reader.poll(1), mq.admin.topics(), wait(), out.flush())
        told = 0
        for use in uses:
            try:
                await use
            except ClosedError as error:
                told += "fork" in str(error)
        await mq.close()
        os._exit(0 if told == len(uses) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    await out.flush(5)
    assert (await handle).offset == 0
    assert (await mq.admin.offsets("t"))[0].end == 1
    await mq.close()
with asyncio.Runner(loop_factory=LOOPS[sys.argv[2]]) as runner:
    runner.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, zmqmq_broker.url, loop.kind],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0, done.stderr


def test_ctrl_c_ends_a_program_in_bounded_time(loop: Loop, killable: KillableBroker) -> None:
    program = """
import asyncio, sys, zmqmq
from loops import LOOPS
async def main():
    async with zmqmq.AsyncClient(sys.argv[1], timeout=0.5) as mq:
        await mq.admin.create_topic("t", exist_ok=True)
        await mq.produce("t", b"x")
        out = mq.producer("t", linger=0)
        await (await out.send(b"x"))
        print("go", flush=True)
        sys.stdin.readline()
        async for _ in mq.reader("t", start=zmqmq.Offset.END):
            pass
try:
    with asyncio.Runner(loop_factory=LOOPS[sys.argv[2]]) as runner:
        runner.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    command = [sys.executable, "-W", "error", "-c", program, killable.url, loop.kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "go\n"
        killable.freeze()
        child.stdin.write("\n")
        child.stdin.flush()
        interrupt_when_asleep(child.pid)
        assert child.stdout.readline() == "interrupted\n"
        assert child.wait(10) == 0
        killable.thaw()


def test_an_interrupt_inside_the_machinery_ends_the_client_truthfully(zmqmq_broker: Any) -> None:
    """Ctrl-C may strike anywhere when the program does not let its loop handle it."""
    held: list[object] = []

    async def begin(mq: AsyncClient) -> zmqmq.AsyncHandle:
        await mq.admin.create_topic("t")
        out = mq.producer("t", linger=60)
        handle = await out.send(b"x")
        held.append(out)
        return handle

    async def end(mq: AsyncClient, handle: zmqmq.AsyncHandle) -> None:
        with pytest.raises(errors.ZmqmqError):
            await handle
        with pytest.raises(errors.ClosedError, match="KeyboardInterrupt"):
            await mq.admin.topics()
        with pytest.raises(errors.DeliveryFailed):
            await mq.close()

    async def strike(mq: AsyncClient) -> None:
        def interrupted(_now_ms: int) -> None:
            raise KeyboardInterrupt

        mq._driver.call(interrupted)
        await asyncio.sleep(10)

    runner = asyncio.new_event_loop()
    mq = AsyncClient(zmqmq_broker.url)
    handle = runner.run_until_complete(begin(mq))
    struck = runner.create_task(strike(mq))
    with pytest.raises(KeyboardInterrupt):
        runner.run_until_complete(struck)
    struck.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        runner.run_until_complete(struck)
    runner.run_until_complete(end(mq, handle))
    runner.close()


def test_signals_stop_a_loop_over_a_reader(loop: Loop, zmqmq_broker: Any) -> None:
    async def body() -> None:
        async with AsyncClient(zmqmq_broker.url) as mq:
            await mq.admin.create_topic("t")
            async with mq.reader("t") as reader:
                with zmqmq.stop_on_signals(reader):
                    threading.Timer(0.05, signal.raise_signal, [signal.SIGTERM]).start()
                    assert [message async for message in reader] == []

    loop.run(body())
