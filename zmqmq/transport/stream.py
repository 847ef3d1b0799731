"""What a broker publishes for its followers: one XPUB, and a SUB for each broker that is followed.

A subscriber that does not take what it gets costs its publisher QUEUE_MESSAGES_MAX messages of at most MESSAGE_BYTES_MAX, and loses
the rest; a SUB holds as much. Owned by one thread, with a context of its own.
"""

from __future__ import annotations

import logging
import math
import selectors
from typing import TYPE_CHECKING, Final

import zmq

from zmqmq.transport.guard import Guard
from zmqmq.transport.sockets import (
    NOBLOCK,
    SEND_MORE,
    Context,
    Socket,
    bind,
    has_message,
    new_context,
    new_publisher,
    new_subscriber,
    receive_frames,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zmqmq.ports import Buffer

log: Final = logging.getLogger("zmqmq.transport")

MESSAGE_BYTES_MAX: Final = 1 << 20
"""Larger ones have to be fetched; it bounds what a subscriber that stopped costs."""
SUBSCRIPTIONS_BYTES_MAX: Final = 64 << 20
"""That one connection may send, subscriptions and heartbeats, in its life; then it is cut and may come again."""
CONNECTIONS_MAX: Final = 256
_COPY_BELOW_BYTES: Final = 64 << 10
_BEGUN: Final = b"\x01"
_ENDED: Final = b"\x00"
"""First byte of what an XPUB tells of a subscription; with others a stranger sends messages, which nobody reads."""


class _Source:
    """A broker that is followed."""

    def __init__(self, address: str, socket: Socket) -> None:
        self.address = address
        self.socket = socket
        self.descriptor = int(socket.getsockopt(zmq.FD))


class ZmqStream:
    """Implements ``ports.Stream`` and ``router.Watched``."""

    def __init__(self, *, connections_max: int = CONNECTIONS_MAX) -> None:
        self.dropped_count = 0
        self._context: Context = new_context()
        self._publisher = new_publisher(self._context)
        self._guard = Guard(  # nobody sends messages here, so that everybody is a stranger
            self._context, self._publisher, connections_max, stranger_bytes_max=SUBSCRIPTIONS_BYTES_MAX, stranger_s_max=math.inf
        )
        self._selector = selectors.DefaultSelector()
        self._wanted: set[bytes] = set()
        """Keys that somebody has subscribed to."""
        self._sources: dict[int, _Source] = {}
        self._keys: dict[int, set[bytes]] = {}
        self._is_closed = False

    def bind(self, address: str) -> str:
        """Listen; the address with its real port. Raises AddressInUse and InvalidConfig."""
        return bind(self._publisher, address)

    def fileno(self) -> int:
        return self._selector.fileno()

    def before_wait(self) -> int | None:
        return 0 if any(has_message(source.socket) for source in self._sources.values()) else None

    def publish(self, key: bytes, frames: Sequence[Buffer]) -> bool:
        self._take_subscriptions()
        if sum(map(len, frames)) > MESSAGE_BYTES_MAX:
            self.dropped_count += 1
            return False
        if key in self._wanted:
            send = self._publisher.send
            send(key, SEND_MORE)
            last = len(frames) - 1
            for i, frame in enumerate(frames):
                send(frame, SEND_MORE if i < last else NOBLOCK, copy=len(frame) < _COPY_BELOW_BYTES)
        return True

    def follow(self, publishers: Mapping[int, str]) -> None:
        for node in [node for node, source in self._sources.items() if publishers.get(node) != source.address]:
            self._drop_source(node)
        for node, address in publishers.items():
            if node not in self._sources:
                self._add_source(node, address)

    def subscribe(self, node: int, key: bytes) -> None:
        keys = self._keys.setdefault(node, set())
        if key not in keys:
            keys.add(key)
            if node in self._sources:
                self._sources[node].socket.setsockopt(zmq.SUBSCRIBE, key)

    def unsubscribe(self, node: int, key: bytes) -> None:
        keys = self._keys.get(node, set())
        if key in keys:
            keys.remove(key)
            if node in self._sources:
                self._sources[node].socket.setsockopt(zmq.UNSUBSCRIBE, key)

    def receive(self, count_max: int, bytes_max: int) -> list[list[Buffer]]:
        messages: list[list[Buffer]] = []
        self._guard.before_receiving()
        self._take_subscriptions()
        self._guard.after_receiving()
        taken_bytes = 0
        waiting = [source.socket for source in self._sources.values()]
        while waiting:
            for socket in list(waiting):  # one of each in turn
                if len(messages) >= count_max or taken_bytes >= bytes_max:
                    return messages
                if not has_message(socket):
                    waiting.remove(socket)
                    continue
                frames, _, size = receive_frames(socket)
                messages.append(frames)
                taken_bytes += size
        return messages

    def close(self) -> None:
        """At once; what was not sent yet is lost."""
        if self._is_closed:
            return
        self._is_closed = True
        for node in list(self._sources):
            self._drop_source(node)
        self._guard.close()
        self._selector.close()
        self._publisher.close(linger=0)
        self._context.term()

    def _take_subscriptions(self) -> None:
        """ZeroMQ tells of the first who wants a key and of the last who wants it no more."""
        while has_message(self._publisher):
            told = self._publisher.recv(NOBLOCK)
            if told[:1] == _BEGUN:
                self._wanted.add(told[1:])
            elif told[:1] == _ENDED:
                self._wanted.discard(told[1:])

    def _add_source(self, node: int, address: str) -> None:
        socket = new_subscriber(self._context)
        for key in self._keys.get(node, ()):
            socket.setsockopt(zmq.SUBSCRIBE, key)
        try:
            socket.connect(address)
        except zmq.ZMQError as error:
            log.warning("broker %d cannot be followed at %r: %s", node, address, error.strerror)
            socket.close(linger=0)
            return
        source = self._sources[node] = _Source(address, socket)
        self._selector.register(source.descriptor, selectors.EVENT_READ)

    def _drop_source(self, node: int) -> None:
        source = self._sources.pop(node)
        self._selector.unregister(source.descriptor)
        source.socket.close(linger=0)
