"""What a checker gets wrong most easily: outcomes that prove nothing, values at two places, the second of several."""

from __future__ import annotations

from histories import KEY, Story
from msgspec.structs import replace

from zmqmq.testing.history import Poll, Send, check


def test_a_receipt_of_a_failed_send_proves_nothing() -> None:
    story = Story()
    story.send(0, "a", 0, "fail")
    story.send(1, "b", 0)
    story.poll(2, [(0, "b")])
    assert story.found() == []


def test_a_receipt_of_an_uncertain_send_proves_it() -> None:
    story = Story()
    story.send(0, "a", 0, "info")
    story.send(1, "b", 1)
    story.poll(2, [(1, "b")])
    assert story.found() == ["lost-write"]


def test_an_uncertain_value_that_only_an_uncertain_poll_showed_is_not_lost() -> None:
    story = Story()
    story.send(0, "a", type="info")
    story.send(1, "b", 1)
    story.poll(2, [(0, "a")], "info")
    story.poll(3, [(1, "b")])
    assert story.found() == []


def test_an_uncertain_read_of_a_failed_send_is_not_aborted() -> None:
    story = Story()
    story.send(0, "a", type="fail")
    story.poll(1, [(0, "a")], "info")
    assert story.found() == []


def test_a_failed_transaction_that_is_read_in_part_is_aborted_and_not_torn() -> None:
    story = Story()
    story.sends(0, [("a", None), ("b", None)], "fail", f="txn")
    story.poll(1, [(0, "a")], final=True)
    assert story.found() == ["G1a"]


def test_a_value_with_two_offsets_was_read_up_to_its_first() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.send(1, "b", 1)
    story.poll(2, [(0, "a")])
    story.poll(3, [(3, "a")], "info")
    assert story.found() == ["duplicate"]


def test_a_value_with_two_offsets_is_lost_only_below_its_last() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.send(1, "b", 1)
    story.poll(2, [(5, "a")], "info")
    story.poll(3, [(1, "b")])
    assert story.found() == ["duplicate"]


def test_a_value_with_two_offsets_vanishes_once() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.poll(1, [(0, "a"), (1, "a")])
    story.poll(2, [], final=True)
    assert story.report().counts() == {"duplicate": 1, "vanished": 1}


def test_a_poll_is_final_if_its_invocation_says_so() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.poll(1, [], final=True)
    *rest, last = story.operations
    assert list(check([*rest, replace(last, final=False)]).counts()) == ["unseen"]


def test_records_that_change_places_inside_a_poll_are_a_skip_and_a_step_back() -> None:
    story = Story()
    story.sends(0, [("a", 0), ("b", 1), ("c", 2), ("d", 3)])
    story.poll(1, [(0, "a"), (2, "c"), (1, "b"), (3, "d")])
    assert story.report().counts() == {"int-poll-skip": 2, "int-nonmonotonic-poll": 1}


def test_two_sends_of_a_process_at_one_offset_are_out_of_order_too() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.send(0, "b", 0)
    assert story.found() == ["inconsistent-offsets", "nonmonotonic-send"]


def test_each_send_is_compared_with_the_one_just_before() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.send(0, "b", 2)
    story.send(0, "c", 1)
    assert story.found() == ["nonmonotonic-send"]


def test_a_send_of_which_nothing_is_known_is_passed_over() -> None:
    story = Story()
    story.send(0, "a", 5)
    story.sends(0, [("b", 9)], "info", f="txn")
    story.send(0, "c", 3)
    assert story.found() == ["nonmonotonic-send"]


def test_a_watermark_is_compared_with_the_highest_so_far() -> None:
    story = Story()
    for watermark in (5, 3, 4, 5):
        story.told(0, [], watermark, 1)
    assert story.report().counts() == {"watermark-regression": 2}


def test_information_flows_from_every_record_of_a_poll() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.poll(1, [(0, "a"), (1, "b")])
    story.send(2, "b", 1)
    assert story.found() == ["G1c-realtime"]


def test_time_orders_operations_over_others_that_overlap_the_first() -> None:
    story = Story()
    story.begin(1, "send", [Send("t-1", "x")])
    story.poll(0, [(0, "a")])
    story.end(1, "ok", [Send("t-1", "x", 0)])
    story.send(2, "a", 0)
    assert story.found() == ["G1c-realtime"]


def test_a_process_orders_each_operation_with_the_next() -> None:
    story = Story()
    story.send(0, "x", 0, key="t-1")
    story.poll(0, [(0, "a")])
    story.send(0, "a", 0)
    assert story.found() == ["G1c-process"]


def test_a_transaction_may_poll_and_send_without_a_circle() -> None:
    story = Story()
    story.send(0, "a", 0)
    for process in range(1, 4):
        story.begin(process, "txn", [Poll(), Send(KEY, process)])
        story.end(process, "ok", [Poll({KEY: [(0, "a"), *((i, i) for i in range(1, process))]}), Send(KEY, process, process)])
    assert story.found(ww=True) == []


def test_final_polls_tell_nothing_of_lag() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.poll(1, [(0, "a")], final=True)
    assert story.report().metrics.lag_ns == {}


def test_only_values_read_while_subscribed_count_as_consumed() -> None:
    story = Story()
    story.send(0, "a", 0)
    story.send(0, "b", 1)
    story.place(1, "subscribe", [KEY])
    story.poll(1, [(0, "a")])
    story.place(1, "assign", [KEY])
    story.poll(1, [(1, "b")])
    assert story.report().metrics.consumed == {1: 1}
