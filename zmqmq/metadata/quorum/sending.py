"""What a leader sends to its followers: entries, heartbeats, snapshots.

A heartbeat is an AppendEntries without entries after the last one that was sent, so that it finds out what got lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crc32c import crc32c

from zmqmq.metadata.quorum.messages import AppendEntries, InstallSnapshot
from zmqmq.metadata.quorum.snapshot import SnapshotSender

if TYPE_CHECKING:
    from zmqmq.metadata.quorum.core import Core
    from zmqmq.metadata.quorum.progress import Progress
    from zmqmq.metadata.quorum.state import Entry, Member


class Sending:
    """See the module."""

    def __init__(self, core: Core, followers: dict[Member, Progress]) -> None:
        self._core = core
        self._followers = followers
        self.round = 0
        """Of the last broadcast."""
        self.heartbeat_at_ms = core.now_ms
        self._is_due = True

    def on_time(self) -> None:
        if self._core.now_ms >= self.heartbeat_at_ms:
            self.broadcast()

    def broadcast(self) -> None:
        """Every follower is sent something by the next ``send``, under a new round."""
        self._is_due = True

    def send(self) -> None:
        core = self._core
        is_due, self._is_due = self._is_due, False
        if is_due:
            self.round += 1
            self.heartbeat_at_ms = core.now_ms + core.settings.heartbeat_ms
        for member, progress in self._followers.items():
            if is_due:
                progress.allow_probe()
            self._send_to(member, progress, is_due=is_due)

    def _send_to(self, member: Member, progress: Progress, *, is_due: bool) -> None:
        core = self._core
        if progress.next_index < core.log.start:
            self._send_snapshot(member, progress, is_due=is_due)
            return
        progress.snapshot = None
        # A member that is silent is only asked whether it is there.
        is_heard = core.now_ms - progress.heard_ms < core.settings.election_timeout_ms
        while is_heard and progress.has_room and progress.next_index < core.log.end:
            is_probing = progress.is_probing
            self._append(member, progress, self._entries(progress.next_index))
            is_due = False
            if is_probing:
                return
        if is_due or (progress.commit_sent < core.commit_end and not progress.is_probing):
            self._append(member, progress, ())

    def _entries(self, start: int) -> tuple[Entry, ...]:
        """Of one term: what an older leader left is never carried by the same message as this one's own."""
        found = self._core.log.read(start, self._core.log.end, self._core.settings.message_bytes)
        return tuple(entry for entry in found if entry.term == found[0].term)

    def _append(self, member: Member, progress: Progress, entries: tuple[Entry, ...]) -> None:
        core = self._core
        prev_end = progress.next_index
        prev_term = core.log.term_at(prev_end)
        core.send_early(AppendEntries(core.me, member, core.term, prev_end, prev_term, entries, core.commit_end, self.round))
        progress.commit_sent = core.commit_end
        progress.on_sent(entries[-1].end if entries else prev_end, sum(entry.size_bytes for entry in entries))

    def _send_snapshot(self, member: Member, progress: Progress, *, is_due: bool) -> None:
        core = self._core
        meta = core.snapshot
        if progress.snapshot is None or progress.snapshot.meta != meta:
            progress.snapshot = SnapshotSender(meta)
        sender = progress.snapshot
        data = b""
        # While a newer one is being saved the store may hold that already; its bytes belong to another promise.
        if core.store.snapshot == meta and sender.is_due(core.now_ms, core.settings.election_timeout_ms):
            data = bytes(core.store.read_snapshot(sender.position, min(core.settings.chunk_bytes, meta.size_bytes - sender.position)))
            sender.on_sent(core.now_ms)
        elif not is_due:
            return
        core.send_early(InstallSnapshot(core.me, member, core.term, meta, sender.position, data, crc32c(data), self.round))
