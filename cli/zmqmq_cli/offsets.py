"""Where to start and where to stop reading: the SPEC of ``-o/--offset``. Pure; the time now comes in.

    start beginning earliest      end latest       N          -N (last N)    +N (N after the start)
    A:B   :B   A:   :end          @TIME            @TIME:TIME
    s@TIME e@TIME  (start and end apart, as kcat writes them)

TIME is RFC 3339, a date, 10 or 13 digits since 1970, or a span before now such as -1h. Without a zone it is local.
A stop is exclusive.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from zmqmq.errors import InvalidConfig
from zmqmq.model import Offset
from zmqmq.units import parse_duration_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

HINT: Final = "write start, end, 42, -10, +10, 10:20, :end, @-1h, @2026-01-31, @-48h:-24h"
_NAMES: Final = {
    "start": Offset.START, "beginning": Offset.START, "earliest": Offset.START,
    "end": Offset.END, "latest": Offset.END,
}  # fmt: skip
_DIGITS: Final = re.compile(r"\d{10}|\d{13}")
_SECONDS_DIGITS: Final = 10
_OFFSET_MAX: Final = (1 << 63) - 1


class Span(NamedTuple):
    """``stop`` is None when nothing was said about it: read on for ever, or to the end, as the command likes."""

    start: Offset
    stop: Offset | None = None


def parse(text: str, now: dt.datetime) -> Span:
    """One SPEC. ``now`` must be aware. Raises InvalidConfig."""
    if text == "stored":
        raise InvalidConfig("offset 'stored' needs a consumer group, and this version has none", hint=HINT)
    if text.startswith("s@"):
        return Span(parse_time(text[2:], now))
    if text.startswith("e@"):
        return Span(Offset.START, parse_time(text[2:], now))
    if text.startswith("@"):
        return _checked(text, _times(text[1:], now))
    start, colon, stop = text.partition(":")
    if not colon:
        return Span(_point(text, start))
    if not start and not stop:
        raise _refused(text)
    span = Span(_point(text, start) if start else Offset.START, _point(text, stop) if stop else None)
    return _checked(text, span)


def parse_all(texts: Sequence[str], now: dt.datetime) -> Span | None:
    """Several SPECs: ``s@`` and ``e@`` complete each other, anything else stands alone. None when there is none."""
    if not texts:
        return None
    if len(texts) == 1:
        return parse(texts[0], now)
    starts = [text for text in texts if text.startswith("s@")]
    ends = [text for text in texts if text.startswith("e@")]
    if len(starts) != 1 or len(ends) != 1 or len(texts) != 2:
        raise InvalidConfig(f"offsets {' and '.join(texts)} do not go together", hint="give one, or s@TIME with e@TIME")
    return _checked(" ".join(texts), Span(parse(starts[0], now).start, parse(ends[0], now).stop))


def parse_time(text: str, now: dt.datetime) -> Offset:
    """A TIME, without its ``@``."""
    return Offset.at(_time(text, now))


def _point(whole: str, text: str) -> Offset:
    if text in _NAMES:
        return _NAMES[text]
    number = text[1:] if text[:1] in {"+", "-"} else text
    if not (number.isascii() and number.isdigit()) or int(number) > _OFFSET_MAX:
        raise _refused(whole)
    match text[0]:
        case "-":
            return Offset.last(int(number))
        case "+":
            return Offset.after_start(int(number))
        case _:
            return Offset.exact(int(number))


def _times(text: str, now: dt.datetime) -> Span:
    """One time, or two with a colon between; times have colons themselves, so each one is tried."""
    whole = _maybe_time(text, now)
    if whole is not None:
        return Span(Offset.at(whole))
    for index in (i for i, char in enumerate(text) if char == ":"):
        left, right = text[:index], text[index + 1 :].removeprefix("@")
        start = _maybe_time(left, now)
        if start is None:
            continue
        if right in _NAMES or not right:
            return Span(Offset.at(start), _NAMES.get(right))
        stop = _maybe_time(right, now)
        if stop is not None:
            return Span(Offset.at(start), Offset.at(stop))
    raise _refused(f"@{text}")


def _time(text: str, now: dt.datetime) -> dt.datetime:
    found = _maybe_time(text, now)
    if found is None:
        raise InvalidConfig(f"{text!r} is not a time", hint="write 2026-01-31, 2026-01-31T12:00:00Z, 1767225600 or -1h")
    return found


def _maybe_time(text: str, now: dt.datetime) -> dt.datetime | None:
    if _DIGITS.fullmatch(text):
        return dt.datetime.fromtimestamp(0, dt.UTC) + (
            dt.timedelta(seconds=int(text)) if len(text) == _SECONDS_DIGITS else dt.timedelta(milliseconds=int(text))
        )
    if text.startswith("-"):
        return _ago(text, now)
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.astimezone()


def _ago(text: str, now: dt.datetime) -> dt.datetime | None:
    if not text[-1].isalpha():
        return None
    try:
        return now + dt.timedelta(milliseconds=parse_duration_ms(text))
    except (InvalidConfig, OverflowError):
        return None


def _checked(text: str, span: Span) -> Span:
    start, stop = span
    if stop is None or stop.kind != start.kind:
        return span
    if (start.value < stop.value) if start.kind == "last" else (stop.value < start.value):
        raise InvalidConfig(f"offset {text!r} stops before it starts", hint="write the earlier end first")
    return span


def _refused(text: str) -> InvalidConfig:
    return InvalidConfig(f"offset {text!r} is not understood", hint=HINT)
