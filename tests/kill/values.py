"""What the records of the kill test hold: who sent them, the how-many-eth they are, and bytes that follow from both.

So every value is unique, says whose it is, and cannot be changed without being noticed.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

FILL_BYTES_MIN = 16


class Identity(NamedTuple):
    """A record by its sender's lane and its number there, counted from 0."""

    lane: str
    number: int

    def __str__(self) -> str:
        return f"{self.lane}#{self.number}"


def value_of(lane: str, number: int) -> bytes:
    head = b"%s:%d:" % (lane.encode(), number)
    chance = hashlib.shake_128(head)
    return head + chance.digest(FILL_BYTES_MIN + chance.digest(1)[0])


def identity_of(value: bytes | None) -> Identity | None:
    """Whose record a value is; None if it is not byte for byte one that was sent."""
    parts = (value or b"").split(b":", 2)
    if len(parts) != 3 or not parts[1].isdigit():
        return None
    found = Identity(parts[0].decode(errors="replace"), int(parts[1]))
    return found if value == value_of(*found) else None
