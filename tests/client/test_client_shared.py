"""What sync and async clients share, without a broker, a thread or a loop."""

from __future__ import annotations

import contextlib
import gc
import random
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import zmqmq
from zmqmq import batch as format_
from zmqmq.batch import Record
from zmqmq.client.accumulator import EMPTY_MS, Accumulator, Batch
from zmqmq.client.core import ClientCore
from zmqmq.client.engine import Pump
from zmqmq.client.fetcher import Chunk, Failure, Fetcher, Settled
from zmqmq.client.gathering import Gatherer, Pause
from zmqmq.client.handles import BatchHandle, Handle
from zmqmq.client.intake import Inbox, Intake, Step
from zmqmq.client.outbox import Outbox
from zmqmq.client.routing import TopicRoute, route_of
from zmqmq.client.sender import Sender
from zmqmq.clock import SystemClock
from zmqmq.errors import BrokerUnavailable, ClosedError, InvalidRecord
from zmqmq.model import SLOT_COUNT, Offset, PartitionId
from zmqmq.wire.replies import PartitionInfo, TopicInfo

TOPIC_ID = bytes(15) + b"\x07"


class StillIo:
    """An engine that never turns by itself."""

    is_alive = True
    clock = SystemClock()

    def __init__(self) -> None:
        self.core = ClientCore(["tcp://127.0.0.1:1"], client_id="", random=random.Random(1))

    def call(self, function: Callable[[int], None]) -> None:
        function(0)

    def poke(self, at_ms: int = 0) -> None:
        pass

    def add(self, pump: Pump) -> None:
        pass

    def remove(self, pump: Pump) -> None:
        pass


def route(table_version: int, to_partition: int = 0) -> TopicRoute:
    """A topic of three partitions, of which the table uses one."""
    partitions = [PartitionInfo(number, 0, 0, [0], [0]) for number in range(3)]
    table = to_partition.to_bytes(2, "little") * SLOT_COUNT
    return route_of(TopicInfo("t", TOPIC_ID, partitions, table_version=table_version, slot_table=table))


def new_outbox(*, batch_bytes: int = 10_000, buffer_bytes: int = 1 << 20) -> Outbox:
    io = StillIo()
    sender = Sender("t", acks=-1, idempotent=True, leader=lambda _partition: 0)
    accumulator = Accumulator("t", batch_bytes=batch_bytes, buffer_bytes=buffer_bytes, linger_ms=60_000, delivery_ms=60_000)
    io.core.add_sender(sender)
    return Outbox(io, sender, accumulator, route(1), compress=False, turn=1)


def put_of(outbox: Outbox) -> Any:
    return Gatherer(outbox, zmqmq.raw(), None).put_function(outbox.make_room, Handle)


def test_a_batch_with_a_keyed_record_names_the_table_that_chose_its_partition() -> None:
    outbox = new_outbox()
    put = put_of(outbox)
    assert put(b"x").batch.table_version == 0
    assert put(b"x", partition=2, key=b"k").batch.table_version == 0
    keyed = put(b"x", key=b"k")
    assert (keyed.batch.partition, keyed.batch.table_version) == (0, 1)
    handles = BatchHandle(2)
    assert [*Gatherer(outbox, zmqmq.raw(), None).many([b"1", b"2"], [b"k", None], handles)] == [Pause.TAKEN, Pause.TAKEN]
    assert [handle.batch.table_version for handle in handles] == [1, 0]


def test_a_batch_that_two_tables_chose_names_the_older_one_so_that_it_is_refused() -> None:
    outbox = new_outbox()
    put = put_of(outbox)
    first = put(b"x", key=b"k").batch
    outbox.io.core.routing.routes["t"] = route(2)
    outbox.after()
    assert put(b"x", key=b"k").batch is first
    assert first.table_version == 1
    outbox.io.core.routing.routes["t"] = route(3, to_partition=1)
    outbox.after()
    moved = put(b"x", key=b"k").batch
    assert (moved.partition, moved.table_version) == (1, 3)


def test_many_says_when_the_buffer_is_full_and_goes_on_when_there_is_space() -> None:
    outbox = new_outbox(batch_bytes=1_000, buffer_bytes=2_000)
    handles = BatchHandle(100)
    said = []
    resolved: list[Batch] = []
    for pause in Gatherer(outbox, zmqmq.raw(), None).many([bytes(100)] * 100, None, handles):
        said.append(pause)
        if pause is Pause.FULL:
            assert not outbox.space.is_ready
            for batch in outbox.accumulator.take_line():
                outbox.accumulator.release(batch)
                resolved.append(batch)
            assert outbox.space.is_ready
    assert Pause.FULL in said
    assert [handle.index for handle in handles] == [i % 8 for i in range(100)]
    assert sum(batch.count for batch in resolved) + sum(len(batch.records) for batch in outbox.accumulator.unresolved) >= 100


def test_an_open_batch_that_never_got_a_record_does_not_stay() -> None:
    accumulator = Accumulator("t", batch_bytes=1_000, buffer_bytes=2_000, linger_ms=5, delivery_ms=1_000)
    assert accumulator.room(0, 100, 0, 0) is not None
    assert accumulator.close_lingering(5) == []
    assert accumulator.open
    assert accumulator.close_lingering(5 + EMPTY_MS) == []
    assert (accumulator.open, accumulator.buffered_bytes, accumulator.next_linger_ms()) == ({}, 0, None)
    assert accumulator.room(0, 100, 0, 0) is not None
    assert accumulator.close_all() == []
    assert (accumulator.open, accumulator.buffered_bytes) == ({}, 0)


def test_a_closed_outbox_takes_nothing_not_even_into_room_that_was_made() -> None:
    outbox = new_outbox()
    assert outbox.make_room(0, 100, 0)
    outbox.end(ClosedError("closed"))
    with pytest.raises(ClosedError):
        put_of(outbox)(b"x", partition=0)
    assert not outbox.accumulator.unresolved


def chunk(base: int, values: list[bytes], *, damaged: bool = False) -> Chunk:
    records = format_.encode_records([Record(None, value, 0) for value in values])
    body = format_.build(records, record_count=len(values), base_timestamp_ms=0, max_timestamp_ms=0)
    seed = format_.stamp_seed(PartitionId(TOPIC_ID, 0))
    placed = format_.stamp(format_.parse_header(body), body, seed=seed, base_offset=base, leader_epoch=1, append_time_ms=0)
    data = bytearray(b"".join(placed.buffers))
    data[-1] ^= damaged
    return Chunk(0, 0, placed.header, bytes(data), 0, base, None)


def new_intake() -> Intake[bytes]:
    fetcher = Fetcher(TOPIC_ID, {0: Offset.START}, {}, leader=lambda _partition: 0)
    intake = Intake(Inbox(StillIo(), fetcher), "t", [0], zmqmq.raw(), None)
    intake.inbox.news.append(Settled(0, 0, 0))
    return intake


def test_messages_before_a_damaged_batch_are_handed_out_before_the_error() -> None:
    intake = new_intake()
    intake.inbox.news += [chunk(0, [b"a", b"b"]), chunk(2, [b"c"], damaged=True)]
    assert [message.value for message in intake.take(10)] == [b"a", b"b"]
    assert intake.position() == {0: 2}
    for _ in range(2):
        with pytest.raises(InvalidRecord, match="t-0@2"):
            intake.take(10)
    assert intake.position() == {0: 2}


def test_an_obstacle_behind_messages_is_told_once_and_the_reader_goes_on() -> None:
    intake = new_intake()
    intake.inbox.news += [chunk(0, [b"a"]), Failure(0, 0, BrokerUnavailable("gone"), is_final=False), chunk(1, [b"b"])]
    assert [message.value for message in intake.take(10)] == [b"a"]
    with pytest.raises(BrokerUnavailable):
        intake.take(10)
    assert [message.value for message in intake.take(10)] == [b"b"]
    assert intake.advance() is Step.NOTHING


def test_what_a_stop_leaves_is_not_passed_by_the_position() -> None:
    intake = new_intake()
    intake.inbox.news += [chunk(0, [b"a", b"b", b"c"])]
    assert [message.value for message in intake.take(1)] == [b"a"]
    intake.stop()
    assert intake.take(10) == []
    assert intake.advance() is Step.END
    assert intake.position() == {0: 1}


class Kept:
    """Something large that a caller holds."""


def test_a_failed_record_does_not_keep_what_its_callers_held() -> None:
    outbox = new_outbox()
    handle = put_of(outbox)(b"x")
    handle.batch.outcome = zmqmq.errors.TimeoutError("too late", outcome="not_written")

    def call() -> weakref.ref[Kept]:
        kept = Kept()
        with contextlib.suppress(zmqmq.errors.TimeoutError):
            handle.result()
        return weakref.ref(kept)

    found = call()
    gc.collect()
    assert found() is None


def test_each_caller_of_a_failed_record_gets_an_error_of_its_own() -> None:
    handle = put_of(new_outbox())(b"x")
    handle.batch.outcome = zmqmq.errors.DiskFull("no room", hint="make some", outcome="not_written")
    raised = []
    for _ in range(2):
        with pytest.raises(zmqmq.errors.DiskFull, match="no room") as caught:
            handle.result()
        raised.append(caught.value)
    assert raised[0] is not raised[1]
    assert [(error.hint, error.outcome, error.__notes__) for error in raised] == [("make some", "not_written", ["make some"])] * 2
