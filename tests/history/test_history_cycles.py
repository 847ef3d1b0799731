"""Circles among operations, each with its least change that is none; the search itself against a dumb twin."""

from __future__ import annotations

from histories import KEY, Story
from hypothesis import given
from hypothesis import strategies as st

from zmqmq.testing.history import Poll, Send
from zmqmq.testing.history.cycles import components

OTHER = "t-1"


def both_keys(story: Story, process: int, value: str, offsets: tuple[int, int]) -> None:
    """One transaction that sends the value to both keys, begun and ended by the caller's order of lines."""
    story.end(process, "ok", [Send(KEY, value, offsets[0]), Send(OTHER, value, offsets[1])])


def concurrent_writers(first: tuple[int, int], second: tuple[int, int]) -> Story:
    story = Story()
    for process, value in enumerate("ab"):
        story.begin(process, "txn", [Send(KEY, value), Send(OTHER, value)])
    both_keys(story, 0, "a", first)
    both_keys(story, 1, "b", second)
    return story


def test_writes_in_opposite_orders_go_in_a_circle() -> None:
    report = concurrent_writers((0, 1), (1, 0)).report(ww=True)
    assert report.counts() == {"G0": 1}
    assert report.is_valid
    assert report.anomalies[0].examples[0].what == "2 -ww-> 3 -ww-> 2"


def test_writes_in_one_order_do_not() -> None:
    assert concurrent_writers((0, 0), (1, 1)).found(ww=True) == []


def test_circles_of_writes_are_looked_for_only_on_demand() -> None:
    assert concurrent_writers((0, 1), (1, 0)).found() == []


def test_a_process_that_writes_backwards_makes_a_circle_with_its_own_order() -> None:
    story = Story()
    story.send(0, "a", 1)
    story.send(0, "b", 0)
    assert story.found(ww=True) == ["nonmonotonic-send", "G0-process"]


def test_a_write_before_one_that_had_ended_makes_a_circle_with_time() -> None:
    story = Story()
    story.send(0, "a", 1)
    story.send(1, "b", 0)
    assert story.found(ww=True) == ["G0-realtime"]


def test_writes_that_overlap_in_time_may_land_in_any_order() -> None:
    story = Story()
    story.begin(1, "send", [Send(KEY, "b")])
    story.send(0, "a", 1)
    story.end(1, "ok", [Send(KEY, "b", 0)])
    assert story.found(ww=True) == []


def each_reads_the_other(second_reads: bool, type: str = "ok") -> Story:
    story = Story()
    story.begin(0, "txn", [Send(KEY, "a"), Poll()])
    story.begin(1, "txn", [Send(OTHER, "b"), Poll()])
    story.end(0, "ok", [Send(KEY, "a", 0), Poll({OTHER: [(0, "b")]})])
    story.end(1, type, [Send(OTHER, "b", 0), Poll({KEY: [(0, "a")] if second_reads else []})])  # type: ignore[arg-type]
    return story


def test_two_transactions_that_read_each_other_make_a_circle_of_information() -> None:
    report = each_reads_the_other(second_reads=True).report()
    assert report.counts() == {"G1c": 1}
    assert not report.is_valid
    assert report.anomalies[0].examples[0].operations == (2, 3)


def test_information_that_flows_one_way_is_no_circle() -> None:
    assert each_reads_the_other(second_reads=False).found() == []


def test_circles_of_information_are_expected_with_writes_inferred_or_without_isolation() -> None:
    story = each_reads_the_other(second_reads=True)
    assert story.report(ww=True).is_valid
    assert story.report(read_committed=False).is_valid


def test_what_failed_is_in_no_circle() -> None:
    assert "G1c" not in each_reads_the_other(second_reads=True, type="fail").found()


def test_a_process_that_reads_what_it_sends_later_makes_a_circle() -> None:
    story = Story()
    story.poll(0, [(0, "a")])
    story.send(0, "a", 0)
    report = story.report()
    assert report.counts() == {"G1c-process": 1}
    assert not report.is_valid


def test_a_poll_that_ended_before_its_records_send_began_makes_a_circle_with_time() -> None:
    story = Story()
    story.poll(0, [(0, "a")])
    story.send(1, "a", 0)
    report = story.report()
    assert report.counts() == {"G1c-realtime": 1}
    assert report.anomalies[0].examples[0].what == "1 -realtime-> 3 -wr-> 1"


def test_an_operation_that_may_have_happened_has_no_end_in_time() -> None:
    story = Story()
    story.poll(0, [(0, "a")], "info")
    story.send(1, "a", 0)
    assert story.found() == []


def test_a_tangle_is_one_finding_of_bounded_text() -> None:
    story = Story()
    count = 40
    for process in range(count):
        story.begin(process, "txn", [Send(f"k{process}", 0), Poll()])
    for process in range(count):
        story.end(process, "ok", [Send(f"k{process}", 0, 0), Poll({f"k{(process + 1) % count}": [(0, 0)]})])
    report = story.report()
    assert report.counts() == {"G1c": 1}
    assert len(report.anomalies[0].examples[0].operations) == count
    assert "28 more" in report.anomalies[0].examples[0].what


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))))))
def test_components_are_the_nodes_that_reach_each_other(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    count, pairs = drawn
    reach = [[i == j for j in range(count)] for i in range(count)]
    for before, after in pairs:
        reach[before][after] = True
    for middle in range(count):
        for i in range(count):
            for j in range(count):
                reach[i][j] = reach[i][j] or (reach[i][middle] and reach[middle][j])
    expected = {tuple(j for j in range(count) if reach[i][j] and reach[j][i]) for i in range(count)}
    graph = [[(after, 0) for before, after in pairs if before == node] for node in range(count)]
    assert [tuple(part) for part in components(graph)] == sorted(part for part in expected if len(part) > 1)
