"""What the simulated network consists of: links with two directions, and who holds their ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from zmqmq.ports import Buffer
from zmqmq.testing.sim.kernel import Process


class Link:
    """One connection. ``to_broker`` and ``to_client`` are its two directions."""

    def __init__(self, number: int, address: str, client: str, broker: str) -> None:
        self.name = b"\0" + number.to_bytes(4, "big")
        self.address = address
        self.client = client
        self.broker = broker
        self.is_open = True
        self.listener: Listener | None = None
        """Who accepted it."""
        self.to_broker = Direction(client, broker)
        self.to_client = Direction(broker, client)


class Direction:
    """Messages from one machine to another, in order. ``clear_us``: nothing arrives before it."""

    __slots__ = ("clear_us", "source", "target", "under_way", "waiting")

    def __init__(self, source: str, target: str) -> None:
        self.source = source
        self.target = target
        self.clear_us = 0
        self.under_way = 0
        self.waiting: deque[tuple[Callable[[list[Buffer]], None], list[Buffer]]] = deque()
        """While the machines cannot reach each other."""


class MessageLoss:
    """Messages between two machines that are lost until ``stop``. ``count``: how many were."""

    def __init__(self, source: str, target: str, is_wanted: Callable[[list[Buffer]], bool]) -> None:
        self.count = 0
        self.is_over = False
        self._way = (source, target)
        self._is_wanted = is_wanted

    def stop(self) -> None:
        self.is_over = True

    def takes(self, direction: Direction, frames: list[Buffer]) -> bool:
        is_lost = not self.is_over and self._way == (direction.source, direction.target) and self._is_wanted(frames)
        self.count += is_lost
        return is_lost


class Caller:
    """A client's side, as the network sees it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.machine = process.name

    @property
    def is_paused(self) -> bool:
        return self.process.is_paused

    def on_connected(self, link: Link) -> None:
        raise NotImplementedError

    def on_lost(self, link: Link, reason: str) -> None:
        raise NotImplementedError

    def on_message(self, link: Link, frames: list[Buffer]) -> None:
        raise NotImplementedError

    def on_room(self, link: Link) -> None:
        raise NotImplementedError


class Listener:
    """A broker's side, as the network sees it."""

    def __init__(self, process: Process, machine: str, address: str) -> None:
        self.process = process
        self.machine = machine
        self.address = address

    @property
    def is_paused(self) -> bool:
        return self.process.is_paused

    def on_message(self, source: bytes, frames: list[Buffer]) -> None:
        raise NotImplementedError

    def on_gone(self, source: bytes) -> None:
        raise NotImplementedError
