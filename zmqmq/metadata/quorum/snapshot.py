"""Snapshots on their way, in parts: the leader's side and the follower's (paper 7, figure 13).

Promise: what arrives is bit by bit what was made, or it does not arrive. Each part has a CRC, against the way; the whole has the CRC of
the moment when it was made, against the leader's disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crc32c import crc32c

from zmqmq.errors import CorruptLog, InvalidConfig
from zmqmq.metadata.quorum.state import Snapshot, SnapshotMeta

if TYPE_CHECKING:
    from zmqmq.metadata.quorum.messages import InstallSnapshot
    from zmqmq.metadata.quorum.state import Configuration, EntryStore

SNAPSHOT_BYTES_MAX: Final = 64 << 20
"""A member holds that much in memory while it is sent one."""
_START: Final = -1


def make(end: int, term: int, configuration: Configuration, data: bytes) -> Snapshot:
    """``data`` as the snapshot of everything before ``end``. Raises InvalidConfig if it is too big to be sent."""
    if len(data) > SNAPSHOT_BYTES_MAX:
        raise InvalidConfig(
            f"a snapshot of the metadata takes {len(data)} bytes, the limit is {SNAPSHOT_BYTES_MAX}", hint="delete topics that nobody needs"
        )
    return Snapshot(SnapshotMeta(end, term, configuration, len(data), crc32c(data)), data)


def load(store: EntryStore) -> Snapshot:
    """The store's snapshot. Raises CorruptLog if it is damaged."""
    meta = store.snapshot
    data = bytes(store.read_snapshot(0, meta.size_bytes))
    if len(data) != meta.size_bytes or crc32c(data) != meta.crc:
        raise CorruptLog(
            f"the snapshot of the metadata log at index {meta.end} is damaged",
            hint="wipe this broker's metadata and let it join again as a new member, or restore its disk from a backup",
        )
    return Snapshot(meta, data)


class SnapshotSender:
    """How far one follower is. One part is under way at a time."""

    def __init__(self, meta: SnapshotMeta) -> None:
        self.meta = meta
        self.position = 0
        """What the follower said that it has."""
        self._sent_from = _START
        self._sent_ms = 0

    def __repr__(self) -> str:
        return f"SnapshotSender({self.position} of {self.meta.size_bytes} bytes)"

    def is_due(self, now_ms: int, patience_ms: int) -> bool:
        """Whether the part at ``position`` is to be sent: it never was, or its answer takes too long."""
        return self._sent_from != self.position or now_ms - self._sent_ms >= patience_ms

    def on_sent(self, now_ms: int) -> None:
        self._sent_from, self._sent_ms = self.position, now_ms


class SnapshotReceiver:
    """The parts of the snapshot that is being received."""

    def __init__(self) -> None:
        self._meta = SnapshotMeta()
        self._data = bytearray()
        self.is_damaged = False
        """The last one was complete, and not what had been promised."""

    @property
    def position(self) -> int:
        return len(self._data)

    def receive(self, message: InstallSnapshot) -> Snapshot | None:
        """The snapshot, when this was its last part. A part that does not fit is dropped: the answer names the one that is wanted."""
        meta = message.snapshot
        self.is_damaged = False
        if meta != self._meta:
            self._meta, self._data = meta, bytearray()
        if not 0 <= meta.size_bytes <= SNAPSHOT_BYTES_MAX or not self._fits(message):
            return None
        self._data += message.data
        if len(self._data) < meta.size_bytes:
            return None
        data = bytes(self._data)
        self.clear()
        if crc32c(data) != meta.crc:
            self.is_damaged = True
            return None
        return Snapshot(meta, data)

    def clear(self) -> None:
        self._meta, self._data = SnapshotMeta(), bytearray()

    def _fits(self, message: InstallSnapshot) -> bool:
        if message.position != len(self._data) or len(message.data) > message.snapshot.size_bytes - len(self._data):
            return False
        return crc32c(message.data) == message.crc
