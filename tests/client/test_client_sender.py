"""The sender against a small model of a broker that loses, refuses and forgets: nothing twice, nothing out of order, no lie."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmqmq import batch as format_
from zmqmq.batch import Record, parse_header
from zmqmq.client.accumulator import Batch, Receipt
from zmqmq.client.sender import Identity, IdentityCall, ProduceCall, Sender
from zmqmq.errors import (
    BrokerUnavailable,
    DiskFull,
    DuplicateSequence,
    InvalidRecord,
    NotLeader,
    OutcomeUnknown,
    Throttled,
    TimeoutError,
    ZmqmqError,
)
from zmqmq.model import IN_FLIGHT_BATCHES_MAX
from zmqmq.producer_state import ProducerStates
from zmqmq.wire.framing import fault
from zmqmq.wire.replies import ProduceReply, ProduceResult

DELIVERY_MS = 2_000


def new_batch(number: int, *, now_ms: int = 0, partition: int = 0, records: int = 1) -> Batch:
    batch = Batch("t", partition, 0, linger_ms=0, deadline_ms=now_ms + DELIVERY_MS)
    batch.records = [Record(None, b"%d.%d" % (number, i), 0) for i in range(records)]
    batch.count = records
    batch.pack(compress=False)
    return batch


def new_sender(*, acks: int = -1, idempotent: bool = True, leader: int = 0) -> Sender:
    return Sender("t", acks=acks, idempotent=idempotent, leader=lambda _partition: leader)


def started(sender: Sender, *batches: Batch) -> list[ProduceCall]:
    sender.enqueue(batches)
    return drive(sender, 0)


def drive(sender: Sender, now_ms: int) -> list[ProduceCall]:
    """Poll until there are no more calls; identities are given out at once."""
    calls = []
    for _ in range(3):
        for call in sender.poll(now_ms, lambda _node: True):
            if isinstance(call, IdentityCall):
                known = call.known
                sender.on_identity(Identity(7, 0) if known is None else Identity(known.producer_id, known.epoch + 1))
            else:
                calls.append(call)
    return calls


def sequences(calls: list[ProduceCall]) -> list[tuple[int, int]]:
    headers = [parse_header(frame) for call in calls for frame in call.frames]
    return [(header.producer_epoch, header.base_sequence) for header in headers]


def ok(offset: int) -> ProduceReply:
    return ProduceReply(1, [ProduceResult(offset, 3, 1000, 1, 1)])


def refusal(error: ZmqmqError) -> ProduceReply:
    return ProduceReply(1, [ProduceResult(-1, -1, -1, 0, 0, fault(error))])


def test_sequences_count_records_in_the_order_of_the_queue() -> None:
    calls = started(new_sender(), new_batch(0, records=3), new_batch(1, records=2), new_batch(2))
    assert sequences(calls) == [(0, 0), (0, 3), (0, 5)]


def test_no_more_than_five_batches_of_a_partition_are_under_way() -> None:
    sender = new_sender()
    calls = started(sender, *(new_batch(i) for i in range(9)))
    assert len(calls) == IN_FLIGHT_BATCHES_MAX
    sender.on_answer(calls[0], ok(0), 1)
    assert len(drive(sender, 1)) == 1


def test_one_request_carries_a_batch_of_each_partition() -> None:
    calls = started(new_sender(), *(new_batch(i, partition=i) for i in range(4)))
    assert [len(call.batches) for call in calls] == [4]


def test_a_batch_that_is_still_being_packed_holds_up_those_behind_it() -> None:
    sender = new_sender()
    late = Batch("t", 0, 0, linger_ms=0, deadline_ms=DELIVERY_MS)
    late.records, late.count = [Record(None, b"late", 0)], 1
    assert started(sender, late, new_batch(1)) == []
    late.pack(compress=False)
    assert sequences(drive(sender, 1)) == [(0, 0), (0, 1)]


def test_after_a_lost_connection_the_same_sequences_go_out_again_in_order() -> None:
    sender = new_sender()
    calls = started(sender, new_batch(0), new_batch(1))
    sender.on_answer(calls[0], BrokerUnavailable("gone"), 1)
    assert drive(sender, 500) == []  # the second one is still under way
    sender.on_answer(calls[1], BrokerUnavailable("gone"), 500)
    again = drive(sender, 1_900)
    assert [call.frames for call in again] == [call.frames for call in calls]


def test_a_batch_that_was_sent_and_never_answered_ends_as_unknown() -> None:
    sender = new_sender()
    batch = new_batch(0)
    started(sender, batch)
    drive(sender, DELIVERY_MS)
    assert sender.take_resolved() == [batch]
    assert isinstance(batch.outcome, OutcomeUnknown)
    assert batch.outcome.outcome == "unknown"


def test_a_batch_that_was_never_sent_ends_as_not_written_and_says_why() -> None:
    sender = new_sender(leader=-1)
    batch = new_batch(0)
    started(sender, batch)
    sender.obstacle = BrokerUnavailable("tcp://here:1: connection refused (connect)")
    drive(sender, DELIVERY_MS)
    assert isinstance(batch.outcome, BrokerUnavailable)
    assert batch.outcome.outcome == "not_written"
    assert "tcp://here:1" in str(batch.outcome)


def test_batches_behind_an_undecided_one_get_a_new_epoch() -> None:
    sender = new_sender()
    lost, waiting = new_batch(0), new_batch(1, now_ms=1_000)
    calls = started(sender, lost)
    sender.on_answer(calls[0], BrokerUnavailable("gone"), 1)
    sender.enqueue([waiting])
    assert sequences(drive(sender, DELIVERY_MS)) == [(1, 0)]
    assert isinstance(lost.outcome, OutcomeUnknown)
    assert waiting.outcome is None


def test_an_old_duplicate_counts_as_delivered() -> None:
    sender = new_sender()
    batch = new_batch(0)
    sender.on_answer(started(sender, batch)[0], refusal(DuplicateSequence("again")), 1)
    assert isinstance(batch.outcome, Receipt)
    assert batch.outcome.base_offset is None


def test_a_fatal_error_fails_its_batch_only() -> None:
    sender = new_sender()
    bad, good = new_batch(0), new_batch(1)
    calls = started(sender, bad)
    sender.on_answer(calls[0], refusal(InvalidRecord("no")), 1)
    sender.enqueue([good])
    assert sequences(drive(sender, 2)) == [(1, 0)]
    assert isinstance(bad.outcome, InvalidRecord)
    assert bad.outcome.outcome == "not_written"


def test_without_idempotence_one_batch_is_under_way_and_a_lost_one_is_not_repeated() -> None:
    sender = new_sender(idempotent=False)
    first, second = new_batch(0), new_batch(1)
    calls = started(sender, first, second)
    assert len(calls) == 1
    sender.on_answer(calls[0], BrokerUnavailable("gone"), 1)
    assert isinstance(first.outcome, OutcomeUnknown)
    assert sequences(drive(sender, 2)) == [(0, -1)]


def test_without_acks_a_batch_is_done_when_it_is_handed_over() -> None:
    sender = new_sender(acks=0)
    batch = new_batch(0)
    (call,) = started(sender, batch)
    sender.on_posted(call)
    assert isinstance(batch.outcome, Receipt)
    assert batch.outcome.base_offset is None


def test_a_throttled_batch_waits_as_long_as_it_was_told() -> None:
    sender = new_sender()
    (call,) = started(sender, new_batch(0))
    sender.on_answer(call, refusal(Throttled("slow", retry_after_ms=300)), 0)
    assert sender.next_deadline_ms() == 300
    assert drive(sender, 299) == []
    assert len(drive(sender, 300)) == 1


@pytest.mark.parametrize("lost", ["the batch", "the identity"])
def test_a_retry_that_finds_no_connection_waits_for_one_without_turning(lost: str) -> None:
    sender = new_sender()
    if lost == "the batch":
        (call,) = started(sender, new_batch(0))
        sender.on_answer(call, BrokerUnavailable("gone"), 10)
    else:
        sender.enqueue([new_batch(0)])
        assert len([*sender.poll(5, lambda _node: True)]) == 1
        sender.on_identity_failed(BrokerUnavailable("gone"), 10)
        assert len([*sender.poll(200, lambda _node: False)]) == 1  # it is asked again, and waits for its answer
    for now_ms in range(200, 5_000, 50):
        assert [*sender.poll(now_ms, lambda _node: False)] == []
        due_ms = sender.next_deadline_ms()
        assert due_ms is None or due_ms > now_ms


class Model:
    """One broker, one connection; what it wrote, and the ways in which it can fail."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now_ms = 0
        self.logs: dict[int, list[bytes]] = {}
        self.states: dict[int, ProducerStates] = {}
        self.network: list[ProduceCall] = []
        self.replies: list[tuple[ProduceCall, ProduceReply]] = []
        self.next_id = 0
        self.is_kind = False

    def handle(self, call: ProduceCall) -> ProduceReply:
        return ProduceReply(1, [self.append(batch.partition, bytes(frame)) for batch, frame in zip(call.batches, call.frames, strict=True)])

    def append(self, partition: int, data: bytes) -> ProduceResult:
        log = self.logs.setdefault(partition, [])
        states = self.states.setdefault(partition, ProducerStates())
        header = parse_header(data)
        mood = 1.0 if self.is_kind else self.rng.random()
        if mood < 0.10:
            error = self.rng.choice([Throttled("later", retry_after_ms=30), DiskFull("full"), InvalidRecord("no"), NotLeader("other")])
            return ProduceResult(-1, -1, -1, 0, 0, fault(error))
        try:
            known = states.check(header)
        except ZmqmqError as error:
            return ProduceResult(-1, -1, -1, 0, 0, fault(error))
        if known is not None:
            return ProduceResult(known.base_offset, 0, 0, 1, 1)
        base = len(log)
        log += [record.value or b"" for record in format_.records(header, data) if record is not None]
        placed = format_.stamp(header, data, seed=0, base_offset=base, leader_epoch=0, append_time_ms=0)
        states.apply(placed.header)
        if 0.12 <= mood < 0.16:
            return ProduceResult(-1, -1, -1, 0, 0, fault(NotLeader("stepped down after the append")))
        return ProduceResult(base, 0, 0, 1, 1)

    def forget_producers(self) -> None:
        """As after a long time without a batch of theirs."""
        for states in self.states.values():
            states.entries.clear()

    def step(self, sender: Sender) -> None:
        for call in sender.poll(self.now_ms, lambda _node: len(self.network) < 20):
            if isinstance(call, IdentityCall):
                self.identify(sender, call)
            else:
                self.network.append(call)
        action = 0.5 if self.is_kind else self.rng.random()
        if action < 0.08:
            self.disconnect(sender)
        elif action < 0.7 and self.network:
            call = self.network.pop(0)
            self.replies.append((call, self.handle(call)))
        if self.replies and (self.is_kind or self.rng.random() < 0.7):
            call, reply = self.replies.pop(0)
            sender.on_answer(call, reply, self.now_ms)
        self.now_ms += self.rng.choice([0, 0, 5, 20, 60])

    def identify(self, sender: Sender, call: IdentityCall) -> None:
        if not self.is_kind and self.rng.random() < 0.2:
            sender.on_identity_failed(TimeoutError("late"), self.now_ms)
        elif call.known is None:
            self.next_id += 1
            sender.on_identity(Identity(self.next_id, 0))
        else:
            sender.on_identity(Identity(call.known.producer_id, call.known.epoch + 1))

    def disconnect(self, sender: Sender) -> None:
        """The broker may have read some of what was sent; no answer will come."""
        arrived = self.rng.randint(0, len(self.network))
        for call in self.network[:arrived]:
            self.handle(call)
        lost = [call for call, _ in self.replies] + self.network
        self.network, self.replies = [], []
        for call in lost:
            sender.on_answer(call, BrokerUnavailable("gone"), self.now_ms)


@pytest.mark.parametrize("partitions", [1, 3])
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_whatever_goes_wrong_nothing_is_written_twice_or_out_of_order_and_every_outcome_is_true(partitions: int, seed: int) -> None:
    rng = random.Random(seed)
    model, sender = Model(rng), new_sender()
    batches: list[Batch] = []
    while len(batches) < 40 or not sender.is_idle:
        model.is_kind = len(batches) == 40 and rng.random() < 0.05
        if len(batches) < 40 and rng.random() < 0.5:
            if sender.is_idle and rng.random() < 0.3:
                model.forget_producers()
            batch = new_batch(len(batches), now_ms=model.now_ms, partition=rng.randrange(partitions), records=rng.randint(1, 3))
            batches.append(batch)
            sender.enqueue([batch])
        model.step(sender)
        assert model.now_ms < 100_000
    assert sorted(map(id, sender.take_resolved())) == sorted(map(id, batches))
    for partition in range(partitions):
        check_log(model.logs.get(partition, []), [batch for batch in batches if batch.partition == partition])


def check_log(log: list[bytes], batches: list[Batch]) -> None:
    numbers = [tuple(map(int, value.split(b"."))) for value in log]
    assert len(set(numbers)) == len(numbers), "written twice"
    assert numbers == sorted(numbers), "out of order"
    for batch in batches:
        data = batch.sealed or batch.seal(-1, 0, -1)
        values = [record.value for record in format_.records(parse_header(data), data) if record is not None]
        outcome = batch.outcome
        if isinstance(outcome, Receipt):
            assert all(value in log for value in values)
            if outcome.base_offset is not None:
                assert log[outcome.base_offset : outcome.base_offset + len(values)] == values
        elif isinstance(outcome, ZmqmqError) and outcome.outcome == "not_written":
            assert not any(value in log for value in values)
        else:
            assert isinstance(outcome, ZmqmqError)
            assert outcome.outcome == "unknown"
