"""Messages between simulated brokers, with the faces of ``transport.mesh`` and ``transport.stream``.

A way to a peer is a link of the network, with all that may happen to one; it comes back by itself. When it breaks, the peer's address
is asked whether it refuses, as the real one does it; by chance nobody asks, so that nobody may rely on it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Final

from zmqmq.ports import Buffer
from zmqmq.testing.sim.feed import Feed, Subscription
from zmqmq.testing.sim.kernel import Process
from zmqmq.testing.sim.links import Caller, Direction, Link, Listener
from zmqmq.testing.sim.network import SILENCE_US, Network
from zmqmq.transport.evidence import ASK_AGAIN_S_MAX, ASK_S_MAX
from zmqmq.transport.sockets import BROKER_RECONNECT_MS_MAX, CONNECT_TIMEOUT_MS, QUEUE_MESSAGES_MAX, RECONNECT_MS
from zmqmq.transport.stream import MESSAGE_BYTES_MAX

ASKS: Final = 0.8
"""Chance that an end of a connection is looked into at all."""


RESEND_S: Final = 0.1
"""A subscription that did not get through goes out again after so long."""


class _Way(Caller):
    """A connection to one address that comes back until ``end``."""

    def __init__(self, network: Network, process: Process, random: Random, address: str) -> None:
        super().__init__(process)
        self.address = address
        self.network = network
        self.link: Link | None = None
        self.is_connected = False
        self._random = random
        self._is_over = False
        self._call()

    def end(self) -> None:
        self._is_over = True
        self._hang_up()

    def end_silently(self) -> None:
        """The machine lost its power: the other side finds out by itself."""
        self._is_over = True
        if self.link is not None:
            self.network.world.after(SILENCE_US, self.network.hang_up, self.link)

    def on_connected(self, link: Link) -> None:
        if link is self.link:
            self.is_connected = True
            self.on_up(link)

    def on_lost(self, link: Link, reason: str) -> None:  # noqa: ARG002 - as the network calls it
        if link is not self.link:
            return
        was_connected = self.is_connected
        self._forget()
        if not self._is_over:
            self._call_later()
            if was_connected:
                self.on_down()

    def on_message(self, link: Link, frames: list[Buffer]) -> None:
        """Nobody answers here."""

    def on_room(self, link: Link) -> None:
        """Nothing waits here."""

    def on_up(self, link: Link) -> None:
        """It stands."""

    def on_down(self) -> None:
        """It stood, and broke."""

    def _call(self) -> None:
        if not self._is_over:
            self.link = link = self.network.call(self, self.address)
            self.process.call_later(CONNECT_TIMEOUT_MS / 1000, self._give_up, link)

    def _call_later(self) -> None:
        self.process.call_later(self._random.randrange(RECONNECT_MS, BROKER_RECONNECT_MS_MAX) / 1000, self._call)

    def _give_up(self, link: Link) -> None:
        if link is self.link and not self.is_connected:
            self._hang_up()
            self._call_later()

    def _hang_up(self) -> None:
        if self.link is not None:
            link = self.link
            self._forget()
            self.network.hang_up(link)

    def _forget(self) -> None:
        self.link = None
        self.is_connected = False


class _Inquiry(Caller):
    """Asks an address until it refuses, or the time is over."""

    def __init__(self, network: Network, process: Process, address: str, on_refused: Callable[[], None]) -> None:
        super().__init__(process)
        self._network = network
        self._address = address
        self._on_refused = on_refused
        self._until_s = process.time() + ASK_S_MAX
        self._link: Link | None = None
        self._ask()
        process.call_later(ASK_S_MAX, self.end)

    def end(self) -> None:
        self._until_s = 0.0
        if self._link is not None:
            self._network.hang_up(self._link)
            self._link = None

    def on_connected(self, link: Link) -> None:
        if link is self._link:
            self._link = None
            self._network.hang_up(link)
            self.process.call_later(ASK_AGAIN_S_MAX, self._ask)

    def on_lost(self, link: Link, reason: str) -> None:
        if link is self._link:
            self._link = None
            if reason == "connection refused":
                self._until_s = 0.0
                self._on_refused()
            else:
                self.process.call_later(ASK_AGAIN_S_MAX, self._ask)

    def _ask(self) -> None:
        if self.process.time() < self._until_s:
            self._link = self._network.call(self, self._address)


class _MeshWay(_Way):
    def __init__(self, network: Network, process: Process, random: Random, address: str, on_refused: Callable[[], None]) -> None:
        self._inquiry: _Inquiry | None = None
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
            self._inquiry = _Inquiry(self.network, self.process, self.address, self._on_refused)

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
        return _take(self._arrived, count_max, bytes_max)

    def take_refused(self) -> list[int]:
        refused, self._refused = self._refused, []
        return refused

    @property
    def has_arrived(self) -> bool:
        return bool(self._arrived or self._refused)

    def end(self, *, is_silent: bool) -> None:
        """Its process ended. Silent: its machine lost its power, so nobody is told."""
        _end(self._network, self, self._ways.values(), is_silent=is_silent)
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


class _StreamWay(_Way):
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
        return _take(self._arrived, count_max, bytes_max)

    @property
    def has_arrived(self) -> bool:
        return bool(self._arrived)

    def end(self, *, is_silent: bool) -> None:
        """Its process ended. Silent: its machine lost its power, so nobody is told."""
        _end(self._network, self, self._ways.values(), is_silent=is_silent)
        self._ways.clear()

    def on_message(self, source: bytes, frames: list[Buffer]) -> None:
        """Nobody sends messages here."""

    def on_gone(self, source: bytes) -> None:
        """Its subscriptions end on its own side."""

    def _on_published(self, frames: list[bytes]) -> None:
        if len(self._arrived) < QUEUE_MESSAGES_MAX * max(1, len(self._ways)):
            self._arrived.append(list(frames))
            self._wake()


def _take(arrived: deque[list[Buffer]], count_max: int, bytes_max: int) -> list[list[Buffer]]:
    messages: list[list[Buffer]] = []
    taken_bytes = 0
    while arrived and len(messages) < count_max and taken_bytes < bytes_max:
        messages.append(arrived.popleft())
        taken_bytes += sum(map(len, messages[-1]))
    return messages


def _end(network: Network, listener: Listener, ways: Iterable[_Way], *, is_silent: bool) -> None:
    network.drop_listener(listener, is_silent=is_silent)
    for way in ways:
        if is_silent:
            way.end_silently()
        else:
            way.end()
