"""For each anomaly the smallest history that shows it and nothing else, and its neighbour that is right."""

from __future__ import annotations

import pytest
from histories import KEY, Story

from zmqmq.testing.history import ANOMALIES, Batch, Poll, Send


def test_a_perfect_history_has_no_anomaly() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.send(0, "b", 1)
    story.poll(1, [(0, "a"), (1, "b")])
    story.poll(2, [(0, "a"), (1, "b")], final=True)
    report = story.report(ww=True)
    assert (report.is_valid, report.anomalies) == (True, ())
    assert str(report) == "valid: 8 operations"


def test_an_offset_with_two_values_is_inconsistent() -> None:
    story = Story()
    story.send(0, "a", 0)
    ends = story.send(1, "b", 0), story.poll(2, [(0, "a")])
    story.poll(3, [(0, "b")])
    report = story.report()
    assert report.counts() == {"inconsistent-offsets": 1}
    (example,) = report.anomalies[0].examples
    assert (example.key, example.offsets, example.values) == (KEY, (0,), ("a", "b"))
    assert (example.operations, ends) == ((1, 3), (3, 5))
    assert example.what == "offset 0 of t-0 holds 'a' and 'b'"


def test_polls_of_failed_operations_count_for_offsets() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.send(1, "b", None, "info")
    story.poll(2, [(0, "b")], "fail")
    assert story.found() == ["inconsistent-offsets"]


def test_the_same_offset_of_two_keys_is_consistent() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.send(0, "b", 0, key="t-1")
    story.poll(1, {KEY: [(0, "a")], "t-1": [(0, "b")]})
    assert story.found() == []


def test_an_uncertain_receipt_is_no_proof_in_a_transaction() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.sends(1, [("b", 0)], "info", f="txn")
    assert story.found() == []


def test_a_value_with_two_offsets_is_a_duplicate_and_nothing_else() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.send(0, "b", 1)
    story.poll(1, [(0, "a"), (1, "b"), (2, "a")])
    report = story.report()
    assert report.counts() == {"duplicate": 1}
    assert report.anomalies[0].examples[0].offsets == (0, 2)


def test_a_value_read_where_its_receipt_did_not_say_is_a_duplicate() -> None:
    story = Story()
    story.send(0, "a", 5)
    story.poll(1, [(4, "a")])
    assert story.found() == ["duplicate"]


def test_the_same_value_in_two_keys_is_no_duplicate() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.send(0, "a", 3, key="t-1")
    story.poll(1, {KEY: [(0, "a")], "t-1": [(3, "a")]})
    assert story.found() == []


def test_a_value_that_nobody_sent_has_no_writer() -> None:
    story = Story()
    story.poll(0, [(0, "a")], "info")
    assert story.found() == ["no-writer"]


def test_a_value_sent_to_another_key_has_no_writer_here() -> None:
    story = Story()
    story.send(0, "a", key="t-1")
    story.poll(1, {KEY: [(0, "a")]})
    assert story.found() == ["no-writer"]


def test_a_value_whose_send_never_completed_has_a_writer() -> None:
    story = Story()
    story.begin(0, "send", [Send(KEY, "a")])
    story.poll(1, [(0, "a")])
    assert story.found() == []


def test_a_failed_send_that_is_read_is_aborted() -> None:
    story = Story()
    failed = story.send(0, "a", type="fail")
    read = story.poll(1, [(0, "a")])
    report = story.report()
    assert report.counts() == {"G1a": 1}
    assert report.anomalies[0].examples[0].operations == (failed, read)


def test_an_uncertain_send_that_is_read_is_not_aborted() -> None:
    story = Story()
    story.send(0, "a", type="info")
    story.poll(1, [(0, "a")])
    assert story.found() == []


def test_readers_of_uncommitted_records_may_see_failed_transactions_but_not_failed_sends() -> None:
    story = Story()
    story.sends(0, [("a", None)], "fail", f="txn")
    story.poll(1, [(0, "a")])
    assert story.found() == ["G1a"]
    assert story.found(read_committed=False) == []
    story.send(2, "b", type="fail")
    story.poll(1, [(1, "b")])
    assert story.found(read_committed=False) == ["G1a"]


@pytest.mark.parametrize("type", ["ok", "fail", "info"])
def test_a_transaction_that_polls_its_own_send_reads_before_the_commit(type: str) -> None:
    story = Story()
    story.begin(0, "txn", [Send(KEY, "a"), Poll()])
    story.end(0, type, [Send(KEY, "a"), Poll({KEY: [(0, "a")]})])  # type: ignore[arg-type]
    assert "precommitted-read" in story.found()
    assert "precommitted-read" not in story.found(read_committed=False)


def test_a_transaction_may_poll_what_others_sent_and_then_send() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.begin(1, "txn", [Poll(), Send(KEY, "b")])
    story.end(1, "ok", [Poll({KEY: [(0, "a")]}), Send(KEY, "b", 1)])
    story.poll(2, [(0, "a"), (1, "b")])
    assert story.found() == []


def test_an_acknowledged_value_below_what_was_read_is_lost() -> None:
    story = Story()
    lost = story.send(0, "a", 0)
    story.send(0, "b", 1)
    story.poll(1, [(1, "b")])
    report = story.report()
    assert report.counts() == {"lost-write": 1}
    assert report.anomalies[0].examples[0].operations == (lost,)
    assert str(report) == "lost-write (1): 'a' at offset 0 of t-0 was never read, though offset 1 was"


def test_a_value_beyond_what_was_read_is_only_late() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.send(0, "b", 1)
    story.poll(1, [(0, "a")])
    report = story.report()
    assert (report.counts(), report.metrics.unseen) == ({}, {KEY: 1})


def test_an_uncertain_value_below_what_was_read_is_not_lost() -> None:
    story = Story()
    story.send(0, "a", None, "info")
    story.send(1, "b", 1)
    story.poll(2, [(1, "b")])
    assert story.found() == []


def test_a_read_by_an_operation_that_is_not_ok_saves_no_value() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.send(0, "b", 1)
    story.poll(1, [(0, "a")], "info")
    story.poll(2, [(1, "b")])
    assert story.found() == ["lost-write"]


def test_an_uncertain_transaction_of_which_a_part_was_read_must_be_there_whole() -> None:
    story = Story()
    story.sends(0, [("a", 0), ("b", 1)], "info", f="txn")
    story.poll(1, [(1, "b")])
    assert story.found() == ["lost-write", "torn-transaction"]


def test_the_sends_of_an_uncertain_send_operation_stand_for_themselves() -> None:
    story = Story()
    story.sends(0, [("a", None), ("b", None)], "info")
    story.poll(1, [(0, "b")], final=True)
    assert story.found() == []


def test_an_acknowledged_value_that_the_final_polls_do_not_find_is_unseen() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.send(0, "b", 1)
    story.poll(1, [(0, "a")], final=True)
    assert story.found() == ["unseen"]


def test_an_uncertain_value_that_the_final_polls_do_not_find_is_no_loss() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.send(0, "b", type="info")
    story.send(1, "c", type="fail")
    story.poll(2, [(0, "a")], final=True)
    assert story.found() == []


def test_a_whole_key_that_the_final_polls_do_not_mention_is_unseen() -> None:
    story = Story()
    story.send(0, "a")
    story.send(0, "b", 0, key="t-1")
    story.poll(1, {"t-1": [(0, "b")]}, final=True)
    assert story.found() == ["unseen"]


def test_a_final_poll_that_failed_proves_nothing() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.poll(1, [], "fail", final=True)
    assert story.found() == []


def test_a_value_that_was_read_and_is_gone_at_the_end_has_vanished() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.send(1, "b", None, "info")
    read = story.poll(2, [(0, "a"), (1, "b")])
    story.poll(3, [(0, "a")], final=True)
    report = story.report()
    assert report.counts() == {"vanished": 1}
    assert report.anomalies[0].examples[0].operations == (read,)


def test_final_polls_may_be_many() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.send(1, "b", 1)
    story.poll(2, [(0, "a"), (1, "b")])
    story.poll(3, [(0, "a")], final=True)
    story.poll(3, [(1, "b")], final=True)
    assert story.found() == []


def test_a_transaction_of_which_only_a_part_is_found_at_the_end_is_torn() -> None:
    story = Story()
    story.sends(0, [("a", None), ("b", None)], "info", f="txn")
    story.poll(1, [(0, "a")], final=True)
    assert story.found() == ["torn-transaction"]


@pytest.mark.parametrize("records", [[], [(0, "a"), (1, "b")]])
def test_a_transaction_found_whole_or_not_at_all_is_not_torn(records: list[tuple[int, str]]) -> None:
    story = Story()
    story.sends(0, [("a", None), ("b", None)], "info", f="txn")
    story.poll(1, records, final=True)
    assert story.found() == []


def test_a_transaction_whose_rest_may_be_late_is_not_torn() -> None:
    story = Story()
    story.sends(0, [("a", 0), ("b", 1)], f="txn")
    story.poll(1, [(0, "a")])
    assert story.found() == []


def three_records(process: int = 0) -> Story:
    story = Story()
    for offset, value in enumerate("abc"):
        story.send(process, value, offset)
    story.poll(9, [(0, "a"), (1, "b"), (2, "c")])
    return story


@pytest.mark.parametrize(
    ("records", "name"),
    [
        ([(0, "a"), (2, "c")], "int-poll-skip"),
        ([(1, "b"), (0, "a")], "int-nonmonotonic-poll"),
        ([(0, "a"), (0, "a")], "int-nonmonotonic-poll"),
        ([(1, "b"), (2, "c")], None),
    ],
)
def test_one_operation_polls_record_after_record(records: list[tuple[int, str]], name: str | None) -> None:
    story = three_records()
    story.poll(1, records)
    assert story.found() == ([name] if name else [])


def test_a_rebalance_within_the_operation_explains_its_jumps() -> None:
    story = three_records()
    story.poll(1, [(0, "a"), (2, "c")], rebalanced=[KEY])
    assert story.found() == []
    story.poll(2, [(0, "a"), (2, "c")], rebalanced=["t-1"])
    assert story.found() == ["int-poll-skip"]


@pytest.mark.parametrize(
    ("second", "name"),
    [([(2, "c")], "poll-skip"), ([(0, "a"), (1, "b"), (2, "c")], "nonmonotonic-poll"), ([(1, "b")], None)],
)
def test_a_process_polls_on_where_it_stopped(second: list[tuple[int, str]], name: str | None) -> None:
    story = three_records()
    story.poll(1, [(0, "a")])
    story.poll(1, [])
    story.poll(1, second)
    report = story.report()
    assert list(report.counts()) == ([name] if name else [])
    assert report.is_valid is (name is None)


def test_a_hole_in_the_offsets_is_no_skip() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.send(0, "b", 7)
    story.poll(1, [(0, "a"), (7, "b")])
    story.poll(2, [(0, "a")])
    story.poll(2, [(7, "b")])
    assert story.found() == []


def test_over_a_hole_a_skip_is_still_one() -> None:
    story = Story()
    story.sends(0, [("a", 0), ("b", 7), ("c", 8)])
    story.poll(9, [(0, "a"), (7, "b"), (8, "c")])
    story.poll(1, [(0, "a"), (8, "c")])
    story.poll(2, [(0, "a")])
    story.poll(2, [(8, "c")])
    assert story.found() == ["int-poll-skip", "poll-skip"]


@pytest.mark.parametrize("type", ["fail", "info"])
def test_what_an_operation_that_is_not_ok_polled_is_polled_again(type: str) -> None:
    story = three_records()
    story.poll(1, [(0, "a")])
    story.poll(1, [(1, "b")], type)  # type: ignore[arg-type]
    story.poll(1, [(1, "b")])
    assert story.found() == []
    story.poll(1, [(1, "b"), (2, "c")], type)  # type: ignore[arg-type]
    assert story.found() == ["nonmonotonic-poll"]


@pytest.mark.parametrize(
    ("f", "keys", "name"),
    [
        ("assign", [KEY], "poll-skip"),
        ("assign", ["t-1"], None),
        ("subscribe", [], None),
        ("seek", [KEY], None),
        ("seek", ["t-1"], "poll-skip"),
        ("crash", [], None),
    ],
)
def test_a_process_keeps_its_place_only_in_keys_that_it_keeps(f: str, keys: list[str], name: str | None) -> None:
    story = three_records()
    story.poll(1, [(0, "a")])
    story.place(1, f, keys, "info")
    story.poll(1, [(2, "c")])
    assert story.found() == ([name] if name else [])


def test_an_assignment_that_failed_changes_no_place() -> None:
    story = three_records()
    story.poll(1, [(0, "a")])
    story.place(1, "assign", ["t-1"], "fail")
    story.poll(1, [(2, "c")])
    assert story.found() == ["poll-skip"]


def test_skips_and_repeats_between_polls_are_expected_of_groups() -> None:
    story = three_records()
    story.place(1, "subscribe", [KEY])
    story.poll(1, [(0, "a")])
    story.poll(1, [(2, "c")])
    story.poll(1, [(2, "c")])
    assert story.found() == ["poll-skip", "nonmonotonic-poll"]
    assert story.report().is_valid
    assert not story.report(subscribe=False).is_valid


def test_a_later_send_before_an_earlier_one_is_out_of_order() -> None:
    story = Story()
    first = story.send(0, "a", 1)
    second = story.send(0, "b", 0)
    story.poll(1, [(0, "b"), (1, "a")])
    report = story.report()
    assert report.counts() == {"nonmonotonic-send": 1}
    assert report.anomalies[0].examples[0].operations == (first, second)


def test_the_place_of_an_uncertain_send_is_where_it_was_read() -> None:
    story = Story()
    story.send(0, "a", 1)
    story.send(0, "b", None, "info")
    story.poll(1, [(0, "b"), (1, "a")])
    assert story.found() == ["nonmonotonic-send"]


def test_two_processes_send_in_any_order() -> None:
    story = Story()
    story.begin(0, "send", [Send(KEY, "a")])
    story.begin(1, "send", [Send(KEY, "b")])
    story.end(1, "ok", [Send(KEY, "b", 1)])
    story.end(0, "ok", [Send(KEY, "a", 0)])
    story.poll(2, [(0, "a"), (1, "b")])
    assert story.found(ww=True) == []


def test_the_sends_of_one_operation_keep_their_order() -> None:
    story = Story()
    story.sends(0, [("a", 1), ("b", 0)])
    story.poll(1, [(0, "b"), (1, "a")])
    assert story.found() == ["int-nonmonotonic-send"]


def test_anothers_record_between_two_sends_of_an_operation_is_normal() -> None:
    story = Story()
    story.send(1, "x", 1)
    story.sends(0, [("a", 0), ("b", 2)])
    story.poll(2, [(0, "a"), (1, "x"), (2, "b")])
    assert story.found() == ["int-send-skip"]
    assert story.report().is_valid


def test_a_watermark_falls_only_with_a_new_leader() -> None:
    story = Story()
    story.told(0, [], 5, 1)
    story.told(0, [], 4, 2)
    assert story.found() == []
    story.told(1, [], 3, 1)  # of another process, which may have fetched it earlier
    assert story.found() == []
    story.told(0, [], 4, 1)
    assert story.found() == ["watermark-regression"]


@pytest.mark.parametrize(("watermark", "names"), [(1, []), (0, ["watermark-overrun"])])
def test_no_record_is_polled_from_beyond_the_watermark(watermark: int, names: list[str]) -> None:
    story = Story()
    story.send(0, "a", 0)
    story.told(1, [(0, "a")], watermark)
    assert story.found() == names


@pytest.mark.parametrize(("epochs", "names"), [((1, 1, 2), []), ((1, 2, 1), ["epoch-regression"])])
def test_leader_epochs_rise_along_the_log(epochs: tuple[int, int, int], names: list[str]) -> None:
    story = Story()
    story.told(0, [], -1, -1, *(Batch(3 * i, 3, epoch) for i, epoch in enumerate(epochs)))
    assert story.found() == names


@pytest.mark.parametrize(("epoch", "names"), [(1, []), (2, ["epoch-regression"])])
def test_a_receipt_names_the_epoch_that_is_fetched(epoch: int, names: list[str]) -> None:
    story = Story()
    story.send(0, "a", 0, epoch=1)
    story.told(1, [(0, "a")], -1, -1, Batch(0, 1, epoch))
    assert story.found() == names


@pytest.mark.parametrize(
    ("second", "names"),
    [
        (Batch(2, 2, 1, 7, 0, 2), []),
        (Batch(0, 2, 1, 7, 0, 0), []),
        (Batch(2, 2, 1, 7, 1, 0), []),
        (Batch(2, 2, 1, 8, 0, 0), []),
        (Batch(2, 2, 1, 7, 0, 0), ["sequence-reuse"]),
        (Batch(2, 2, 1, 7, 0, 1), ["sequence-reuse"]),
    ],
)
def test_a_producers_sequence_is_at_one_place(second: Batch, names: list[str]) -> None:
    story = Story()
    story.told(0, [], -1, -1, Batch(0, 2, 1, 7, 0, 0))
    story.told(1, [], -1, -1, second)
    assert story.found() == names


def test_every_anomaly_has_a_test_that_names_it() -> None:
    from pathlib import Path

    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_history_*.py"))
    assert [name for name in ANOMALIES if f'"{name}"' not in text] == []
