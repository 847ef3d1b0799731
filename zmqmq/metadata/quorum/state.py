"""What Raft remembers: members, entries, the hard state, snapshots. Values only; a shell makes them durable."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from msgspec import Struct

from zmqmq.metadata.log import RECORD_OVERHEAD_BYTES

if TYPE_CHECKING:
    from zmqmq.ports import Buffer


class Member(NamedTuple):
    """A broker with its disk: a wiped broker under its old node id is somebody else, and has no vote."""

    node_id: int
    directory_id: str

    def __str__(self) -> str:
        return f"{self.node_id}:{self.directory_id}"


class Configuration(Struct, frozen=True, array_like=True):
    """Who belongs to the quorum. Learners are sent everything, and are never counted (thesis 4.2.1)."""

    voters: tuple[Member, ...] = ()
    learners: tuple[Member, ...] = ()

    @property
    def majority(self) -> int:
        return len(self.voters) // 2 + 1

    @property
    def members(self) -> tuple[Member, ...]:
        return self.voters + self.learners


class HardState(Struct, frozen=True, array_like=True):
    """On disk before any message that depends on it (paper, figure 2, "persistent state")."""

    term: int = 0
    vote: Member | None = None
    """For whom this one voted in ``term``."""


class Entry(Struct, frozen=True, array_like=True):
    """Applied whole or not at all. Without records: the no-op that opens a term, or a configuration; it takes one index then.

    (``term``, ``proposal_id``) names a proposal for good: one leader gives out the ids of its term.
    """

    index: int
    term: int
    records: tuple[bytes, ...] = ()
    proposal_id: int = -1
    configuration: Configuration | None = None

    @property
    def end(self) -> int:
        return self.index + (len(self.records) or 1)

    @property
    def size_bytes(self) -> int:
        return records_bytes(self.records)


class SnapshotMeta(Struct, frozen=True, array_like=True):
    """Everything before ``end``, the last of it written in ``term``, as one block of bytes with its CRC32C."""

    end: int = 0
    term: int = 0
    configuration: Configuration = Configuration()
    size_bytes: int = 0
    crc: int = 0


class Snapshot(Struct, frozen=True):
    meta: SnapshotMeta
    data: bytes


class EntryStore(Protocol):
    """What the disk holds: every Persist that was performed, synced or not. Read by the machine, written by the shell.

    A new quorum begins with ``SnapshotMeta(configuration=…)``, the same for all its first voters (thesis 4.4); whoever joins later begins
    with an empty configuration.
    """

    hard_state: HardState
    snapshot: SnapshotMeta
    start: int
    """Index of the first entry that is kept; ``snapshot.end`` or before it, unless a crash came between."""
    start_term: int
    """Term of the entry that ends there."""
    end: int

    def read(self, start: int, end: int, bytes_max: int) -> tuple[Entry, ...]:
        """Whole entries from ``start`` on, none beyond ``end``; at most so many bytes, but at least one entry."""

    def read_snapshot(self, position: int, size: int) -> Buffer:
        """A part of the snapshot's bytes."""


def records_bytes(records: tuple[bytes, ...]) -> int:
    """What they count for in every bound; an empty entry counts too."""
    return RECORD_OVERHEAD_BYTES + sum(len(record) + RECORD_OVERHEAD_BYTES for record in records)
