"""Messages between the brokers of a cluster, as frames: protocol, envelope, body, payload.

Promise: whatever the bytes are, decoding returns a value or raises RemoteProtocolError or UnsupportedVersion. Who may say what is
decided by whoever takes the message: the envelope says which cluster, node and directory it claims to come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from zmqmq.errors import RemoteProtocolError
from zmqmq.metadata.messages import ControlMessage
from zmqmq.metadata.quorum.forming import Introduce
from zmqmq.metadata.quorum.messages import Message as QuorumMessage
from zmqmq.ports import Buffer
from zmqmq.replication.messages import ReplicaMessage
from zmqmq.wire.framing import PROTOCOL, check_protocol

ControlBody: TypeAlias = QuorumMessage | ControlMessage | Introduce

B = TypeVar("B")

CONTROL_BYTES_MAX: Final = 2 << 20
"""Of one message of the control mesh: entries of the metadata log with what is around them."""
_FRAMES_MIN: Final = 3
_MALFORMED: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class Envelope(Struct, frozen=True, array_like=True):
    """From whom, and for whom."""

    cluster_id: str
    node_id: int
    directory_id: str
    target: int


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_envelope: Final = msgspec.msgpack.Decoder(Envelope).decode
_control: Final = msgspec.msgpack.Decoder(ControlBody)
_data: Final = msgspec.msgpack.Decoder(ReplicaMessage)


def encode(envelope: Envelope, body: Struct, payload: Sequence[Buffer] = ()) -> list[Buffer]:
    return [PROTOCOL, _encode(envelope), _encode(body), *payload]


def decode_control(frames: Sequence[Buffer]) -> tuple[Envelope, ControlBody]:
    """Raises RemoteProtocolError, UnsupportedVersion."""
    envelope, body, _ = _decode(frames, _control)
    return envelope, body


def decode_data(frames: Sequence[Buffer]) -> tuple[Envelope, ReplicaMessage, Sequence[Buffer]]:
    """The payload frames too. Raises RemoteProtocolError, UnsupportedVersion."""
    return _decode(frames, _data)


def _decode(frames: Sequence[Buffer], decoder: msgspec.msgpack.Decoder[B]) -> tuple[Envelope, B, Sequence[Buffer]]:
    if len(frames) < _FRAMES_MIN:
        raise RemoteProtocolError(f"message of a broker has {len(frames)} frames, at least {_FRAMES_MIN} are needed")
    check_protocol(frames[0])
    try:
        return _decode_envelope(frames[1]), decoder.decode(frames[2]), frames[_FRAMES_MIN:]
    except _MALFORMED as error:
        raise RemoteProtocolError(f"message of a broker does not decode: {error}") from error
