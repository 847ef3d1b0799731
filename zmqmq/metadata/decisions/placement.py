"""Where new replicas go: on different brokers, on different racks where there are enough, and evenly.

Law: within one placement the brokers' numbers of replicas, and of leaders, differ by at most 1 when the racks are of
one size (or there are none). With racks of different sizes racks come first, loads second.

Even placement goes round a ring on which the racks alternate: partition ``p`` takes the ``r`` places from ``p * r`` on.
After a full turn the brokers of each rack change places, so that not always the same ones keep partitions together.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from zmqmq.metadata.records import Assignment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def place(racks: Mapping[int, str], partition_count: int, replica_count: int, first: int) -> list[Assignment]:
    """``racks``: the rack of each broker that may take replicas. ``first`` turns the order, so that topic after topic
    begins elsewhere. The first replica leads."""
    nodes = sorted(racks)
    columns = _columns(nodes, racks)
    if any(len(column) != len(columns[0]) for column in columns):
        return _place_uneven(_turned(nodes, first), racks, partition_count, replica_count)
    placed = []
    step = len(nodes) // math.gcd(len(nodes), replica_count)
    for partition in range(partition_count):
        turn, place_in_turn = divmod(partition, len(nodes))
        ring = _turned(_ring(columns, turn), first)
        window = [ring[(place_in_turn * replica_count + i) % len(ring)] for i in range(replica_count)]
        placed.append(_assigned(window, window[place_in_turn // step]))
    return placed


def spread(held: Iterable[int], order: Sequence[int], count: int, racks: Mapping[int, str], loads: Mapping[int, int]) -> list[int]:
    """``count`` more brokers beside those ``held``: of racks that hold fewest, then of the least load, then in order."""
    chosen: list[int] = []
    left = [node for node in order if node not in held]
    uses = dict.fromkeys(racks.values(), 0)
    for node in held:
        if node in racks:
            uses[racks[node]] += 1
    for _ in range(min(count, len(left))):
        node = min(left, key=lambda n: (uses[racks[n]], loads[n]))
        uses[racks[node]] += 1
        left.remove(node)
        chosen.append(node)
    return chosen


def _place_uneven(order: list[int], racks: Mapping[int, str], partition_count: int, replica_count: int) -> list[Assignment]:
    replicas_of = dict.fromkeys(order, 0)
    leads_of = dict.fromkeys(order, 0)
    placed = []
    for _ in range(partition_count):
        chosen = spread((), order, replica_count, racks, replicas_of)
        leader = min(chosen, key=lambda n: leads_of[n])
        leads_of[leader] += 1
        for node in chosen:
            replicas_of[node] += 1
        placed.append(_assigned(chosen, leader))
    return placed


def _assigned(chosen: list[int], leader: int) -> Assignment:
    replicas = (leader, *(node for node in chosen if node != leader))
    return Assignment(replicas, replicas, leader)


def _columns(nodes: list[int], racks: Mapping[int, str]) -> list[list[int]]:
    """The brokers rack by rack; one column if each is on a rack of its own, since all orders are alike then."""
    columns: dict[str, list[int]] = {}
    for node in nodes:
        columns.setdefault(racks[node], []).append(node)
    return [nodes] if len(columns) == len(nodes) else list(columns.values())


def _ring(columns: list[list[int]], turn: int) -> list[int]:
    size = len(columns[0])
    strides = [stride for stride in range(1, size + 1) if math.gcd(stride, size) == 1]
    stride = strides[turn % len(strides)]
    return [column[(row * stride + number * turn) % size] for row in range(size) for number, column in enumerate(columns)]


def _turned(nodes: list[int], first: int) -> list[int]:
    start = first % len(nodes)
    return nodes[start:] + nodes[:start]
