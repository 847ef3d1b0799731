"""A member that takes what the leader sends; learners are never anything else.

Promise: what it says it has equals the leader's log, and is on disk; what is committed is never cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmqmq.metadata.quorum.core import NEVER_MS
from zmqmq.metadata.quorum.messages import AppendEntries, AppendReply, InstallSnapshot, SnapshotReply, is_sound
from zmqmq.metadata.quorum.snapshot import SnapshotReceiver

if TYPE_CHECKING:
    from zmqmq.metadata.quorum.core import Core
    from zmqmq.metadata.quorum.state import Entry


class Following:
    """See the module."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._receiver = SnapshotReceiver()
        self.deadline_ms = core.now_ms + core.random_timeout_ms()
        """When it stands for election, unless it hears from a leader or grants a vote (paper 5.2)."""

    def __repr__(self) -> str:
        return f"Following({self._core.leader})"

    def hasten(self) -> None:
        """The leader's process is known to be dead: no timeout has to pass, only that the members shall not all stand at once."""
        core = self._core
        core.leader, core.heard_leader_ms = None, NEVER_MS
        self.deadline_ms = min(self.deadline_ms, core.now_ms + core.random_timeout_ms() - core.settings.election_timeout_ms)

    def postpone(self) -> None:
        self.deadline_ms = self._core.now_ms + self._core.random_timeout_ms()

    def on_append(self, message: AppendEntries) -> None:
        self._hear(message)
        if not is_sound(message):
            return
        core = self._core
        entries = message.entries
        prev_end, prev_term = message.prev_end, message.prev_term
        if prev_end < core.commit_end:
            # Every later leader has what is committed here (paper 5.4.3), so there is nothing to compare before it.
            entries = tuple(entry for entry in entries if entry.index >= core.commit_end)
            prev_end = core.commit_end
            if entries and (entries[0].index != prev_end or entries[0].term < core.log.term_at(prev_end)):
                return
        elif not core.log.holds(prev_end, prev_term):
            self._refuse(message)
            return
        match_end = self._take(entries, prev_end)
        core.commit_to(min(message.commit_end, match_end))
        self._accept(message, match_end)

    def on_snapshot(self, message: InstallSnapshot) -> None:
        """Paper, figure 13."""
        self._hear(message)
        if not is_sound(message):
            return
        core = self._core
        meta = message.snapshot
        if meta.end <= core.commit_end or core.log.holds(meta.end, meta.term):
            # It brings nothing new: what the log has up to there is the same, and committed.
            core.commit_to(max(meta.end, core.commit_end))
            self._receiver.clear()
            core.send(self._acceptance(message, meta.end, core.commit_end))
            return
        snapshot = self._receiver.receive(message)
        if snapshot is not None:
            core.install(snapshot)
            core.send(self._acceptance(message, meta.end, meta.end))
            return
        receiver = self._receiver
        core.send_early(SnapshotReply(core.me, message.source, core.term, meta.end, receiver.position, message.round, receiver.is_damaged))

    def _hear(self, message: AppendEntries | InstallSnapshot) -> None:
        self._core.leader = message.source
        self._core.heard_leader_ms = self._core.now_ms
        self.postpone()

    def _take(self, entries: tuple[Entry, ...], prev_end: int) -> int:
        """Append what is missing; where the logs differ, the leader's counts (paper 5.3). The end up to which they are known to be
        the same: what this log has beyond may be of another leader."""
        log = self._core.log
        for position, entry in enumerate(entries):
            if log.holds(entry.end, entry.term):
                continue
            if entry.index < log.end:
                self._core.truncate(entry.index)
            self._core.append(entries[position:])
            break
        return entries[-1].end if entries else prev_end

    def _accept(self, message: AppendEntries, match_end: int) -> None:
        core = self._core
        if message.entries:
            core.send(self._acceptance(message, message.prev_end, match_end))
        else:
            # The leader must not take a slow disk for a dead member: this answer says only what is synced.
            core.send_early(self._acceptance(message, message.prev_end, min(match_end, core.log.persisted_end)))

    def _acceptance(self, message: AppendEntries | InstallSnapshot, prev_end: int, match_end: int) -> AppendReply:
        core = self._core
        return AppendReply(
            core.me, message.source, core.term, is_accepted=True, prev_end=prev_end, match_end=match_end, round=message.round
        )

    def _refuse(self, message: AppendEntries) -> None:
        core = self._core
        hint_end, hint_term = core.log.last_end_within(message.prev_end, message.prev_term)
        core.send_early(
            AppendReply(
                core.me, message.source, core.term, is_accepted=False, prev_end=message.prev_end, match_end=0, round=message.round,
                hint_end=hint_end, hint_term=hint_term,
            )
        )  # fmt: skip
