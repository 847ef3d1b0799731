"""Bugs to be planted into Raft. Each breaks one rule of the paper or of the machine, and each has to be found."""

from __future__ import annotations

from typing import Final

from sim.mutation import Edit, Mutation

_Q: Final = "metadata/quorum/"


def _one(name: str, breaks: str, file: str, old: str, new: str) -> Mutation:
    return Mutation(name, breaks, [Edit(_Q + file, old, new)])


MUTATIONS: Final = (
    _one(
        "vote not persisted", "one vote in a term", "core.py",
        "        hard_state = self.hard_state if self._is_hard_dirty else None\n",
        "        hard_state = HardState(self.term) if self._is_hard_dirty else None\n",
    ),
    _one(
        "term not persisted", "terms never go back", "core.py",
        "        hard_state = self.hard_state if self._is_hard_dirty else None\n",
        "        hard_state = None\n",
    ),
    _one(
        "vote said before it is synced", "one vote in a term", "campaigning.py",
        "    core.send(Vote(core.me, request.source, core.term, request.ballot, is_granted, request.is_pre_vote))\n",
        "    core._held.append((0, Vote(core.me, request.source, core.term, request.ballot, is_granted, request.is_pre_vote)))\n",
    ),
    _one(
        "term of the log forgotten at open", "no term before that of an entry", "core.py",
        "        term = max(store.hard_state.term, self.log.last_term)\n", "        term = store.hard_state.term\n",
    ),
    _one(
        "log up-to-date check missing", "leader completeness (5.4.1)", "campaigning.py",
        "    is_up_to_date = (request.last_term, request.log_end) >= (log.last_term, log.end)", "    is_up_to_date = bool(log)",
    ),
    _one(
        "log up-to-date check by length only", "leader completeness (5.4.1)", "campaigning.py",
        "(request.last_term, request.log_end) >= (log.last_term, log.end)", "request.log_end >= log.end",
    ),
    _one(
        "votes of one term given twice", "election safety (5.2)", "campaigning.py",
        " and core.hard_state.vote in (None, request.source)", "",
    ),
    _one(
        "old-term commit", "only entries of the own term are committed by counting (5.4.2)", "leading.py",
        " and core.log.term_at(end) == core.term:", ":",
    ),
    _one(
        "leader counts what it has not synced", "committed is on the disks of a majority", "leading.py",
        "core.log.persisted_end if voter == core.me", "core.log.end if voter == core.me",
    ),
    _one(
        "follower answers before the sync", "committed is on the disks of a majority", "following.py",
        "            core.send(self._acceptance(message, message.prev_end, match_end))\n",
        "            core.send_early(self._acceptance(message, message.prev_end, match_end))\n",
    ),
    _one(
        "heartbeat answered beyond the sync", "committed is on the disks of a majority", "following.py",
        "min(match_end, core.log.persisted_end)", "match_end",
    ),
    _one(
        "no-op missing", "a new leader commits what it inherited (8)", "leading.py",
        "        self._opened_end = core.log.end + 1\n", "        self._opened_end = core.log.end\n        core.append = str\n",
    ),
    _one(
        "match index too high after conflict", "a follower answers only for what it compared (5.3)", "following.py",
        "        return entries[-1].end if entries else prev_end\n", "        return log.end\n",
    ),
    _one(
        "commit end of the leader believed", "a follower commits only what it compared (5.3)", "following.py",
        "        core.commit_to(min(message.commit_end, match_end))\n", "        core.commit_to(min(message.commit_end, core.log.end))\n",
    ),
    _one(
        "previous entry not compared", "log matching (5.3)", "following.py",
        "        elif not core.log.holds(prev_end, prev_term):\n", "        elif prev_end > core.log.end:\n",
    ),
    Mutation(
        "truncating committed entries", "what is committed stays (5.4.3)",
        [
            Edit(_Q + "following.py", "            if log.holds(entry.end, entry.term):\n                continue\n", ""),
            Edit(_Q + "core.py", "        assert index >= self.commit_end\n", ""),
        ],
    ),
    _one(
        "membership change before own-term commit", "quorums overlap (2015)", "leading.py",
        "        if not self.has_committed_own_entry or core.commit_end < core.configurations.end:\n",
        "        if core.commit_end < core.configurations.end:\n",
    ),
    _one(
        "two membership changes at a time", "quorums overlap (thesis 4.1)", "leading.py",
        "        if not self.has_committed_own_entry or core.commit_end < core.configurations.end:\n",
        "        if not self.has_committed_own_entry:\n",
    ),
    _one(
        "configuration kept when its entry is truncated", "the newest configuration in the log counts (thesis 4.1)", "core.py",
        "        self.configurations.truncate(index)\n", "",
    ),
    _one(
        "learners counted", "learners have no vote (thesis 4.2.1)", "leading.py",
        "        return self._core.configurations.current.voters\n", "        return self._core.configurations.current.members\n",
    ),
    Mutation(
        "snapshot without checksum", "what arrives is what was made",
        [
            Edit(_Q + "snapshot.py", "        return crc32c(message.data) == message.crc\n", "        return True\n"),
            Edit(_Q + "snapshot.py", "        if crc32c(data) != meta.crc:\n            self.is_damaged = True\n", "        if False:\n"),
        ],
    ),
    _one(
        "snapshot with the newest configuration", "a snapshot ends where it says (thesis 5.1)", "machine.py",
        "core.configurations.at(end)", "core.configurations.current",
    ),
    _one(
        "snapshot skipped because the log is long", "log matching", "following.py",
        "core.log.holds(meta.end, meta.term)", "core.log.end >= meta.end",
    ),
    _one(
        "barrier without a round", "a deposed leader notices (thesis 6.4)", "reads.py",
        " and self._waiting[0][2] <= quorum_round", "",
    ),
    _one(
        "barrier before the own entry", "a new leader does not know the commit end (thesis 6.4)", "leading.py",
        "        if self.has_committed_own_entry and self._barriers", "        if self._barriers",
    ),
    _one(
        "answers of removed proposals", "Refused is never applied", "leading.py",
        "                core.tell(Unknown(proposal_id, error))", "                core.tell(Refused(proposal_id, error))",
    ),
)  # fmt: skip
