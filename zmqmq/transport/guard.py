"""Bounds for what ZeroMQ does not bound: how many connections there are, and how much one may send unasked.

ZeroMQ accepts whoever comes, until the process has no file descriptor left, and it gathers a message of many frames
whole, however long it grows, before anybody sees it. So the connections are counted here, by the events of the
listening socket, and the bytes that the kernel received on each are compared with those that came out as messages.
Who is over a bound is cut off by shutting its descriptor down, the one thing that ends a single connection.

Belongs to the thread of the socket.
"""

from __future__ import annotations

import resource
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Final, TypeVar

import zmq
from zmq.utils.monitor import recv_monitor_message

from zmqmq.transport.sockets import Context, Socket

T = TypeVar("T")

UNFINISHED_BYTES_MAX: Final = 24 << 20
"""Of a connection: received by the kernel, but not yet a whole message. The largest request of a client has some 8 MiB."""
STRANGER_BYTES_MAX: Final = 1 << 20
STRANGER_S_MAX: Final = 15.0
"""A connection that has not sent a whole message: bytes that it may send, and time that it may take."""
LOOK_S: Final = 0.05
LOOK_S_PER_CONNECTION: Final = 20e-6
"""Added for each connection, so that looking costs a tenth of the time at most."""
EVENTS_WAITING_MAX: Final = 100_000
"""ZeroMQ's thread waits when there are more, so it has to be many."""
CONNECTIONS_MIN: Final = 8
FILES_MIN: Final = 8
_FILES_OF_OTHERS: Final = 32
"""Descriptors that a process has open anyway."""
_FILES_FOR_A_MOMENT: Final = 8
"""Directories that are listed, files that a checkpoint opens."""
_PEERS_WITHOUT_FD_MAX: Final = 1024
_TCP_INFO_BYTES: Final = 256
_BYTES_RECEIVED: Final = struct.Struct("=Q")
_BYTES_RECEIVED_AT: Final = 128
"""``tcpi_bytes_received`` of Linux' ``struct tcp_info``; kernels before 4.1 have none."""
_HAS_BYTES_RECEIVED: Final = sys.platform == "linux"
_NO_FD: Final = -1
_EVENTS: Final = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED


def descriptors() -> tuple[int, int]:
    """How many connections and how many files this process may have open: three in five of its descriptors, and the rest."""
    files_max, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files_max == resource.RLIM_INFINITY:
        return sys.maxsize, sys.maxsize
    free = files_max - _FILES_OF_OTHERS
    return max(CONNECTIONS_MIN, free * 3 // 5), max(FILES_MIN, free * 2 // 5 - _FILES_FOR_A_MOMENT)


class _Connection:
    """``delivered_bytes``: of its whole messages; ``received_bytes``: by the kernel, at the last look; ``stuck_at_bytes``: what
    was delivered when a look found too much unfinished."""

    __slots__ = ("accepted_s", "delivered_bytes", "fd", "received_bytes", "source", "stuck_at_bytes")

    def __init__(self, fd: int, accepted_s: float) -> None:
        self.fd = fd
        self.accepted_s = accepted_s
        self.source: bytes | None = None
        self.delivered_bytes = 0
        self.received_bytes = 0
        self.stuck_at_bytes: int | None = None

    def is_over(self) -> bool:
        """A peer that is known may be far ahead for a moment, but then its messages come out. One look tells no difference
        between many messages and one without end; two looks with no message between them do."""
        if self.received_bytes - self.delivered_bytes <= UNFINISHED_BYTES_MAX:
            self.stuck_at_bytes = None
            return False
        was_stuck = self.stuck_at_bytes == self.delivered_bytes
        self.stuck_at_bytes = self.delivered_bytes
        return was_stuck


class Guard:
    """``connections_max`` counts TCP and ipc connections, whatever they speak; when there are more, those that have said
    nothing go first. ``cut_count``: those that were ended here. What a stranger may take depends on who is expected."""

    def __init__(
        self,
        context: Context,
        router: Socket,
        connections_max: int,
        *,
        stranger_bytes_max: int = STRANGER_BYTES_MAX,
        stranger_s_max: float = STRANGER_S_MAX,
    ) -> None:
        self.cut_count = 0
        self._connections_max = connections_max
        self._stranger_bytes_max = stranger_bytes_max
        self._stranger_s_max = stranger_s_max
        self._router = router
        self._by_fd: dict[int, _Connection] = {}
        self._strangers: dict[int, _Connection] = {}
        """Those without a whole message, the oldest first."""
        self._by_source: dict[bytes, _Connection] = {}
        self._without_fd: dict[bytes, _Connection] = {}
        self._leaving: dict[bytes, bool] = {}
        """Peers whose connection ended; what they sent before may still wait. Whether they left before this ``receive`` began."""
        self._gone: list[bytes] = []
        self._look_s = 0.0
        self._has_sampled = False
        address = f"inproc://monitor-{id(self)}"
        router.monitor(address, _EVENTS)
        self._monitor: Socket = context.socket(zmq.PAIR)
        self._monitor.setsockopt(zmq.RCVHWM, EVENTS_WAITING_MAX)
        self._monitor.setsockopt(zmq.LINGER, 0)
        self._monitor.connect(address)

    def __len__(self) -> int:
        return len(self._by_fd)

    def on_message(self, source: bytes, frame: zmq.Frame, size: int) -> None:
        """A whole message came; ``frame`` is one of those that the peer sent."""
        connection = self._by_source.get(source) or self._without_fd.get(source) or self._meet(source, frame)
        connection.delivered_bytes += size

    def before_receiving(self) -> None:
        """Note what the kernel has, when it is time to look."""
        if self._leaving:
            self._leaving = dict.fromkeys(self._leaving, True)
        now = time.monotonic()
        if now < self._look_s:
            return
        self._look_s = now + LOOK_S + LOOK_S_PER_CONNECTION * len(self._by_fd)
        self._take_events(now)
        for connection in self._by_fd.values():
            connection.received_bytes = _received_bytes(connection.fd)
        self._has_sampled = True

    def after_receiving(self) -> None:
        """No message waits any more: who left is gone; what was noted and did not come out is unfinished."""
        for source in [source for source, has_left in self._leaving.items() if has_left]:
            del self._leaving[source]
            self._gone.append(source)
        if not self._has_sampled:
            return
        self._has_sampled = False
        now = time.monotonic()
        for connection in list(self._by_fd.values()):
            if self._is_strange(connection, now) if connection.source is None else connection.is_over():
                self._cut(connection)

    def take_gone(self) -> list[bytes]:
        """Peers whose connection ended and whose last message was received."""
        gone, self._gone = self._gone, []
        return gone

    def close(self) -> None:
        """Before the router is closed."""
        self._router.disable_monitor()
        self._monitor.close(linger=0)

    def _is_strange(self, connection: _Connection, now: float) -> bool:
        return connection.received_bytes > self._stranger_bytes_max or now - connection.accepted_s > self._stranger_s_max

    def _take_events(self, now: float) -> None:
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)
            fd = event["value"]
            if event["event"] == zmq.EVENT_ACCEPTED:
                self._by_fd[fd] = self._strangers[fd] = _Connection(fd, now)
                if len(self._by_fd) > self._connections_max:
                    self._cut(next(iter(self._strangers.values())))
            else:
                self._forget(fd)

    def _meet(self, source: bytes, frame: zmq.Frame) -> _Connection:
        """The first message of a peer tells its descriptor. An inproc peer has none, and is part of this process."""
        self._take_events(time.monotonic())
        if source in self._leaving:
            return _Connection(_NO_FD, 0.0)  # another may have its descriptor by now
        connection = self._by_fd.get(_fd_of(frame))
        if connection is None:
            if len(self._without_fd) >= _PEERS_WITHOUT_FD_MAX:
                self._without_fd.clear()
            connection = self._without_fd[source] = _Connection(_NO_FD, 0.0)
            return connection
        if connection.source is not None:
            self._by_source.pop(connection.source, None)  # the last words of one that had the descriptor before
        self._strangers.pop(connection.fd, None)
        connection.source = source
        self._by_source[source] = connection
        return connection

    def _cut(self, connection: _Connection) -> None:
        """ZeroMQ finds the connection ended and closes its descriptor, which is its own."""
        self.cut_count += 1
        _on_socket(connection.fd, lambda shared: shared.shutdown(socket.SHUT_RDWR))
        self._forget(connection.fd)

    def _forget(self, fd: int) -> None:
        self._strangers.pop(fd, None)
        connection = self._by_fd.pop(fd, None)
        if connection is not None and connection.source is not None:
            self._by_source.pop(connection.source, None)
            self._leaving[connection.source] = False


def _fd_of(frame: zmq.Frame) -> int:
    try:
        fd = frame.get(zmq.SRCFD)
    except zmq.ZMQError:
        return _NO_FD
    assert isinstance(fd, int)
    return fd


def _received_bytes(fd: int) -> int:
    """0 where nobody knows: other systems, ipc, a descriptor that was closed a moment ago."""
    if not _HAS_BYTES_RECEIVED:
        return 0
    info = _on_socket(fd, lambda shared: shared.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES))
    if info is None or len(info) < _BYTES_RECEIVED_AT + _BYTES_RECEIVED.size:
        return 0
    (received,) = _BYTES_RECEIVED.unpack_from(info, _BYTES_RECEIVED_AT)
    return int(received)


def _on_socket(fd: int, action: Callable[[socket.socket], T]) -> T | None:
    """Do something to a descriptor that belongs to ZeroMQ, without owning it; None if it is not there any more.

    No duplicate is made, for there may be no descriptor left. In the worst case the number was given to another
    connection a moment ago; that one then connects again.
    """
    try:
        shared = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
    except OSError:
        return None
    try:
        return action(shared)
    except OSError:
        return None
    finally:
        shared.detach()
