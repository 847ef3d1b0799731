"""Wrong arguments: each is refused at the call, by name, in words, by threads and tasks alike, and nothing is sent."""

from __future__ import annotations

import asyncio
import datetime as dt
import inspect
from collections.abc import Callable, Coroutine, Iterator
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loops import DEADLINE_S

import zmqmq
from zmqmq import AsyncClient, Client, Offset
from zmqmq.client.arguments import (
    INTEGER_MAX,
    addresses_of,
    config_of,
    count_of,
    items_of,
    maybe_seconds_of,
    offset_of,
    partitions_of,
    places_of,
    seconds_of,
    text_of,
    topic_of,
)
from zmqmq.errors import InvalidConfig, UnknownTopic, ZmqmqError

NAIVE = dt.datetime(2020, 1, 1)  # noqa: DTZ001 - without a zone on purpose
TOMORROW = dt.timedelta(days=1)
LONE = "\ud800"
"""Half a surrogate pair: a str that has no UTF-8."""

Refusal = tuple[str, Callable[[Any], Any], str]


class Partition(IntEnum):
    SECOND = 1


def refusals(prefix: str, *rows: tuple[Callable[[Any], Any], str]) -> list[Refusal]:
    """Named rows: the call, and how the message of the error begins."""
    return [(f"{prefix}: {begin}", call, begin) for call, begin in rows]


RECORDS = refusals(
    "produce",
    (lambda mq: mq.produce("t", "x"), "a raw value must be bytes, got str"),
    (lambda mq: mq.produce("t", 1), "a raw value must be bytes, got int"),
    (lambda mq: mq.produce("t", b"x", key=LONE), "text must be a str that has UTF-8"),
    (lambda mq: mq.produce("t", b"x", key=1), "a key must be bytes or str, got int"),
    (lambda mq: mq.produce("t", b"x", partition="0"), "partition is '0' (str)"),
    (lambda mq: mq.produce("t", b"x", partition=0.0), "partition is 0.0 (float)"),
    (lambda mq: mq.produce("t", b"x", partition=True), "partition is True (bool)"),
    (lambda mq: mq.produce("t", b"x", key=b"k", partition=1.0), "partition is 1.0 (float)"),
    (lambda mq: mq.produce("t", b"x", partition=[0]), "partition is [0] (list)"),
    (lambda mq: mq.produce("t", b"x", partition=7), "topic t has no partition 7"),
    (lambda mq: mq.produce("t", b"x", partition=-1), "topic t has no partition -1"),
    (lambda mq: mq.produce("t", b"x", headers=[("a", b"1")]), "headers is [('a', b'1')] (list)"),
    (lambda mq: mq.produce("t", b"x", headers={"a": "1"}), "header 'a' is '1' (str)"),
    (lambda mq: mq.produce("t", b"x", headers={b"a": b"1"}), "the name of a header is b'a' (bytes)"),
    (lambda mq: mq.produce("t", b"x", headers={LONE: b"1"}), r"the name of a header is '\ud800' (str)"),
    (lambda mq: mq.produce("t", b"x", timestamp=12), "timestamp is 12 (int)"),
    (lambda mq: mq.produce("t", b"x", timestamp=dt.date(2020, 1, 1)), "timestamp is datetime.date(2020, 1, 1) (date)"),
    (lambda mq: mq.produce("t", b"x", timestamp=NAIVE), "timestamp is datetime.datetime(2020, 1, 1, 0, 0) (datetime)"),
)
"""What is wrong with a record is seen when its topic is known."""

CLIENT: list[Refusal] = [
    *refusals(
        "produce",
        (lambda mq: mq.produce("t", b"x", timeout="5s"), "timeout is '5s' (str)"),
        (lambda mq: mq.produce("t", b"x", timeout=0), "timeout is 0 s"),
        (lambda mq: mq.produce("t", b"x", acks=2), "acks is 2 (int)"),
        (lambda mq: mq.produce("t", b"x", acks=True), "acks is True (bool)"),
        (lambda mq: mq.produce("t", b"x", acks=["all"]), "acks is ['all'] (list)"),
        (lambda mq: mq.produce(3, b"x"), "topic is 3 (int)"),
        (lambda mq: mq.produce(None, b"x"), "topic is None (NoneType)"),
        (lambda mq: mq.produce(b"t", b"x"), "topic is b't' (bytes)"),
        (lambda mq: mq.produce(["t"], b"x"), "topic is ['t'] (list)"),
    ),
    *refusals(
        "producer",
        (lambda mq: mq.producer(3), "topic is 3 (int)"),
        (lambda mq: mq.producer("t", linger="5ms"), "linger is '5ms' (str)"),
        (lambda mq: mq.producer("t", linger=-1), "linger is -1 s"),
        (lambda mq: mq.producer("t", linger=True), "linger is True (bool)"),
        (lambda mq: mq.producer("t", max_block=None), "max_block is None (NoneType)"),
        (lambda mq: mq.producer("t", delivery_timeout=float("nan")), "delivery_timeout is nan s"),
        (lambda mq: mq.producer("t", batch_bytes=0), "batch_bytes is 0"),
        (lambda mq: mq.producer("t", batch_bytes="1MB"), "batch_bytes is '1MB' (str)"),
        (lambda mq: mq.producer("t", buffer_bytes=1e6), "buffer_bytes is 1000000.0 (float)"),
        (lambda mq: mq.producer("t", idempotent="no"), "idempotent is 'no' (str)"),
        (lambda mq: mq.producer("t", compression=["zstd"]), "compression is ['zstd'] (list)"),
        (lambda mq: mq.producer("t", value=str), "value is <class 'str'> (type)"),
        (lambda mq: mq.producer("t", key="json"), "key is 'json' (str)"),
    ),
    *refusals(
        "reader",
        (lambda mq: mq.reader(3), "topic is 3 (int)"),
        (lambda mq: mq.reader("t", start=1.5), "start is 1.5 (float)"),
        (lambda mq: mq.reader("t", start="start"), "start is 'start' (str)"),
        (lambda mq: mq.reader("t", start=False), "start is False (bool)"),
        (lambda mq: mq.reader("t", start=-1), "start must not be negative, got -1"),
        (lambda mq: mq.reader("t", start=1 << 63), "start is 9223372036854775808 (int)"),
        (lambda mq: mq.reader("t", start=NAIVE), "start is datetime.datetime(2020, 1, 1, 0, 0) (datetime)"),
        (lambda mq: mq.reader("t", start=Offset("latest")), "start is Offset(kind='latest', value=0) (Offset)"),
        (lambda mq: mq.reader("t", stop=Offset("exact", 1.5)), "stop is Offset(kind='exact', value=1.5) (Offset)"),
        (lambda mq: mq.reader("t", start={0: "end"}), "start[0] is 'end' (str)"),
        (lambda mq: mq.reader("t", start={"0": 1}), "a partition in start is '0' (str)"),
        (lambda mq: mq.reader("t", stop="end"), "stop is 'end' (str)"),
        (lambda mq: mq.reader("t", partitions=0), "partitions is 0 (int)"),
        (lambda mq: mq.reader("t", partitions="01"), "partitions is '01' (str)"),
        (lambda mq: mq.reader("t", partitions=["0"]), "partition is '0' (str)"),
        (lambda mq: mq.reader("t", partitions=[]), "partitions is [] (list)"),
        (lambda mq: mq.reader("t", timeout="1"), "timeout is '1' (str)"),
        (lambda mq: mq.reader("t", buffer_bytes=0), "buffer_bytes is 0"),
        (lambda mq: mq.reader("t", value=zmqmq.json), "value is <function json at"),
    ),
    *refusals(
        "admin",
        (lambda mq: mq.admin.create_topic("u", partitions=-1), "partitions is -1"),
        (lambda mq: mq.admin.create_topic("u", partitions="3"), "partitions is '3' (str)"),
        (lambda mq: mq.admin.create_topic("u", replication_factor=1.0), "replication_factor is 1.0 (float)"),
        (lambda mq: mq.admin.create_topic("u", exist_ok=1), "exist_ok is 1 (int)"),
        (lambda mq: mq.admin.create_topic("a/b"), "topic name 'a/b' is not allowed"),
        (lambda mq: mq.admin.create_topic("__mine"), "topic name '__mine' is reserved"),
        (lambda mq: mq.admin.create_topic(3), "name is 3 (int)"),
        (lambda mq: mq.admin.create_topic("u", config=["a"]), "config is ['a'] (list)"),
        (lambda mq: mq.admin.create_topic("u", config=[]), "config is [] (list)"),
        (lambda mq: mq.admin.create_topic("u", config={"retention_ms": None}), "config['retention_ms'] is None (NoneType)"),
        (lambda mq: mq.admin.create_topic("u", config={1: "7d"}), "a name in config is 1 (int)"),
        (lambda mq: mq.admin.delete_topic(None), "name is None (NoneType)"),
        (lambda mq: mq.admin.describe_topic(b"t"), "name is b't' (bytes)"),
        (lambda mq: mq.admin.alter_topic("t", {"retention_ms": TOMORROW}), "set['retention_ms'] is datetime.timedelta(days=1)"),
        (lambda mq: mq.admin.alter_topic("t", unset="retention_ms"), "unset is 'retention_ms' (str)"),
        (lambda mq: mq.admin.alter_topic("t", unset=[1]), "a name in unset is 1 (int)"),
        (lambda mq: mq.admin.topics(internal="yes"), "internal is 'yes' (str)"),
        (lambda mq: mq.admin.topics(timeout="1"), "timeout is '1' (str)"),
        (lambda mq: mq.admin.stats(partitions=1), "partitions is 1 (int)"),
        (lambda mq: mq.admin.ping(timeout=[]), "timeout is [] (list)"),
        (lambda mq: mq.admin.delete_records("t", {0: Offset.exact(1)}), "before[0] is Offset(kind='exact', value=1) (Offset)"),
        (lambda mq: mq.admin.delete_records("t", {0: "1"}), "before[0] is '1' (str)"),
        (lambda mq: mq.admin.delete_records("t", {0: -5}), "before[0] is -5"),
        (lambda mq: mq.admin.delete_records("t", {True: 1}), "a partition in before is True (bool)"),
        (lambda mq: mq.admin.delete_records("t", [0]), "before is [0] (list)"),
        (lambda mq: mq.admin.offsets("t", at="yesterday"), "at is 'yesterday' (str)"),
        (lambda mq: mq.admin.offsets("t", partitions="01"), "partitions is '01' (str)"),
        (lambda mq: mq.admin.offsets("t", partitions=[0.0]), "partition is 0.0 (float)"),
    ),
    *refusals("close", (lambda mq: mq.close("5"), "timeout is '5' (str)")),
]

READER = refusals(
    "reader",
    (lambda reader: reader.seek("end"), "place is 'end' (str)"),
    (lambda reader: reader.seek({0: "end"}), "place[0] is 'end' (str)"),
    (lambda reader: reader.seek(0, partition="0"), "partition is '0' (str)"),
    (lambda reader: reader.seek(0, partition=0.0), "partition is 0.0 (float)"),
    (lambda reader: reader.batch(-1), "max_messages is -1"),
    (lambda reader: reader.batch("5"), "max_messages is '5' (str)"),
    (lambda reader: reader.batch(None), "max_messages is None (NoneType)"),
    (lambda reader: reader.batch(5, timeout="1"), "timeout is '1' (str)"),
    (lambda reader: reader.batches(0), "max_messages is 0"),
    (lambda reader: reader.batches(2.0), "max_messages is 2.0 (float)"),
    (lambda reader: reader.poll("5"), "timeout is '5' (str)"),
    (lambda reader: reader.poll(None), "timeout is None (NoneType)"),
)

PRODUCER = refusals(
    "producer",
    (lambda out: out.send(b"x", partition=True), "partition is True (bool)"),
    (lambda out: out.send_many(["a"]), "a raw value must be bytes, got str"),
    (lambda out: out.send_many("abc"), "values is 'abc' (str)"),
    (lambda out: out.send_many(b"abc"), "values is b'abc' (bytes)"),
    (lambda out: out.send_many({b"a": b"b"}), "values is {b'a': b'b'} (dict)"),
    (lambda out: out.send_many(None), "values is None (NoneType)"),
    (lambda out: out.send_many([b"a", b"b"], keys=[b"k"]), "send_many got 2 values and 1 keys"),
    (lambda out: out.send_many([b"a", b"b"], keys="ab"), "keys is 'ab' (str)"),
    (lambda out: out.send_many([b"a"], keys=[1]), "a key must be bytes or str, got int"),
    (lambda out: out.flush("5"), "timeout is '5' (str)"),
    (lambda out: out.flush(-1), "timeout is -1 s"),
    (lambda out: out.close("5"), "timeout is '5' (str)"),
)

BATCH_HANDLE = refusals(
    "handles",
    (lambda handles: handles.wait("5"), "timeout is '5' (str)"),
    (lambda handles: handles.result("5"), "timeout is '5' (str)"),
    (lambda handles: handles[0].add_done_callback("print"), "callback is 'print' (str)"),
)

CONSTRUCTOR = refusals(
    "client",
    (lambda kind: kind("tcp://127.0.0.1:99999"), "broker address 'tcp://127.0.0.1:99999' is not allowed"),
    (lambda kind: kind("tcp://127.0.0.1:0"), "broker address 'tcp://127.0.0.1:0' is not allowed"),
    (lambda kind: kind("tcp://127.0.0.1"), "broker address 'tcp://127.0.0.1' is not allowed"),
    (lambda kind: kind("tcp://:5570"), "broker address 'tcp://:5570' is not allowed"),
    (lambda kind: kind("ipc://"), "broker address 'ipc://' is not allowed"),
    (lambda kind: kind("127.0.0.1:5570"), "broker address '127.0.0.1:5570' is not allowed"),
    (lambda kind: kind(5570), "brokers is 5570 (int)"),
    (lambda kind: kind(b"tcp://127.0.0.1:5570"), "brokers is b'tcp://127.0.0.1:5570' (bytes)"),
    (lambda kind: kind([("127.0.0.1", 5570)]), "broker address is ('127.0.0.1', 5570) (tuple)"),
    (lambda kind: kind([]), "brokers is [] (list)"),
    (lambda kind: kind("ipc://" + LONE), r"broker address is 'ipc://\ud800' (str)"),
    (lambda kind: kind(timeout="5"), "timeout is '5' (str)"),
    (lambda kind: kind(timeout=None), "timeout is None (NoneType)"),
    (lambda kind: kind(client_id=5), "client_id is 5 (int)"),
)


def is_refused(error: BaseException, begin: str) -> None:
    assert type(error) is InvalidConfig, error
    assert str(error).startswith(begin)
    assert getattr(error, "hint", "")


async def awaited(found: Any) -> Any:
    return await found if inspect.isawaitable(found) else found


def run(body: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await body

    asyncio.run(bounded())


def table(*rows: Refusal) -> Any:
    return pytest.mark.parametrize(("call", "begin"), [row[1:] for row in rows], ids=[row[0] for row in rows])


@pytest.fixture(scope="module")
def mq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zmqmq.Embedded]:
    """A topic of 2 partitions and 5 records, which stay 5 whatever is refused."""
    with zmqmq.open(tmp_path_factory.mktemp("broker")) as mq:
        mq.admin.create_topic("t", 2)
        with mq.producer("t") as out:
            out.send_many([b"x"] * 5).wait()
        yield mq
        assert sum(each.end for each in mq.admin.offsets("t").values()) == 5
        assert [topic.name for topic in mq.admin.topics()] == ["t"]


@pytest.fixture(scope="module")
def nobody() -> Iterator[Client]:
    """A client without a broker: whatever it sends, it is told of BrokerUnavailable or a timeout."""
    with Client("inproc://nobody-is-here", timeout=0.2) as client:
        with pytest.raises(ZmqmqError) as caught:
            client.produce("t", b"x")
        assert not isinstance(caught.value, InvalidConfig)
        yield client


@table(*CLIENT)
def test_it_is_refused_before_any_broker_is_asked(nobody: Client, call: Callable[[Any], Any], begin: str) -> None:
    with pytest.raises(ZmqmqError) as caught:
        call(nobody)
    is_refused(caught.value, begin)
    assert nobody.closed is None


@table(*CLIENT)
def test_tasks_hear_the_same(call: Callable[[Any], Any], begin: str) -> None:
    async def body() -> None:
        async with AsyncClient("inproc://nobody-is-here", timeout=0.2) as client:
            with pytest.raises(ZmqmqError) as caught:
                await awaited(call(client))
            is_refused(caught.value, begin)
            assert client.closed is None

    run(body())


@table(*RECORDS)
def test_a_record_is_refused_before_it_is_sent(mq: zmqmq.Embedded, call: Callable[[Any], Any], begin: str) -> None:
    async def body() -> None:
        async with AsyncClient(mq.url) as client:
            with pytest.raises(ZmqmqError) as caught:
                await call(client)
            is_refused(caught.value, begin)

    with pytest.raises(ZmqmqError) as caught:
        call(mq)
    is_refused(caught.value, begin)
    run(body())


def test_a_partition_that_only_equals_one_is_refused_while_its_batch_is_open(mq: zmqmq.Embedded) -> None:
    def send(out: Any, partition: Any) -> None:
        for key in (None, b"k"):
            with pytest.raises(InvalidConfig, match="partition is"):
                out.send(b"x", key=key, partition=partition)

    with mq.producer("t", linger=60) as out:
        out._outbox.make_room(1, 100, 0)
        assert 1 in out._outbox.accumulator.open
        for partition in (True, 1.0):
            send(out, partition)


@table(*READER)
def test_a_reader_refuses_it_and_reads_on(mq: zmqmq.Embedded, call: Callable[[Any], Any], begin: str) -> None:
    async def body() -> None:
        async with AsyncClient(mq.url) as client, client.reader("t", timeout=5) as reader:
            with pytest.raises(ZmqmqError) as caught:
                await awaited(call(reader))
            is_refused(caught.value, begin)
            assert await reader.poll(timeout=5) is not None

    with mq.reader("t", timeout=5) as reader:
        with pytest.raises(ZmqmqError) as caught:
            call(reader)
        is_refused(caught.value, begin)
        assert reader.poll(timeout=5) is not None
    run(body())


@table(*PRODUCER)
def test_a_producer_refuses_it_and_stays_open(mq: zmqmq.Embedded, call: Callable[[Any], Any], begin: str) -> None:
    async def body() -> None:
        async with AsyncClient(mq.url) as client, client.producer("t") as out:
            with pytest.raises(ZmqmqError) as caught:
                await call(out)
            is_refused(caught.value, begin)
            await out.flush(TOMORROW)

    with mq.producer("t") as out:
        with pytest.raises(ZmqmqError) as caught:
            call(out)
        is_refused(caught.value, begin)
        out.flush(TOMORROW)
    run(body())


@table(*BATCH_HANDLE)
def test_handles_refuse_it_even_when_they_are_decided(zmqmq_broker: Any, call: Callable[[Any], Any], begin: str) -> None:
    async def body() -> None:
        async with AsyncClient(zmqmq_broker.url) as client, client.producer("t") as out:
            handles = await out.send_many([b"x"])
            await handles.wait(TOMORROW)
            with pytest.raises(ZmqmqError) as caught:
                await awaited(call(handles))
            is_refused(caught.value, begin)

    with Client(zmqmq_broker.url) as mq:
        mq.admin.create_topic("t")
        with mq.producer("t") as out:
            handles = out.send_many([b"x"])
            handles.wait(TOMORROW)
            with pytest.raises(ZmqmqError) as caught:
                call(handles)
            is_refused(caught.value, begin)
            with pytest.raises(InvalidConfig, match="timeout is '5'"):
                handles[0].result("5")
            assert handles[0].result(TOMORROW).offset == 0
    run(body())


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@table(*CONSTRUCTOR)
def test_a_client_is_not_made_of_it(kind: type[Any], call: Callable[[Any], Any], begin: str) -> None:
    with pytest.raises(ZmqmqError) as caught:
        call(kind)
    is_refused(caught.value, begin)


@pytest.mark.parametrize(
    "call",
    [
        lambda mq: mq.reader("t", partitions=[9]),
        lambda mq: mq.reader("t", start={9: 0}),
        lambda mq: mq.reader("t").seek(0, partition=9),
        lambda mq: mq.admin.offsets("t", partitions=[5]),
        lambda mq: mq.admin.delete_records("t", {5: 0}),
    ],
)
def test_a_partition_that_is_not_there_is_unknown(mq: zmqmq.Embedded, call: Callable[[Any], Any]) -> None:
    with pytest.raises(UnknownTopic, match=r"partition \d .*does not exist"):
        call(mq)


def test_what_means_the_same_is_taken(zmqmq_broker: Any) -> None:
    with Client([zmqmq_broker.url], timeout=dt.timedelta(seconds=5)) as mq:
        mq.admin.create_topic("t", Partition.SECOND + 1, config={"retention_bytes": 1 << 40, "segment_ms": "1h"})
        assert mq.produce("t", b"0", partition=Partition.SECOND, timestamp=dt.datetime.now(dt.UTC), timeout=5).partition == 1
        with mq.producer("t", linger=dt.timedelta(milliseconds=1)) as out:
            out.send_many((value for value in (b"1", None)), keys=(key for key in ("a", b"a"))).wait(dt.timedelta(seconds=5))
            out.send(b"2", headers={"trace": b"\xff", "größe": b"1"}).result(dt.timedelta(seconds=5))
        for partitions in ((0, 1), {0, 1}, range(2), [1, 1, 0]):
            with mq.reader("t", partitions=partitions, stop=Offset.END, start={Partition.SECOND: Offset.START}) as reader:
                assert len(list(reader)) == 4
        assert set(mq.admin.offsets("t", partitions=(1,), at=dt.datetime.now(dt.UTC))) == {1}
        assert mq.admin.delete_records("t", {Partition.SECOND: -1}).keys() == {1}


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.datetimes(), st.timedeltas(),
    st.lists(st.one_of(st.integers(), st.text(st.characters()))), st.dictionaries(st.one_of(st.integers(), st.text()), st.integers()),
    st.just(Offset.END), st.just(object()), st.complex_numbers(), st.just(int),
)  # fmt: skip


@given(ANYTHING)
def test_a_check_gives_what_fits_the_wire_or_refuses(value: Any) -> None:
    checks: list[tuple[Callable[[Any], Any], Callable[[Any], bool]]] = [
        (addresses_of, lambda found: all(type(address) is str for address in found)),
        (lambda value: seconds_of("x", value), lambda found: type(found) is float and found >= 0),
        (lambda value: maybe_seconds_of("x", value), lambda found: found is None or type(found) is float),
        (lambda value: count_of("x", value, 1), lambda found: type(found) is int and 1 <= found <= INTEGER_MAX),
        (lambda value: text_of("x", value), lambda found: found.encode().decode() == found),
        (topic_of, lambda found: found.isascii()),
        (lambda value: items_of("x", value, "a list"), lambda found: type(found) is list),
        (lambda value: config_of("x", value), lambda found: all(type(each) is str for each in found.values())),
        (partitions_of, lambda found: all(type(each) is int for each in found)),
        (lambda value: offset_of("x", value), lambda found: type(found) is Offset and abs(found.value) <= INTEGER_MAX),
        (lambda value: places_of("x", value), lambda found: type(found) in (Offset, dict)),
    ]
    for check, fits in checks:
        refusal: InvalidConfig | None = None
        try:
            found = check(value)
        except InvalidConfig as error:
            refusal = error
        if refusal is None:
            assert fits(found)
        else:
            assert refusal.hint
            assert 0 < len(str(refusal)) < 200


@pytest.mark.parametrize("make", [Offset.exact, Offset.last, Offset.after_start, Offset.at])
@pytest.mark.parametrize("value", [None, "1", 1.5, True, -1, 1 << 63, NAIVE])
def test_no_offset_is_made_of_it(make: Callable[[Any], Offset], value: Any) -> None:
    with pytest.raises(InvalidConfig) as caught:
        make(value)
    assert caught.value.hint


@pytest.mark.parametrize("value", [5, b"bytes", LONE])
def test_text_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(InvalidConfig, match="must be a str that has UTF-8") as caught:
        zmqmq.text().encode(value)
    assert caught.value.hint
