"""Base values: the words that every layer shares.

All of them are immutable. Offsets are counted from 0; an ``end`` is exclusive, a ``last`` inclusive.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import ClassVar, Final, Literal, NamedTuple, TypeAlias

from msgspec import Struct

from zmqmq.errors import InvalidConfig

TOPIC_NAME: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")
INTERNAL_PREFIX: Final = "__"

OFFSET_MAX: Final = (1 << 63) - 1
"""The wire and the disk hold no larger one."""

SLOT_COUNT: Final = 4096
PARTITIONS_MAX: Final = 1024
"""Partitions of one topic; keyed topics map 4,096 slots onto them."""

BATCH_BYTES_MAX: Final = 4 << 20
MESSAGE_BYTES_MAX: Final = 1 << 20
BATCH_RECORDS_MAX: Final = 1 << 18
"""A record costs a reader some hundred bytes, and its producer next to nothing once compressed."""
UNCOMPRESSED_BYTES_MAX: Final = 32 << 20
FRAME_BYTES_MAX: Final = 8 << 20
"""Largest ZeroMQ frame: a fetch answer holds a whole batch beyond its own limit if it has to."""

IN_FLIGHT_BATCHES_MAX: Final = 5
"""Batches of one producer and partition that may be unanswered; the broker remembers as many."""

Acks: TypeAlias = Literal["all", 1, 0]


class PartitionId(NamedTuple):
    """A partition by the topic's id, which is never reused, unlike its name."""

    topic_id: bytes
    partition: int

    def __str__(self) -> str:
        return f"{self.topic_id.hex()}-{self.partition}"


METADATA_PARTITION: Final = PartitionId(bytes(15) + b"\x01", 0)
"""The cluster metadata log, a log like any other."""


class Timestamps(NamedTuple):
    """An offset and the append time of its batch, in milliseconds since 1970."""

    offset: int
    time_ms: int


class Delivery(Struct, frozen=True):
    """What an acknowledgement promises.

    ``replicas`` and ``synced`` count the in-sync replicas, leader included, that were known to hold the
    record, and to hold it on disk, when the answer left the broker. At ``acks=0`` nothing is known:
    ``offset`` is None and both counts are 0.
    """

    topic: str
    partition: int
    offset: int | None
    timestamp: dt.datetime
    leader_epoch: int
    replicas: int
    synced: int


class Offset(Struct, frozen=True):
    """A place in a partition, by name rather than by number.

    ``Offset.START``, ``Offset.END``, ``Offset.exact(n)``, ``Offset.last(n)`` (n before the end),
    ``Offset.after_start(n)``, and ``Offset.at(time)``: the first record appended at that time or later.
    """

    kind: Literal["start", "end", "exact", "last", "after_start", "time"]
    value: int = 0

    START: ClassVar[Offset]
    END: ClassVar[Offset]

    @staticmethod
    def exact(offset: int) -> Offset:
        return Offset("exact", _natural("offset", offset))

    @staticmethod
    def last(count: int) -> Offset:
        return Offset("last", _natural("count", count))

    @staticmethod
    def after_start(count: int) -> Offset:
        return Offset("after_start", _natural("count", count))

    @staticmethod
    def at(time: dt.datetime) -> Offset:
        """``time`` must be aware (have a time zone); else InvalidConfig, because a guess would skip records."""
        if not _is_aware(time):
            raise InvalidConfig(f"Offset.at needs a time with a time zone, got {time!r}", hint="use datetime.now(UTC) or time.astimezone()")
        return Offset("time", int(time.timestamp() * 1000))


Offset.START = Offset("start")
Offset.END = Offset("end")


def _is_aware(time: object) -> bool:
    return isinstance(time, dt.datetime) and time.utcoffset() is not None


def _natural(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidConfig(f"{name} must be a whole number, got {value!r}", hint="for a time there is Offset.at(time)")
    if not 0 <= value <= OFFSET_MAX:
        rule = "must not be negative" if value < 0 else f"must be up to {OFFSET_MAX}"
        raise InvalidConfig(f"{name} {rule}, got {value}", hint="Offset.last(n) counts from the end, Offset.after_start(n) from the start")
    return value


def check_topic_name(name: str, *, internal: bool = False) -> str:
    """The name, or InvalidConfig that says which rule it breaks."""
    if not TOPIC_NAME.fullmatch(name) or name in {".", ".."}:
        raise InvalidConfig(f"topic name {name!r} is not allowed", hint="use 1 to 249 of the characters a-z A-Z 0-9 . _ -")
    if name.startswith(INTERNAL_PREFIX) and not internal:
        raise InvalidConfig(f"topic name {name!r} is reserved", hint=f"names that begin with {INTERNAL_PREFIX} belong to zmqmq itself")
    return name


def partition_of_slot(slot: int, partition_count: int) -> int:
    """The initial slot table of a topic; contiguous ranges, so that a partition can be split later."""
    return slot * partition_count // SLOT_COUNT
