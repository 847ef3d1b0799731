"""What a partition remembers of its producers decides as Kafka's KIP-98 says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqmq import batch
from zmqmq.errors import DuplicateSequence, Fenced, OutOfOrderSequence, Throttled, UnknownProducer
from zmqmq.model import IN_FLIGHT_BATCHES_MAX
from zmqmq.producer_state import PRODUCER_IDLE_MS, PRODUCER_KEPT_MS, PRODUCERS_MAX, ProducerEntry, ProducerStates, WrittenBatch


def header(sequence: int, count: int = 1, *, epoch: int = 0, producer: int = 7, offset: int = 0, time_ms: int = 0) -> batch.BatchHeader:
    data = batch.build(
        batch.encode_records([batch.Record(None, b"x", 0)] * count),
        record_count=count,
        base_timestamp_ms=0,
        max_timestamp_ms=0,
        producer_id=producer,
        producer_epoch=epoch,
        base_sequence=sequence,
    )
    return batch.stamp(batch.parse_header(data), data, seed=0, base_offset=offset, leader_epoch=0, append_time_ms=time_ms).header


def test_a_batch_without_a_producer_is_always_appended() -> None:
    states = ProducerStates()
    anonymous = header(-1, producer=batch.NO_PRODUCER)
    assert states.check(anonymous) is None
    states.apply(anonymous)
    assert states.entries == {}


def test_a_retry_names_the_batch_that_was_written() -> None:
    states = ProducerStates()
    states.apply(header(0, 3, offset=100))
    found = states.check(header(0, 3))
    assert found is not None
    assert (found.base_offset, found.end_offset) == (100, 103)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12))
def test_only_the_next_sequence_is_appended_and_the_last_batches_are_duplicates(counts: list[int]) -> None:
    states = ProducerStates()
    written: list[batch.BatchHeader] = []
    sequence = 0
    for count in counts:
        fresh = header(sequence, count, offset=sequence)
        assert states.check(fresh) is None
        with pytest.raises((OutOfOrderSequence, UnknownProducer)):
            states.check(header(sequence + 1, count))
        states.apply(fresh)
        written.append(fresh)
        sequence += count
    for old in written[-IN_FLIGHT_BATCHES_MAX:]:
        found = states.check(old)
        assert found is not None
        assert found.base_offset == old.base_offset
    for older in written[:-IN_FLIGHT_BATCHES_MAX]:
        with pytest.raises(DuplicateSequence):
            states.check(older)


def test_sequences_wrap_around() -> None:
    states = ProducerStates()
    states.apply(header(0))
    states.apply(header(batch.SEQUENCE_MODULUS - 2, 4))
    assert states.check(header(2)) is None
    with pytest.raises(DuplicateSequence):
        states.check(header(batch.SEQUENCE_MODULUS - 1))


def test_a_newer_epoch_fences_the_older_and_begins_at_zero() -> None:
    states = ProducerStates()
    states.apply(header(0, 5))
    with pytest.raises(OutOfOrderSequence):
        states.check(header(5, epoch=1))
    assert states.check(header(0, epoch=1)) is None
    states.apply(header(0, epoch=1))
    with pytest.raises(Fenced):
        states.check(header(5, epoch=0))


def test_an_unknown_producer_must_begin_at_zero() -> None:
    with pytest.raises(UnknownProducer):
        ProducerStates().check(header(3))


def test_a_producer_that_was_idle_too_long_is_forgotten_by_the_next_batch() -> None:
    states = ProducerStates()
    states.apply(header(0, producer=1, offset=0, time_ms=10))
    states.apply(header(0, producer=2, offset=1, time_ms=20))
    states.apply(header(1, producer=2, offset=2, time_ms=10 + PRODUCER_IDLE_MS))
    assert list(states.entries) == [1, 2]
    states.apply(header(2, producer=2, offset=3, time_ms=11 + PRODUCER_IDLE_MS))
    assert list(states.entries) == [2]


def test_beyond_the_bound_the_idlest_is_forgotten_but_none_that_may_still_retry() -> None:
    states = full(last_ms=1000)
    assert len(states.entries) == PRODUCERS_MAX
    states.check_room(5, 1000)
    with pytest.raises(Throttled) as refused:
        states.check_room(PRODUCERS_MAX, PRODUCER_KEPT_MS - 1)
    assert refused.value.outcome == "not_written"
    states.apply(header(1, producer=0, offset=PRODUCERS_MAX, time_ms=1000))
    states.check_room(PRODUCERS_MAX, PRODUCER_KEPT_MS)
    states.apply(header(0, producer=PRODUCERS_MAX, offset=PRODUCERS_MAX + 1, time_ms=PRODUCER_KEPT_MS))
    assert len(states.entries) == PRODUCERS_MAX
    assert 1 not in states.entries
    assert {0, PRODUCERS_MAX} <= states.entries.keys()


def test_what_is_taken_back_brings_back_whom_it_made_forgotten() -> None:
    states = full(last_ms=1000)
    before = list(states.entries.items())
    undo: dict[int, ProducerEntry | None] = {}
    for i, (producer, sequence) in enumerate([(PRODUCERS_MAX, 0), (3, 1), (PRODUCERS_MAX, 1), (0, 0)]):
        states.apply(header(sequence, producer=producer, offset=PRODUCERS_MAX + i, time_ms=PRODUCER_KEPT_MS + 1000), undo)
    states.restore(undo)
    assert list(states.entries.items()) == before


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, PRODUCER_IDLE_MS)), max_size=20), st.data())
def test_a_replay_from_anywhere_forgets_the_same_producers(steps: list[tuple[int, int]], data: st.DataObject) -> None:
    """A checkpoint in between, as after a restart, changes nothing."""
    states = ProducerStates()
    headers = []
    now_ms = 0
    for offset, (producer, gap_ms) in enumerate(steps):
        now_ms += gap_ms
        headers.append(header(0, producer=producer, epoch=offset, offset=offset, time_ms=now_ms))
    cut = data.draw(st.integers(0, len(headers)))
    for each in headers[:cut]:
        states.apply(each)
    restarted = ProducerStates(dict(sorted(states.entries.items())))
    for each in headers[cut:]:
        states.apply(each)
        restarted.apply(each)
    assert list(restarted.entries.items()) == list(states.entries.items())


def full(last_ms: int) -> ProducerStates:
    """As many producers as there may be, the first of them the idlest."""
    batches = [WrittenBatch(0, 0, i, i + 1, 0, i * last_ms // PRODUCERS_MAX) for i in range(PRODUCERS_MAX)]
    return ProducerStates({i: ProducerEntry(0, (batch,)) for i, batch in enumerate(batches)})
