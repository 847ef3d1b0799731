"""What clients did and saw, as values: the operations of a history and their steps.

A process does one operation at a time: its invocation, then at most one completion. ``ok`` certainly happened, ``fail`` certainly
did not, ``info`` may have. A key is one partition. No value is sent twice to a key: that is what lets a checker tell records apart.
The shapes are those of the file (docs/history.md); they must stay readable, so new members go to the end and have defaults.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

Value: TypeAlias = int | str
Offset: TypeAlias = Annotated[int, Meta(ge=0)]
Process: TypeAlias = int | str
Outcome: TypeAlias = Literal["ok", "fail", "info"]
Kind: TypeAlias = Literal["invoke", "ok", "fail", "info"]
Function: TypeAlias = Literal["send", "poll", "txn", "assign", "subscribe", "seek", "crash"]


class Batch(Struct, array_like=True, frozen=True, gc=False):
    """A batch as it was fetched; -1 where it is not known. Sequences count records from ``base_sequence`` on."""

    base_offset: Offset
    count: Annotated[int, Meta(ge=1)]
    leader_epoch: int = -1
    producer_id: int = -1
    producer_epoch: int = -1
    base_sequence: int = -1


class Seen(Struct, omit_defaults=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """What a broker told about a key beside its records; all of it is optional."""

    high_watermark: int = -1
    leader_epoch: int = -1
    """The leader that named the watermark."""
    batches: tuple[Batch, ...] = ()


class Send(Struct, array_like=True, tag="send", frozen=True, gc=False):
    """One record sent; the offset is None until a receipt named it."""

    key: str
    value: Value
    offset: Offset | None = None
    leader_epoch: int = -1


class Poll(Struct, array_like=True, tag="poll", frozen=True, gc=False):
    """One poll: (offset, value) of each record, in the order in which they came, by key. An empty list says: polled, and nothing came."""

    records: dict[str, list[tuple[Offset, Value]]] = {}
    seen: dict[str, Seen] = {}


Step: TypeAlias = Send | Poll


class Operation(Struct, omit_defaults=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """One line of a history: the beginning or the end of what a process did."""

    index: int
    """Its place in the history; rises strictly."""
    process: Process
    type: Kind
    f: Function
    time_ns: int
    """Nanoseconds on one clock, from any origin; never falls."""
    value: list[Step] | None = None
    """Steps of ``send``, ``poll``, ``txn``. A completion without them repeats those of its invocation."""
    keys: list[str] | None = None
    """The keys of ``assign``, ``subscribe`` (those kept) and ``seek`` (those moved)."""
    rebalanced: list[str] | None = None
    """Keys that the group gave or took during the operation."""
    final: bool = False
    """A poll of the last phase: such polls together read every key from its first record to its last."""
