"""What a partition remembers of its producers decides as Kafka's KIP-98 says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqmq import batch
from zmqmq.errors import DuplicateSequence, Fenced, OutOfOrderSequence, UnknownProducer
from zmqmq.model import IN_FLIGHT_BATCHES_MAX
from zmqmq.producer_state import ProducerStates


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


def test_idle_producers_expire() -> None:
    states = ProducerStates()
    states.apply(header(0, producer=1, time_ms=10))
    states.apply(header(0, producer=2, time_ms=20))
    states.expire(before_ms=15)
    assert list(states.entries) == [2]
