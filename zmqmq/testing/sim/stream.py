"""What simulated brokers publish, with the face of ``transport.stream``: a feed, and a way to each broker that is followed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final

from zmqmq.ports import Buffer
from zmqmq.testing.sim.feed import Feed, Subscription
from zmqmq.testing.sim.kernel import Process
from zmqmq.testing.sim.links import Direction, Link, Listener
from zmqmq.testing.sim.network import Network
from zmqmq.testing.sim.ways import Way, end_all, take
from zmqmq.transport.sockets import QUEUE_MESSAGES_MAX
from zmqmq.transport.stream import MESSAGE_BYTES_MAX

RESEND_S: Final = 0.1
"""A subscription that did not get through goes out again after so long."""


class _StreamWay(Way):
    """The way to a publisher. Its keys are in use as long as the connection stands."""

    def __init__(
        self, network: Network, process: Process, random: Random, address: str, on_published: Callable[[list[bytes]], None]
    ) -> None:
        self._on_published = on_published
        self._keys: dict[bytes, Subscription | None] = {}
        self._way = Direction("", "")
        """Of all subscriptions together: a connection has one queue and one order."""
        super().__init__(network, process, random, address)

    def subscribe(self, key: bytes) -> None:
        self._keys[key] = self._subscribe(key)

    def unsubscribe(self, key: bytes) -> None:
        subscription = self._keys.pop(key)
        if subscription is not None:
            subscription.cancel()

    def end(self) -> None:
        super().end()
        self.on_down()

    def on_up(self, link: Link) -> None:
        self._way = Direction(link.broker, link.client)
        for key in self._keys:
            self._keys[key] = self._subscribe(key)

    def on_down(self) -> None:
        for key, subscription in self._keys.items():
            if subscription is not None:
                subscription.cancel()
            self._keys[key] = None

    def _subscribe(self, key: bytes) -> Subscription | None:
        """None: not now. While nothing gets through, TCP would try again."""
        link = self.link
        if link is None or not self.is_connected:
            return None
        if self.network.is_blocked(link.to_broker):
            self.process.call_later(RESEND_S, self._subscribe_again, key, link)
            return None
        assert isinstance(link.listener, SimStream)
        made = link.listener.feed.subscribe(self.machine, key, self._on_published)
        made.way = self._way
        return made

    def _subscribe_again(self, key: bytes, link: Link) -> None:
        if link is self.link and key in self._keys and self._keys[key] is None:
            self._keys[key] = self._subscribe(key)


class SimStream(Listener):
    """Implements ``ports.Stream``; the rest as ``SimMesh``."""

    def __init__(self, network: Network, process: Process, address: str, *, wake: Callable[[], None], random: Random) -> None:
        super().__init__(process, process.name, address)
        self.dropped_count = 0
        self.feed = Feed(network, process.name)
        self._network = network
        self._wake = wake
        self._random = random
        self._ways: dict[int, _StreamWay] = {}
        self._keys: dict[int, dict[bytes, None]] = {}
        self._arrived: deque[list[Buffer]] = deque()
        network.listen(self)

    def publish(self, key: bytes, frames: Sequence[Buffer]) -> bool:
        if sum(map(len, frames)) > MESSAGE_BYTES_MAX:
            self.dropped_count += 1
            return False
        self.feed.publish([key, *frames])
        return True

    def follow(self, publishers: Mapping[int, str]) -> None:
        for node in [node for node, way in self._ways.items() if publishers.get(node) != way.address]:
            self._ways.pop(node).end()
        for node, address in publishers.items():
            if node not in self._ways:
                way = self._ways[node] = _StreamWay(self._network, self.process, self._random, address, self._on_published)
                for key in self._keys.get(node, ()):
                    way.subscribe(key)

    def subscribe(self, node: int, key: bytes) -> None:
        keys = self._keys.setdefault(node, {})
        if key not in keys:
            keys[key] = None
            if node in self._ways:
                self._ways[node].subscribe(key)

    def unsubscribe(self, node: int, key: bytes) -> None:
        keys = self._keys.get(node, {})
        if key in keys:
            del keys[key]
            if node in self._ways:
                self._ways[node].unsubscribe(key)

    def receive(self, count_max: int, bytes_max: int) -> list[list[Buffer]]:
        return take(self._arrived, count_max, bytes_max)

    @property
    def has_arrived(self) -> bool:
        return bool(self._arrived)

    def end(self, *, is_silent: bool) -> None:
        """Its process ended. Silent: its machine lost its power, so nobody is told."""
        end_all(self._network, self, self._ways.values(), is_silent=is_silent)
        self._ways.clear()

    def on_message(self, source: bytes, frames: list[Buffer]) -> None:
        """Nobody sends messages here."""

    def on_gone(self, source: bytes) -> None:
        """Its subscriptions end on its own side."""

    def _on_published(self, frames: list[bytes]) -> None:
        if len(self._arrived) < QUEUE_MESSAGES_MAX * max(1, len(self._ways)):
            self._arrived.append(list(frames))
            self._wake()
