"""Circles among operations: of writes alone (G0), or with information that flows from a send to a poll (G1c).

Edges: ``ww`` from the sender of a value to that of the next one in the log, ``wr`` from a sender to who polled its value, ``process``
from an operation to the next of its process, ``realtime`` from an operation that is ok to those that began after it had ended. What
failed has no edges; what may have happened has no end in time. A circle is named by the edges in it, the strongest order last. Each
strongly connected part shows one circle of each kind, and none that needs an order where one needs none, so that a tangle is one
finding and not thousands.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from typing import Final, TypeAlias

from zmqmq.testing.history.findings import Finding
from zmqmq.testing.history.model import Process
from zmqmq.testing.history.order import Act, History

WW, WR, PROCESS, REALTIME = range(4)
_NAMES: Final = ("ww", "wr", "process", "realtime")
_SUFFIXES: Final = {WW: "", WR: "", PROCESS: "-process", REALTIME: "-realtime"}
SHOWN_MAX: Final = 12
"""Operations of a circle that its text names."""

Edges: TypeAlias = list[list[tuple[int, int]]]
"""By node: (to, kind). Nodes beyond the acts are moments in time."""


def cycles(history: History, *, ww: bool) -> Iterator[Finding]:
    """``ww``: infer edges between sends from the order of the log."""
    if not ww and _only_flows_forward(history):
        return
    edges = _edges(history, ww=ww)
    if not components(_upto(edges, REALTIME)):
        return
    told: set[int] = set()
    for level in (WW, WR, PROCESS, REALTIME):
        graph = _upto(edges, level)
        for component in components(graph):
            if level >= PROCESS and not told.isdisjoint(component):
                continue  # a circle that needs no order was told of this part
            circle = _circle(graph, component, level)
            if circle is not None:
                told.update(node for node, _ in circle)
                yield _finding(history, circle)


def _only_flows_forward(history: History) -> bool:
    """Where no operation both sends and polls, time rises along every path unless a poll ended before its send began. So there can
    be no circle, and most histories need no graph."""
    return not any(act.sends and act.reads for act in history.acts) and all(
        writer.invoked.index < reader.done.index for writer, reader in history.flows
    )


def _edges(history: History, *, ww: bool) -> Edges:
    nodes = [act for act in history.acts if act.type != "fail"]
    edges: Edges = [[] for _ in history.acts]
    if ww:
        for log in history.keys.values():
            writers = [log.writers.get(log.log[offset]) for offset in log.offsets]
            for before, after in itertools.pairwise(writers):
                if before is not None and after is not None:
                    _join(edges, before, after, WW)
    for writer, reader in history.flows:
        _join(edges, writer, reader, WR)
    last: dict[Process, Act] = {}
    for act in nodes:
        if (earlier := last.get(act.invoked.process)) is not None:
            _join(edges, earlier, act, PROCESS)
        last[act.invoked.process] = act
    _add_time(edges, nodes)
    return edges


def _join(edges: Edges, before: Act, after: Act, kind: int) -> None:
    if before is not after and before.type != "fail" and after.type != "fail":
        edges[before.number].append((after.number, kind))


def _add_time(edges: Edges, nodes: list[Act]) -> None:
    """Completions lead into a chain of moments, and invocations out of it, so that edges stay as few as operations."""
    events = [(act.invoked.index, False, act.number) for act in nodes]
    events += [(act.done.index, True, act.number) for act in nodes if act.type == "ok"]
    moment = -1
    for _, is_end, number in sorted(events):
        if is_end:
            edges.append([])
            here = len(edges) - 1
            if moment >= 0:
                edges[moment].append((here, REALTIME))
            edges[number].append((here, REALTIME))
            moment = here
        elif moment >= 0:
            edges[moment].append((number, REALTIME))


def _upto(edges: Edges, level: int) -> Edges:
    return edges if level == REALTIME else [[edge for edge in found if edge[1] <= level] for found in edges]


def components(graph: Edges) -> list[list[int]]:
    """Strongly connected parts of more than one node, each sorted, in the order of their first nodes (Tarjan's algorithm, unrolled)."""
    order = [-1] * len(graph)
    low = [0] * len(graph)
    on_stack = bytearray(len(graph))
    stack: list[int] = []
    found: list[list[int]] = []
    count = 0
    for root in range(len(graph)):
        if order[root] >= 0:
            continue
        work = [(root, iter(graph[root]))]
        order[root] = low[root] = count
        count += 1
        stack.append(root)
        on_stack[root] = 1
        while work:
            node, successors = work[-1]
            for after, _ in successors:
                if order[after] < 0:
                    order[after] = low[after] = count
                    count += 1
                    stack.append(after)
                    on_stack[after] = 1
                    work.append((after, iter(graph[after])))
                    break
                if on_stack[after] and order[after] < low[node]:
                    low[node] = order[after]
            else:
                work.pop()
                if work and low[node] < low[work[-1][0]]:
                    low[work[-1][0]] = low[node]
                if low[node] == order[node]:
                    part = _cut(stack, node, on_stack)
                    if len(part) > 1:
                        found.append(part)
    return sorted(found)


def _cut(stack: list[int], node: int, on_stack: bytearray) -> list[int]:
    at = len(stack) - 1
    while stack[at] != node:
        at -= 1
    part = sorted(stack[at:])
    del stack[at:]
    for member in part:
        on_stack[member] = 0
    return part


def _circle(graph: Edges, component: list[int], level: int) -> list[tuple[int, int]] | None:
    """A short circle through an edge of the level's own kind: (node, kind of the edge out of it). None if the part has no such edge."""
    members = set(component)
    for before in component:
        for after, kind in graph[before]:
            if kind == level and after in members:
                return [(before, kind), *_path(graph, members, after, before)]
    return None


def _path(graph: Edges, members: set[int], start: int, goal: int) -> list[tuple[int, int]]:
    """A shortest path within the part; there is one, because the part is strongly connected."""
    came: dict[int, tuple[int, int]] = {}
    waiting = deque([start])
    while goal not in came and start != goal:
        node = waiting.popleft()
        for after, kind in graph[node]:
            if after in members and after not in came and after != start:
                came[after] = (node, kind)
                waiting.append(after)
    path: list[tuple[int, int]] = []
    while goal != start:
        goal, kind = came[goal]
        path.append((goal, kind))
    return path[::-1]


def _finding(history: History, circle: list[tuple[int, int]]) -> Finding:
    kinds = {kind for _, kind in circle}
    name = ("G1c" if WR in kinds else "G0") + _SUFFIXES[max(kinds)]
    steps = [(history.acts[node].done.index, kind) for node, kind in circle if node < len(history.acts)]
    smallest = steps.index(min(steps))
    steps = steps[smallest:] + steps[:smallest]
    text = " ".join(f"{index} -{_NAMES[kind]}->" for index, kind in steps[:SHOWN_MAX])
    rest = f" … {len(steps) - SHOWN_MAX:,} more … ->" if len(steps) > SHOWN_MAX else ""
    return Finding(name, f"{text}{rest} {steps[0][0]}", operations=tuple(index for index, _ in steps))
