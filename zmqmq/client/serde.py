"""Serdes: how a value becomes bytes and how bytes become a value again, typed so that mypy follows.

``raw()`` bytes as they are; ``text()`` str as UTF-8; ``json(T)`` and ``msgpack(T)`` by msgspec, which knows
Structs, dataclasses, TypedDicts, dates and the builtin types, and checks them when it decodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar, overload

import msgspec

from zmqmq.errors import InvalidConfig

T = TypeVar("T")

DECODE_ERRORS = (msgspec.MsgspecError, ValueError, TypeError, RecursionError)
"""What a ``decode`` may raise; the message turns it into DeserializationError."""


_TEXT_HINT: Final = "bytes and other values have serdes of their own: zmqmq.raw(), json() or msgpack()"


class Serde(Generic[T]):
    """A pair of functions. ``encode`` gives bytes; ``decode`` is only called with bytes, never with a tombstone's None."""

    __slots__ = ("decode", "encode", "name")

    def __init__(self, name: str, encode: Callable[[T], bytes], decode: Callable[[bytes], T]) -> None:
        self.name = name
        self.encode = encode
        self.decode = decode

    def __repr__(self) -> str:
        return f"Serde({self.name})"


def encode_raw(value: Any) -> bytes:
    """Bytes unchanged, other buffers copied; anything else is a mistake that is cheaper to hear of here."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    raise InvalidConfig(
        f"a raw value must be bytes, got {type(value).__name__}", hint="give the producer a serde: value=zmqmq.text(), json() or msgpack()"
    )


def decode_raw(data: bytes) -> bytes:
    return data


def _encode_text(value: str) -> bytes:
    try:
        return value.encode()
    except (AttributeError, UnicodeEncodeError) as error:
        raise InvalidConfig(f"text must be a str that has UTF-8: {error}", hint=_TEXT_HINT) from error


def _decode_text(data: bytes) -> str:
    return data.decode()


_RAW = Serde("raw", encode_raw, decode_raw)
_TEXT = Serde("text", _encode_text, _decode_text)


def raw() -> Serde[bytes]:
    """Bytes in, bytes out."""
    return _RAW


def text() -> Serde[str]:
    """UTF-8."""
    return _TEXT


@overload
def json() -> Serde[Any]: ...
@overload
def json(type: type[T]) -> Serde[T]: ...
def json(type: Any = Any) -> Serde[Any]:
    """JSON of ``type``; without one, whatever JSON holds."""
    return Serde(f"json[{_name(type)}]", msgspec.json.Encoder().encode, msgspec.json.Decoder(type).decode)


@overload
def msgpack() -> Serde[Any]: ...
@overload
def msgpack(type: type[T]) -> Serde[T]: ...
def msgpack(type: Any = Any) -> Serde[Any]:
    """MessagePack of ``type``; without one, whatever it holds."""
    return Serde(f"msgpack[{_name(type)}]", msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(type).decode)


def encode_plain_key(key: Any) -> bytes | None:
    """Without a key serde: bytes as they are, str as UTF-8, None for no key."""
    if key is None or isinstance(key, bytes):
        return key
    if isinstance(key, str):
        return _encode_text(key)
    raise InvalidConfig(f"a key must be bytes or str, got {type(key).__name__}", hint="give the producer a key serde: key=zmqmq.json(...)")


def _name(type_: Any) -> str:
    return getattr(type_, "__name__", str(type_))
