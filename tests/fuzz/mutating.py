"""Inputs for a decoder, made from valid ones: bytes changed, or values exchanged inside a structure that stays whole.

Promise: the same target and seed give the same inputs, whatever the machine. Checksums are made to fit again in most of them,
else nothing behind the first CRC would ever be reached. An input that was refused for a reason not seen before joins the pool
that further ones are made from.
"""

from __future__ import annotations

import copy
import random
import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

INPUT_BYTES_MAX: Final = 8192
POOL_MAX: Final = 400
"""Learnt inputs; a decoder with more reasons to refuse than this gets the first ones."""
DEPTH: Final = 3000
CHANGES_MAX: Final = 4

BINARY: Final = (
    b"\xc0", b"\xc2", b"\xff", b"\x00", b"\x7f", b"\x80", b"\x90", b"\x93", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff", b"\xdb\x7f\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7),
    b"\xa2\xff\xfe", b"\xc4\x00", b"\xcb\x7f\xf8" + bytes(6), b"\xd6\xff\x00\x00\x00\x00", b"\x91" * DEPTH, b"\x81\xa1a" * DEPTH, b"ZQJE",
    b"ZQ\x01\x00", b"ZQCP",
)  # fmt: skip
TEXT: Final = (
    b"=", b"\n", b'"', b"[", b"]", b"{", b"}", b".", b"-1", b"unlimited", b"7d", b"64MiB", b"1e999", b"nan", b"inf", b"9" * 30,
    b"9" * 5000, b"1" + b"0" * 400, b"\xc3\xa9", b"\xff", b"\x00", b"[" * 2000, b"true", b"false", b"2024-01-01", b"'''", b"#",
    b"\\u0041", b"1.5", b"\xd9\xa3", b" ", b"\nretention_ms=", b"\nsegment_bytes=", b"\n[store]\n", b"0", b"1", b"5", b"min", b"kB",
    b"GiB",
)  # fmt: skip
_SIZES: Final = (
    ("<I", (0, 1, 2, 96, 97, 1 << 18, 1 << 22, 1 << 31, (1 << 32) - 1)),
    ("<Q", (0, 1, 1 << 63, (1 << 64) - 1)),
    ("<H", (0, 8, 0xFFFF)),
)
INTEGERS: Final = tuple(struct.pack(form, value) for form, values in _SIZES for value in values)
VALUES: Final[tuple[Any, ...]] = (
    None, True, 0, 1, -1, 255, 1 << 31, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1, 0.5, float("inf"), "", "a", "x" * 300, "-1", "é\u2028",
    b"", b"k", bytes(15), bytes(16), bytes(17), [], [0], [None] * 20, {}, {"a": 1}, {"retry_after_ms": "soon"},
)  # fmt: skip


pack: Final = msgspec.msgpack.Encoder().encode
unpack: Final = msgspec.msgpack.Decoder().decode


def as_is(body: bytes, _: random.Random) -> bytes:
    return body


class Trees(NamedTuple):
    """Valid structures to exchange values in, how they become values and bytes again, and how an input is made of the bytes."""

    bodies: tuple[bytes, ...]
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    wrap: Callable[[bytes, random.Random], bytes]


class Mutator:
    """A stream of inputs. ``fix`` makes the checksums fit a changed input."""

    def __init__(
        self,
        chance: random.Random,
        seeds: tuple[bytes, ...],
        *,
        tokens: tuple[bytes, ...] = BINARY,
        fix: Callable[[bytearray, random.Random], None] | None = None,
        trees: Trees | None = None,
    ) -> None:
        self._chance = chance
        self._random = chance.random
        self._pool = list(seeds)
        self._pool_max = len(seeds) + POOL_MAX
        self._tokens = tokens
        self._fix = fix
        self._trees = trees

    def next(self) -> bytes:
        if self._trees is not None and self._random() < 0.5:
            return self._grown(self._trees)
        data = bytearray(self._one(self._pool))
        for _ in range(1 + int(self._random() * self._random() * CHANGES_MAX)):
            self._change(data)
        if self._fix is not None and self._random() < 0.8:
            self._fix(data, self._chance)
        return bytes(data[:INPUT_BYTES_MAX])

    def learn(self, data: bytes) -> None:
        """It led somewhere new."""
        if len(self._pool) < self._pool_max:
            self._pool.append(data)

    def _one(self, choices: Any) -> Any:
        return choices[int(self._random() * len(choices))]

    def _value(self) -> Any:
        found = self._one(VALUES)
        return copy.copy(found) if type(found) in {list, dict} else found

    def _change(self, data: bytearray) -> None:
        roll = self._random
        at = int(roll() * len(data))
        kind = int(roll() * 10)
        if not data or kind == 0:
            data[at:at] = self._one(self._tokens)
        elif kind == 1:
            token = self._one(self._tokens)
            data[at : at + len(token)] = token
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + 1 + int(roll() * 8)]
        elif kind == 4:
            other = self._one(self._pool)
            data[at:] = other[int(roll() * len(other)) :]
        elif kind == 5:
            data[at:at] = data[at : at + 1 + int(roll() * 64)]
        elif kind == 6:
            number = self._one(INTEGERS)
            data[at & ~3 : (at & ~3) + len(number)] = number
        elif kind == 7:
            data[at] = int(roll() * 256)
        elif kind == 8:
            data[at] = (data[at] + (1 if roll() < 0.5 else -1)) & 0xFF
        else:
            data[at] ^= 1 << int(roll() * 8)

    def _grown(self, trees: Trees) -> bytes:
        tree = trees.decode(self._one(trees.bodies))
        for _ in range(1 + int(self._random() * 2)):
            tree = self._exchanged(tree)
        return trees.wrap(trees.encode(tree), self._chance)

    def _exchanged(self, tree: Any) -> Any:
        """The tree with one value, at any depth, replaced, removed, doubled or moved."""
        parent, key, node = None, None, tree
        while isinstance(node, (list, dict)) and node and self._random() < 0.8:
            parent, key = node, self._one(list(node)) if isinstance(node, dict) else int(self._random() * len(node))
            node = node[key]
        kind = int(self._random() * 8)
        if parent is None:
            return tree if kind else self._value()
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, list):
            parent.insert(int(self._random() * (len(parent) + 1)), node)
        elif kind == 2 and isinstance(parent, list):
            parent.append(self._value())
        elif kind == 3 and isinstance(node, int) and not isinstance(node, bool) and abs(node) < 1 << 60:
            parent[key] = node + (1 if self._random() < 0.5 else -1)
        else:
            parent[key] = self._value()
        return tree
