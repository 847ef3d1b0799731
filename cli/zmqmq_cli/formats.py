"""Message format strings: how ``consume -f`` prints a message and how ``produce -f`` reads one.

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
import binascii
import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

from zmqmq.errors import DeserializationError, InvalidConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FIELDS: Final = "t p o k v s K S h H d T e %"
_FIELDS_INPUT: Final = "kvspTh"
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


class Given(NamedTuple):
    """One message as it was read from the input."""

    value: bytes | None
    key: bytes | None = None
    headers: dict[str, bytes] | None = None
    partition: int | None = None
    timestamp_ms: int | None = None


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
    return b"".join(_text_bytes(token.text) for token in tokens(text.replace("%", "%%")))


def _text_bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


# --- output


def compile_output(template: str, *, decode: str = "") -> Renderer:
    """A function that prints a message by the template. Adjacent literals cost nothing."""
    parts = [_part(token, decode) for token in tokens(template)]

    def render(message: Shown) -> bytes:
        return b"".join([part if isinstance(part, bytes) else part(message) for part in parts])

    return render


def _part(token: Token, decode: str) -> bytes | Renderer:
    if not token.field:
        return _text_bytes(token.text)
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


# --- input


class InputFormat(NamedTuple):
    """``parse`` reads one message out of what lies between two delimiters. Raises InvalidConfig."""

    parse: Callable[[bytes], Given]
    delimiter: bytes


def plain_input(key_separator: bytes, delimiter: bytes) -> InputFormat:
    """A line is a value; with a separator the key stands before the first one. A line without it has no key."""

    def parse(record: bytes) -> Given:
        if key_separator:
            key, separator, value = record.partition(key_separator)
            if separator:
                return Given(value=value, key=key)
        return Given(value=record)

    return InputFormat(parse, delimiter)


def compile_input(template: str, delimiter: bytes) -> InputFormat:
    """A parser for ``%k\\t%v\\n``. Fields: %k %v %s %p %T %h; the last literal ends a message, else ``delimiter``."""
    found = tokens(template)
    if not any(token.field in {"v", "s"} for token in found):
        raise InvalidConfig(f"input format {template!r} has no value", hint=r"write for instance -f '%k\t%v\n'")
    ending = b""
    while found and not found[-1].field:
        ending = _text_bytes(found.pop().text) + ending
    pattern = re.compile(b"".join(_input_pattern(template, token) for token in found), re.DOTALL)

    def parse(record: bytes) -> Given:
        match = pattern.fullmatch(record)
        if match is None:
            raise InvalidConfig(f"input {_excerpt(record)} does not fit the format {template!r}", hint="correct the line or the format")
        return _given(match.groupdict())

    return InputFormat(parse, ending or delimiter)


def _input_pattern(template: str, token: Token) -> bytes:
    if not token.field:
        return re.escape(_text_bytes(token.text))
    if token.field not in _FIELDS_INPUT:
        raise InvalidConfig(
            f"input format {template!r}: %{token.field} cannot be read", hint=f"fields: {' '.join('%' + name for name in _FIELDS_INPUT)}"
        )
    name = "v" if token.field == "s" else token.field
    return f"(?P<{name}>{'[0-9]+' if name in 'pT' else '.*?'})".encode()


def _given(fields: dict[str, bytes]) -> Given:
    return Given(
        value=fields["v"],
        key=fields.get("k"),
        headers=_headers(fields["h"]) if fields.get("h") else None,
        partition=int(fields["p"]) if "p" in fields else None,
        timestamp_ms=int(fields["T"]) if "T" in fields else None,
    )


def _headers(text: bytes) -> dict[str, bytes]:
    pairs = (part.partition(b"=") for part in text.split(b","))
    return {name.decode(errors="replace"): value for name, _, value in pairs}


def json_input() -> InputFormat:
    """Reads what ``consume -J`` writes, one object a line; the offset is not used."""
    return InputFormat(_parse_json, b"\n")


def _parse_json(record: bytes) -> Given:
    try:
        found = json.loads(record)
        if not isinstance(found, dict):
            raise TypeError("it is not an object")
        headers = {str(name): _json_bytes(found, "headers", text) or b"" for name, text in (found.get("headers") or {}).items()}
        when = found.get("timestamp")
        return Given(
            value=_json_bytes(found, "value", found.get("value")),
            key=_json_bytes(found, "key", found.get("key")),
            headers=headers or None,
            partition=int(found["partition"]) if found.get("partition") is not None else None,
            timestamp_ms=_json_time(when) if when is not None else None,
        )
    except (ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise InvalidConfig(
            f"input {_excerpt(record)} is not a message in JSON: {error}", hint='write {"key": "a", "value": "1"} on one line'
        ) from error


def _json_bytes(members: dict[str, object], name: str, text: object) -> bytes | None:
    if text is None:
        return None
    if not isinstance(text, str):
        return json.dumps(text, ensure_ascii=False, separators=(",", ":")).encode()
    match members.get(f"{name}_encoding"):
        case "base64":
            return base64.b64decode(text, validate=True)
        case "hex":
            return bytes.fromhex(text)
        case _:
            return text.encode()


def _json_time(when: object) -> int:
    if isinstance(when, int):
        return when
    time = dt.datetime.fromisoformat(str(when))
    return round((time if time.tzinfo else time.astimezone()).timestamp() * 1000)


def _excerpt(record: bytes) -> str:
    text = record.decode(errors="backslashreplace")
    return repr(text if len(text) <= 40 else text[:40] + "…")
