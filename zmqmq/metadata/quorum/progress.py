"""How far one follower is, as its leader knows it, and how much may be under way to it.

Invariant: match_end <= next_index. While the follower's place is not known (``is_probing``) one message is under way at a time.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from zmqmq.metadata.quorum.log import RaftLog
    from zmqmq.metadata.quorum.messages import AppendReply
    from zmqmq.metadata.quorum.snapshot import SnapshotSender

IN_FLIGHT_MESSAGES_MAX: Final = 64
"""Messages with entries sent and not answered, to one follower; their bytes are bounded by a setting."""


class Progress:
    """See the module."""

    def __init__(self, log_end: int, now_ms: int, in_flight_bytes_max: int) -> None:
        self._in_flight_bytes_max = in_flight_bytes_max
        self.match_end = 0
        self.next_index = log_end
        self.is_probing = True
        self.is_waiting = False
        """Probing, and the probe is under way."""
        self.snapshot: SnapshotSender | None = None
        self.heard_ms = now_ms
        """When it last said anything in this term."""
        self.round = -1
        """The newest round that it answered."""
        self.commit_sent = -1
        self._window = 1
        """Messages that may be under way. It grows with every answer and begins anew after a refusal: where messages overtake each other,
        sending many of them again for each that was refused would never end."""
        self._in_flight: deque[tuple[int, int]] = deque()
        self._in_flight_bytes = 0

    def __repr__(self) -> str:
        state = "snapshot" if self.snapshot else "probing" if self.is_probing else "replicating"
        return f"Progress({state} match={self.match_end} next={self.next_index} in flight={self._in_flight_bytes})"

    @property
    def has_room(self) -> bool:
        if self.is_probing:
            return not self.is_waiting
        return self._in_flight_bytes < self._in_flight_bytes_max and len(self._in_flight) < self._window

    def on_sent(self, end: int, size_bytes: int) -> None:
        if self.is_probing:
            self.is_waiting = True
            return
        if end > self.next_index:
            self._in_flight.append((end, size_bytes))
            self._in_flight_bytes += size_bytes
            self.next_index = end

    def on_heard(self, round: int, now_ms: int) -> None:
        self.round = max(self.round, round)
        self.heard_ms = now_ms

    def on_accepted(self, reply: AppendReply, log_end: int) -> None:
        """The logs are the same before ``prev_end``; before ``match_end`` the follower has them on disk."""
        self.match_end = max(self.match_end, min(reply.match_end, log_end))
        if self.is_probing and self.next_index <= max(reply.prev_end, reply.match_end):
            self.is_probing = self.is_waiting = False
        self.next_index = max(self.next_index, self.match_end)
        while self._in_flight and self._in_flight[0][0] <= self.match_end:
            self._window = min(self._window + 1, IN_FLIGHT_MESSAGES_MAX)
            self._in_flight_bytes -= self._in_flight.popleft()[1]
        if self.snapshot is not None and self.match_end >= self.snapshot.meta.end:
            self.snapshot = None
            self._probe(self.match_end)

    def on_refused(self, reply: AppendReply, log: RaftLog) -> None:
        """Go back to where the logs may agree, a term at a time (paper 5.3). Answers that are too old are none."""
        if reply.prev_end <= self.match_end or reply.prev_end > self.next_index:
            return
        if self.is_probing and reply.prev_end != self.next_index:
            return
        self._probe(max(self.match_end, log.agreeing_end(min(reply.hint_end, reply.prev_end), reply.hint_term)))

    def allow_probe(self) -> None:
        """The last one may be lost."""
        self.is_waiting = False

    def _probe(self, next_index: int) -> None:
        self.is_probing, self.is_waiting = True, False
        self.next_index = next_index
        self._window = 1
        self._in_flight.clear()
        self._in_flight_bytes = 0
