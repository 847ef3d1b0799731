"""What a member is in every role: its term and vote, its log, what it may say and when.

Promise: a message leaves when what it depends on is synced (paper 5, figure 2: "updated on stable storage before responding"). ``send``
waits for everything that was changed before it; ``send_early`` only for term and vote (thesis 10.2.1: a leader sends what it has not
written yet; it only does not count itself).

Invariant: applied_end <= commit_end; term and vote never go back; commit_end never goes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from zmqmq.errors import CorruptLog, InvalidConfig
from zmqmq.metadata.quorum import snapshot as snapshots
from zmqmq.metadata.quorum.effects import Apply, Event, Persist, RaftEffect, Restore, SendMessage
from zmqmq.metadata.quorum.log import RaftLog
from zmqmq.metadata.quorum.membership import Configurations
from zmqmq.metadata.quorum.state import HardState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmqmq.metadata.quorum.messages import Message
    from zmqmq.metadata.quorum.state import Entry, EntryStore, Member, Snapshot
    from zmqmq.ports import Random

APPLY_BYTES: Final = 4 << 20
"""Committed entries handed out at a time."""
NEVER_MS: Final = -(1 << 62)


class Settings(Struct, frozen=True):
    """The same for all members."""

    heartbeat_ms: int = 100
    election_timeout_ms: int = 300
    """The least one; a member waits up to twice as long, by chance (paper 5.2). Several heartbeats and a sync of a slow disk fit in."""
    message_bytes: int = 512 << 10
    """Entries in one message; a single entry may be that big as well."""
    in_flight_bytes_max: int = 4 << 20
    """Entries sent and not answered, to one follower; the last message may go over it."""
    chunk_bytes: int = 256 << 10
    """Of a snapshot in one message."""
    has_pre_vote: bool = True
    """Off only to show what it is good for."""
    has_check_quorum: bool = True
    """Off only to show what it is good for."""

    def __post_init__(self) -> None:
        if not 0 < 2 * self.heartbeat_ms <= self.election_timeout_ms:
            raise InvalidConfig(
                f"heartbeat_ms {self.heartbeat_ms} must be positive, and at most half of election_timeout_ms {self.election_timeout_ms}",
                hint="a single late heartbeat must not look like a dead leader",
            )


class Core:
    """See the module. Roles decide; this keeps."""

    def __init__(self, me: Member, settings: Settings, store: EntryStore, random: Random) -> None:
        self.me = me
        self.settings = settings
        self.store = store
        self.now_ms = 0
        self.leader: Member | None = None
        self.heard_leader_ms = NEVER_MS
        """When the leader of this term last spoke."""
        self._random = random
        self.snapshot = store.snapshot
        """The one that is on disk."""
        self.is_snapshot_damaged = False
        """Somebody was sent it, and it was not what it had been."""
        self.log = RaftLog(store)
        self.configurations = Configurations(store.snapshot.end, store.snapshot.configuration)
        self._saving: list[tuple[int, Snapshot]] = []
        """(Persist's number, snapshot) under way."""
        self._unsaved_snapshot: Snapshot | None = None
        self._events: list[Event] = []
        self._held: list[tuple[int, Message]] = []
        """Messages with the Persist they wait for."""
        self._number = self.persisted_number = 0
        self._hard_number = 0
        """The Persist that has the present term and vote."""
        self._is_hard_dirty = False
        self.commit_end = self.applied_end = store.snapshot.end
        self._open()
        term = max(store.hard_state.term, self.log.last_term)
        # Entries may have outlived the term that came with them. Who has lost the term has said nothing in it, so it has no vote either.
        self.hard_state = store.hard_state if store.hard_state.term == term else HardState(term)

    def __repr__(self) -> str:
        return f"term={self.term} vote={self.hard_state.vote} commit={self.commit_end} applied={self.applied_end} {self.log!r}"

    @property
    def term(self) -> int:
        return self.hard_state.term

    @property
    def is_hard_state_synced(self) -> bool:
        return not self._is_hard_dirty and self.persisted_number >= self._hard_number

    @property
    def has_work(self) -> bool:
        """Something is left for the next ``take_effects``, whatever happens."""
        return self.applied_end < self.commit_end

    def random_timeout_ms(self) -> int:
        return self.settings.election_timeout_ms + self._random.randrange(0, self.settings.election_timeout_ms)

    def set_hard_state(self, term: int, vote: Member | None) -> None:
        assert term >= self.term
        assert term > self.term or self.hard_state.vote in (None, vote)
        if term > self.term:
            self._held.clear()  # it spoke of a term that is over
            self.leader = None
        self.hard_state = HardState(term, vote)
        self._is_hard_dirty = True
        self._hard_number = self._number + 1

    def append(self, entries: Sequence[Entry]) -> None:
        self.log.append(entries)
        for entry in entries:
            if entry.configuration is not None:
                self.configurations.append(entry.end, entry.configuration)

    def truncate(self, index: int) -> None:
        """What is committed stays (paper 5.4.3, leader completeness): who asks otherwise has a bug, and going on would spread it."""
        assert index >= self.commit_end
        self.log.truncate(index)
        self.configurations.truncate(index)

    def commit_to(self, end: int) -> None:
        assert end <= self.log.end
        self.commit_end = max(self.commit_end, end)

    def install(self, snapshot: Snapshot) -> None:
        """The leader's snapshot takes the place of the log, which does not lead there."""
        meta = snapshot.meta
        assert meta.end > self.commit_end
        self.log.replace(meta)
        self.configurations.replace(meta.end, meta.configuration)
        self.commit_end = self.applied_end = meta.end
        self._unsaved_snapshot = snapshot
        self.is_snapshot_damaged = False
        self._events.append(Restore(snapshot))

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Made here, of what was applied. The log is cut when it is on disk."""
        self._unsaved_snapshot = snapshot
        self.is_snapshot_damaged = False

    def wants_snapshot(self, end: int) -> bool:
        """Whether one of this end is worth more than the newest one, on disk or on its way."""
        if self._unsaved_snapshot is not None:
            return end > self._unsaved_snapshot.meta.end
        if self._saving:
            return end > self._saving[-1][1].meta.end
        return end > self.snapshot.end or (end == self.snapshot.end and self.is_snapshot_damaged)

    def tell(self, event: Event) -> None:
        self._events.append(event)

    def send(self, message: Message) -> None:
        self._held.append((self._number + 1 if self._is_dirty else self._number, message))

    def send_early(self, message: Message) -> None:
        self._held.append((self._hard_number, message))

    def on_persisted(self, number: int) -> None:
        assert self.persisted_number < number <= self._number
        self.persisted_number = number
        self.log.on_persisted(number)
        while self._saving and self._saving[0][0] <= number:
            meta = self._saving.pop(0)[1].meta
            # The entries between the last two snapshots stay: a member that was away for a moment needs no snapshot.
            start, self.snapshot = self.snapshot.end, meta
            self.log.move_start(start)
            self.configurations.forget_before(self.log.start)

    def take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def take_effects(self) -> list[RaftEffect]:
        effects: list[RaftEffect] = []
        if self._is_dirty:
            effects.append(self._persist())
        effects.extend(self._take_messages())
        effects.extend(self.take_events())
        entries = self.log.read(self.applied_end, self.commit_end, APPLY_BYTES)
        if entries:
            self.applied_end = entries[-1].end
            effects.append(Apply(entries))
        self._check()
        return effects

    @property
    def _is_dirty(self) -> bool:
        return self._is_hard_dirty or self.log.has_unsaved or self._unsaved_snapshot is not None

    def _persist(self) -> Persist:
        self._number += 1
        hard_state = self.hard_state if self._is_hard_dirty else None
        snapshot, self._unsaved_snapshot = self._unsaved_snapshot, None
        if snapshot is not None:
            self._saving.append((self._number, snapshot))
        self._is_hard_dirty = False
        replaces_log = self.log.is_replaced
        truncate_from, entries = self.log.take_unsaved(self._number)
        return Persist(self._number, hard_state, snapshot, replaces_log, self.log.start, truncate_from, entries)

    def _take_messages(self) -> list[SendMessage]:
        ready = [SendMessage(message) for number, message in self._held if number <= self.persisted_number]
        if ready:
            self._held = [held for held in self._held if held[0] > self.persisted_number]
        return ready

    def _open(self) -> None:
        """What a crash left between a snapshot and its log fits together again; then the log is looked through once."""
        meta = self.store.snapshot
        if meta.end:
            self._events.append(Restore(snapshots.load(self.store)))
        if self.log.start > meta.end:
            raise CorruptLog(
                f"the metadata log begins at index {self.log.start}, but its snapshot ends at {meta.end}",
                hint="restore this broker's disk from a backup",
            )
        if self.log.end < meta.end:
            self.log.replace(meta)
            return
        for entry in self.log.scan():
            if entry.configuration is not None:
                self.configurations.append(entry.end, entry.configuration)
        if not self.log.holds(meta.end, meta.term):
            self.log.replace(meta)
            self.configurations.replace(meta.end, meta.configuration)

    def _check(self) -> None:
        assert self.applied_end <= self.commit_end
        assert self.commit_end <= self.log.end
        assert self.log.start <= self.commit_end
