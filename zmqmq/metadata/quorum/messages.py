"""What members say to each other. Every message may be lost, doubled, late or out of order.

``term`` is the sender's current term in all of them, also in a pre-vote. The structs are a format on the wire: tags are never reused, new
fields go at the end and have defaults.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from zmqmq.metadata.quorum.state import Entry, Member, SnapshotMeta


class RequestVote(Struct, frozen=True, array_like=True, tag=1):
    """``ballot`` is the term that is voted for: the current one, or the next one in a pre-vote."""

    source: Member
    target: Member
    term: int
    ballot: int
    last_term: int
    log_end: int
    is_pre_vote: bool = False
    is_transfer: bool = False
    """The leader asked for this election; nobody shall protect it (thesis 4.2.3)."""


class Vote(Struct, frozen=True, array_like=True, tag=2):
    source: Member
    target: Member
    term: int
    ballot: int
    is_granted: bool
    is_pre_vote: bool = False


class AppendEntries(Struct, frozen=True, array_like=True, tag=3):
    """Entries of one term that follow the entry that ends at ``prev_end``; none: a heartbeat."""

    source: Member
    target: Member
    term: int
    prev_end: int
    prev_term: int
    entries: tuple[Entry, ...]
    commit_end: int
    round: int
    """Counts the leader's broadcasts; comes back in the answer (thesis 6.4)."""


class AppendReply(Struct, frozen=True, array_like=True, tag=4):
    """Accepted: the sender has on disk what the leader has before ``match_end``. Refused: the logs differ before ``prev_end``, and
    (``hint_end``, ``hint_term``) is the place at or before which they may agree (paper 5.3, its last paragraphs)."""

    source: Member
    target: Member
    term: int
    is_accepted: bool
    prev_end: int
    match_end: int
    round: int
    hint_end: int = 0
    hint_term: int = 0


class InstallSnapshot(Struct, frozen=True, array_like=True, tag=5):
    """A part of the leader's snapshot (paper, figure 13); no data: a heartbeat."""

    source: Member
    target: Member
    term: int
    snapshot: SnapshotMeta
    position: int
    data: bytes
    crc: int
    round: int


class SnapshotReply(Struct, frozen=True, array_like=True, tag=6):
    """``position`` is the next byte that is wanted. ``is_damaged``: all of it came, and it was not what the leader had promised."""

    source: Member
    target: Member
    term: int
    snapshot_end: int
    position: int
    round: int
    is_damaged: bool = False


class TimeoutNow(Struct, frozen=True, array_like=True, tag=7):
    """Stand for election at once (thesis 3.10)."""

    source: Member
    target: Member
    term: int


Message: TypeAlias = RequestVote | Vote | AppendEntries | AppendReply | InstallSnapshot | SnapshotReply | TimeoutNow


def is_sound(message: AppendEntries | InstallSnapshot) -> bool:
    """Whether a leader can have said that: entries in one row, of terms that do not fall."""
    if isinstance(message, InstallSnapshot):
        return 0 <= message.snapshot.term <= message.term and message.snapshot.end >= 0
    end, term = message.prev_end, message.prev_term
    for entry in message.entries:
        if entry.index != end or not term <= entry.term <= message.term:
            return False
        end, term = entry.end, entry.term
    return message.prev_end >= 0 and 0 <= message.prev_term <= message.term and message.commit_end >= 0
