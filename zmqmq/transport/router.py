"""The broker's side of the wire: one ROUTER socket that never blocks and never lets one peer stall another.

ZeroMQ bounds what a peer has not read in messages, which may be large; so large frames are tracked until they
left, and beyond a window of bytes, or when ZeroMQ takes no more, replies wait in the peer's own queue, bounded
in bytes too. Beyond that bound they are dropped and counted, and the peer's requests run into their deadlines.
A peer that is gone is reported once. Owned by one thread.
"""

from __future__ import annotations

import select
import sys
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

import zmq

from zmqmq.ports import Buffer
from zmqmq.transport.guard import Guard
from zmqmq.transport.registry import SCHEME, Lease, serve, withdraw
from zmqmq.transport.sockets import GONE, NOBLOCK, SEND_MORE, Context, bind, has_message, new_context, new_router, receive_frames

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmqmq.transport.wakeup import Wakeup

PEER_WINDOW_BYTES: Final = 16 << 20
"""Large frames handed to ZeroMQ that have not left yet; one more message is always taken when there are none."""
PEER_QUEUE_BYTES_MAX: Final = 32 << 20
QUEUES_BYTES_MAX: Final = 256 << 20
"""Of all peers together, windows and queues."""
_TRACK_FROM_BYTES: Final = 64 << 10
"""pyzmq copies smaller frames, so that there is nothing to track; the number of messages bounds them."""
RETRY_MS: Final = 5
"""How often a peer that did not take its replies is tried again."""
CLOSE_LINGER_MS: Final = 250
"""For the last receipts; bounded, so that a dead peer cannot hold up the end."""


class Watched(Protocol):
    """What may have something for the same thread."""

    def fileno(self) -> int:
        """Readable when it may have."""

    def before_wait(self) -> int | None:
        """Milliseconds that a wait may take, 0 when it has something already; None: however long."""


class _Peer:
    """What a peer has not read yet: ``window`` is with ZeroMQ, ``queue`` is here."""

    __slots__ = ("queue", "queue_bytes", "window", "window_bytes")

    def __init__(self) -> None:
        self.queue: deque[Sequence[Buffer]] = deque()
        self.queue_bytes = 0
        self.window: deque[tuple[zmq.MessageTracker, int]] = deque()
        self.window_bytes = 0

    def prune(self) -> int:
        """Forget what left; its bytes."""
        before = self.window_bytes
        while self.window and self.window[0][0].done:
            self.window_bytes -= self.window.popleft()[1]
        return before - self.window_bytes


class RouterTransport:
    """Implements ``ports.Transport``. ``endpoints`` are the addresses it listens on, with real port numbers."""

    def __init__(self, wakeup: Wakeup, *, connections_max: int = sys.maxsize) -> None:
        """``wakeup`` ends ``wait``."""
        self.endpoints: list[str] = []
        self.dropped_count = 0
        self._context: Context = new_context()
        self._leases: list[tuple[str, Lease]] = []
        self._socket = new_router(self._context)
        self._guard = Guard(self._context, self._socket, connections_max)
        self._wakeup = wakeup
        self._poller = select.poll()
        self._poller.register(int(self._socket.getsockopt(zmq.FD)), select.POLLIN)
        self._poller.register(wakeup.fd, select.POLLIN)
        self._watched: list[Watched] = []
        self._peers: dict[bytes, _Peer] = {}
        """Only those that have something unread."""
        self._unread_bytes = 0
        self._gone: list[bytes] = []
        self._closed = False

    def bind(self, address: str) -> str:
        """Listen; the address with its real port. Raises AddressInUse and InvalidConfig."""
        endpoint = bind(self._socket, address)
        if address.startswith(SCHEME):
            self._leases.append((address, serve(address, self._context)))
        self.endpoints.append(endpoint)
        return endpoint

    def watch(self, watched: Watched) -> None:
        """``wait`` ends for it, too. It must outlive this transport's last ``wait``."""
        self._watched.append(watched)
        self._poller.register(watched.fileno(), select.POLLIN)

    def wait(self, timeout_ms: int) -> None:
        """ZeroMQ's descriptor tells only of what comes after ``receive`` found nothing, so nothing may be sent in between."""
        if self.has_queued:
            timeout_ms = min(timeout_ms, RETRY_MS)
        for watched in self._watched:
            if (ms_max := watched.before_wait()) is not None:
                timeout_ms = min(timeout_ms, ms_max)
        ready = self._poller.poll(timeout_ms)
        if any(descriptor == self._wakeup.fd for descriptor, _ in ready):
            self._wakeup.clear()

    def receive(self, count_max: int, bytes_max: int) -> list[tuple[bytes, list[Buffer]]]:
        messages: list[tuple[bytes, list[Buffer]]] = []
        self._guard.before_receiving()
        taken_bytes = 0
        while len(messages) < count_max and taken_bytes < bytes_max:
            if not has_message(self._socket):
                self._guard.after_receiving()
                break
            source, frames, size = self._receive_one()
            messages.append((source, frames))
            taken_bytes += size
        return messages

    def _receive_one(self) -> tuple[bytes, list[Buffer], int]:
        frame = self._socket.recv(NOBLOCK, copy=False)
        source = frame.bytes
        frames: list[Buffer] = []
        total = 0
        if frame.more:
            frames, frame, total = receive_frames(self._socket)
        self._guard.on_message(source, frame, total)
        return source, frames, total

    def send(self, target: bytes, frames: Sequence[Buffer]) -> bool:
        peer = self._peers.get(target)
        if peer is not None and (peer.queue or not self._has_room(peer)):
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
        for target, peer in list(self._peers.items()):
            self._flush_one(target, peer)

    def take_gone(self) -> list[bytes]:
        gone, self._gone = self._gone, []
        return [*gone, *self._guard.take_gone()]

    @property
    def has_queued(self) -> bool:
        return bool(self._peers)

    @property
    def unread_bytes(self) -> int:
        """What all peers together have not taken, as far as it is tracked."""
        return self._unread_bytes

    @property
    def cut_count(self) -> int:
        """Connections that were ended because there were too many, or because they sent too much."""
        return self._guard.cut_count

    @property
    def connection_count(self) -> int:
        """TCP and ipc connections, as of the last look."""
        return len(self._guard)

    def close(self) -> None:
        """Stop listening. What was handed to ZeroMQ has CLOSE_LINGER_MS to leave."""
        if self._closed:
            return
        self._closed = True
        for endpoint, lease in self._leases:
            withdraw(endpoint, lease)
        self._guard.close()
        self._socket.close(linger=CLOSE_LINGER_MS)
        if self._leases:
            for _, lease in self._leases:
                lease.release()
        else:
            self._context.term()

    def _send(self, target: bytes, frames: Sequence[Buffer]) -> None:
        send = self._socket.send
        send(target, SEND_MORE)
        last = len(frames) - 1
        for i, frame in enumerate(frames):
            flags = SEND_MORE if i < last else NOBLOCK
            size = len(frame)
            if size < _TRACK_FROM_BYTES:
                send(frame, flags)
            else:
                self._track(target, send(frame, flags, copy=False, track=True), size)

    def _track(self, target: bytes, tracker: zmq.MessageTracker, size: int) -> None:
        peer = self._peers.setdefault(target, _Peer())
        peer.window.append((tracker, size))
        peer.window_bytes += size
        self._unread_bytes += size

    def _has_room(self, peer: _Peer) -> bool:
        self._unread_bytes -= peer.prune()
        return peer.window_bytes < PEER_WINDOW_BYTES

    def _queue(self, target: bytes, frames: Sequence[Buffer]) -> bool:
        size = sum(map(len, frames))
        queued = self._peers[target].queue_bytes if target in self._peers else 0
        if queued + size > PEER_QUEUE_BYTES_MAX or self._unread_bytes + size > QUEUES_BYTES_MAX:
            self.dropped_count += 1
            return False
        peer = self._peers.setdefault(target, _Peer())
        peer.queue.append(frames)
        peer.queue_bytes += size
        self._unread_bytes += size
        return True

    def _flush_one(self, target: bytes, peer: _Peer) -> None:
        try:
            while self._has_room(peer) and peer.queue:
                self._send(target, peer.queue[0])
                size = sum(map(len, peer.queue.popleft()))
                peer.queue_bytes -= size
                self._unread_bytes -= size
        except zmq.Again:
            return
        except zmq.ZMQError as error:
            self._on_error(target, error)
            return
        if not peer.queue and not peer.window:
            del self._peers[target]

    def _on_error(self, target: bytes, error: zmq.ZMQError) -> None:
        if error.errno not in GONE:
            raise error
        peer = self._peers.pop(target, None)
        if peer is not None:
            self._unread_bytes -= peer.window_bytes + peer.queue_bytes
        self._gone.append(target)
        self.dropped_count += 1
