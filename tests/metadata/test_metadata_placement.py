"""Placement: complete, on different brokers and racks, even."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from zmqmq.metadata.decisions.placement import place, spread


def spans(counts: Counter[int], nodes: range) -> int:
    return max(counts[n] for n in nodes) - min(counts[n] for n in nodes)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(1, 60), st.integers(0, 500))
def test_even_racks_share_replicas_and_leaders_evenly(racks: int, of_each: int, replicas: int, partitions: int, first: int) -> None:
    nodes = range(racks * of_each)
    replicas = min(replicas, len(nodes))
    placed = place({n: f"rack{n % racks}" for n in nodes}, partitions, replicas, first)
    assert len(placed) == partitions
    for each in placed:
        assert each.replicas == each.isr
        assert each.leader == each.replicas[0]
        assert len(set(each.replicas)) == replicas
        assert len({n % racks for n in each.replicas}) == min(racks, replicas)
    assert spans(Counter(n for each in placed for n in each.replicas), nodes) <= 1
    assert spans(Counter(each.leader for each in placed), nodes) <= 1


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.integers(1, 5), st.integers(1, 30), st.integers(0, 50))
def test_uneven_racks_never_share_a_partition_while_another_is_free(of: list[int], replicas: int, partitions: int, first: int) -> None:
    racks = {n: f"rack{rack}" for n, rack in enumerate(of)}
    replicas = min(replicas, len(of))
    for each in place(racks, partitions, replicas, first):
        assert len(set(each.replicas)) == replicas
        assert len({racks[n] for n in each.replicas}) == min(len(set(of)), replicas)


def test_topics_of_one_partition_go_round_the_brokers() -> None:
    leaders = [place(dict.fromkeys(range(3), ""), 1, 2, first)[0].leader for first in range(6)]
    assert sorted(leaders) == [0, 0, 1, 1, 2, 2]


def test_brokers_do_not_always_share_their_partitions_with_the_same_ones() -> None:
    pairs = {frozenset(each.replicas) for each in place(dict.fromkeys(range(5), ""), 40, 2, 0)}
    assert len(pairs) > 5


def test_replicas_that_are_added_keep_away_from_the_racks_that_hold_one() -> None:
    racks = {0: "a", 1: "a", 2: "b", 3: "c"}
    assert spread((0,), sorted(racks), 2, racks, dict.fromkeys(racks, 0)) == [2, 3]
    assert spread((0,), sorted(racks), 1, racks, {0: 0, 1: 0, 2: 5, 3: 2}) == [3]
