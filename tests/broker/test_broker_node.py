"""The broker as a machine, without a socket or a file: what it answers, when, and what it refuses."""

from __future__ import annotations

import itertools
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_client import make_batch

from zmqmq.broker.dispatch import Now
from zmqmq.broker.limits import BrokerLimits
from zmqmq.broker.node import Node, NodeIdentity
from zmqmq.broker.stats import Gauges
from zmqmq.effects import AnswerFetch, AnswerOffsets, Append, CreateLog, DeleteTopicLogs, Effect, MoveLogStart, Send, Sync
from zmqmq.errors import (
    DataLost,
    DiskFull,
    Fenced,
    InvalidRecord,
    LogOffline,
    MessageTooLarge,
    NotLeader,
    OffsetOutOfRange,
    RemoteProtocolError,
    Throttled,
    TopicExists,
    UnknownProducer,
    UnknownTopic,
    UnsupportedVersion,
    ZmqmqError,
)
from zmqmq.facts import EpochStart, LogState, StartMoved, Synced
from zmqmq.metadata.controller import Decision
from zmqmq.metadata.local import LocalLog
from zmqmq.model import METADATA_PARTITION, PartitionId
from zmqmq.wire import framing
from zmqmq.wire.requests import (
    AlterTopic,
    CreateTopic,
    DeleteEntry,
    DeleteRecords,
    DeleteTopic,
    Fetch,
    FetchEntry,
    GetMetadata,
    GetStats,
    Hello,
    InitProducer,
    ListOffsets,
    OffsetQuery,
    Ping,
    Produce,
    ProduceEntry,
)

EMPTY = LogState(0, 0, 0, (), {}, 0, -1)
LIMITS = BrokerLimits()


class World:
    """A node with a log in memory; syncs happen when the test says so, or at once."""

    def __init__(self, limits: BrokerLimits = LIMITS, *, states: dict[PartitionId, LogState] | None = None) -> None:
        self.states = states if states is not None else {}
        self.metadata: list[tuple[int, bytes]] = []
        self.syncs_at_once = True
        self.fails: dict[PartitionId, ZmqmqError] = {}
        self.us = 1_000_000
        self.sent: list[Send] = []
        self.done: list[Effect] = []
        self.ids = itertools.count(1)
        self.limits = limits
        self.open()

    def open(self) -> None:
        self.ends: dict[PartitionId, int] = {}
        log = LocalLog(0, self.states.get(METADATA_PARTITION, EMPTY), self.read_metadata)
        self.node = Node(
            NodeIdentity("cluster", 0, "directory", "tcp://127.0.0.1:1"), self.limits,
            logs=self, random=random.Random(1), metadata=log, gauges=Gauges,
        )  # fmt: skip
        self.node.start(self.now)
        self.perform()
        assert self.node.is_ready
        self.hello()

    @property
    def now(self) -> Now:
        return Now(1_700_000_000_000 + self.us // 1000, self.us)

    def __contains__(self, partition: object) -> bool:
        return True

    def state(self, partition: PartitionId) -> LogState:
        return self.states.get(partition, EMPTY)

    def read_metadata(self, offset: int, end: int) -> bytes:
        return b"".join(data for last, data in self.metadata if offset < last <= end)

    def hello(self, source: bytes = b"c") -> Any:
        return self.ask(Hello, source=source)

    def send(self, kind: type, payload: tuple[bytes, ...] = (), *, source: bytes = b"c", **fields: Any) -> int:
        number = next(self.ids)
        self.node.on_message(source, framing.encode(kind(number, 1000, **fields), payload), self.now)
        return number

    def ask(self, kind: type, payload: tuple[bytes, ...] = (), *, source: bytes = b"c", **fields: Any) -> Any:
        """The reply; raises the error if it is one. None if nothing was answered yet."""
        number = self.send(kind, payload, source=source, **fields)
        self.perform()
        return self.reply(number)

    def reply(self, number: int) -> Any:
        for effect in self.sent:
            if effect.reply.correlation_id == number:
                if hasattr(effect.reply, "fault"):
                    raise framing.raised(effect.reply.fault)
                return effect.reply
        return None

    def create(self, name: str = "t", partitions: int = 1, **config: str) -> bytes:
        reply = self.ask(CreateTopic, name=name, partitions=partitions, config=config)
        topic_id: bytes = reply.topic.topic_id
        return topic_id

    def produce(self, topic_id: bytes, data: bytes = make_batch(b"v"), *, partition: int = 0, acks: int = -1, source: bytes = b"c") -> Any:
        reply = self.ask(Produce, (data,), source=source, acks=acks, entries=[ProduceEntry(topic_id, partition)])
        if reply is None:
            return None
        (result,) = reply.results
        if result.error is not None:
            raise framing.raised(result.error)
        return result

    def perform(self) -> None:
        while effects := self.node.take_effects(self.now):
            appends = [effect for effect in effects if isinstance(effect, Append)]
            errors = {append.partition: self.fails[append.partition] for append in appends if append.partition in self.fails}
            for append in appends:
                if append.partition not in errors:
                    self.write(append)
            self.node.on_appended([append.partition for append in appends if append.partition not in errors], self.now)
            self.node.on_append_failed(errors, self.now)
            for effect in effects:
                self.done.append(effect)
                if isinstance(effect, Send):
                    self.sent.append(effect)
            if self.syncs_at_once:
                self.sync()

    def write(self, append: Append) -> None:
        for stamped in append.batches:
            self.ends[append.partition] = stamped.header.end_offset
            if append.partition == METADATA_PARTITION:
                self.metadata.append((stamped.header.end_offset, b"".join(stamped.buffers)))
                end = stamped.header.end_offset
                self.states[METADATA_PARTITION] = LogState(0, end, end, (EpochStart(stamped.header.leader_epoch, 0),), {}, 0, -1)

    def sync(self) -> None:
        self.node.on_synced([Synced(partition, end) for partition, end in self.ends.items()], self.now)
        self.ends = {}

    def after(self, ms: int) -> None:
        self.us += ms * 1000
        self.node.on_tick(self.now)
        self.perform()

    def performed(self, kind: type) -> list[Any]:
        return [effect for effect in self.done if isinstance(effect, kind)]


def test_each_open_raises_the_leader_epoch_of_what_the_broker_leads() -> None:
    world = World()
    topic_id = world.create()
    assert world.produce(topic_id).leader_epoch == 0
    for epoch in (1, 2):
        world.open()
        assert world.produce(topic_id).leader_epoch == epoch
    assert world.performed(CreateLog)[-1].partition == PartitionId(topic_id, 0)


def test_the_first_request_must_be_hello() -> None:
    with pytest.raises(RemoteProtocolError, match="Hello"):
        World().ask(Ping, source=b"stranger")


def test_a_client_of_another_cluster_or_another_version_is_sent_away() -> None:
    world = World()
    with pytest.raises(Fenced):
        world.ask(Hello, cluster_id="other")
    with pytest.raises(UnsupportedVersion):
        world.ask(Hello, version_min=2, version_max=9)
    assert world.ask(Hello, cluster_id="cluster").cluster_id == "cluster"


def test_too_many_connections_are_refused_until_one_has_been_silent() -> None:
    world = World(BrokerLimits(connections_max=2))
    world.hello(b"d")
    with pytest.raises(Throttled):
        world.hello(b"e")
    world.after(120_000)
    assert world.hello(b"e")
    with pytest.raises(RemoteProtocolError):
        world.ask(Ping, source=b"c")


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=60), max_size=5), st.booleans())
def test_no_bytes_are_an_exception(frames: list[bytes], has_protocol: bool) -> None:
    world = World()
    world.node.on_message(b"c", [framing.PROTOCOL, *frames] if has_protocol else frames, world.now)
    world.perform()


@settings(max_examples=200)
@given(
    st.integers(0, 13),
    st.lists(
        st.one_of(
            st.none(),
            st.integers(-(2**63), 2**64 - 1),
            st.binary(max_size=20),
            st.text(max_size=5),
            st.lists(st.lists(st.integers(-5, 5), max_size=5), max_size=3),
        ),
        max_size=6,
    ),
)
def test_no_header_is_an_exception(tag: int, fields: list[Any]) -> None:
    world = World()
    world.node.on_message(b"c", [framing.PROTOCOL, msgspec.msgpack.encode([tag, 5, 1000, *fields]), make_batch(b"v")], world.now)
    world.perform()


def test_a_topic_is_answered_when_it_is_committed_and_not_seen_before() -> None:
    world = World()
    world.syncs_at_once = False
    number = world.send(CreateTopic, name="t")
    world.perform()
    assert world.reply(number) is None
    assert world.ask(GetMetadata).topics == []
    with pytest.raises(TopicExists):
        world.ask(CreateTopic, name="t")
    world.sync()
    world.perform()
    assert world.reply(number).topic.name == "t"
    assert [topic.name for topic in world.ask(GetMetadata).topics] == ["t"]


def test_a_topic_that_the_disk_refused_can_be_created_later() -> None:
    world = World()
    world.fails[METADATA_PARTITION] = DiskFull("full")
    with pytest.raises(DiskFull):
        world.ask(CreateTopic, name="t")
    world.fails.clear()
    assert world.create("t")


def test_an_unknown_topic_is_named_with_those_that_are_near() -> None:
    world = World()
    world.create("orders")
    (info,) = world.ask(GetMetadata, topics=["ordres"]).topics
    error = framing.raised(info.error)
    assert isinstance(error, UnknownTopic)
    assert error.similar == ("orders",)


def test_deleting_a_topic_removes_its_logs_and_fails_what_waits_on_it() -> None:
    world = World()
    topic_id = world.create()
    waiting = world.send(Fetch, wait_ms_max=1000, entries=[FetchEntry(topic_id, 0, 0)])
    assert world.ask(DeleteTopic, name="t")
    assert world.performed(DeleteTopicLogs) == [DeleteTopicLogs(topic_id)]
    assert isinstance(framing.raised(world.reply(waiting).results[0].error), UnknownTopic)
    with pytest.raises(UnknownTopic):
        world.produce(topic_id)


def test_altering_a_topic_reaches_its_log_and_its_leader() -> None:
    world = World()
    topic_id = world.create()
    world.produce(topic_id)
    world.ask(AlterTopic, name="t", set={"durability": "replicated"})
    assert world.performed(CreateLog)[-1].config.durability == "replicated"
    world.syncs_at_once = False
    assert world.produce(topic_id).synced == 0


def test_producer_ids_are_given_once_even_over_restarts() -> None:
    world = World()
    ids = [world.ask(InitProducer).producer_id for _ in range(3)]
    world.open()
    ids += [world.ask(InitProducer).producer_id for _ in range(3)]
    assert len(set(ids)) == 6
    assert world.ask(InitProducer, producer_id=ids[0], producer_epoch=4).producer_epoch == 5
    with pytest.raises(UnknownProducer):
        world.ask(InitProducer, producer_id=1 << 40)


def test_who_wants_a_producer_id_that_cannot_be_given_is_told_so_once() -> None:
    world = World()
    world.node.on_offline("EIO", world.now)
    world.perform()
    for _ in range(3):
        number = world.send(InitProducer)
        world.perform()
        with pytest.raises(LogOffline):
            world.reply(number)
        assert sum(sent.reply.correlation_id == number for sent in world.sent) == 1
    assert world.node._topics.producers_waiting_count == 0


def test_who_waits_for_a_producer_id_is_told_when_its_allocation_fails() -> None:
    world = World()
    world.syncs_at_once = False
    numbers = [world.send(InitProducer), world.send(InitProducer)]
    world.perform()
    world.node.on_offline("EIO", world.now)
    world.perform()
    for number in numbers:
        with pytest.raises(LogOffline):
            world.reply(number)


def test_who_wants_a_producer_id_that_the_controller_refuses_is_told_so() -> None:
    world = World()
    world.node._topics._controller.allocate_producer_ids = lambda node_id: Decision(error=Throttled("not registered yet"))
    with pytest.raises(Throttled, match="not registered"):
        world.ask(InitProducer)
    assert world.node._topics.producers_waiting_count == 0


def test_a_receipt_comes_after_the_sync_and_counts_it() -> None:
    world = World()
    topic_id = world.create()
    world.syncs_at_once = False
    number = world.send(Produce, (make_batch(b"a", b"b"),), entries=[ProduceEntry(topic_id, 0)])
    world.perform()
    assert world.reply(number) is None
    assert world.performed(Sync)
    world.sync()
    world.perform()
    (result,) = world.reply(number).results
    assert (result.base_offset, result.replicas, result.synced) == (0, 1, 1)


def test_one_bad_batch_does_not_harm_the_others_of_its_request() -> None:
    world = World()
    topic_id = world.create(partitions=3)
    broken = bytearray(make_batch(b"x"))
    broken[-1] ^= 1
    entries = [ProduceEntry(topic_id, partition) for partition in (0, 1, 7)]
    results = world.ask(Produce, (make_batch(b"v"), bytes(broken), make_batch(b"v")), entries=entries).results
    assert results[0].error is None
    assert isinstance(framing.raised(results[1].error), InvalidRecord)
    assert isinstance(framing.raised(results[2].error), UnknownTopic)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", InvalidRecord),
        (make_batch(b"v") + b"x", InvalidRecord),
        (make_batch(b"v")[:-1], InvalidRecord),
        (b"HTTP" * 40, InvalidRecord),
        (make_batch(b"v", producer_id=5, sequence=0), UnknownProducer),
        (make_batch(b"v", producer_id=-7, sequence=0), InvalidRecord),
        (make_batch(b"v" * 2000), MessageTooLarge),
    ],
)
def test_a_bad_batch_gets_a_named_error(data: bytes, error: type[ZmqmqError]) -> None:
    world = World()
    topic_id = world.create(message_bytes_max="1000")
    with pytest.raises(error):
        world.produce(topic_id, data)
    assert world.produce(topic_id).base_offset == 0


def test_a_stale_slot_table_is_refused() -> None:
    world = World()
    topic_id = world.create()
    (result,) = world.ask(Produce, (make_batch(b"v"),), entries=[ProduceEntry(topic_id, 0, 99)]).results
    assert isinstance(framing.raised(result.error), NotLeader)


def test_acks_0_is_never_answered_and_gives_its_bytes_back() -> None:
    world = World(BrokerLimits(in_flight_bytes_max=4 << 20))
    topic_id = world.create()
    data = make_batch(random.Random(1).randbytes(200_000))
    for _ in range(50):
        assert world.produce(topic_id, data, acks=0) is None
    assert world.produce(topic_id).base_offset == 50


def test_bytes_in_flight_are_bounded_per_connection_and_in_all() -> None:
    world = World(BrokerLimits(in_flight_bytes_max=1000, in_flight_bytes_total_max=1500))
    topic_id = world.create()
    world.hello(b"d")
    world.syncs_at_once = False
    data = make_batch(random.Random(1).randbytes(700))
    assert world.produce(topic_id, data) is None
    with pytest.raises(Throttled) as throttled:
        world.produce(topic_id, data)
    assert throttled.value.retry_after_ms > 0
    with pytest.raises(Throttled, match="the broker has"):
        world.produce(topic_id, data, source=b"d")
    world.sync()
    world.perform()
    assert world.produce(topic_id, data, source=b"d") is None


def test_a_full_disk_is_said_and_leaves_nothing_behind() -> None:
    world = World()
    topic_id = world.create()
    world.fails[PartitionId(topic_id, 0)] = DiskFull("full")
    with pytest.raises(DiskFull):
        world.produce(topic_id)
    world.fails.clear()
    assert world.produce(topic_id).base_offset == 0


@pytest.mark.parametrize(("said", "told"), [(None, "not_written"), ("unknown", "unknown")])
def test_what_became_of_a_batch_that_could_not_be_appended_is_told_as_the_store_knows_it(said: Any, told: str) -> None:
    world = World()
    topic_id = world.create()
    world.fails[PartitionId(topic_id, 0)] = LogOffline("EIO", outcome=said)
    with pytest.raises(LogOffline) as failed:
        world.produce(topic_id)
    assert failed.value.outcome == told


def test_after_a_failed_sync_nothing_is_acknowledged_and_readers_go_on() -> None:
    world = World()
    topic_id = world.create()
    world.produce(topic_id)
    world.syncs_at_once = False
    number = world.send(Produce, (make_batch(b"v"),), entries=[ProduceEntry(topic_id, 0)])
    world.perform()
    world.node.on_offline("EIO", world.now)
    world.perform()
    assert isinstance(framing.raised(world.reply(number).results[0].error), LogOffline)
    with pytest.raises(LogOffline):
        world.produce(topic_id)
    world.send(Fetch, entries=[FetchEntry(topic_id, 0, 0)])
    world.perform()
    assert world.performed(AnswerFetch)[-1].ranges[0].end == 1


def test_a_fetch_waits_for_the_watermark_not_for_the_write() -> None:
    world = World()
    topic_id = world.create()
    world.syncs_at_once = False
    world.send(Fetch, wait_ms_max=1000, entries=[FetchEntry(topic_id, 0, 0)])
    world.send(Produce, (make_batch(b"v"),), entries=[ProduceEntry(topic_id, 0)])
    world.perform()
    assert world.performed(AnswerFetch) == []
    world.sync()
    world.perform()
    (answer,) = world.performed(AnswerFetch)
    assert (answer.ranges[0].offset, answer.ranges[0].end) == (0, 1)


def test_a_reader_never_sees_what_is_written_but_not_committed() -> None:
    world = World()
    topic_id = world.create()
    world.produce(topic_id)
    world.syncs_at_once = False
    world.send(Produce, (make_batch(b"v"),), entries=[ProduceEntry(topic_id, 0)])
    world.perform()
    assert world.ask(Fetch, wait_ms_max=1000, entries=[FetchEntry(topic_id, 0, 1)]) is None
    assert world.performed(AnswerFetch) == []
    world.send(Fetch, entries=[FetchEntry(topic_id, 0, 0)])
    world.perform()
    (answer,) = world.performed(AnswerFetch)
    assert (answer.ranges[0].end, answer.ranges[0].result.high_watermark) == (1, 1)


def test_a_fetch_that_finds_nothing_is_answered_at_its_deadline() -> None:
    world = World()
    topic_id = world.create()
    number = world.send(Fetch, wait_ms_max=300, entries=[FetchEntry(topic_id, 0, 0)])
    world.perform()
    assert world.node.next_deadline_ms() == world.us // 1000 + 300
    world.after(299)
    assert world.reply(number) is None
    world.after(1)
    assert world.reply(number).results == []
    assert world.node.next_deadline_ms() is None


def test_a_fetch_for_many_bytes_waits_until_they_are_there() -> None:
    world = World()
    topic_id = world.create()
    world.send(Fetch, wait_ms_max=1000, bytes_min=300, entries=[FetchEntry(topic_id, 0, 0)])
    for expected in (0, 0, 1):
        world.produce(topic_id)
        assert len(world.performed(AnswerFetch)) == expected


def test_a_fetch_that_waits_is_answered_when_the_topic_waits_for_the_disk_no_more() -> None:
    world = World()
    topic_id = world.create()
    world.syncs_at_once = False
    world.send(Produce, (make_batch(b"v"),), entries=[ProduceEntry(topic_id, 0)])
    world.perform()
    world.send(Fetch, wait_ms_max=1000, entries=[FetchEntry(topic_id, 0, 0)])
    world.send(AlterTopic, name="t", set={"durability": "replicated"})
    world.perform()
    world.node.on_synced([Synced(METADATA_PARTITION, world.ends[METADATA_PARTITION])], world.now)
    world.perform()
    (answer,) = world.performed(AnswerFetch)
    assert answer.ranges[0].end == 1


def test_an_error_of_one_partition_is_told_at_once_beside_the_others() -> None:
    world = World(states={})
    topic_id = world.create(partitions=2)
    world.states[PartitionId(topic_id, 1)] = LogState(5, 9, 9, (), {}, 0, -1)
    entries = [FetchEntry(topic_id, 0, 3), FetchEntry(topic_id, 1, 2), FetchEntry(b"no", 0, 0), FetchEntry(topic_id, 0, 0)]
    errors = [framing.raised(result.error) for result in world.ask(Fetch, wait_ms_max=1000, entries=entries).results]
    assert [type(error) for error in errors] == [OffsetOutOfRange, DataLost, UnknownTopic]


def test_waiting_fetches_are_bounded() -> None:
    world = World(BrokerLimits(connection_fetches_waiting_max=2))
    topic_id = world.create()
    for _ in range(2):
        assert world.ask(Fetch, wait_ms_max=1000, entries=[FetchEntry(topic_id, 0, 0)]) is None
    with pytest.raises(Throttled):
        world.ask(Fetch, wait_ms_max=1000, entries=[FetchEntry(topic_id, 0, 0)])
    world.node.on_gone(b"c")
    world.hello()
    assert world.ask(Fetch, wait_ms_max=1000, entries=[FetchEntry(topic_id, 0, 0)]) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 400)), max_size=40))
def test_every_waiting_fetch_is_answered_exactly_once(steps: list[tuple[int, int, int]]) -> None:
    world = World()
    topic_id = world.create(partitions=3)
    ends = [0, 0, 0]
    asked = []
    for action, partition, ms in steps:
        if action == 0:
            entries = [FetchEntry(topic_id, p, ends[p]) for p in range(partition + 1)]
            asked.append(world.send(Fetch, wait_ms_max=ms, entries=entries))
            world.perform()
        elif action == 1:
            world.produce(topic_id, partition=partition)
            ends[partition] += 1
        else:
            world.after(ms)
    world.after(1000)
    answered = [effect.correlation_id for effect in world.performed(AnswerFetch)]
    answered += [effect.reply.correlation_id for effect in world.sent if type(effect.reply).__name__ == "FetchReply"]
    assert sorted(answered) == asked
    assert world.node.next_deadline_ms() is None


def test_offsets_are_answered_in_the_order_of_the_questions() -> None:
    world = World()
    topic_id = world.create()
    world.produce(topic_id, make_batch(b"a", b"b"))
    results = world.ask(ListOffsets, queries=[OffsetQuery(topic_id, 0, 1), OffsetQuery(b"no", 0, 1), OffsetQuery(topic_id, 0, 0)]).results
    assert [result.offset for result in results] == [2, -1, 0]
    world.ask(ListOffsets, queries=[OffsetQuery(topic_id, 0, 0), OffsetQuery(topic_id, 0, 2, 5)])
    (effect,) = world.performed(AnswerOffsets)
    assert effect.bounds[1] == (0, 2, 0)
    assert effect.results[1] is None


def test_deleted_records_are_gone_when_the_store_has_it_and_answered_when_the_disk_has() -> None:
    world = World()
    topic_id = world.create()
    world.produce(topic_id, make_batch(b"a", b"b"))
    partition = PartitionId(topic_id, 0)
    number = world.send(DeleteRecords, entries=[DeleteEntry(topic_id, 0, -1)])
    world.perform()
    assert world.performed(MoveLogStart) == [MoveLogStart(partition, 2)]
    assert world.reply(number) is None
    world.node.on_start_moved(StartMoved(partition, 2))
    (result,) = world.ask(Fetch, entries=[FetchEntry(topic_id, 0, 0)]).results
    assert isinstance(framing.raised(result.error), DataLost)
    assert world.reply(number) is None
    world.node.on_start_synced([StartMoved(partition, 2)], world.now)
    world.perform()
    assert world.reply(number).results[0].log_start == 2


def test_records_above_the_watermark_cannot_be_deleted() -> None:
    world = World()
    topic_id = world.create()
    (result,) = world.ask(DeleteRecords, entries=[DeleteEntry(topic_id, 0, 1)]).results
    assert isinstance(framing.raised(result.error), OffsetOutOfRange)


def test_stats_count_what_happened() -> None:
    world = World()
    topic_id = world.create(partitions=2)
    world.produce(topic_id, make_batch(b"a", b"b"))
    with pytest.raises(UnknownTopic):
        world.produce(b"no")
    stats = world.ask(GetStats)
    assert (stats.topics, stats.partitions_led, stats.connections, stats.messages_in) == (1, 2, 1, 2)
    assert stats.requests["produce"] == 2
    assert stats.errors == {"UnknownTopic": 1}
    assert [(row.partition, row.high_watermark) for row in stats.partitions] == [(0, 2), (1, 0)]
    assert world.ask(GetStats, partitions=False).partitions == []
