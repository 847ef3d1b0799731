"""A client's connections: one DEALER per broker, owned by one thread.

A connection that ends is reported and never comes back by itself: the session machine decides when to connect
again, with a new socket. Sending never blocks: what ZeroMQ does not take waits here, and ``send`` says so.

``Dealers`` is all of it but for how one hears that a socket has something: ``DealerTransport`` sleeps in a poller,
``loop_dealer.LoopDealers`` is told by an asyncio loop.
"""

from __future__ import annotations

import abc
import contextlib
import os
import select
from collections import deque
from collections.abc import Sequence
from typing import Final, TypeAlias

import zmq
from msgspec import Struct
from zmq.utils.monitor import recv_monitor_message

from zmqmq.errors import ZmqmqError
from zmqmq.ports import Buffer
from zmqmq.transport.registry import SCHEME, Lease, lease
from zmqmq.transport.sockets import NOBLOCK, SEND_MORE, Context, Socket, has_message, new_context, new_dealer

MESSAGES_PER_TURN: Final = 64
"""Messages taken from one connection before the others have their turn."""
INPROC_LOOK_MS: Final = 50
"""inproc has no events for the end of a connection, so it is looked at this often."""
_COPY_BELOW_BYTES: Final = 4096
_NO_RECONNECT: Final = -1
_EVENTS: Final = (
    zmq.EVENT_CLOSED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_REASONS: Final = {
    zmq.EVENT_CLOSED: "connection refused",
    zmq.EVENT_CONNECT_RETRIED: "no connection",
    zmq.EVENT_DISCONNECTED: "connection lost",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the ZeroMQ handshake failed",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "the other side does not speak ZeroMQ",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "the other side refused the key",
}


class Connected(Struct, frozen=True):
    address: str


class Lost(Struct, frozen=True):
    """The connection ended or never stood; its socket is gone."""

    address: str
    reason: str


class Received(Struct, frozen=True):
    address: str
    frames: Sequence[Buffer]


class Drained(Struct, frozen=True):
    """Everything that ``send`` could not hand over has left."""

    address: str


Fact: TypeAlias = Connected | Lost | Received | Drained


class Connection:
    """``monitor`` tells of the connection's end, but for inproc, where ``held`` has to be looked at."""

    def __init__(self, address: str, socket: Socket, monitor: Socket | None, held: Lease | None) -> None:
        self.address = address
        self.socket = socket
        self.monitor = monitor
        self.held = held
        self.waiting: deque[Sequence[Buffer]] = deque()

    @property
    def sockets(self) -> list[Socket]:
        return [self.socket] if self.monitor is None else [self.socket, self.monitor]


class Dealers(abc.ABC):
    """Performs what sessions ask for, and tells what happened. Calls from one thread, but for the constructor."""

    def __init__(self) -> None:
        self._context: Context | None = None
        self._connections: dict[str, Connection] = {}
        self._facts: list[Fact] = []

    @abc.abstractmethod
    def _watch(self, connection: Connection) -> None:
        """Hear of its socket and its monitor from now on."""

    @abc.abstractmethod
    def _unwatch(self, connection: Connection) -> None:
        """They are about to be closed."""

    @abc.abstractmethod
    def _watch_room(self, connection: Connection, *, wanted: bool) -> None:
        """Hear, or hear no more, when its socket takes messages again."""

    def connect(self, address: str) -> None:
        """Begin to connect; ``Connected`` or ``Lost`` follows."""
        assert address not in self._connections
        try:
            connection = self._open(address)
        except (ZmqmqError, zmq.ZMQError) as error:
            self._facts.append(Lost(address, str(error)))
            return
        self._connections[address] = connection
        self._watch(connection)
        if connection.monitor is None:
            self._facts.append(Connected(address))

    def disconnect(self, address: str) -> None:
        """Close a connection. No fact about it follows."""
        connection = self._connections.pop(address, None)
        if connection is None:
            return
        self._unwatch(connection)
        if connection.monitor is not None:
            connection.socket.disable_monitor()
            connection.monitor.close(linger=0)
        connection.socket.close(linger=0)
        if connection.held is not None:
            connection.held.release()

    def send(self, address: str, frames: Sequence[Buffer]) -> bool:
        """False: it waits here, and ``Drained`` will follow. True also for a connection that is gone: ``Lost`` has followed."""
        connection = self._connections.get(address)
        if connection is None:
            return True
        if not connection.waiting and _send(connection.socket, frames):
            return True
        connection.waiting.append(frames)
        self._watch_room(connection, wanted=True)
        return False

    def close(self) -> None:
        for address in list(self._connections):
            self.disconnect(address)
        if self._context is not None:
            self._context.term()
            self._context = None

    def _open(self, address: str) -> Connection:
        if address.startswith(SCHEME):
            held = lease(address)
            socket = new_dealer(held.context)
            socket.connect(address)
            return Connection(address, socket, None, held)
        if self._context is None:
            self._context = new_context()
        socket = new_dealer(self._context)
        socket.setsockopt(zmq.RECONNECT_IVL, _NO_RECONNECT)
        monitor: Socket = socket.get_monitor_socket(_EVENTS)
        try:
            socket.connect(address)
        except zmq.ZMQError:
            socket.disable_monitor()
            monitor.close(linger=0)
            socket.close(linger=0)
            raise
        return Connection(address, socket, monitor, None)

    def _on_event(self, connection: Connection) -> None:
        assert connection.monitor is not None
        while connection.address in self._connections and connection.monitor.poll(0):
            event = recv_monitor_message(connection.monitor)
            kind, value = zmq.Event(event["event"]), event["value"]
            if kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._facts.append(Connected(connection.address))
            elif reason := _REASONS.get(kind):
                self._receive(connection)  # what came before the end counts
                detail = f" ({os.strerror(value)})" if kind == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL and value else ""
                self._lose(connection, reason + detail)

    def _receive(self, connection: Connection) -> bool:
        """False: there may be more."""
        for _ in range(MESSAGES_PER_TURN):
            if not has_message(connection.socket):
                return True
            frames = connection.socket.recv_multipart(NOBLOCK, copy=False)
            small_or_view = [frame.bytes if len(frame) < _COPY_BELOW_BYTES else frame.buffer for frame in frames]
            self._facts.append(Received(connection.address, small_or_view))
        return False

    def _drain(self, connection: Connection) -> None:
        while connection.waiting:
            if not _send(connection.socket, connection.waiting[0]):
                return
            connection.waiting.popleft()
        self._watch_room(connection, wanted=False)
        self._facts.append(Drained(connection.address))

    @property
    def _is_looking(self) -> bool:
        """There is an inproc connection, whose end has to be looked for."""
        return any(connection.held is not None for connection in self._connections.values())

    def _take_facts(self) -> list[Fact]:
        for connection in list(self._connections.values()):
            if connection.held is not None and not connection.held.is_alive:
                self._lose(connection, "the broker of this process closed")
        facts, self._facts = self._facts, []
        return facts

    def _lose(self, connection: Connection, reason: str) -> None:
        self.disconnect(connection.address)
        self._facts.append(Lost(connection.address, reason))


class DealerTransport(Dealers):
    """For a thread of its own, which sleeps in ``poll``.

    It sleeps on ZeroMQ's descriptors, which tell only of what comes after a socket was found empty: so every socket is looked
    at before. That takes a third of the system calls of ``zmq.Poller``, and each of them gives up the interpreter.
    """

    def __init__(self, wakeup_fd: int) -> None:
        super().__init__()
        self._by_descriptor: dict[int, tuple[Connection, Socket]] = {}
        self._unheard: list[Connection] = []
        """Whose monitor was not looked at yet."""
        self.was_woken = False
        """The last ``poll`` saw the wake-up, which wants to be cleared."""
        self._wakeup_fd = wakeup_fd
        self._poller = select.poll()
        self._poller.register(wakeup_fd, select.POLLIN)

    def poll(self, timeout_ms: int | None) -> list[Fact]:
        """Wait for something to happen, for the wake-up, or for the timeout."""
        has_more = self._look()
        if self._facts or has_more:
            timeout_ms = 0
        elif self._is_looking:
            timeout_ms = INPROC_LOOK_MS if timeout_ms is None else min(timeout_ms, INPROC_LOOK_MS)
        self.was_woken = False
        for descriptor, _ in self._poller.poll(timeout_ms):
            if descriptor == self._wakeup_fd:
                self.was_woken = True
            elif (found := self._by_descriptor.get(descriptor)) is not None:
                connection, socket = found
                if socket is connection.monitor:
                    self._on_event(connection)
                else:
                    self._exchange(connection)
        return self._take_facts()

    def _look(self) -> bool:
        """At every socket. Whether one has more than its share of a turn."""
        unheard, self._unheard = self._unheard, []
        for connection in unheard:
            self._on_event(connection)
        has_more = False
        for connection in self._connections.values():
            has_more |= not self._exchange(connection)
        return has_more

    def _exchange(self, connection: Connection) -> bool:
        """False: there may be more to receive."""
        is_empty = self._receive(connection)
        if connection.waiting:
            self._drain(connection)
        return is_empty

    def _watch(self, connection: Connection) -> None:
        for socket in connection.sockets:
            descriptor = int(socket.getsockopt(zmq.FD))
            self._by_descriptor[descriptor] = connection, socket
            self._poller.register(descriptor, select.POLLIN)
        if connection.monitor is not None:
            self._unheard.append(connection)

    def _unwatch(self, connection: Connection) -> None:
        for descriptor in [descriptor for descriptor, found in self._by_descriptor.items() if found[0] is connection]:
            self._poller.unregister(descriptor)
            del self._by_descriptor[descriptor]
        if connection in self._unheard:
            self._unheard.remove(connection)

    def _watch_room(self, connection: Connection, *, wanted: bool) -> None:
        """The same descriptor tells of it."""


def _send(socket: Socket, frames: Sequence[Buffer]) -> bool:
    with contextlib.suppress(zmq.Again):
        send = socket.send
        last = len(frames) - 1
        for i, frame in enumerate(frames):
            send(frame, SEND_MORE if i < last else NOBLOCK)
        return True
    return False
