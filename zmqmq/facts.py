"""What a shell tells a broker's machines. The counterpart of ``effects``."""

from __future__ import annotations

from msgspec import Struct

from zmqmq.model import PartitionId
from zmqmq.producer_state import ProducerEntry


class EpochStart(Struct, frozen=True, array_like=True, gc=False):
    """The first offset that was written in a leader epoch."""

    epoch: int
    offset: int


class LogState(Struct, frozen=True):
    """A partition's log as the store has it. ``log_start <= synced_end <= log_end``."""

    log_start: int
    log_end: int
    synced_end: int
    epochs: tuple[EpochStart, ...]
    producers: dict[int, ProducerEntry]
    size_bytes: int
    last_append_ms: int
    error: str = ""
    """Not empty: the partition is out of service, and why."""


class Synced(Struct, frozen=True, gc=False):
    """Everything of the partition before ``end`` is on disk."""

    partition: PartitionId
    end: int


class StartMoved(Struct, frozen=True, gc=False):
    """The records before ``log_start`` are gone: retention removed them, or somebody asked for it."""

    partition: PartitionId
    log_start: int
