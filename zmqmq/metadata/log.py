"""The metadata log as its users see it, whatever engine is behind it.

``append`` is answered by an event, once: Committed, Refused (it is in no log and never will be) or Unknown. Who was told
Unknown reads on: the records come as Committed with REPLAYED, or never. Indexes are ours and ascend; an engine may use
some for itself, and says so by a Committed without records. Leader is said only when everything before its index was
handed out as Committed.

It must stay implementable on a Raft quorum, on etcd (one transaction on leader key and next index) and on ZooKeeper
(multi with version check), so keep it narrow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from msgspec import Struct

from zmqmq.errors import ZmqmqError
from zmqmq.metadata.records import MetadataRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

APPEND_BYTES_MAX: Final = 512 << 10
"""Encoded records of one atomic append, with what ``RECORD_OVERHEAD_BYTES`` adds."""
RECORD_OVERHEAD_BYTES: Final = 64
"""What each record counts for beside its own bytes; each append once more."""
REPLAYED: Final = -1


class Committed(Struct, frozen=True):
    """``index`` is that of the first record; ``proposal_id`` is REPLAYED for what was found in the log. Without records it is the
    engine's own, and takes one index."""

    proposal_id: int
    index: int
    records: tuple[MetadataRecord, ...]


class Refused(Struct, frozen=True):
    """Not in the log: a newer leader exists, the expected index was not the next one, or the disk refused."""

    proposal_id: int
    error: ZmqmqError


class Unknown(Struct, frozen=True):
    """It may be in the log; whoever reads on will see."""

    proposal_id: int
    error: ZmqmqError


class Leader(Struct, frozen=True):
    """This broker decides, under ``epoch``, and the next record gets ``index``."""

    epoch: int
    index: int


class Lost(Struct, frozen=True):
    """This broker does not decide any more."""

    reason: str


class Passed(Struct, frozen=True):
    """What was committed when the barrier was set has been handed out."""

    token: int


class BarrierLost(Struct, frozen=True):
    """Nothing can be said about this barrier: this broker does not lead, or not any more. Ask the leader."""

    token: int
    error: ZmqmqError


class SnapshotNeeded(Struct, frozen=True):
    """Answer to a read before the log's start: begin with the snapshot, and read on from ``end``. No engine cuts its log yet."""

    end: int


LogEvent: TypeAlias = Committed | Refused | Unknown | Leader | Lost | Passed | BarrierLost


class MetadataLog(Protocol):
    """One writer at a time, any number of readers, total order."""

    def append(self, epoch: int, expected_index: int, proposal_id: int, records: tuple[MetadataRecord, ...]) -> None:
        """All of the records or none, at ``expected_index``, if ``epoch`` is still the leader's."""

    def read(self, start: int) -> Iterator[Committed] | SnapshotNeeded:
        """The committed entries from the index ``start`` on, where one begins."""

    def barrier(self, token: int) -> None:
        """Answered by Passed or BarrierLost."""

    def take_events(self) -> list[LogEvent]:
        """What happened since the last call, in order."""
