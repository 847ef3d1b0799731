"""Messages between simulated brokers, with the face of ``transport.mesh``.

A way to a peer is a link of the network, with all that may happen to one. When it breaks, the peer's address is asked whether it
refuses, as the real one does it; by chance nobody asks, so that nobody may rely on it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Final

from zmqmq.ports import Buffer
from zmqmq.testing.sim.kernel import Process
from zmqmq.testing.sim.links import Link, Listener
from zmqmq.testing.sim.network import Network
from zmqmq.testing.sim.ways import Inquiry, Way, end_all, take

ASKS: Final = 0.8
"""Chance that an end of a connection is looked into at all."""


class _MeshWay(Way):
    def __init__(self, network: Network, process: Process, random: Random, address: str, on_refused: Callable[[], None]) -> None:
        self._inquiry: Inquiry | None = None
        self._on_refused = on_refused
        super().__init__(network, process, random, address)

    def end(self) -> None:
        super().end()
        self._end_inquiry()

    def on_up(self, link: Link) -> None:  # noqa: ARG002 - as the base
        self._end_inquiry()

    def on_down(self) -> None:
        if self._random.random() < ASKS:
            self._end_inquiry()
            self._inquiry = Inquiry(self.network, self.process, self.address, self._on_refused)

    def _end_inquiry(self) -> None:
        if self._inquiry is not None:
            self._inquiry.end()
            self._inquiry = None


class SimMesh(Listener):
    """Implements ``ports.Mesh``. ``wake`` is called when there is something to take. ``random`` is its own stream."""

    def __init__(self, network: Network, process: Process, address: str, *, wake: Callable[[], None], random: Random) -> None:
        super().__init__(process, process.name, address)
        self.dropped_count = 0
        self._network = network
        self._wake = wake
        self._random = random
        self._ways: dict[int, _MeshWay] = {}
        self._arrived: deque[list[Buffer]] = deque()
        self._refused: list[int] = []
        network.listen(self)

    def set_peers(self, peers: Mapping[int, str]) -> None:
        for node in [node for node, way in self._ways.items() if peers.get(node) != way.address]:
            self._ways.pop(node).end()
        for node, address in peers.items():
            if node not in self._ways:
                self._ways[node] = _MeshWay(self._network, self.process, self._random, address, partial(self._on_refused, node))

    def send(self, node: int, frames: Sequence[Buffer]) -> bool:
        way = self._ways.get(node)
        if way is not None and way.is_connected and way.link is not None and self._network.send_to_broker(way.link, frames):
            return True
        self.dropped_count += 1
        return False

    def receive(self, count_max: int, bytes_max: int) -> list[list[Buffer]]:
        return take(self._arrived, count_max, bytes_max)

    def take_refused(self) -> list[int]:
        refused, self._refused = self._refused, []
        return refused

    @property
    def has_arrived(self) -> bool:
        return bool(self._arrived or self._refused)

    def end(self, *, is_silent: bool) -> None:
        """Its process ended. Silent: its machine lost its power, so nobody is told."""
        end_all(self._network, self, self._ways.values(), is_silent=is_silent)
        self._ways.clear()

    def on_message(self, source: bytes, frames: list[Buffer]) -> None:  # noqa: ARG002 - messages say themselves who sent them
        self._arrived.append(frames)
        self._wake()

    def on_gone(self, source: bytes) -> None:
        """Nobody is answered by name."""

    def _on_refused(self, node: int) -> None:
        if node in self._ways:
            self._refused.append(node)
            self._wake()
