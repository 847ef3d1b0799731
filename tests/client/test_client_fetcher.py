"""The fetcher against a log in memory: every record once, in order, whatever the answers look like."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmqmq import batch as format_
from zmqmq.batch import Record, parse_header
from zmqmq.client.fetcher import PATIENCE_MS, Chunk, Failure, FetchCall, Fetcher, OffsetsCall, Reached, Settled
from zmqmq.errors import BrokerUnavailable, DataLost, LogTruncated, NotLeader, ZmqmqError
from zmqmq.model import Offset
from zmqmq.wire.framing import fault
from zmqmq.wire.replies import FetchReply, FetchResult, ListOffsetsReply, OffsetResult
from zmqmq.wire.requests import LIST_END, LIST_START

TOPIC = bytes(16)


def stamped(base: int, count: int, epoch: int = 0) -> bytes:
    data = format_.build(
        format_.encode_records([Record(None, b"%d" % (base + i), 0) for i in range(count)]),
        record_count=count, base_timestamp_ms=0, max_timestamp_ms=0, compress=False,
    )  # fmt: skip
    placed = format_.stamp(parse_header(data), data, seed=0, base_offset=base, leader_epoch=epoch, append_time_ms=0)
    return b"".join(placed.buffers)


class World:
    """Partitions as lists of batches, and a fetcher that reads them."""

    def __init__(self, rng: random.Random, sizes: dict[int, list[int]], **arguments: object) -> None:
        self.rng = rng
        self.logs: dict[int, list[bytes]] = {}
        self.ends: dict[int, int] = {}
        for partition, counts in sizes.items():
            base = 0
            self.logs[partition] = []
            for count in counts:
                self.logs[partition].append(stamped(base, count))
                base += count
            self.ends[partition] = base
        self.fetcher = Fetcher(TOPIC, dict.fromkeys(sizes, Offset.START), dict.fromkeys(sizes, Offset.END), leader=lambda p: p % 2)
        self.now_ms = 1_000
        self.read: dict[int, list[int]] = {partition: [] for partition in sizes}

    def answer(self, call: FetchCall | OffsetsCall) -> None:
        if self.rng.random() < 0.2:
            error = self.rng.choice([BrokerUnavailable("gone"), NotLeader("moved")])
            (
                self.fetcher.on_offsets(call, error, self.now_ms)
                if isinstance(call, OffsetsCall)
                else self.fetcher.on_fetch(call, error, (), self.now_ms)
            )
        elif isinstance(call, OffsetsCall):
            at = {LIST_START: dict.fromkeys(self.ends, 0), LIST_END: self.ends}
            results = [OffsetResult(TOPIC, query.partition, at[query.kind][query.partition]) for query in call.queries]
            self.fetcher.on_offsets(call, ListOffsetsReply(1, results), self.now_ms)
        else:
            self.answer_fetch(call)

    def answer_fetch(self, call: FetchCall) -> None:
        results, frames = [], []
        for entry in call.entries:
            if self.rng.random() < 0.2:
                continue
            rest = [data for data in self.logs[entry.partition] if parse_header(data).end_offset > entry.offset]
            found = rest[: self.rng.randint(0, 3)]
            packed = [b"".join(found)] if found and self.rng.random() < 0.5 else found
            results.append(FetchResult(TOPIC, entry.partition, self.ends[entry.partition], 0, 0, len(packed)))
            frames += packed
        self.fetcher.on_fetch(call, FetchReply(1, results), frames, self.now_ms)

    def take(self) -> None:
        for news in self.fetcher.take_news():
            if isinstance(news, Chunk):
                records = format_.records(news.header, news.data, news.position)
                offsets = range(news.header.base_offset, news.header.end_offset)
                kept = [offset for offset in offsets if offset >= news.wanted and (news.stop is None or offset < news.stop)]
                assert len(records) == len(offsets)
                self.read[news.partition] += kept
                self.fetcher.buffered_bytes -= news.header.length


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.lists(st.lists(st.integers(1, 5), max_size=6), min_size=1, max_size=4))
def test_every_record_is_read_once_and_in_order_up_to_the_stop(seed: int, sizes: list[list[int]]) -> None:
    world = World(random.Random(seed), dict(enumerate(sizes)))
    waiting: list[FetchCall | OffsetsCall] = []
    for _ in range(2_000):
        waiting += world.fetcher.poll(world.now_ms, lambda _node: True)
        if waiting:
            world.answer(waiting.pop(world.rng.randrange(len(waiting))))
        world.take()
        world.now_ms += world.rng.choice([0, 10, 100])
        if world.fetcher.is_done:
            break
    assert world.read == {partition: list(range(sum(counts))) for partition, counts in enumerate(sizes)}
    assert world.fetcher.is_done


def reading(start: int = 0, stop: int | None = None, *, buffer_bytes: int = 1 << 20) -> tuple[Fetcher, FetchCall]:
    fetcher = Fetcher(
        TOPIC, {0: Offset.exact(start)}, {0: None if stop is None else Offset.exact(stop)}, leader=lambda _: 0, buffer_bytes=buffer_bytes
    )
    return fetcher, next_fetch(fetcher)


def next_fetch(fetcher: Fetcher, now_ms: int = 0) -> FetchCall:
    (call,) = fetcher.poll(now_ms, lambda _node: True)
    assert isinstance(call, FetchCall)
    return call


def reply(*frames: bytes, error: ZmqmqError | None = None) -> FetchReply:
    return FetchReply(1, [FetchResult(TOPIC, 0, 100, 0, 0, len(frames), None if error is None else fault(error))])


def test_the_next_request_names_the_epoch_of_the_last_record() -> None:
    fetcher, call = reading()
    assert call.entries[0].last_epoch == -1
    data = stamped(0, 3, epoch=4)
    fetcher.on_fetch(call, reply(data), [data], 0)
    entry = next_fetch(fetcher).entries[0]
    assert (entry.offset, entry.last_epoch) == (3, 4)


def test_a_batch_that_begins_too_early_says_what_is_wanted_of_it() -> None:
    fetcher, call = reading(start=2, stop=4)
    data = stamped(0, 6)
    fetcher.on_fetch(call, reply(data), [data], 0)
    settled, chunk, reached = fetcher.take_news()
    assert isinstance(settled, Settled)
    assert isinstance(chunk, Chunk)
    assert (chunk.wanted, chunk.stop) == (2, 4)
    assert isinstance(reached, Reached)


@pytest.mark.parametrize("error", [DataLost("gone", log_start=5), LogTruncated("cut", log_end=5)])
def test_loss_and_truncation_are_told_and_stop_the_partition_until_seek(error: ZmqmqError) -> None:
    fetcher, call = reading(start=3)
    fetcher.on_fetch(call, reply(error=error), (), 0)
    failure = fetcher.take_news()[-1]
    assert isinstance(failure, Failure)
    assert (type(failure.error), failure.is_final) == (type(error), True)
    assert list(fetcher.poll(1, lambda _node: True)) == []
    fetcher.seek(0, Offset.exact(5))
    assert next_fetch(fetcher, 1).entries[0].offset == 5


def test_a_full_buffer_holds_the_next_request_back() -> None:
    data = stamped(0, 3)
    fetcher, call = reading(buffer_bytes=len(data))
    fetcher.on_fetch(call, reply(data), [data], 0)
    assert list(fetcher.poll(1, lambda _node: True)) == []
    fetcher.buffered_bytes = 0
    assert next_fetch(fetcher, 1).entries[0].offset == 3


def test_an_answer_to_a_question_from_before_a_seek_is_dropped() -> None:
    fetcher, call = reading()
    fetcher.seek(0, Offset.exact(50))
    later = next_fetch(fetcher)
    data = stamped(0, 3)
    fetcher.take_news()
    fetcher.on_fetch(call, reply(data), [data], 0)
    assert fetcher.take_news() == []
    assert later.entries[0].offset == 50


def test_a_seek_does_not_forget_the_high_watermark() -> None:
    fetcher, call = reading()
    data = stamped(0, 3)
    fetcher.on_fetch(call, reply(data), [data], 0)
    known = fetcher.high_watermarks()
    assert known[0] >= 3
    fetcher.seek(0, Offset.exact(0))
    assert fetcher.high_watermarks() == known


def test_damaged_frames_fail_the_partition_by_name() -> None:
    fetcher, call = reading()
    fetcher.on_fetch(call, reply(b"rubbish"), [b"rubbish"], 0)
    failure = fetcher.take_news()[-1]
    assert isinstance(failure, Failure)
    assert failure.is_final


def test_a_reader_hears_of_a_broker_that_stays_away_but_goes_on_trying() -> None:
    fetcher = Fetcher(TOPIC, {0: Offset.START}, {0: None}, leader=lambda _: 0)
    fetcher.obstacle = BrokerUnavailable("tcp://b: connection refused")
    assert list(fetcher.poll(1, lambda _node: False)) == []
    assert fetcher.next_deadline_ms() == 1 + PATIENCE_MS
    assert list(fetcher.poll(1 + PATIENCE_MS, lambda _node: False)) == []
    (failure,) = fetcher.take_news()
    assert isinstance(failure, Failure)
    assert (failure.is_final, "refused" in str(failure.error)) == (False, True)
    assert len(list(fetcher.poll(2 + PATIENCE_MS, lambda _node: True))) == 1


def test_a_retry_that_finds_no_connection_waits_for_one_without_turning() -> None:
    world = World(random.Random(1), {0: [3]})
    (call,) = [*world.fetcher.poll(1_000, lambda _node: True)]
    assert isinstance(call, OffsetsCall)
    world.fetcher.on_offsets(call, BrokerUnavailable("gone"), 1_000)
    for now_ms in range(1_000, 5_000, 50):
        assert [*world.fetcher.poll(now_ms, lambda _node: False)] == []
        due_ms = world.fetcher.next_deadline_ms()
        assert due_ms is None or due_ms > now_ms


def failed_once() -> tuple[Fetcher, FetchCall]:
    """A fetcher whose first fetch failed a moment ago, and whose second is under way."""
    fetcher = Fetcher(TOPIC, {0: Offset.exact(0)}, {}, leader=lambda _partition: 0)
    (first,) = fetcher.poll(1, lambda _node: True)
    assert isinstance(first, FetchCall)
    fetcher.on_fetch(first, BrokerUnavailable("gone"), (), 1)
    retry_ms = fetcher.next_deadline_ms()
    assert retry_ms is not None
    (second,) = fetcher.poll(retry_ms, lambda _node: True)
    assert isinstance(second, FetchCall)
    return fetcher, second


def test_a_fetch_that_is_under_way_for_long_does_not_turn_the_client_meanwhile() -> None:
    fetcher, second = failed_once()
    assert fetcher.next_deadline_ms() is None
    assert list(fetcher.poll(PATIENCE_MS + 2, lambda _node: True)) == []
    assert fetcher.next_deadline_ms() is None
    fetcher.on_fetch(second, BrokerUnavailable("still gone"), (), PATIENCE_MS + 3)
    assert isinstance(fetcher.take_news()[-1], Failure)


def test_a_full_buffer_does_not_turn_the_client_after_a_failure() -> None:
    fetcher, second = failed_once()
    fetcher.on_fetch(second, BrokerUnavailable("gone"), (), 2)
    fetcher.buffered_bytes = fetcher.buffer_bytes
    assert list(fetcher.poll(PATIENCE_MS + 2, lambda _node: True)) == []
    assert fetcher.next_deadline_ms() is None
