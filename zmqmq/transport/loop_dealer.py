"""A client's connections in an asyncio loop: the loop watches the sockets' file descriptors.

A ZeroMQ descriptor tells of changes only: it is readable when something *happened*, and sending as well as receiving may
swallow that. So a socket is received from until it has nothing, and one that was used since is asked for its events before
the loop sleeps: ``has_more``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import zmq

from zmqmq.ports import Buffer
from zmqmq.transport.dealer import INPROC_LOOK_MS, Connection, Dealers, Fact
from zmqmq.transport.sockets import POLLIN, POLLOUT


class LoopDealers(Dealers):
    """``loop`` is set before the first connection; ``on_ready`` is called there when there are facts to take."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, on_ready: Callable[[], None]) -> None:
        super().__init__()
        self._on_ready = on_ready
        self._used: dict[Connection, None] = {}
        self._descriptors: dict[Connection, list[int]] = {}

    def next_ms(self, now_ms: int) -> int | None:
        """When to call ``take_facts`` although nothing was told."""
        return now_ms + INPROC_LOOK_MS if self._is_looking else None

    def send(self, address: str, frames: Sequence[Buffer]) -> bool:
        connection = self._connections.get(address)
        if connection is not None:
            self._used[connection] = None
        return super().send(address, frames)

    def take_facts(self) -> list[Fact]:
        """What happened. Each socket gives a bounded number of messages at a time."""
        used, self._used = self._used, {}
        for connection in used:
            if self._is_open(connection) and not self._receive(connection):
                self._used[connection] = None
            if self._is_open(connection) and connection.waiting:
                self._drain(connection)
        return self._take_facts()

    def has_more(self) -> bool:
        """There is something that no descriptor will tell of: call ``take_facts`` again before the loop sleeps."""
        self._used = {connection: None for connection in self._used if self._has_events(connection)}
        return bool(self._used or self._facts)

    def _has_events(self, connection: Connection) -> bool:
        if not self._is_open(connection):
            return False
        wanted = POLLIN | POLLOUT if connection.waiting else POLLIN
        return bool(int(connection.socket.getsockopt(zmq.EVENTS)) & wanted)

    def _on_readable(self, connection: Connection) -> None:
        self._used[connection] = None
        self._on_ready()

    def _on_monitor(self, connection: Connection) -> None:
        if self._is_open(connection):
            self._on_event(connection)
            self._on_ready()

    def _is_open(self, connection: Connection) -> bool:
        return self._connections.get(connection.address) is connection

    def _watch(self, connection: Connection) -> None:
        descriptors = self._descriptors[connection] = [int(socket.getsockopt(zmq.FD)) for socket in connection.sockets]
        for descriptor, on_readable in zip(descriptors, (self._on_readable, self._on_monitor), strict=False):
            self.loop.add_reader(descriptor, on_readable, connection)
        self._used[connection] = None
        if connection.monitor is not None:
            self.loop.call_soon(self._on_monitor, connection)

    def _unwatch(self, connection: Connection) -> None:
        self._used.pop(connection, None)
        descriptors = self._descriptors.pop(connection)
        if not self.loop.is_closed():
            for descriptor in descriptors:
                self.loop.remove_reader(descriptor)

    def _watch_room(self, connection: Connection, *, wanted: bool) -> None:
        """The same descriptor tells of it."""
