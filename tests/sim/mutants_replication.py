"""Planted bugs in replication: leaders, followers, in-sync sets, truncation. See ``mutants_cluster.py`` for the rest of a cluster."""

from __future__ import annotations

from typing import Final

from mutation import FIRST_CLUSTER, Edit, Mutation

_STORIES: Final = "tests/replication/test_replica_stories.py::"
_DESKS: Final = "tests/replication/test_replica_following.py::"
_EPOCHS: Final = "tests/replication/test_replica_epochs.py::"


def _one(name: str, breaks: str, file: str, old: str, new: str, *stories: str) -> Mutation:
    return Mutation(f"cluster: {name}", breaks, [Edit(f"replication/{file}", old, new)], stories, FIRST_CLUSTER)


REPLICATION_MUTATIONS: Final = (
    _one(
        "acknowledged by the leader alone", "a receipt of acks=all leaves when every in-sync replica holds the record", "leader.py",
        "min(self._safe_end(member) for member in self.in_sync.counted)",
        "self._safe_end(self.node_id)",
    ),
    _one(
        "acknowledged before followers synced", "under fsync a record counts when it is on the disks of all in-sync replicas", "leader.py",
        "        return progress.synced_end if self._is_fsync else progress.end\n",
        "        return progress.end\n",
    ),
    _one(
        "acknowledged before the minimum in sync", "a watermark moves only with min_insync_replicas members", "leader.py",
        "        if len(self.leadership.isr) >= self.config.min_insync_replicas:\n            self.high",
        "        if True:\n            self.high",
        _DESKS + "test_proposed_members_do_not_make_up_the_minimum",
    ),
    _one(
        "proposed member not counted", "who may be elected counts from the proposal on (KIP-497)", "leader.py",
        "in self.in_sync.counted)",
        "in self.in_sync.committed)",
        _STORIES + "test_a_refused_member_counts_until_a_newer_partition_epoch_voids_its_proposal",
    ),
    _one(
        "shrink counted before its commit", "who may be elected counts until the metadata log says otherwise", "insync.py",
        "        self.counted = (*self.counted, *(node for node in members if node not in self.counted))\n",
        "        self.counted = members\n",
        _DESKS + "test_an_expansion_counts_from_its_proposal_and_a_shrink_from_its_commit",
    ),
    _one(
        "refused member not counted any more", "a refused proposal may be committed until a newer epoch voids it", "insync.py",
        "        self._is_open = False\n        self._is_refused = len(",
        "        self._is_open = False\n        self.counted = self.committed\n        self._is_refused = len(",
        _STORIES + "test_a_refused_member_counts_until_a_newer_partition_epoch_voids_its_proposal",
    ),
    _one(
        "joins before the epoch's start", "who joins holds all that was there when the epoch began (KIP-966)", "leader.py",
        ">= max(self.high_watermark, self.epoch_start)",
        ">= self.high_watermark",
        _STORIES + "test_a_follower_joins_only_with_all_that_was_there_when_the_epoch_began",
    ),
    _one(
        "joins before it synced", "who joins holds what is committed as safely as the topic asks", "leader.py",
        "        return self._safe_end(node) >= max(",
        "        return progress.end >= max(",
        _STORIES + "test_a_slow_follower_leaves_after_the_lag_limit_and_comes_back",
    ),
    _one(
        "watermark at the log end after an election", "a new leader does not know what is committed", "leader.py",
        "max(state.log_start, min(high_watermark, known_end))",
        "max(state.log_start, known_end)",
        _DESKS + "test_words_of_another_epoch_of_a_stranger_or_about_a_longer_log_do_not_count",
    ),
    _one(
        "reports of another epoch counted", "a follower's word counts in the epoch in which it was compared", "leader.py",
        "report.leader_epoch != self.leadership.epoch or not is_member",
        "not is_member",
        _DESKS + "test_words_of_another_epoch_of_a_stranger_or_about_a_longer_log_do_not_count",
    ),
    _one(
        "reports of an earlier life counted", "a broker that restarted holds less than its last life said", "leading.py",
        "self._alive.get(report.node_id) != report.broker_epoch:",
        "False:",
        _DESKS + "test_reports_that_were_overtaken_or_come_from_an_earlier_life_are_dropped",
    ),
    _one(
        "overtaken reports counted", "the newest word of a follower counts", "leading.py",
        "        if report.number <= follower.report_number:\n",
        "        if False:\n",
        _DESKS + "test_reports_that_were_overtaken_or_come_from_an_earlier_life_are_dropped",
    ),
    _one(
        "slow followers out at once", "a follower has LAG_MS_MAX to catch up", "insync.py",
        "            if then_ms > now_ms - LAG_MS_MAX:\n",
        "            if False:\n",
        _STORIES + "test_a_steadily_busy_follower_stays_in_sync",
    ),
    _one(
        "slow followers never out", "a follower that lags does not hold up the others for longer than LAG_MS_MAX", "insync.py",
        "            if then_ms > now_ms - LAG_MS_MAX:\n",
        "            if True:\n",
        _STORIES + "test_a_slow_follower_leaves_after_the_lag_limit_and_comes_back",
    ),
    _one(
        "fetch of another epoch answered", "leader and follower speak of the same epoch (KIP-320)", "answering.py",
        "    if entry.leader_epoch != epoch:\n",
        "    if False:\n",
        _STORIES + "test_a_fetch_of_another_leader_epoch_is_refused",
    ),
    _one(
        "logs not compared", "a follower goes on only behind a batch that the leader holds too (KIP-101)", "answering.py",
        "        if parting is not None:\n",
        "        if False:\n",
        _STORIES + "test_logs_that_parted_twice_are_compared_epoch_by_epoch",
    ),
    _one(
        "logs compared by their length", "equal offsets are no equal records (KIP-101)", "answering.py",
        "    return None if found == entry.last_epoch and entry.end <= end else (found, end)",
        "    return None if entry.end <= leader.log_end else (found, end)",
        _STORIES + "test_the_retry_of_a_batch_that_was_cut_is_written_again",
    ),
    _one(
        "cut at the leader's end of the epoch", "logs may have parted before it (KIP-279)", "follower.py",
        "        target = min(result.parting_end, own_end)\n",
        "        target = result.parting_end\n",
        _DESKS + "test_a_follower_cuts_to_the_smaller_of_both_ends_and_compares_again",
    ),
    _one(
        "cut at the watermark", "a watermark may be late: what is above it may be committed (KIP-101)", "follower.py",
        "        self._drop_held()\n\n    def heal",
        "        self._drop_held()\n        if self.high_watermark < self.log_end:\n"
            "            self._cut(Truncate(self.partition, self.high_watermark))\n\n    def heal",
    ),
    _one(
        "epochs not cut with the log", "the epochs are those of the batches that are there", "follower.py",
        "        self.epochs = cut_at(self.epochs, end)\n",
        "",
        _STORIES + "test_logs_that_parted_twice_are_compared_epoch_by_epoch",
    ),
    _one(
        "stream of another epoch appended", "only what the leader of this epoch says is appended", "follower.py",
        "        if header.leader_epoch != self.leader_epoch or self.is_cutting:\n",
        "        if self.is_cutting:\n",
        _EPOCHS + "test_what_the_same_broker_published_in_another_epoch_is_not_appended",
    ),
    _one(
        "stream appended before the comparison", "a follower appends when its log was compared with the leader's", "follower.py",
        "        if self.is_validated:\n            batches",
        "        if True:\n            batches",
        _DESKS + "test_only_a_follower_that_was_compared_reports",
    ),
    _one(
        "lost tail of the stream not noticed", "a beat shows what the stream lost", "follower.py",
        '            reached("beat shows a lost tail")\n            self.wants_fetch = True\n',
        '            reached("beat shows a lost tail")\n',
        _EPOCHS + "test_a_beat_that_shows_a_longer_log_is_a_reason_to_fetch",
    ),
    _one(
        "late answers taken for new ones", "an answer belongs to the fetch whose number it carries", "following.py",
        " or message.number != link.number",
        "",
        _DESKS + "test_a_fetch_without_an_answer_is_sent_again_under_another_number_and_a_late_answer_is_dropped",
    ),
    _one(
        "corrupt member heals in the in-sync set", "an in-sync replica holds what is committed", "following.py",
        "follower.is_corrupt and not ",
        "follower.is_corrupt or not ",
        _DESKS + "test_a_corrupt_log_is_thrown_away_only_when_its_broker_is_not_in_sync_any_more",
    ),
)  # fmt: skip
