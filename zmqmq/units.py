"""Durations and sizes as people write them: ``7d``, ``1.5h``, ``250ms``; ``64MiB``, ``10kB``, ``512``.

Integers are milliseconds and bytes. ``-1`` and ``unlimited`` mean no bound where a setting allows it.
"""

from __future__ import annotations

import re
from typing import Final

from zmqmq.errors import InvalidConfig

_NUMBER: Final = re.compile(r"(-?\d{1,20}(?:\.\d{1,20})?)\s*([a-zA-Z]*)")
"""Bounded, because a number without end is infinite as a float."""
_MILLISECONDS: Final = {"": 1, "ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_BYTES: Final = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}  # fmt: skip
UNLIMITED: Final = -1


def parse_duration_ms(text: str | int) -> int:
    """Milliseconds. A bare number is milliseconds. Raises InvalidConfig."""
    return _parse(text, _MILLISECONDS, "duration", "7d, 12h, 30m, 5s, 250ms or unlimited")


def parse_bytes(text: str | int) -> int:
    """Bytes. Raises InvalidConfig."""
    return _parse(text, _BYTES, "size", "64MiB, 1GiB, 10kB, 4096 or unlimited")


def _parse(text: str | int, units: dict[str, int], what: str, examples: str) -> int:
    if isinstance(text, int):
        return text
    if text == "unlimited":
        return UNLIMITED
    found = _NUMBER.fullmatch(text.strip())
    factor = units.get(found[2].lower()) if found else None
    if found is None or factor is None:
        raise InvalidConfig(f"{text!r} is not a {what}", hint=f"write it like {examples}")
    return int(float(found[1]) * factor)


def format_duration_ms(value: int) -> str:
    """The shortest exact form: 604800000 is ``7d``."""
    if value < 0:
        return "unlimited"
    for unit in ("d", "h", "m", "s"):
        if value and value % _MILLISECONDS[unit] == 0:
            return f"{value // _MILLISECONDS[unit]}{unit}"
    return f"{value}ms"


def format_bytes(value: int) -> str:
    """The shortest exact form: 67108864 is ``64MiB``."""
    if value < 0:
        return "unlimited"
    for unit in ("GiB", "MiB", "KiB"):
        if value and value % _BYTES[unit.lower()] == 0:
            return f"{value // _BYTES[unit.lower()]}{unit}"
    return str(value)


def human_bytes(value: float) -> str:
    """Rounded, for tables: 4.1 G."""
    for unit in ("B", "K", "M", "G"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} T"
