"""Message format strings: how ``consume -f`` prints a message. ``input_formats`` reads with the same fields.

Pure: templates in, functions out. A template is text with ``%`` fields and backslash escapes.

    %t topic       %p partition    %o offset      %e leader epoch
    %k key         %v %s value     %K %S their lengths (-1: none)
    %h headers as a=1,b=2          %H how many    %% a percent sign
    %d time, RFC 3339 in UTC       %T time in milliseconds since 1970
    %d{%H:%M:%S} strftime (%L: milliseconds, local time)     %k{hex} %v{base64} an encoding

Keys and values are written as the bytes they are; an absent one writes nothing.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

from zmqmq.errors import DeserializationError, InvalidConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FIELDS: Final = "t p o k v s K S h H d T e %"
_TOKEN: Final = re.compile(r"%(?P<field>.)(?:\{(?P<modifier>[^}]*)\})?|\\(?P<escape>x[0-9a-fA-F]{2}|.)|(?P<text>[^%\\]+)", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\", "%": "%", "'": "'", '"': '"'}
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Shown(Protocol):
    """What can be printed of a message; ``zmqmq.Message[bytes]`` has it all."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp_ms(self) -> int: ...
    @property
    def leader_epoch(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Mapping[str, bytes]: ...


Renderer: TypeAlias = "Callable[[Shown], bytes]"
Decode: TypeAlias = "Callable[[bytes], object]"


class Token(NamedTuple):
    """``field`` is empty for literal ``text``."""

    field: str
    text: str


def tokens(template: str) -> list[Token]:
    """The template's fields and literals. Raises InvalidConfig on a field or escape that does not exist."""
    found: list[Token] = []
    position = 0
    while position < len(template):
        match = _TOKEN.match(template, position)
        if match is None:
            raise InvalidConfig(f"format {template!r} ends within an escape", hint=r"write %% for a percent sign, \\ for a backslash")
        position = match.end()
        if match["field"] == "%":
            found.append(Token("", "%" + ("{" + match["modifier"] + "}" if match["modifier"] is not None else "")))
        elif match["field"]:
            found.append(_field_token(template, match["field"], match["modifier"] or ""))
        else:
            found.append(Token("", match["text"] or _unescape(template, match["escape"])))
    return found


def _field_token(template: str, field: str, modifier: str) -> Token:
    if field not in FIELDS.split():
        raise InvalidConfig(f"format {template!r} has no field %{field}", hint=f"fields: {' '.join('%' + name for name in FIELDS.split())}")
    return Token(field, modifier)


def _unescape(template: str, escape: str) -> str:
    if len(escape) == 3:
        return bytes((int(escape[1:], 16),)).decode("ascii", errors="surrogateescape")
    if escape not in _ESCAPES:
        raise InvalidConfig(f"format {template!r} has an unknown escape \\{escape}", hint=r"escapes: \n \t \r \0 \\ \xNN")
    return _ESCAPES[escape]


def literal(text: str) -> bytes:
    """A separator as people type it: ``\\t`` is a tab. Fields are not meant here."""
    return b"".join(text_bytes(token.text) for token in tokens(text.replace("%", "%%")))


def text_bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def compile_output(template: str, *, decode: str = "") -> Renderer:
    """A function that prints a message by the template. Adjacent literals cost nothing."""
    parts = [_part(token, decode) for token in tokens(template)]

    def render(message: Shown) -> bytes:
        return b"".join([part if isinstance(part, bytes) else part(message) for part in parts])

    return render


def _part(token: Token, decode: str) -> bytes | Renderer:
    if not token.field:
        return text_bytes(token.text)
    if token.field in "kvs":
        show = _shower(token.text or decode)
        return (lambda message: show(message.key)) if token.field == "k" else (lambda message: show(message.value))
    if token.field == "d" and token.text:
        pattern = token.text
        return lambda message: local_time(message.timestamp_ms, pattern).encode()
    return _SIMPLE[token.field]


_SIMPLE: Final[dict[str, Renderer]] = {
    "t": lambda message: message.topic.encode(),
    "p": lambda message: b"%d" % message.partition,
    "o": lambda message: b"%d" % message.offset,
    "e": lambda message: b"%d" % message.leader_epoch,
    "K": lambda message: b"%d" % (-1 if message.key is None else len(message.key)),
    "S": lambda message: b"%d" % (-1 if message.value is None else len(message.value)),
    "T": lambda message: b"%d" % message.timestamp_ms,
    "d": lambda message: rfc3339(message.timestamp_ms).encode(),
    "h": lambda message: b",".join(name.encode() + b"=" + value for name, value in (message.headers or {}).items()),
    "H": lambda message: b"%d" % len(message.headers or {}),
}


def _shower(encoding: str) -> Callable[[bytes | None], bytes]:
    if not encoding:
        return lambda data: data or b""
    decode = decoder(encoding)

    def show(data: bytes | None) -> bytes:
        if data is None:
            return b""
        found = decode(data)
        return found.encode() if isinstance(found, str) else json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()

    return show


def decoder(encoding: str) -> Decode:
    """What ``--decode`` and ``%v{...}`` name. The function raises DeserializationError."""
    if encoding not in DECODERS:
        raise InvalidConfig(f"unknown encoding {encoding!r}", hint=f"known: {', '.join(DECODERS)}")
    decode = DECODERS[encoding]

    def checked(data: bytes) -> object:
        try:
            return decode(data)
        except ValueError as error:
            raise DeserializationError(
                f"a key or value is not {encoding}: {error}", hint="drop --decode, or use --decode hex to look at the bytes"
            ) from error

    return checked


def _msgpack(data: bytes) -> object:
    import msgspec

    found: object = json.loads(msgspec.json.encode(msgspec.msgpack.decode(data)))
    return found


DECODERS: Final[dict[str, Decode]] = {
    "utf8": lambda data: data.decode(),
    "json": json.loads,
    "msgpack": _msgpack,
    "hex": lambda data: data.hex(),
    "base64": lambda data: base64.b64encode(data).decode(),
}


def line(message: Shown, *, decode: str = "", headers: bool = False, truncate: int = 0) -> bytes:
    """The form for people: ``orders-1@0  12:00:01.204  ann  10``, always one line, safe on a terminal."""
    key, value = (_plain(data, decode) for data in (message.key, message.value))
    if truncate and len(value) > truncate:
        value = value[:truncate] + "…"
    cells = [f"{message.topic}-{message.partition}@{message.offset}", local_time(message.timestamp_ms, "%H:%M:%S.%L"), key, value]
    if headers:
        cells.append(" ".join(f"{name}={_plain(data, '')}" for name, data in (message.headers or {}).items()))
    return ("  ".join(cells).rstrip() + "\n").encode()


def _plain(data: bytes | None, decode: str) -> str:
    if data is None:
        return "-"
    text = _shower(decode)(data).decode(errors="backslashreplace")
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def json_line(message: Shown, *, decode: str = "") -> bytes:
    """One JSON object. Bytes that are not UTF-8 are in base64, and a ``*_encoding`` member beside them says so."""
    members: dict[str, object] = {
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "timestamp": rfc3339(message.timestamp_ms),
    }
    for name, data in (("key", message.key), ("value", message.value)):
        members |= _json_member(name, data, decode)
    headers = message.headers or {}
    try:
        members["headers"] = {name: data.decode() for name, data in headers.items()}
    except UnicodeDecodeError:
        members["headers"] = {name: base64.b64encode(data).decode() for name, data in headers.items()}
        members["headers_encoding"] = "base64"
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _json_member(name: str, data: bytes | None, decode: str) -> dict[str, object]:
    if data is None:
        return {name: None}
    if decode and (name == "value" or decode in {"hex", "base64"}):
        marked = {f"{name}_encoding": decode} if decode in {"hex", "base64"} else {}
        return {name: decoder(decode)(data), **marked}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {name: base64.b64encode(data).decode(), f"{name}_encoding": "base64"}


def rfc3339(time_ms: int) -> str:
    """UTC with milliseconds: 2026-11-22T12:00:01.204Z."""
    seconds, milliseconds = divmod(time_ms, 1000)
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


def local_time(time_ms: int, pattern: str) -> str:
    seconds, milliseconds = divmod(time_ms, 1000)
    return dt.datetime.fromtimestamp(seconds, dt.UTC).astimezone().strftime(pattern.replace("%L", f"{milliseconds:03d}"))
