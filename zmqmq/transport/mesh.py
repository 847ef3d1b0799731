"""Messages between brokers: a ROUTER that only receives, and a DEALER for each peer that only sends.

What a peer has not taken is bounded in messages and in bytes; beyond it, and while there is no connection, messages are dropped,
counted, and ``send`` says so: whoever needs an answer asks again. Owned by one thread, with a context of its own.
"""

from __future__ import annotations

import logging
import math
import selectors
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import zmq
from zmq.utils.monitor import recv_monitor_message

from zmqmq.model import FRAME_BYTES_MAX
from zmqmq.transport.evidence import Inquiry, place_of, place_of_peer
from zmqmq.transport.guard import UNFINISHED_BYTES_MAX, Guard
from zmqmq.transport.sockets import (
    NOBLOCK,
    SEND_MORE,
    Context,
    Socket,
    bind,
    has_message,
    new_context,
    new_mesh_dealer,
    new_router,
    receive_frames,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zmqmq.ports import Buffer

log: Final = logging.getLogger("zmqmq.transport")

PEER_BYTES_MAX: Final = 32 << 20
"""Large messages that one peer has not taken; one more is always taken when there are none."""
CONNECTIONS_MAX: Final = 256
"""From other brokers, and from strangers."""
_TRACK_FROM_BYTES: Final = 64 << 10
"""Smaller messages are copied, and bounded by their number."""
_COPY_BELOW_BYTES: Final = 16 << 10
_EVENTS: Final = zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED


class _Peer:
    """The way to one broker. ``inquiry``: its connection ended, and whether its process did is being found out."""

    def __init__(self, address: str, socket: Socket, monitor: Socket) -> None:
        self.address = address
        self.socket = socket
        self.monitor = monitor
        self.place = place_of(address)
        self.is_connected = False
        self.inquiry: Inquiry | None = None
        self._window: deque[tuple[zmq.MessageTracker, int]] = deque()
        self._window_bytes = 0

    def has_room(self) -> bool:
        while self._window and self._window[0][0].done:
            self._window_bytes -= self._window.popleft()[1]
        return self._window_bytes < PEER_BYTES_MAX

    def send(self, frames: Sequence[Buffer]) -> None:
        """Raises zmq.Again."""
        sizes = [len(frame) for frame in frames]
        total = sum(sizes)
        tracked = sizes.index(max(sizes)) if total >= _TRACK_FROM_BYTES else -1
        send = self.socket.send
        last = len(frames) - 1
        for i, frame in enumerate(frames):
            flags = SEND_MORE if i < last else NOBLOCK
            if i == tracked:
                self._window.append((send(frame, flags, copy=False, track=True), total))
                self._window_bytes += total
            else:
                send(frame, flags, copy=sizes[i] < _COPY_BELOW_BYTES)

    def close(self) -> None:
        if self.inquiry is not None:
            self.inquiry.close()
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close(linger=0)


class ZmqMesh:
    """Implements ``ports.Mesh`` and ``router.Watched``."""

    def __init__(self, *, connections_max: int = CONNECTIONS_MAX) -> None:
        self.dropped_count = 0
        self._context: Context = new_context()
        self._router = new_router(self._context)
        # a peer that has nothing to say for long, or whose first message is a large one, is no stranger here
        self._guard = Guard(self._context, self._router, connections_max, stranger_bytes_max=UNFINISHED_BYTES_MAX, stranger_s_max=math.inf)
        self._selector = selectors.DefaultSelector()
        self._selector.register(int(self._router.getsockopt(zmq.FD)), selectors.EVENT_READ)
        self._peers: dict[int, _Peer] = {}
        self._refused: list[int] = []
        self._is_closed = False

    def bind(self, address: str) -> str:
        """Listen; the address with its real port. Raises AddressInUse and InvalidConfig."""
        return bind(self._router, address)

    def fileno(self) -> int:
        return self._selector.fileno()

    def before_wait(self) -> int | None:
        self._look()
        if self._refused or has_message(self._router):
            return 0
        asking = [peer.inquiry.next_s() for peer in self._peers.values() if peer.inquiry is not None]
        return max(0, math.ceil((min(asking) - time.monotonic()) * 1000)) if asking else None

    def set_peers(self, peers: Mapping[int, str]) -> None:
        for node in [node for node, peer in self._peers.items() if peers.get(node) != peer.address]:
            self._drop_peer(node)
        for node, address in peers.items():
            if node not in self._peers:
                self._add_peer(node, address)

    def send(self, node: int, frames: Sequence[Buffer]) -> bool:
        peer = self._peers.get(node)
        if peer is not None and peer.has_room() and max(map(len, frames)) <= FRAME_BYTES_MAX:
            try:
                peer.send(frames)
            except zmq.Again:
                pass
            else:
                return True
        self.dropped_count += 1
        return False

    def receive(self, count_max: int, bytes_max: int) -> list[list[Buffer]]:
        messages: list[list[Buffer]] = []
        self._guard.before_receiving()
        taken_bytes = 0
        while len(messages) < count_max and taken_bytes < bytes_max:
            if not has_message(self._router):
                self._guard.after_receiving()
                self._guard.take_gone()  # nobody is answered by name
                break
            source = self._router.recv(NOBLOCK)
            frames, frame, size = receive_frames(self._router)
            self._guard.on_message(source, frame, size)
            messages.append(frames)
            taken_bytes += size
        return messages

    def take_refused(self) -> list[int]:
        self._look()
        refused, self._refused = self._refused, []
        return refused

    def close(self) -> None:
        """At once; what was not sent yet is lost."""
        if self._is_closed:
            return
        self._is_closed = True
        for node in list(self._peers):
            self._drop_peer(node)
        self._guard.close()
        self._selector.close()
        self._router.close(linger=0)
        self._context.term()

    def _add_peer(self, node: int, address: str) -> None:
        socket = new_mesh_dealer(self._context)
        monitor: Socket = socket.get_monitor_socket(_EVENTS)
        peer = _Peer(address, socket, monitor)
        try:
            socket.connect(address)
        except zmq.ZMQError as error:
            log.warning("broker %d cannot be reached at %r: %s", node, address, error.strerror)
            peer.close()
            return
        self._peers[node] = peer
        self._selector.register(_descriptor(monitor), selectors.EVENT_READ, node)
        self._take_events(peer, time.monotonic())  # its descriptor tells only of what comes after it was looked at

    def _drop_peer(self, node: int) -> None:
        peer = self._peers.pop(node)
        self._selector.unregister(_descriptor(peer.monitor))
        peer.close()

    def _look(self) -> None:
        """Take in what happened to connections, and what inquiries found."""
        now_s = time.monotonic()
        for key, _ in self._selector.select(0):
            if key.data is not None:
                self._take_events(self._peers[key.data], now_s)
        for node, peer in self._peers.items():
            if peer.inquiry is not None and (is_refused := peer.inquiry.look(now_s)) is not None:
                peer.inquiry = None
                if is_refused:
                    self._refused.append(node)

    def _take_events(self, peer: _Peer, now_s: float) -> None:
        while has_message(peer.monitor):
            event = recv_monitor_message(peer.monitor)
            kind = event["event"]
            if kind == zmq.EVENT_CONNECTED:
                peer.place = peer.place or place_of_peer(event["value"], peer.address)
            elif kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                peer.is_connected = True
                if peer.inquiry is not None:
                    peer.inquiry.close()
                    peer.inquiry = None
            elif kind == zmq.EVENT_DISCONNECTED and peer.is_connected:
                peer.is_connected = False
                if peer.place is not None:
                    peer.inquiry = Inquiry(peer.place, self._selector, now_s)


def _descriptor(socket: Socket) -> int:
    return int(socket.getsockopt(zmq.FD))
