"""Connections between simulated brokers: a way to an address that comes back by itself, and the question whether an address refuses."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from random import Random

from zmqmq.ports import Buffer
from zmqmq.testing.sim.kernel import Process
from zmqmq.testing.sim.links import Caller, Link, Listener
from zmqmq.testing.sim.network import SILENCE_US, Network
from zmqmq.transport.evidence import ASK_AGAIN_S_MAX, ASK_S_MAX
from zmqmq.transport.sockets import BROKER_RECONNECT_MS_MAX, CONNECT_TIMEOUT_MS, RECONNECT_MS


class Way(Caller):
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


class Inquiry(Caller):
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


def take(arrived: deque[list[Buffer]], count_max: int, bytes_max: int) -> list[list[Buffer]]:
    """As a transport's ``receive``."""
    messages: list[list[Buffer]] = []
    taken_bytes = 0
    while arrived and len(messages) < count_max and taken_bytes < bytes_max:
        messages.append(arrived.popleft())
        taken_bytes += sum(map(len, messages[-1]))
    return messages


def end_all(network: Network, listener: Listener, ways: Iterable[Way], *, is_silent: bool) -> None:
    """The process of a listener and of its ways ended."""
    network.drop_listener(listener, is_silent=is_silent)
    for way in ways:
        if is_silent:
            way.end_silently()
        else:
            way.end()
