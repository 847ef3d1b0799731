"""A segment of 64 KiB, each bit of which is flipped and each end cut, through the scanner (``segment.walk`` with bodies).

The scanner knows nothing but position and offset when it comes to a batch, so a damage is looked at from the batch in which it lies;
what lies before is the same bytes. Every ``WHOLE_EVERY``-th damage is seen by a walk from the start of the file all the same.
"""

from __future__ import annotations

import random

from store_world import bytes_of, partition, stamped
from sweeping import WRONG_MAX

from zmqmq import batch
from zmqmq.errors import CorruptLog
from zmqmq.store.segment import walk

SEGMENT_BYTES = 64 << 10
WHOLE_EVERY = 997
WHERE = partition(0)
SEED = batch.stamp_seed(WHERE)
FIRST = 1_000
LAST_BYTES_MIN = 400


class Bytes:
    """As much of ``ports.File`` as the scanner needs."""

    def __init__(self, content: bytearray) -> None:
        self.content = content

    def pread(self, size: int, position: int) -> bytes:
        return bytes(self.content[position : position + size])

    def size(self) -> int:
        return len(self.content)


def segment() -> tuple[bytearray, list[int]]:
    """The bytes, and where each batch begins, the end last. Batches of many sizes."""
    chance = random.Random(64)
    content, starts = bytearray(), [0]
    while len(content) < SEGMENT_BYTES:
        room = SEGMENT_BYTES - len(content)
        each = _batch(len(starts), chance.choice((10, 100, 1000, 3000)), chance)
        if room - len(each) < LAST_BYTES_MIN:
            each = next(last for size in range(room) if len(last := _batch(len(starts), size, chance)) == room)
        content += each
        starts.append(len(content))
    return content, starts


def _batch(number: int, size: int, chance: random.Random) -> bytes:
    return bytes_of(stamped(WHERE, FIRST + number, chance.randbytes(size), time_ms=number))


def scanned(content: bytearray, start: int, offset: int, end: int) -> tuple[int, bool]:
    """How many batches the scanner gives, each checked whole, and whether it then says that the file is damaged."""
    count = 0
    try:
        for _ in walk(Bytes(content), "segment", SEED, position=start, end=end, offset=offset, with_bodies=True, chunk_bytes=4096):
            count += 1
    except CorruptLog:
        return count, True
    return count, False


def sweep_scanner(part: int, parts: int) -> tuple[int, list[str]]:
    """How many damages were tried, and what was wrong."""
    content, starts = segment()
    tried, wrong = 0, []
    number = 0
    for at in range(part, len(content), parts):
        while starts[number + 1] <= at:
            number += 1
        start, end, offset = starts[number], starts[number + 1], FIRST + number + 1
        for bit in range(8):
            content[at] ^= 1 << bit
            if scanned(content, start, offset, end) != (0, True):
                wrong.append(f"bit {bit} of byte {at} was not noticed")
            if (at * 8 + bit) % WHOLE_EVERY == 0 and scanned(content, 0, FIRST + 1, len(content)) != (number, True):
                wrong.append(f"bit {bit} of byte {at}: not the {number} batches before it")
            content[at] ^= 1 << bit
        if scanned(content, start, offset, at) != (0, at > start):
            wrong.append(f"a cut at {at} was not noticed")
        if at % WHOLE_EVERY == 0 and scanned(content, 0, FIRST + 1, at) != (number, at > start):
            wrong.append(f"a cut at {at}: not the {number} batches before it")
        tried += 9
        if len(wrong) >= WRONG_MAX:
            break
    return tried, wrong
