"""Walking over the batches of a segment file.

Promise: what is yielded begins with a header whose stamp was made for this partition and offset; anything
else is CorruptLog with file and position. Bodies are checked only where ``with_bodies`` asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from zmqmq.batch import HEADER_BYTES, BatchPlace, check_body, check_place, parse_header
from zmqmq.errors import CorruptLog, InvalidRecord, UnsupportedVersion
from zmqmq.store.files import read_range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zmqmq.ports import File

WALK_BYTES: Final = 1 << 16
"""Read at a time while only headers are wanted."""


class Place(NamedTuple):
    """A batch in a segment. ``data[at:]`` begins with it; its body is there only if it was asked for."""

    position: int
    header: BatchPlace
    data: bytes
    at: int


def corrupt(path: str, position: int, what: object) -> CorruptLog:
    return CorruptLog(
        f"{path} is damaged at {position}: {what}",
        file=path,
        position=position,
        hint="run `zmqmq log verify` on the data directory, then restore the partition from a backup or a replica",
    )


def check_batch(data: bytes, at: int, *, path: str, position: int, seed: int, offset: int) -> BatchPlace:
    """The header at ``data[at:]``, if it was stamped for this partition and for ``offset`` (-1: any)."""
    try:
        header = check_place(data, at, seed)
    except (InvalidRecord, UnsupportedVersion) as error:
        raise corrupt(path, position, error) from error
    if offset not in (-1, header.base_offset):
        raise corrupt(path, position, f"the batch there has offset {header.base_offset} instead of {offset}")
    return header


def walk(
    file: File, path: str, seed: int, *, position: int, end: int, offset: int = -1, with_bodies: bool = False, chunk_bytes: int = WALK_BYTES
) -> Iterator[Place]:
    """Batches from ``position`` to ``end`` of a file, whose first must have ``offset``. Raises CorruptLog, OSError."""
    data, start = b"", position
    while position < end:
        at = position - start
        if len(data) - at < HEADER_BYTES:
            data, start, at = read_range(file, min(chunk_bytes, end - position), position), position, 0
        header = check_batch(data, at, path=path, position=position, seed=seed, offset=offset)
        if position + header.length > end:
            raise corrupt(path, position, f"a batch of {header.length} bytes is cut after {end - position}")
        if with_bodies:
            if len(data) - at < header.length:
                size = min(max(chunk_bytes, header.length), end - position)
                data, start, at = read_range(file, size, position), position, 0
            try:
                check_body(parse_header(data, at), data, at)
            except (InvalidRecord, UnsupportedVersion) as error:
                raise corrupt(path, position, error) from error
        yield Place(position, header, data, at)
        position += header.length
        offset = header.end_offset
