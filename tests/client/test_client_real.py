"""The sync client against real brokers: what it promises when all is well, and when it is not."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from client_broker import KillableBroker, interrupt_when_asleep

import zmqmq
from zmqmq import Client, Offset, errors

SECOND = dt.timedelta(seconds=1)


class Order(msgspec.Struct, frozen=True):
    id: int
    customer: str


@pytest.fixture
def mq(zmqmq_broker: Any) -> Iterator[Client]:
    with Client(zmqmq_broker.url) as client:
        client.admin.create_topic("orders", 3)
        client.admin.create_topic("one", 1)
        yield client


@pytest.fixture
def killable(tmp_path: Path) -> Iterator[KillableBroker]:
    broker = KillableBroker(tmp_path / "data")
    yield broker
    broker.close()


def values(client: Client, topic: str, **arguments: Any) -> list[bytes]:
    with client.reader(topic, stop=Offset.END, **arguments) as reader:
        return [message.value for message in reader]


def test_a_receipt_says_where_the_record_is_and_how_safe(mq: Client) -> None:
    receipts = [mq.produce("one", b"%d" % i, key="ann") for i in range(3)]
    assert [receipt.offset for receipt in receipts] == [0, 1, 2]
    assert {(receipt.topic, receipt.partition, receipt.replicas, receipt.synced) for receipt in receipts} == {("one", 0, 1, 1)}
    assert abs(receipts[0].timestamp - dt.datetime.now(dt.UTC)) < 60 * SECOND


def test_without_acks_the_receipt_promises_nothing(mq: Client) -> None:
    receipt = mq.produce("one", b"x", acks=0)
    assert (receipt.offset, receipt.replicas, receipt.synced) == (None, 0, 0)


def test_a_record_comes_back_with_everything_it_was_sent_with(mq: Client) -> None:
    when = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, dt.UTC)
    mq.produce("orders", b"hello", key="ann", headers={"src": b"web"}, partition=2, timestamp=when)
    with mq.reader("orders", stop=Offset.END) as reader:
        (message,) = reader
    assert (message.topic, message.partition, message.offset, message.leader_epoch >= 0) == ("orders", 2, 0, True)
    assert (message.key, message.value, message.headers, message.timestamp) == (b"ann", b"hello", {"src": b"web"}, when)


def test_typed_values_and_tombstones(mq: Client) -> None:
    serde = zmqmq.json(Order)
    with mq.producer("one", value=serde) as out:
        out.send(Order(1, "ann"), key="ann")
        out.send(None, key="ann")
    with mq.reader("one", value=serde, key=zmqmq.text(), stop=Offset.END) as reader:
        first, second = reader
    assert (first.value, first.value is first.value, first.key) == (Order(1, "ann"), True, "ann")
    assert second.is_tombstone
    assert second.value is None  # type: ignore[comparison-overlap]  # a tombstone's value, as documented


def test_a_value_that_does_not_decode_names_its_place_and_carries_the_raw_message(mq: Client) -> None:
    mq.produce("one", b"{", key="k")
    with mq.reader("one", value=zmqmq.json(Order), stop=Offset.END) as reader:
        (message,) = reader
        with pytest.raises(errors.DeserializationError, match="one-0@0") as caught:
            _ = message.value
    assert caught.value.message.raw_value == b"{"


def test_one_key_stays_in_order_in_one_partition_however_it_is_sent(mq: Client) -> None:
    with mq.producer("orders") as out:
        single = [out.send(b"a%d" % i, key=b"ann") for i in range(100)]
        many = out.send_many([b"b%d" % i for i in range(5_000)], keys=[b"ann", b"bob", b"cy", b"di", b"ed"] * 1_000)
        out.flush(10)
    assert {handle.result().partition for handle in (*single, *many[::5])} == {single[0].result().partition}
    assert [receipt.offset for receipt in many.result()[::5]] == sorted(receipt.offset or 0 for receipt in many.result()[::5])
    with mq.reader("orders", stop=Offset.END) as reader:
        ann = [message.value for message in reader if message.key == b"ann"]
    assert ann == [b"a%d" % i for i in range(100)] + [b"b%d" % i for i in range(0, 5_000, 5)]


def test_send_many_gives_each_record_its_own_receipt(mq: Client) -> None:
    wanted = [b"%0300d" % i for i in range(3_000)]
    with mq.producer("orders") as out:
        out.send(b"before")
        handle = out.send_many(wanted)
        receipts = handle.result(10)
    found: dict[tuple[int, int], bytes] = {}
    with mq.reader("orders", stop=Offset.END) as reader:
        for message in reader:
            found[message.partition, message.offset] = message.value
    assert [found[receipt.partition, receipt.offset or 0] for receipt in receipts] == wanted
    assert len(handle) == len(wanted)


def test_a_callback_hears_of_the_receipt_once(mq: Client) -> None:
    heard: list[int | None] = []
    with mq.producer("one") as out:
        handle = out.send(b"x")
        handle.add_done_callback(lambda done: heard.append(done.result().offset))
        handle.result(5)
        out.flush(5)
        handle.add_done_callback(lambda done: heard.append(done.result().offset))
    assert heard == [0, 0]


@pytest.mark.parametrize(
    ("start", "stop", "wanted"),
    [
        (Offset.START, Offset.END, range(10)),
        (3, 6, range(3, 6)),
        (Offset.last(2), Offset.END, range(8, 10)),
        (Offset.after_start(7), Offset.END, range(7, 10)),
        (Offset.START, Offset.last(4), range(6)),
        (Offset.END, Offset.END, range(0)),
        ({0: 9}, {0: Offset.END}, range(9, 10)),
    ],
)
def test_a_reader_reads_from_its_start_to_its_stop(mq: Client, start: Any, stop: Any, wanted: range) -> None:
    with mq.producer("one") as out:
        out.send_many([b"%d" % i for i in range(10)])
    with mq.reader("one", start=start, stop=stop, value=zmqmq.text()) as reader:
        assert [int(message.value) for message in reader] == list(wanted)
        assert reader.position() == {0: wanted.stop if wanted else 10}


def test_a_reader_begins_at_a_time(mq: Client) -> None:
    mq.produce("one", b"old")
    later = mq.produce("one", b"new").timestamp
    found = values(mq, "one", start=later)
    assert found[-1] == b"new"
    assert values(mq, "one", start=later + SECOND) == []


def test_reading_in_pieces_loses_nothing_between_them(mq: Client) -> None:
    with mq.producer("one") as out:
        out.send_many([b"%d" % i for i in range(1_000)])
    with mq.reader("one", stop=Offset.END, value=zmqmq.text()) as reader:
        first = reader.poll(5)
        assert first is not None
        found = [first, *reader.batch(10)]
        for message in reader:
            found.append(message)
            if message.offset == 500:
                break
        assert reader.position() == {0: 501}
        for batch in reader.batches(100):
            assert len(batch) <= 100
            found += batch
        assert reader.poll() is None
    assert [int(message.value) for message in found] == list(range(1_000))


def test_an_idle_reader_ends_its_loop_after_its_timeout_and_gives_an_empty_batch(mq: Client) -> None:
    with mq.reader("one", timeout=0.05) as reader:
        assert list(reader) == []
        assert reader.batch(10, 0.01) == []
        mq.produce("one", b"x")
        assert [message.value for message in reader] == [b"x"]


def test_seek_goes_back_and_forth(mq: Client) -> None:
    with mq.producer("one") as out:
        out.send_many([b"%d" % i for i in range(100)])
    with mq.reader("one") as reader:
        assert len(reader.batch(50)) == 50
        reader.seek(10)
        assert reader.position() == {0: 10}
        message = reader.poll(5)
        assert message is not None
        assert message.offset == 10
        reader.seek(Offset.last(1))
        message = reader.poll(5)
        assert message is not None
        assert message.offset == 99


def test_stop_ends_a_waiting_loop_and_the_position_stays_before_what_was_not_handed_out(mq: Client) -> None:
    with mq.producer("one") as out:
        out.send_many([b"%d" % i for i in range(100)])
    with mq.reader("one") as reader:
        for message in reader:
            if message.offset == 41:
                reader.stop()
        assert reader.position() == {0: 42}
    with mq.reader("one", start=Offset.END) as reader:
        threading.Timer(0.05, reader.stop).start()
        assert list(reader) == []


def test_retention_past_a_reader_is_told_not_skipped(mq: Client) -> None:
    with mq.producer("one") as out:
        out.send_many([b"%d" % i for i in range(10)])
    assert mq.admin.delete_records("one", {0: 5}) == {0: 5}
    with mq.reader("one", start=2) as reader:
        with pytest.raises(errors.DataLost) as caught:
            reader.poll(5)
        assert caught.value.log_start == 5
        with pytest.raises(errors.DataLost):
            reader.poll(5)
        reader.seek(Offset.START)
        message = reader.poll(5)
        assert message is not None
        assert message.offset == 5


def test_admin_tells_what_there_is(mq: Client) -> None:
    assert [topic.name for topic in mq.admin.topics()] == ["one", "orders"]
    assert mq.admin.create_topic("one", exist_ok=True).partition_count == 1
    with pytest.raises(errors.TopicExists):
        mq.admin.create_topic("one")
    assert mq.admin.alter_topic("one", {"retention_ms": "1d"}).overrides == {"retention_ms": "1d"}
    assert mq.admin.alter_topic("one", unset=["retention_ms"]).overrides == {}
    with pytest.raises(errors.UnknownTopic) as caught:
        mq.admin.describe_topic("ordres")
    assert caught.value.similar == ("orders",)
    assert mq.admin.offsets("one")[0].end == 0
    assert mq.admin.ping()[0].seconds < 1
    assert mq.admin.stats()[0].node_id == 0


def test_a_topic_made_anew_under_its_old_name_is_written_again(mq: Client) -> None:
    mq.produce("one", b"old")
    mq.admin.delete_topic("one")
    mq.admin.create_topic("one")
    assert mq.produce("one", b"new").offset == 0
    mq.admin.delete_topic("one")
    with pytest.raises(errors.UnknownTopic, match="'one' does not exist"):
        mq.produce("one", b"lost")


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda mq: mq.produce("one", "text"), "bytes"),
        (lambda mq: mq.produce("one", b"x", partition=9), "no partition 9"),
        (lambda mq: mq.produce("one", b"x", acks="some"), "acks"),
        (lambda mq: mq.produce("one", b"x", headers={"a": "b"}), "header"),
        (lambda mq: mq.producer("one", linger=-1), "linger"),
        (lambda mq: mq.reader("one", start=-5), "negative"),
        (lambda mq: Client("localhost:5570"), "address"),
    ],
)
def test_bad_arguments_are_refused_by_name(mq: Client, call: Any, rule: str) -> None:
    with pytest.raises(errors.InvalidConfig, match=rule):
        call(mq)


def test_a_record_over_the_limit_is_refused_before_it_is_sent(mq: Client) -> None:
    with pytest.raises(errors.MessageTooLarge) as caught:
        mq.produce("one", bytes(2 << 20))
    assert caught.value.outcome == "not_written"


def test_inproc_and_tcp_are_the_same_client(zmqmq_broker: Any) -> None:
    with Client(zmqmq_broker.inproc_url) as near, Client(zmqmq_broker.url) as far:
        near.admin.create_topic("t")
        far.produce("t", b"1")
        assert values(near, "t") == [b"1"]


def test_no_broker_is_named_with_address_and_step_at_the_deadline() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    started = time.monotonic()
    with Client(address, timeout=0.3) as mq, pytest.raises(errors.BrokerUnavailable, match=f"{address}: connection refused .connect"):
        mq.produce("t", b"x")
    assert time.monotonic() - started < 2


def test_a_port_that_is_not_zmqmq_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        with Client(address, timeout=0.3) as mq, pytest.raises(errors.BrokerUnavailable, match=address):
            mq.produce("t", b"x")


def test_a_broker_that_restarts_is_found_again_by_producer_and_reader(zmqmq_broker: Any) -> None:
    for url in (zmqmq_broker.url, zmqmq_broker.inproc_url):
        topic = url.partition(":")[0]
        with Client(url, timeout=10) as mq:
            mq.admin.create_topic(topic)
            with mq.reader(topic) as reader:
                assert mq.produce(topic, b"1").offset == 0
                assert [message.value for message in reader.batch(1, 5)] == [b"1"]
                zmqmq_broker.restart()
                assert mq.produce(topic, b"2").offset == 1
                assert [message.value for message in reader.batch(1, 10)] == [b"2"]


def test_kill_9_under_load_leaves_each_record_once_and_in_order(killable: KillableBroker) -> None:
    with Client(killable.url, timeout=20) as mq:
        mq.admin.create_topic("t", 2)
        wanted = [b"%08d" % i for i in range(60_000)]
        with mq.producer("t", batch_bytes=4_000, linger=0.001) as out:
            handles = []
            for start in range(0, len(wanted), 1_000):
                handles += [out.send(value, key=value[-1:]) for value in wanted[start : start + 1_000]]
                if start in {10_000, 30_000}:
                    handles[start // 2].result(20)
                    killable.kill()
                    killable.start()
            out.flush(30)
        receipts = [handle.result() for handle in handles]
        with mq.reader("t", stop=Offset.END) as reader:
            found = {(message.partition, message.offset): message.value for message in reader}
    assert [found[receipt.partition, receipt.offset or 0] for receipt in receipts] == wanted
    assert len(found) == len(wanted)
    for partition in range(2):
        ordered = [value for (number, _), value in sorted(found.items()) if number == partition]
        assert ordered == sorted(ordered)


def test_the_outcome_is_unknown_when_the_broker_hangs_and_not_written_when_it_was_never_reached(killable: KillableBroker) -> None:
    with Client(killable.url, timeout=5) as mq:
        mq.admin.create_topic("t")
        mq.produce("t", b"1", timeout=0.5)
        killable.freeze()
        with pytest.raises(errors.OutcomeUnknown) as unknown:
            mq.produce("t", b"2", timeout=0.5)
        assert unknown.value.outcome == "unknown"
        killable.thaw()
        assert mq.produce("t", b"3", timeout=5).offset in {1, 2}
        killable.kill()
        with pytest.raises(errors.RetriableError):
            mq.produce("t", b"4", timeout=0.3)  # the client may not know yet that the broker is gone
        with pytest.raises(errors.BrokerUnavailable) as caught:
            mq.produce("t", b"4", timeout=0.3)
        assert caught.value.outcome == "not_written"


def test_flush_and_close_list_what_was_lost(killable: KillableBroker) -> None:
    mq = Client(killable.url, timeout=5)
    mq.admin.create_topic("t")
    out = mq.producer("t", value=zmqmq.text(), delivery_timeout=0.3)
    out.send("kept").result(5)
    killable.kill()
    handle = out.send("lost", key="ann")
    with pytest.raises(errors.DeliveryFailed) as caught:
        out.flush(5)
    (failure,) = caught.value.failures
    assert (failure.topic, failure.key, failure.value) == ("t", b"ann", b"lost")
    with pytest.raises(errors.ZmqmqError):
        handle.result(0)
    out.send("lost too")
    started = time.monotonic()
    with pytest.raises(errors.DeliveryFailed):
        mq.close(0.1)
    assert time.monotonic() - started < 3
    mq.close()


def test_a_full_buffer_blocks_and_then_says_so(killable: KillableBroker) -> None:
    with Client(killable.url, timeout=5) as mq:
        mq.admin.create_topic("t")
        out = mq.producer("t", batch_bytes=1_000, buffer_bytes=10_000, max_block=0.1, compression="none", delivery_timeout=0.6)
        killable.freeze()
        with pytest.raises(errors.BufferFull) as caught:
            send_for_ever(out)
        assert caught.value.outcome == "not_written"
        assert mq.stats().buffered_bytes < 40_000
        killable.thaw()
        with contextlib.suppress(errors.DeliveryFailed):  # whether the broker woke in time is not the question here
            out.close(5)


def send_for_ever(out: zmqmq.Producer[bytes]) -> None:
    while True:
        out.send(bytes(100))


def test_ctrl_c_interrupts_every_wait(killable: KillableBroker) -> None:
    program = """
import sys, zmqmq
mq = zmqmq.Client(sys.argv[1], timeout=60)
mq.admin.create_topic("t", exist_ok=True)
waits = {
    "reader": lambda: next(iter(mq.reader("t", start=zmqmq.Offset.END))),
    "produce": lambda: mq.produce("t", b"x"),
    "flush": lambda: (out := mq.producer("t"), out.send(b"x"), out.flush()),
    "admin": lambda: mq.admin.topics(),
}
if sys.argv[2] != "reader":
    mq.produce("t", b"x")
    mq.producer("t").close()
print("go", flush=True)
sys.stdin.readline()
try:
    waits[sys.argv[2]]()
except KeyboardInterrupt:
    print("interrupted", flush=True)
    try:
        mq.close(0.2)
    except zmqmq.ZmqmqError:
        pass
"""
    for wait in ("reader", "produce", "admin"):
        command = [sys.executable, "-c", program, killable.url, wait]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stdout.readline() == "go\n"
            killable.freeze()
            child.stdin.write("\n")
            child.stdin.flush()
            interrupt_when_asleep(child.pid)
            assert child.stdout.readline() == "interrupted\n", wait
            assert child.wait(10) == 0
            killable.thaw()


def test_after_fork_the_child_is_told_and_the_parent_goes_on(zmqmq_broker: Any) -> None:
    program = """
import os, sys, time, warnings, zmqmq
from zmqmq.errors import ClosedError
warnings.simplefilter("ignore", DeprecationWarning)
mq = zmqmq.Client(sys.argv[1])
mq.admin.create_topic("t")
out = mq.producer("t", linger=60)
reader = mq.reader("t")
handle = out.send(b"parent")
started = time.monotonic()
pid = os.fork()
if pid == 0:
    uses = (lambda: out.send(b"child"), lambda: mq.produce("t", b"child"), lambda: reader.poll(1), lambda: mq.admin.topics(),
            lambda: handle.result(1), lambda: mq.producer("t"), lambda: out.flush())
    told = 0
    for use in uses:
        try:
            use()
        except ClosedError as error:
            told += "fork" in str(error)
    mq.close()
    os._exit(0 if told == len(uses) and time.monotonic() - started < 5 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
out.flush(5)
assert handle.result().offset == 0
with zmqmq.Client(sys.argv[1]) as other:
    assert other.admin.offsets("t")[0].end == 1
reader.close()
mq.close()
"""
    done = subprocess.run([sys.executable, "-c", program, zmqmq_broker.url], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unsent_record_that_is_garbage_collected_is_warned_of(zmqmq_broker: Any) -> None:
    with Client(zmqmq_broker.url) as mq:
        mq.admin.create_topic("t")
        out = mq.producer("t", linger=60)
        out.send(b"x")
        with pytest.warns(ResourceWarning, match="undelivered"):
            del out


def test_what_is_closed_says_so_and_closing_twice_is_fine(zmqmq_broker: Any) -> None:
    mq = Client(zmqmq_broker.url)
    mq.admin.create_topic("t")
    out, reader = mq.producer("t"), mq.reader("t")
    for thing in (out, reader, mq):
        thing.close()
        thing.close()
    for use in (lambda: out.send(b"x"), reader.poll, lambda: mq.produce("t", b"x"), mq.admin.topics):
        with pytest.raises(errors.ClosedError):
            use()


def test_a_callback_that_raises_is_logged_and_the_client_goes_on(mq: Client, caplog: pytest.LogCaptureFixture) -> None:
    with mq.producer("one") as out:
        out.send(b"x").add_done_callback(lambda _handle: 1 // 0)
        out.flush(5)
        assert out.send(b"y").result(5).offset == 1
    assert "ZeroDivisionError" in caplog.text


def test_a_reader_that_waits_is_told_when_its_client_closes(zmqmq_broker: Any) -> None:
    mq = Client(zmqmq_broker.url)
    mq.admin.create_topic("t")
    reader = mq.reader("t")
    threading.Timer(0.1, mq.close).start()
    with pytest.raises(errors.ClosedError):
        next(iter(reader))


def test_many_threads_share_a_producer(mq: Client) -> None:
    with mq.producer("orders", batch_bytes=2_000) as out:

        def work(name: int) -> None:
            for i in range(500):
                out.send(b"%d" % i, key=b"%d" % name)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with mq.reader("orders", stop=Offset.END) as reader:
        found: dict[bytes, list[int]] = {}
        for message in reader:
            found.setdefault(message.key, []).append(int(message.value))
    assert found == {b"%d" % name: list(range(500)) for name in range(4)}


def test_a_program_that_forgets_to_close_loses_nothing(zmqmq_broker: Any) -> None:
    program = f"""
import zmqmq
mq = zmqmq.Client({zmqmq_broker.url!r})
mq.admin.create_topic("forgot")
out = mq.producer("forgot", linger=60)
handles = [out.send(b"%d" % number) for number in range(1000)]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [message.value for message in zmqmq_broker.messages("forgot")] == [b"%d" % number for number in range(1000)]


def test_a_client_that_is_dropped_with_undelivered_records_says_so_aloud(zmqmq_broker: Any, caplog: pytest.LogCaptureFixture) -> None:
    mq = zmqmq.Client(zmqmq_broker.url)
    mq.admin.create_topic("dropped")
    out = mq.producer("dropped", linger=60)
    out.send(b"x")
    held = [mq, out]
    del mq, out
    with pytest.warns(ResourceWarning):
        held.clear()
    assert "1 records were not delivered" in caplog.text
