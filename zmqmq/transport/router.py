"""The broker's side of the wire: one ROUTER socket that never blocks and never lets one peer stall another.

What ZeroMQ does not take for a peer at once waits in that peer's own queue, bounded in bytes; beyond the
bound replies are dropped and counted, and the peer's requests run into their deadlines. A peer that is gone is
reported once. Owned by one thread.
"""

from __future__ import annotations

import contextlib
import errno
from collections import deque
from typing import TYPE_CHECKING, Final

import zmq

from zmqmq.errors import AddressInUse, InvalidConfig
from zmqmq.ports import Buffer
from zmqmq.transport.registry import SCHEME, Lease, serve, withdraw
from zmqmq.transport.sockets import GONE, Context, new_context, new_router

if TYPE_CHECKING:
    from collections.abc import Sequence

PEER_QUEUE_BYTES_MAX: Final = 32 << 20
QUEUES_BYTES_MAX: Final = 256 << 20
"""Of all peers together."""
FRAMES_MAX: Final = 4096 + 3
"""Frames kept of one message; one with more is not ours, and the machine says so."""
RETRY_MS: Final = 5
"""How often a peer that did not take its replies is tried again."""
CLOSE_LINGER_MS: Final = 250
"""For the last receipts; bounded, so that a dead peer cannot hold up the end."""
_VIEW_FROM_BYTES: Final = 16 << 10
"""Smaller frames are copied: a view keeps the whole message alive and costs more to make."""
_SEND_MORE: Final = zmq.SNDMORE | zmq.NOBLOCK


class RouterTransport:
    """Implements ``ports.Transport``. ``endpoints`` are the addresses it listens on, with real port numbers."""

    def __init__(self) -> None:
        self.endpoints: list[str] = []
        self.dropped_count = 0
        self._context: Context = new_context()
        self._leases: list[tuple[str, Lease]] = []
        self._socket = new_router(self._context)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._queues: dict[bytes, deque[Sequence[Buffer]]] = {}
        self._queue_bytes: dict[bytes, int] = {}
        self._gone: list[bytes] = []
        self._closed = False

    def bind(self, address: str) -> str:
        """Listen; the address with its real port. Raises AddressInUse and InvalidConfig."""
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            if error.errno == errno.EADDRINUSE:
                raise AddressInUse(
                    f"{address} is taken by another program", hint="stop it, or listen on another port (port 0 takes any free one)"
                ) from error
            raise InvalidConfig(f"cannot listen on {address}: {error.strerror}", hint="write it like tcp://127.0.0.1:5570") from error
        if address.startswith(SCHEME):
            self._leases.append((address, serve(address, self._context)))
            endpoint = address
        else:
            endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.endpoints.append(endpoint)
        return endpoint

    def watch(self, fd: int) -> None:
        """``wait`` returns early when ``fd`` is readable."""
        self._poller.register(fd, zmq.POLLIN)

    def wait(self, timeout_ms: int) -> bool:
        """Sleep until there is a message, a watched descriptor is readable (then True), or the time is over."""
        ready = self._poller.poll(min(timeout_ms, RETRY_MS) if self._queues else timeout_ms)
        return any(socket is not self._socket for socket, _ in ready)

    def receive(self, count_max: int) -> list[tuple[bytes, list[Buffer]]]:
        """Up to so many messages that wait: routing id and frames."""
        messages: list[tuple[bytes, list[Buffer]]] = []
        with contextlib.suppress(zmq.Again):
            while len(messages) < count_max:
                messages.append(self._receive_one())
        return messages

    def _receive_one(self) -> tuple[bytes, list[Buffer]]:
        receive = self._socket.recv
        frame = receive(zmq.NOBLOCK, copy=False)
        source = frame.bytes
        frames: list[Buffer] = []
        while frame.more:
            frame = receive(zmq.NOBLOCK, copy=False)
            if len(frames) < FRAMES_MAX:
                frames.append(frame.bytes if len(frame) < _VIEW_FROM_BYTES else frame.buffer)
        return source, frames

    def send(self, target: bytes, frames: Sequence[Buffer]) -> bool:
        """False when the peer is gone or its queue is full. Frames must not change afterwards."""
        if target in self._queues:
            return self._queue(target, frames)
        try:
            self._send(target, frames)
        except zmq.Again:
            return self._queue(target, frames)
        except zmq.ZMQError as error:
            self._on_error(target, error)
            return False
        return True

    def flush(self) -> None:
        """Try the peers again that did not take their replies."""
        for target in list(self._queues):
            self._flush_one(target)

    def take_gone(self) -> list[bytes]:
        gone, self._gone = self._gone, []
        return gone

    @property
    def has_queued(self) -> bool:
        return bool(self._queues)

    def close(self) -> None:
        """Stop listening. What was handed to ZeroMQ has CLOSE_LINGER_MS to leave."""
        if self._closed:
            return
        self._closed = True
        for endpoint, lease in self._leases:
            withdraw(endpoint, lease)
        self._socket.close(linger=CLOSE_LINGER_MS)
        if self._leases:
            for _, lease in self._leases:
                lease.release()
        else:
            self._context.term()

    def _send(self, target: bytes, frames: Sequence[Buffer]) -> None:
        send = self._socket.send
        send(target, _SEND_MORE)
        last = len(frames) - 1
        for i, frame in enumerate(frames):
            send(frame, _SEND_MORE if i < last else zmq.NOBLOCK, copy=False)

    def _queue(self, target: bytes, frames: Sequence[Buffer]) -> bool:
        size = sum(map(len, frames))
        queued = self._queue_bytes.get(target, 0)
        if queued + size > PEER_QUEUE_BYTES_MAX or sum(self._queue_bytes.values()) + size > QUEUES_BYTES_MAX:
            self.dropped_count += 1
            return False
        self._queues.setdefault(target, deque()).append(frames)
        self._queue_bytes[target] = queued + size
        return True

    def _flush_one(self, target: bytes) -> None:
        queue = self._queues[target]
        try:
            while queue:
                self._send(target, queue[0])
                self._queue_bytes[target] -= sum(map(len, queue.popleft()))
        except zmq.Again:
            return
        except zmq.ZMQError as error:
            self._on_error(target, error)
        self._queues.pop(target, None)
        self._queue_bytes.pop(target, None)

    def _on_error(self, target: bytes, error: zmq.ZMQError) -> None:
        if error.errno not in GONE:
            raise error
        self._gone.append(target)
        self.dropped_count += 1
