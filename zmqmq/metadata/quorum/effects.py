"""What the machine asks of its shell, and what it tells whoever uses the log.

The shell performs effects in order. ``Persist`` may take its time: it is answered by ``on_persisted`` with its number, in the order of the
numbers. The machine itself holds back what may not be said before.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from zmqmq.metadata.log import BarrierLost, Leader, Lost, Passed, Refused, Unknown
from zmqmq.metadata.quorum.messages import Message
from zmqmq.metadata.quorum.state import Entry, HardState, Snapshot


class Persist(Struct, frozen=True):
    """Write in the order of the fields, and sync; then ``on_persisted(number)``. A crash before may leave any beginning of it, and the
    hard state or not. If it fails: ``on_offline``, and never again."""

    number: int
    hard_state: HardState | None = None
    snapshot: Snapshot | None = None
    replaces_log: bool = False
    """Forget all entries: the log begins anew at the end of the stored snapshot, this one or an older one."""
    log_start: int = 0
    """Entries before it are not needed any more; it is never after the snapshot's end."""
    truncate_from: int = -1
    """Entries from this index on go away; -1: none. Never committed ones."""
    entries: tuple[Entry, ...] = ()


class SendMessage(Struct, frozen=True):
    """To ``message.target``. It may be lost."""

    message: Message


class Apply(Struct, frozen=True):
    """Committed entries, every one once and in order, no-ops and configurations too."""

    entries: tuple[Entry, ...]


class Restore(Struct, frozen=True):
    """Everything before ``snapshot.meta.end`` is this; what was applied before is replaced."""

    snapshot: Snapshot


class SnapshotWanted(Struct, frozen=True):
    """The stored snapshot is damaged: make another one from what was applied."""

    reason: str


Event: TypeAlias = Apply | Restore | Leader | Lost | Refused | Unknown | Passed | BarrierLost | SnapshotWanted
RaftEffect: TypeAlias = Persist | SendMessage | Event
