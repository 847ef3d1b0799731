"""Accumulator, routing, session and core, without sockets."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from zmqmq.batch import Record
from zmqmq.client.accumulator import GRANT_BYTES, Accumulator, Batch, Receipt
from zmqmq.client.core import SILENCE_MS, ClientCore
from zmqmq.client.routing import REFRESH_MS_MAX, REFRESH_MS_MIN, Routing, Sticky, route_of
from zmqmq.client.session import (
    BACKOFF_MS_MAX,
    CONNECT_MS_MAX,
    Answer,
    Connect,
    Disconnect,
    Effect,
    Session,
    State,
    Transmit,
)
from zmqmq.errors import BrokerUnavailable, OutcomeUnknown, RemoteProtocolError, TimeoutError, UnknownTopic, UnsupportedVersion
from zmqmq.model import SLOT_COUNT
from zmqmq.ports import Buffer
from zmqmq.wire import framing
from zmqmq.wire.replies import BrokerInfo, HelloReply, MetadataReply, PartitionInfo, PingReply, Reply, TopicInfo
from zmqmq.wire.requests import CreateTopic, Ping, Request


def add(accumulator: Accumulator, value: bytes, *, partition: int = 0, now_ms: int = 0) -> bool:
    """As a producer does it; False when the buffer is full."""
    if accumulator.is_full(partition, len(value)):
        accumulator.close(partition)
    batch = accumulator.room(partition, len(value), now_ms, now_ms)
    if batch is None:
        return False
    batch.records.append(Record(None, value, 0))
    batch.bytes += len(value)
    return True


def new_accumulator(*, batch_bytes: int = 100, buffer_bytes: int = 1 << 20, linger_ms: int = 5) -> Accumulator:
    return Accumulator("t", batch_bytes=batch_bytes, buffer_bytes=buffer_bytes, linger_ms=linger_ms, delivery_ms=1_000)


def test_a_batch_is_closed_by_its_bytes_or_by_its_linger() -> None:
    accumulator = new_accumulator()
    for _ in range(11):
        add(accumulator, bytes(10))
    assert [batch.count for batch in accumulator.take_line()] == [10]
    assert accumulator.next_linger_ms() == 5
    assert accumulator.close_lingering(4) == []
    assert [batch.count for batch in accumulator.close_lingering(5)] == [1]


def test_a_record_larger_than_a_batch_goes_alone() -> None:
    accumulator = new_accumulator()
    for size in (10, 500, 10):
        assert add(accumulator, bytes(size))
    accumulator.close_all()
    assert [batch.bytes for batch in accumulator.take_line()] == [10, 500, 10]


def test_packing_gives_back_what_compression_saved_and_resolving_the_rest() -> None:
    accumulator = new_accumulator(batch_bytes=1_000)
    add(accumulator, bytes(900))
    (batch,) = accumulator.close_all()
    batch.pack(compress=True)
    accumulator.on_packed(batch)
    assert 0 < accumulator.buffered_bytes < 200
    accumulator.release(batch)
    assert accumulator.buffered_bytes == 0


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 90), st.integers(0, 3)), max_size=200),
    st.integers(60, 400),
)
def test_records_leave_in_the_order_they_came_and_the_buffer_stays_bounded(steps: list[tuple[int, int, int]], buffer_bytes: int) -> None:
    accumulator = new_accumulator(buffer_bytes=buffer_bytes)
    wanted: dict[int, list[bytes]] = {}
    found: dict[int, list[bytes]] = {}
    for now_ms, (partition, size, what) in enumerate(steps):
        value = b"%d" % now_ms + bytes(size)
        if add(accumulator, value, partition=partition, now_ms=now_ms):
            wanted.setdefault(partition, []).append(value)
        if what == 0:
            accumulator.close_lingering(now_ms)
        if what == 1:
            take(accumulator, found)
        assert 0 <= accumulator.buffered_bytes < buffer_bytes + max(GRANT_BYTES, 100)
    accumulator.close_all()
    take(accumulator, found)
    assert found == wanted
    assert accumulator.buffered_bytes == 0


def take(accumulator: Accumulator, found: dict[int, list[bytes]]) -> None:
    for batch in accumulator.take_line():
        found.setdefault(batch.partition, []).extend(record.value or b"" for record in batch.records)
        batch.pack(compress=False)
        accumulator.on_packed(batch)
        accumulator.release(batch)


def test_a_watcher_is_called_once_however_late_it_comes() -> None:
    heard: list[str] = []
    batch = Batch("t", 0, 0, linger_ms=0, deadline_ms=0)
    batch.watch(lambda: heard.append("early"))
    batch.outcome = Receipt(0, 0, 0, 1, 1)
    batch.notify()
    batch.watch(lambda: heard.append("late"))
    batch.notify()
    assert heard == ["early", "late"]


def topic(*leaders: int, name: str = "t", table: bytes = b"") -> TopicInfo:
    partitions = [PartitionInfo(i, leader, 0, [leader], [leader]) for i, leader in enumerate(leaders)]
    return TopicInfo(name, bytes(16), partitions, slot_table=table)


@given(st.binary(max_size=40), st.integers(1, 1024))
def test_a_key_goes_where_the_first_slot_table_says(key: bytes, partitions: int) -> None:
    route = route_of(topic(*[0] * partitions))
    assert route.partition_of(key) == (crc32c(key) % SLOT_COUNT) * partitions // SLOT_COUNT


def test_a_topics_own_table_wins() -> None:
    table = b"".join((slot % 2).to_bytes(2, "little") for slot in range(SLOT_COUNT))
    route = route_of(topic(0, 0, table=table))
    assert route.partition_of(b"ann") == crc32c(b"ann") % SLOT_COUNT % 2


def test_keyless_records_go_to_partitions_that_have_a_leader_in_turn() -> None:
    sticky, route = Sticky(0), route_of(topic(0, -1, 0))
    found = []
    for _ in range(4):
        found.append(sticky.current(route))
        sticky.advance()
    assert found == [0, 2, 2, 0]


def test_metadata_is_asked_for_at_first_use_then_seldom_and_sooner_when_it_proved_wrong() -> None:
    routing = Routing()
    assert routing.refresh_due_ms() is None
    routing.use("t")
    assert routing.refresh_due_ms() == 0
    routing.on_asked(1_000)
    assert routing.refresh_due_ms() is None
    routing.on_reply(MetadataReply(1, "c", 0, [BrokerInfo(0, "")], [topic(0)]), is_refresh=True)
    assert routing.refresh_due_ms() == 1_000 + REFRESH_MS_MAX
    routing.want_refresh()
    assert routing.refresh_due_ms() == 1_000 + REFRESH_MS_MIN


class Line:
    """A session, what it wanted, and a broker's words for it."""

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        self.answers: list[Answer] = []
        self.session = Session("tcp://b", client_id="me", software="test", emit=self.effects.append, random=random.Random(1))

    def ready(self) -> Line:
        self.session.maybe_open(0)
        self.session.on_connected(0)
        self.hear(HelloReply(1, 1, "c", 7, "test"))
        return self

    def hear(self, reply: Reply, now_ms: int = 1) -> None:
        self.session.on_message(framing.encode(reply), now_ms)

    def ask(self, deadline_ms: int = 100) -> None:
        def done(answer: Answer, _payload: Sequence[Buffer], _now_ms: int) -> None:
            self.answers.append(answer)

        self.session.request(Ping, (), deadline_ms, done, 1)


def test_a_connection_is_greeted_before_it_is_used() -> None:
    line = Line()
    line.session.maybe_open(0)
    assert line.effects == [Connect("tcp://b")]
    line.session.on_connected(1)
    assert not line.session.is_ready
    line.hear(HelloReply(1, 1, "c", 7, "test"))
    assert (line.session.is_ready, line.session.node_id) == (True, 7)


def test_answers_find_their_questions_in_any_order() -> None:
    line = Line().ready()
    line.ask()
    line.ask()
    line.hear(PingReply(3))
    line.hear(PingReply(2))
    line.hear(PingReply(2))
    assert [answer.correlation_id for answer in line.answers if isinstance(answer, PingReply)] == [3, 2]


def test_every_question_is_answered_when_the_connection_ends_and_at_its_deadline() -> None:
    line = Line().ready()
    line.ask(deadline_ms=50)
    line.ask(deadline_ms=100)
    assert line.session.next_deadline_ms() == 50
    line.session.on_tick(50)
    line.session.on_lost("reset", 60)
    assert [type(answer) for answer in line.answers] == [TimeoutError, BrokerUnavailable]
    assert line.session.in_flight_bytes == 0


def test_a_broker_that_talks_nonsense_is_left() -> None:
    line = Line().ready()
    line.session.on_message([b"HTTP/1.1 400"], 5)
    assert line.effects[-1] == Disconnect("tcp://b")
    assert isinstance(line.session.failure, RemoteProtocolError)


def test_a_refused_version_is_kept_as_the_reason() -> None:
    line = Line()
    line.session.maybe_open(0)
    line.session.on_connected(0)
    line.hear(framing.error_reply(1, UnsupportedVersion("no common version")))
    assert isinstance(line.session.failure, UnsupportedVersion)


def test_reconnecting_waits_longer_each_time_within_a_limit() -> None:
    session, now_ms, pauses = Line().session, 0, []
    for _ in range(10):
        session.maybe_open(now_ms)
        assert session.state is State.CONNECTING
        now_ms += CONNECT_MS_MAX
        session.on_tick(now_ms)
        session.maybe_open(now_ms)
        pauses.append(session.retry_at_ms - now_ms)
        assert session.next_deadline_ms() == session.retry_at_ms
        now_ms = session.retry_at_ms
    assert pauses[0] <= 50
    assert BACKOFF_MS_MAX / 2 <= pauses[-1] <= BACKOFF_MS_MAX


def connected_core(*addresses: str) -> ClientCore:
    return ClientCore(addresses, client_id="", random=random.Random(1))


def greet(core: ClientCore, address: str, node: int) -> None:
    core.on_connected(address, 0)
    core.on_message(address, framing.encode(HelloReply(1, 1, "c", node, "test")), 0)
    core.advance(0)


def create(correlation_id: int, timeout_ms: int) -> Request:
    return CreateTopic(correlation_id, timeout_ms, "t")


def test_a_question_waits_for_a_connection_and_names_every_address_at_its_deadline() -> None:
    core, answers = connected_core("tcp://a", "tcp://b"), list[Answer]()
    core.ask(Ping, answers.append, deadline_ms=100, what="Ping", now_ms=0)
    assert core.take_effects() == [Connect("tcp://a"), Connect("tcp://b")]
    core.on_lost("tcp://a", "connection refused", 1)
    core.advance(100)
    (error,) = answers
    assert isinstance(error, BrokerUnavailable)
    assert "tcp://a: connection refused (connect)" in str(error)
    assert "tcp://b: still trying" in str(error)


def test_a_lost_safe_question_is_asked_again_and_an_unsafe_one_is_unknown() -> None:
    core, safe, unsafe = connected_core("tcp://a", "tcp://b"), list[Answer](), list[Answer]()
    core.ask(Ping, safe.append, deadline_ms=100, what="Ping", now_ms=0)
    core.ask(create, unsafe.append, deadline_ms=100, what="CreateTopic", now_ms=0, is_safe=False)
    greet(core, "tcp://a", 0)
    core.on_lost("tcp://a", "reset", 1)
    assert [type(answer) for answer in unsafe] == [OutcomeUnknown]
    core.take_effects()
    greet(core, "tcp://b", 1)
    assert [effect.address for effect in core.take_effects() if isinstance(effect, Transmit)][-1] == "tcp://b"
    assert safe == []


def told_of(core: ClientCore, *addresses: str) -> None:
    brokers = [BrokerInfo(node, address) for node, address in enumerate(addresses)]
    core.routing.on_reply(MetadataReply(1, "c", 0, brokers, []), is_refresh=False)


def test_a_client_that_was_told_one_address_tries_the_brokers_it_learned_of() -> None:
    core = connected_core("tcp://a")
    core.ask(Ping, list[Answer]().append, deadline_ms=100, what="Ping", now_ms=0)
    greet(core, "tcp://a", 0)
    told_of(core, "tcp://a-by-another-name", "tcp://b", "")
    core.take_effects()
    core.on_lost("tcp://a", "reset", 1)
    core.advance(1)
    assert Connect("tcp://b") in core.take_effects()
    assert sorted(session.address for session in core.sessions()) == ["tcp://a", "tcp://b"]


def test_it_tries_them_also_when_the_only_connection_is_silent() -> None:
    core, answers = connected_core("tcp://a"), list[Answer]()
    core.ask(Ping, answers.append, deadline_ms=SILENCE_MS * 2, what="Ping", now_ms=0)
    greet(core, "tcp://a", 0)
    told_of(core, "tcp://a", "tcp://b")
    core.take_effects()
    core.ask(Ping, answers.append, deadline_ms=SILENCE_MS * 2, what="Ping", now_ms=SILENCE_MS)
    assert Connect("tcp://b") in core.take_effects()


def test_an_idle_client_sleeps() -> None:
    core = connected_core("tcp://a")
    core.advance(0)
    assert core.next_deadline_ms() is None
    assert core.take_effects() == []


@pytest.mark.parametrize("now_ms", [0, 5_000])
def test_a_fatal_refusal_is_told_at_once(now_ms: int) -> None:
    core, answers = connected_core("tcp://a"), list[Answer]()
    core.ask(Ping, answers.append, deadline_ms=now_ms + 10_000, what="Ping", now_ms=now_ms)
    core.on_connected("tcp://a", now_ms)
    core.on_message("tcp://a", framing.encode(framing.error_reply(1, UnknownTopic("no"))), now_ms)
    core.advance(now_ms)
    assert [type(answer) for answer in answers] == [UnknownTopic]
