"""Histories as JSON lines: one operation a line, UTF-8, blank lines allowed. A bad line is an error that names its number.

Bounded: a line, and the number of operations, because a checker holds a history whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

import msgspec

from zmqmq.errors import InvalidHistory
from zmqmq.testing.history.model import Batch, Operation, Seen, Send, Step

LINE_BYTES_MAX: Final = 16 << 20
OPERATIONS_MAX: Final = 10_000_000
_DECODER: Final = msgspec.json.Decoder(Operation)
_ENCODER: Final = msgspec.json.Encoder()
_HINT: Final = "correct what recorded it; the format is in docs/history.md"


def read(stream: BinaryIO, name: str = "history") -> Iterator[Operation]:
    """The operations of a stream; ``name`` is what errors call it. Raises InvalidHistory."""
    count = 0
    for number, line in enumerate(iter(lambda: stream.readline(LINE_BYTES_MAX + 1), b""), 1):
        if len(line) > LINE_BYTES_MAX:
            raise InvalidHistory(f"{name}:{number}: a line is longer than {LINE_BYTES_MAX} bytes", hint=_HINT)
        if line.isspace():
            continue
        count += 1
        if count > OPERATIONS_MAX:
            raise InvalidHistory(f"{name}:{number}: more than {OPERATIONS_MAX:,} operations", hint="check a part of it")
        yield _operation(line, f"{name}:{number}")


def _operation(line: bytes, place: str) -> Operation:
    try:
        return _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidHistory(f"{place}: {error}", hint=_HINT) from error
    except RecursionError as error:
        raise InvalidHistory(f"{place}: nested too deeply", hint=_HINT) from error


def load(path: str) -> list[Operation]:
    """The operations of a file. Raises InvalidHistory, OSError."""
    with open(path, "rb") as file:
        return list(read(file, path))


def encode(operation: Operation) -> bytes:
    """Its line, with the newline."""
    members = {name: getattr(operation, name) for name in ("index", "process", "type", "f", "time_ns")}
    if operation.value is not None:
        members["value"] = [_step(step) for step in operation.value]
    members |= {name: item for name in ("keys", "rebalanced") if (item := getattr(operation, name)) is not None}
    if operation.final:
        members["final"] = True
    return _ENCODER.encode(members) + b"\n"


def save(operations: Iterable[Operation], path: str) -> None:
    """Write a file that ``load`` reads."""
    with open(path, "wb") as file:
        file.writelines(map(encode, operations))


def _step(step: Step) -> list[object]:
    """Elements at their defaults are left off at the end, so that lines stay readable."""
    if isinstance(step, Send):
        return _short(["send", step.key, step.value, step.offset, step.leader_epoch], keep=3)
    return _short(["poll", step.records, {key: _seen(seen) for key, seen in step.seen.items()}], keep=1)


def _seen(seen: Seen) -> dict[str, object]:
    members: dict[str, object] = {name: item for name in ("high_watermark", "leader_epoch") if (item := getattr(seen, name)) >= 0}
    if seen.batches:
        members["batches"] = [_batch(batch) for batch in seen.batches]
    return members


def _batch(batch: Batch) -> list[object]:
    return _short(list(msgspec.structs.astuple(batch)), keep=2)


def _short(elements: list[object], keep: int) -> list[object]:
    while len(elements) > keep and elements[-1] in (None, -1, {}):
        elements.pop()
    return elements
