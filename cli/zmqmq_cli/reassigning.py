"""Where replicas should be: plans for ``cluster reassign``. Pure.

Laws of ``make_plan``: each partition keeps its number of replicas (or gets the one asked for) on different brokers, all of them among
``targets``; a replica that may stay where it is does, unless evenness wants it elsewhere; then no two targets differ by more than one
replica of the partitions planned, as far as racks allow. Partitions that need not move are not in the plan; of those that do, the
preferred leaders are spread.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from zmqmq.errors import InvalidConfig
from zmqmq.metadata.decisions.placement import spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Place = tuple[str, int]
"""Topic and partition."""


class Move(NamedTuple):
    """The preferred leader first."""

    topic: str
    partition: int
    before: tuple[int, ...]
    replicas: tuple[int, ...]


def make_plan(
    current: Mapping[Place, Sequence[int]], racks: Mapping[int, str], targets: Sequence[int], replica_count: int = 0
) -> list[Move]:
    """``current``: where replicas are now; ``racks``: the rack of every target. ``replica_count`` 0: as many as there are.

    Raises InvalidConfig when there are too few targets."""
    order = sorted(targets)
    wanted = {place: replica_count or len(replicas) for place, replicas in current.items()}
    for (topic, number), count in wanted.items():
        if count > len(order):
            raise InvalidConfig(f"{topic}-{number}: {count} replicas need as many brokers, and {len(order)} may keep them")
    loads: Counter[int] = Counter(dict.fromkeys(order, 0))
    planned: dict[Place, list[int]] = {}
    for place, replicas in sorted(current.items()):
        kept = planned[place] = [node for node in replicas if node in racks][: wanted[place]]
        loads.update(kept)
    for place, kept in planned.items():
        added = spread(kept, order, wanted[place] - len(kept), racks, loads)
        kept.extend(added)
        loads.update(added)
    _even_out(planned, racks, loads)
    _spread_leaders(current, planned)
    return [
        Move(topic, number, tuple(current[topic, number]), tuple(replicas))
        for (topic, number), replicas in planned.items()
        if list(current[topic, number]) != replicas
    ]


def _even_out(planned: dict[Place, list[int]], racks: Mapping[int, str], loads: Counter[int]) -> None:
    """Move one replica after the other from the fullest broker that can give to the emptiest that can take. Each move makes the sum of
    squared loads smaller, so it ends."""
    held: dict[int, dict[Place, None]] = {node: {} for node in loads}
    for place, replicas in planned.items():
        for node in replicas:
            held[node][place] = None
    while (step := next(_steps(planned, held, racks, loads), None)) is not None:
        place, giver, taker = step
        replicas = planned[place]
        replicas[replicas.index(giver)] = taker
        held[taker][place] = held[giver].pop(place)
        loads[giver] -= 1
        loads[taker] += 1


def _spread_leaders(current: Mapping[Place, Sequence[int]], planned: Mapping[Place, list[int]]) -> None:
    """Of each partition that moves, the replica comes first that is first least often."""
    leads = Counter(replicas[0] for place, replicas in planned.items() if replicas == list(current[place]))
    for place, replicas in planned.items():
        if replicas != list(current[place]):
            first = min(replicas, key=lambda node: leads[node])
            replicas.sort(key=lambda node: node != first)
            leads[first] += 1


def _steps(
    planned: Mapping[Place, Sequence[int]], held: Mapping[int, Mapping[Place, None]], racks: Mapping[int, str], loads: Mapping[int, int]
) -> Iterator[tuple[Place, int, int]]:
    by_load = sorted(loads, key=lambda node: (loads[node], node))
    for giver in reversed(by_load):
        for taker in by_load:
            if loads[giver] - loads[taker] < 2:
                break
            for place in held[giver]:
                if place not in held[taker] and _keeps_racks(planned[place], giver, taker, racks):
                    yield place, giver, taker


def _keeps_racks(replicas: Sequence[int], giver: int, taker: int, racks: Mapping[int, str]) -> bool:
    now = {racks[node] for node in replicas}
    then = {racks[node] for node in replicas if node != giver} | {racks[taker]}
    return len(then) >= len(now)


def to_json(moves: Iterable[Move]) -> dict[str, Any]:
    """The plan as a file holds it. ``before`` is for readers only."""
    return {
        "version": 1,
        "partitions": [
            {"topic": move.topic, "partition": move.partition, "replicas": list(move.replicas), "before": list(move.before)}
            for move in moves
        ],
    }


def from_json(value: Any, name: str) -> dict[Place, list[int]]:
    """What a file asks for. Raises InvalidConfig that names the entry."""
    entries = value.get("partitions") if isinstance(value, dict) else None
    if not isinstance(entries, list):
        raise InvalidConfig(f"{name}: a plan is an object with a list of partitions", hint="make one with  zmqmq cluster reassign plan")
    found: dict[Place, list[int]] = {}
    for index, entry in enumerate(entries):
        match entry:
            case {"topic": str(topic), "partition": int(number), "replicas": [_, *_] as nodes} if all(type(node) is int for node in nodes):
                if (topic, number) in found:
                    raise InvalidConfig(f"{name}: partitions[{index}] names {topic}-{number} for the second time")
                found[topic, number] = list(nodes)
            case _:
                raise InvalidConfig(
                    f"{name}: partitions[{index}] is not understood",
                    hint='write {"topic": "orders", "partition": 0, "replicas": [1, 2, 3]}',
                )
    return found
