"""The ledger believes what can be true and nothing else."""

from __future__ import annotations

import pytest
from ledger import Ledger, Pass, Place
from values import Identity, identity_of, value_of

PLACE = Place("kept", 0)


def heard(*lines: str) -> Ledger:
    ledger = Ledger()
    for line in lines:
        ledger.hear(line)
    return ledger


def read(ledger: Ledger, *records: tuple[int, int, str], start: int = 0) -> Pass:
    """Read a log of (epoch, number, lane) from ``start`` on to its end."""
    reading = ledger.begin_pass(PLACE, start)
    for offset, (epoch, number, lane) in enumerate(records, start):
        reading.read(offset, epoch, Identity(lane, number))
    reading.end(ledger.row(PLACE).end)
    return reading


def finished(ledger: Ledger, *records: tuple[int, int, str], start: int = 0) -> list[str]:
    ledger.finish([read(ledger, *records, start=start)])
    return ledger.wrong


def test_a_log_that_holds_what_was_acknowledged_and_more_is_right() -> None:
    ledger = heard("ack kept 0 0 1 a 0", "saw kept 0 1 1 b 0", "fail a 1 not_written TimeoutError", "fail a 2 unknown OutcomeUnknown")
    assert finished(ledger, (1, 0, "a"), (1, 0, "b"), (2, 2, "a")) == []


@pytest.mark.parametrize("witness", ["ack", "saw"])
def test_a_record_beyond_the_end_is_lost(witness: str) -> None:
    (wrong,) = finished(heard(f"{witness} kept 0 1 1 a 1"), (1, 0, "a"))
    assert "lost are 1 records from 1 (a#1)" in wrong


def test_another_record_at_an_acknowledged_offset_is_seen() -> None:
    (wrong,) = finished(heard("ack kept 0 0 1 a 0"), (2, 1, "a"))
    assert "the log says a#1 of epoch 2, it was a#0 of epoch 1" in wrong


def test_another_epoch_at_an_acknowledged_offset_is_seen() -> None:
    assert len(finished(heard("ack kept 0 0 1 a 0"), (2, 0, "a"))) == 1


def test_two_receipts_for_one_offset_are_seen() -> None:
    assert len(heard("ack kept 0 0 1 a 0", "ack kept 0 0 1 a 1").wrong) == 1


def test_a_duplicate_is_seen_in_one_partition() -> None:
    wrong = finished(Ledger(), (1, 0, "a"), (1, 0, "a"))
    assert any("a#0 again" in words for words in wrong)


def test_a_duplicate_is_seen_over_two_partitions() -> None:
    ledger = Ledger()
    other = ledger.begin_pass(Place("kept", 1), 0)
    other.read(0, 1, Identity("a", 0))
    ledger.finish([read(ledger, (1, 0, "a")), other])
    assert ledger.wrong == ["a#0 is at kept-0@0 and at kept-1@0"]


def test_a_lane_out_of_order_is_seen() -> None:
    (wrong,) = finished(Ledger(), (1, 1, "a"), (1, 5, "b"), (1, 0, "a"))
    assert "a#0 behind a#1" in wrong


def test_a_gap_in_the_offsets_is_seen() -> None:
    ledger = Ledger()
    reading = ledger.begin_pass(PLACE, 0)
    reading.read(0, 1, Identity("a", 0))
    reading.read(2, 1, Identity("a", 1))
    assert ledger.wrong == ["kept-0: offset 2 follows 0"]


def test_an_epoch_that_goes_back_is_seen() -> None:
    assert len(finished(Ledger(), (2, 0, "a"), (1, 1, "a"))) == 1


def test_a_record_reported_as_not_written_must_be_in_no_log() -> None:
    (wrong,) = finished(heard("fail a 0 not_written TimeoutError"), (1, 0, "a"))
    assert "reported as not written" in wrong


def test_a_failure_must_tell_its_outcome() -> None:
    assert len(heard("fail a 0 None TimeoutError").wrong) == 1


def test_a_receipt_without_an_offset_still_promises_the_record() -> None:
    assert finished(heard("ack kept 0 -1 -1 a 7"), (1, 7, "a")) == []
    assert len(finished(heard("ack kept 0 -1 -1 a 7"), (1, 0, "a"))) == 1


def test_a_topic_that_keeps_all_must_start_at_0() -> None:
    assert len(finished(heard("ack kept 0 0 1 a 0"), (1, 1, "a"), start=1)) == 1


def test_a_topic_that_removes_may_lose_what_lies_below_its_start_only() -> None:
    ledger = heard("ack kept 0 0 1 a 0", "ack kept 0 2 1 a 2")
    ledger.row(PLACE).keeps_all = False
    assert finished(ledger, (1, 1, "a"), start=1) == ["kept-0: the log ends at 2, lost are 1 records from 2 (a#2) on"]


def test_a_log_start_never_goes_back() -> None:
    ledger = Ledger()
    ledger.row(PLACE).keeps_all = False
    ledger.begin_pass(PLACE, 5)
    ledger.begin_pass(PLACE, 4)
    assert ledger.wrong == ["kept-0: the log starts at 4, it was 5"]


def test_what_a_witness_saw_by_itself_counts() -> None:
    assert heard("wrong kept 0: the high watermark went from 2 to 1").wrong == ["kept 0: the high watermark went from 2 to 1"]


def test_every_changed_byte_of_a_value_is_seen() -> None:
    value = value_of("kept-all", 12)
    assert identity_of(value) == ("kept-all", 12)
    for position in range(len(value)):
        assert identity_of(value[:position] + bytes([value[position] ^ 1]) + value[position + 1 :]) is None
    assert identity_of(value[:-1]) is identity_of(value + b"x") is identity_of(b"") is identity_of(None) is None
