"""How ``produce -f`` reads messages: lines with keys, templates, JSON. Pure: a template in, a parser out."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from zmqmq.errors import InvalidConfig
from zmqmq_cli.formats import Token, text_bytes, tokens

FIELDS: Final = "kvspTh"
EXCERPT_CHARACTERS: Final = 40


class Given(NamedTuple):
    """One message as it was read from the input."""

    value: bytes | None
    key: bytes | None = None
    headers: dict[str, bytes] | None = None
    partition: int | None = None
    timestamp_ms: int | None = None


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
        ending = text_bytes(found.pop().text) + ending
    pattern = re.compile(b"".join(_input_pattern(template, token) for token in found), re.DOTALL)

    def parse(record: bytes) -> Given:
        match = pattern.fullmatch(record)
        if match is None:
            raise InvalidConfig(f"input {_excerpt(record)} does not fit the format {template!r}", hint="correct the line or the format")
        return _given(match.groupdict())

    return InputFormat(parse, ending or delimiter)


def _input_pattern(template: str, token: Token) -> bytes:
    if not token.field:
        return re.escape(text_bytes(token.text))
    if token.field not in FIELDS:
        raise InvalidConfig(
            f"input format {template!r}: %{token.field} cannot be read", hint=f"fields: {' '.join('%' + name for name in FIELDS)}"
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
    return repr(text if len(text) <= EXCERPT_CHARACTERS else text[:EXCERPT_CHARACTERS] + "…")
