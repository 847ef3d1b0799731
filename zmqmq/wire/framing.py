"""Frames to values and back. Every message: protocol frame, header frame, payload frames.

Promise: whatever the bytes are, decoding returns a value or raises one of the named errors below; it
never raises anything else and takes memory in proportion to the frame only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from zmqmq.errors import RemoteProtocolError, UnsupportedVersion, ZmqmqError, from_wire
from zmqmq.model import FRAME_BYTES_MAX
from zmqmq.ports import Buffer
from zmqmq.wire.replies import ErrorReply, Fault, Reply
from zmqmq.wire.requests import PROTOCOL_VERSION, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

PROTOCOL: Final = b"zmqmq\x00" + bytes([PROTOCOL_VERSION])
"""First frame of every message: name, NUL, version. Must not change but for the version."""

HEADER_BYTES_MAX: Final = 1 << 20
"""Of a request. A reply may describe every topic of a cluster: it is bounded by the frame."""
PAYLOAD_FRAMES_MAX: Final = 4096

_encode = msgspec.msgpack.Encoder().encode
_decode_request: Final = msgspec.msgpack.Decoder(Request).decode
_decode_reply: Final = msgspec.msgpack.Decoder(Reply).decode
_MALFORMED: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class _Front(Struct, array_like=True):
    """What can still be read of a header that this version does not understand."""

    api: int
    correlation_id: int


_decode_front: Final = msgspec.msgpack.Decoder(_Front).decode


def encode(header: Request | Reply, payload: Sequence[Buffer] = ()) -> list[Buffer]:
    return [PROTOCOL, _encode(header), *payload]


def decode_request(frames: Sequence[Buffer]) -> tuple[Request, Sequence[Buffer]]:
    """The request and its payload frames. Raises UnsupportedVersion or RemoteProtocolError."""
    header = _header(frames, HEADER_BYTES_MAX)
    try:
        return _decode_request(header), frames[2:]
    except _MALFORMED as error:
        raise RemoteProtocolError(f"request header does not decode: {error}") from error


def decode_reply(frames: Sequence[Buffer]) -> tuple[Reply, Sequence[Buffer]]:
    """The reply and its payload frames. Raises UnsupportedVersion or RemoteProtocolError."""
    header = _header(frames, FRAME_BYTES_MAX)
    try:
        return _decode_reply(header), frames[2:]
    except _MALFORMED as error:
        raise RemoteProtocolError(f"reply header does not decode: {error}") from error


def correlation_id(frames: Sequence[Buffer]) -> int:
    """As much as can be read of a message that did not decode; 0 if nothing."""
    try:
        return _decode_front(frames[1]).correlation_id if len(frames) > 1 else 0
    except _MALFORMED:
        return 0


def _foreign(first: Buffer) -> UnsupportedVersion | RemoteProtocolError:
    """Why this is no first frame of ours."""
    if len(first) == len(PROTOCOL) and first[:-1] == PROTOCOL[:-1]:
        return UnsupportedVersion(
            f"message speaks protocol version {first[-1]}, this side speaks {PROTOCOL_VERSION}",
            hint="upgrade the older side",
        )
    return RemoteProtocolError("message is not zmqmq's: its first frame is not the protocol name")


def check_protocol(first: Buffer) -> None:
    """Raises UnsupportedVersion or RemoteProtocolError unless the first frame is ours."""
    if first != PROTOCOL:
        raise _foreign(first)


def _header(frames: Sequence[Buffer], bytes_max: int) -> Buffer:
    if len(frames) < 2:
        raise RemoteProtocolError(f"message has {len(frames)} frames, at least 2 are needed")
    check_protocol(frames[0])
    if len(frames[1]) > bytes_max:
        raise RemoteProtocolError(f"message header has {len(frames[1])} bytes, the limit is {bytes_max}")
    if len(frames) - 2 > PAYLOAD_FRAMES_MAX:
        raise RemoteProtocolError(f"message has {len(frames) - 2} payload frames, the limit is {PAYLOAD_FRAMES_MAX}")
    return frames[1]


def fault(error: ZmqmqError) -> Fault:
    """An error as it travels; its outcome, if it has one, is one of the details."""
    details = error.details()
    return Fault(error.code, str(error), error.hint, {**details, "outcome": error.outcome} if error.outcome else details)


def raised(fault: Fault) -> ZmqmqError:
    """The exception that a fault stands for."""
    return from_wire(fault.code, fault.message, fault.hint, fault.details)


def error_reply(correlation_id: int, error: ZmqmqError) -> ErrorReply:
    return ErrorReply(correlation_id, fault(error))
