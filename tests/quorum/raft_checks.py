"""What must hold after every event, over all members: the five properties of the paper's figure 3, and what the machine promises beside.

``Checks`` sees what a member does, never what it thinks. A breach is an AssertionError that names the property.
"""

from __future__ import annotations

from collections.abc import Iterable

from zmqmq.metadata.quorum.effects import Persist
from zmqmq.metadata.quorum.machine import Raft
from zmqmq.metadata.quorum.messages import Message, Vote
from zmqmq.metadata.quorum.state import Entry, HardState, Member


class Checks:
    """Of one run. ``committed`` is the one history that anybody may apply a beginning of."""

    def __init__(self) -> None:
        self.committed: list[Entry] = []
        self._by_index: dict[int, Entry] = {}
        self._states: dict[int, int] = {0: 0}
        """A number that stands for everything before an end."""
        self._leaders: dict[int, Member] = {}
        self._written: dict[tuple[int, int], tuple[Entry, int]] = {}
        self._votes: dict[tuple[Member, int], Member] = {}
        self._hard: dict[Member, HardState] = {}
        self._records: set[bytes] = set()
        self._answers: dict[tuple[int, int], str] = {}
        self._commits: dict[int, int] = {}
        """Commit end and the term of the entry before it, as soon as any member knows it."""
        self._ends_of_terms: dict[int, int] = {}
        """How far a term committed; figure 3 says what that means for the leaders of later terms."""
        self._commit_end = 0

    @property
    def committed_end(self) -> int:
        return self.committed[-1].end if self.committed else 0

    @property
    def known_commit_end(self) -> int:
        return self._commit_end

    @property
    def leader_count(self) -> int:
        return len(self._leaders)

    def on_leader(self, member: Member, raft: Raft) -> None:
        """It leads: the only one in its term, and with everything that is committed."""
        before = self._leaders.setdefault(raft.term, member)
        assert before == member, f"election safety: {before} and {member} lead in term {raft.term}"
        self._has_committed(member, raft)

    def on_commit(self, member: Member, raft: Raft, leaders: Iterable[tuple[Member, Raft]]) -> None:
        log = raft._core.log
        end = raft.commit_end
        term = log.term_at(end)
        assert self._commits.setdefault(end, term) == term, (
            f"state machine safety: {end} is committed in terms {self._commits[end]} and {term}"
        )
        if end > self._commit_end:
            self._commit_end = self._ends_of_terms[raft.term] = end
            for other, leader in leaders:
                self._has_committed(other, leader)

    def on_persist(self, member: Member, raft: Raft, persist: Persist, commit_end: int) -> None:
        """``commit_end`` is the one before the fact that led to it."""
        if persist.truncate_from >= 0:
            assert persist.truncate_from >= commit_end, f"{member} truncates what is committed"
        log = raft._core.log
        for entry in persist.entries:
            written = (entry, log.term_at(entry.index))
            before = self._written.setdefault((entry.index, entry.term), written)
            assert before == written, f"log matching: {before} and {written}"

    def on_message(self, message: Message) -> None:
        if isinstance(message, Vote) and message.is_granted and not message.is_pre_vote:
            before = self._votes.setdefault((message.source, message.ballot), message.target)
            assert before == message.target, f"{message.source} votes twice in term {message.ballot}"

    def on_hard_state(self, member: Member, hard: HardState) -> None:
        before = self._hard.get(member, HardState())
        assert hard.term >= before.term, f"the term on disk of {member} went back from {before} to {hard}"
        if hard.term == before.term:
            assert before.vote in (None, hard.vote), f"the vote on disk of {member} changed from {before} to {hard}"
        self._hard[member] = hard

    def on_apply(self, member: Member, start: int, entry: Entry) -> None:
        assert entry.index == start, f"{member} applies {entry.index} after {start}"
        known = self._by_index.get(entry.index)
        if known is not None:
            assert known == entry, f"state machine safety: {known} and {entry} applied"
            return
        assert entry.index == self.committed_end, f"{entry.index} was applied, {self.committed_end} is next"
        self._by_index[entry.index] = entry
        self.committed.append(entry)
        self._states[entry.end] = hash((self._states[entry.index], entry.index, entry.term, len(entry.records)))
        for record in entry.records:
            assert record not in self._records, f"a record was applied twice: {record[:20]!r}"
            self._records.add(record)
        answer = self._answers.get((entry.term, entry.proposal_id), "")
        assert answer != "refused", f"proposal {entry.proposal_id} of term {entry.term} was refused, and is applied"

    def on_restore(self, member: Member, end: int, data: bytes) -> None:
        assert end <= self.committed_end, f"{member} was given a snapshot of {end}, which nobody has applied"
        assert data == self.snapshot_of(end), f"{member} was given a snapshot of {end} that is not what was applied"

    def on_answer(self, term: int, proposal_id: int, answer: str) -> None:
        before = self._answers.setdefault((term, proposal_id), answer)
        assert before == answer, f"proposal {proposal_id} of term {term} was answered {before} and {answer}"
        if answer == "committed":
            assert any(entry.proposal_id == proposal_id and entry.term == term for entry in reversed(self.committed)), (
                "acknowledged, and gone"
            )

    def snapshot_of(self, end: int) -> bytes:
        """The state that applying everything before ``end`` gives, as bytes."""
        text = f"{end}:{self._states[end]};".encode()
        return text * (1 + end % 23)

    def _has_committed(self, member: Member, raft: Raft) -> None:
        log = raft._core.log
        end = max((end for term, end in self._ends_of_terms.items() if term < raft.term), default=0)
        if end and log.start <= end:
            assert log.holds(end, self._commits[end]), f"leader completeness: {member} leads term {raft.term} without {end}"
