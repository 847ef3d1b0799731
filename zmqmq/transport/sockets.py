"""Contexts and sockets with zmqmq's options; nothing else makes one.

Every option has its reason in ``docs/spec/wire.md``. LINGER is 0 everywhere, so that closing never hangs:
what must arrive is waited for by the protocol, not by the socket.
"""

from __future__ import annotations

import errno
from typing import Final, TypeAlias

import zmq

from zmqmq.errors import AddressInUse, InvalidConfig, UnsupportedVersion
from zmqmq.model import FRAME_BYTES_MAX
from zmqmq.ports import Buffer

Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"
Socket: TypeAlias = "zmq.Socket[bytes]"

LIBZMQ_MIN: Final = (4, 3, 5)
"""Earlier ones have holes that a peer can use before any message of ours is seen."""

SOCKETS_MAX: Final = 4096
QUEUE_MESSAGES_MAX: Final = 64
"""Messages that ZeroMQ holds per peer and direction; beyond it the sender is told to wait."""
HANDSHAKE_MS: Final = 3_000
HEARTBEAT_MS: Final = 1_000
HEARTBEAT_TIMEOUT_MS: Final = 3_000
HEARTBEAT_TTL_MS: Final = 4_000
CONNECT_TIMEOUT_MS: Final = 1_000
RECONNECT_MS: Final = 100
RECONNECT_MS_MAX: Final = 2_000
BROKER_RECONNECT_MS_MAX: Final = 500
"""Brokers come back for each other sooner than clients."""
MESH_QUEUE_MESSAGES_MAX: Final = 256
"""Of one sender, for one peer: a round may answer many at once."""
UNASKED_BYTES_MAX: Final = 1 << 10
"""What a peer may send to a socket that only sends: room for ZeroMQ's own handshake."""
FRAMES_MAX: Final = 4096 + 3
"""Frames kept of one message; one with more is not ours, and the machine says so."""
VIEW_FROM_BYTES: Final = 16 << 10
"""Smaller frames are copied: a view keeps the whole message alive and costs more to make."""
BACKLOG_CONNECTIONS: Final = 1024
KEEPALIVE_IDLE_S: Final = 30
KEEPALIVE_INTERVAL_S: Final = 10
KEEPALIVE_COUNT: Final = 3

# Plain integers: pyzmq's are enum members, whose arithmetic costs a microsecond each time.
POLLIN: Final = int(zmq.POLLIN)
POLLOUT: Final = int(zmq.POLLOUT)
NOBLOCK: Final = int(zmq.NOBLOCK)
SEND_MORE: Final = int(zmq.SNDMORE | zmq.NOBLOCK)

GONE: Final = frozenset({errno.EHOSTUNREACH, zmq.ENOTSOCK, zmq.ETERM})
"""Errors of a send that mean: this peer will never read it."""


def new_context(*, io_threads: int = 1) -> Context:
    """A context of our own: the process-wide instance belongs to the application. Raises UnsupportedVersion."""
    found = zmq.zmq_version_info()
    if found < LIBZMQ_MIN:
        raise UnsupportedVersion(
            f"libzmq {'.'.join(map(str, found))} is too old, zmqmq needs {'.'.join(map(str, LIBZMQ_MIN))}",
            hint="install a newer pyzmq: python -m pip install --upgrade pyzmq",
        )
    context: Context = zmq.Context(io_threads)
    context.set(zmq.MAX_SOCKETS, SOCKETS_MAX)
    return context


def new_router(context: Context) -> Socket:
    """The broker's socket. MANDATORY: a send to a peer that is gone fails instead of vanishing. No HANDOVER: nobody can
    take another's identity."""
    router = _with_common_options(context.socket(zmq.ROUTER))
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)
    router.setsockopt(zmq.ROUTER_HANDOVER, 0)
    router.setsockopt(zmq.BACKLOG, BACKLOG_CONNECTIONS)
    return router


def new_dealer(context: Context) -> Socket:
    """A client's socket, one per broker. IMMEDIATE: nothing is queued for a connection that does not stand. No routing id
    of its own: the broker makes a fresh one for each connection."""
    dealer = _with_common_options(context.socket(zmq.DEALER))
    dealer.setsockopt(zmq.IMMEDIATE, 1)
    dealer.setsockopt(zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS)
    dealer.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    dealer.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX)
    return dealer


def new_mesh_dealer(context: Context) -> Socket:
    """A broker's way to one other. It gets nothing, and whether a frame is copied is said at each send."""
    dealer = new_dealer(context)
    dealer.setsockopt(zmq.RECONNECT_IVL_MAX, BROKER_RECONNECT_MS_MAX)
    dealer.setsockopt(zmq.SNDHWM, MESH_QUEUE_MESSAGES_MAX)
    dealer.setsockopt(zmq.RCVHWM, 1)
    dealer.setsockopt(zmq.MAXMSGSIZE, UNASKED_BYTES_MAX)
    dealer.copy_threshold = 0
    return dealer


def new_publisher(context: Context) -> Socket:
    """No NODROP: with it the slowest subscriber would hold up all."""
    publisher = _with_common_options(context.socket(zmq.XPUB))
    publisher.setsockopt(zmq.XPUB_NODROP, 0)
    publisher.setsockopt(zmq.MAXMSGSIZE, UNASKED_BYTES_MAX)
    publisher.setsockopt(zmq.BACKLOG, BACKLOG_CONNECTIONS)
    return publisher


def new_subscriber(context: Context) -> Socket:
    """One per publisher. What it sends is subscriptions, and beyond the HWM ZeroMQ would drop them without a word; their number is
    bounded by who subscribes."""
    subscriber = _with_common_options(context.socket(zmq.SUB))
    subscriber.setsockopt(zmq.SNDHWM, 0)
    subscriber.setsockopt(zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS)
    subscriber.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    subscriber.setsockopt(zmq.RECONNECT_IVL_MAX, BROKER_RECONNECT_MS_MAX)
    return subscriber


def bind(socket: Socket, address: str) -> str:
    """Listen; the address with its real port. Raises AddressInUse and InvalidConfig."""
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(
                f"{address} is taken by another program", hint="stop it, or listen on another port (port 0 takes any free one)"
            ) from error
        raise InvalidConfig(f"cannot listen on {address}: {error.strerror}", hint="write it like tcp://127.0.0.1:5570") from error
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def receive_frames(socket: Socket) -> tuple[list[Buffer], zmq.Frame, int]:
    """The frames that are left of a message that waits, the last one as ZeroMQ gave it, and their bytes. Of too many only the first
    are kept."""
    receive = socket.recv
    frames: list[Buffer] = []
    total = 0
    while True:
        frame = receive(NOBLOCK, copy=False)
        size = len(frame)
        total += size
        if len(frames) < FRAMES_MAX:
            frames.append(frame.bytes if size < VIEW_FROM_BYTES else frame.buffer)
        if not frame.more:
            return frames, frame, total


def has_message(socket: Socket) -> bool:
    """Whether a receive would give one now; ten times cheaper than to try and fail."""
    return bool(int(socket.getsockopt(zmq.EVENTS)) & POLLIN)


def _with_common_options(socket: Socket) -> Socket:
    """ZAP_DOMAIN is set when CURVE is: enforcing it without a handler refuses everybody."""
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
    socket.setsockopt(zmq.SNDHWM, QUEUE_MESSAGES_MAX)
    socket.setsockopt(zmq.RCVHWM, QUEUE_MESSAGES_MAX)
    socket.setsockopt(zmq.SNDTIMEO, 0)
    socket.setsockopt(zmq.RCVTIMEO, 0)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TTL, HEARTBEAT_TTL_MS)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, KEEPALIVE_COUNT)
    return socket
