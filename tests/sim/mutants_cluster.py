"""Planted bugs of a cluster beside replication: the controller's decisions, lease, forwarding, truncated logs, Raft on its disk."""

from __future__ import annotations

from typing import Final

from mutants_replication import REPLICATION_MUTATIONS
from mutation import FIRST_CLUSTER, Edit, Mutation

_DECIDED: Final = "tests/metadata/test_metadata_decisions.py::"
_ACTIVE: Final = "tests/metadata/test_active_controller.py::"
_CUTS: Final = "tests/store/test_store_cuts.py::"
_SWEEPS: Final = "tests/store/test_store_truncation.py::"
_MEMBER: Final = "tests/broker/test_broker_member.py::"
_RAFT: Final = "tests/quorum/test_raft_scenarios.py::"


def _one(name: str, breaks: str, file: str, old: str, new: str, *stories: str) -> Mutation:
    return Mutation(f"cluster: {name}", breaks, [Edit(file, old, new)], stories, FIRST_CLUSTER)


_CONTROLLER: Final = (
    _one(
        "eligible although the minimum was in sync", "who left is eligible only while nothing is committed (KIP-966)",
        "metadata/decisions/settling.py",
        "    return () if len(isr) >= settings.min_insync_replicas else",
        "    return () if not isr else",
        _DECIDED + "test_nobody_is_eligible_once_the_set_has_the_minimum_again",
    ),
    _one(
        "lost memory trusted", "no one counts on a broker that came back without the end of its log", "metadata/decisions/settling.py",
        "(n in before.isr or n in before.eligible) and n not in lost]",
        "(n in before.isr or n in before.eligible)]",
        _DECIDED + "test_who_may_have_lost_committed_records_is_not_eligible",
    ),
    _one(
        "leader epoch not raised by an election", "a leader epoch has one leader", "metadata/decisions/settling.py",
        "            leader_epoch=before.leader_epoch + (choice.leader != before.leader),\n",
        "            leader_epoch=before.leader_epoch,\n",
    ),
    _one(
        "unclean election where nobody allowed it", "who was not in sync leads only where the topic allows it",
        "metadata/decisions/settling.py",
        "_best(now.replicas, brokers) if settings.unclean_election else []",
        "_best(now.replicas, brokers)",
        _DECIDED + "test_an_unclean_leader_is_elected_only_where_the_topic_allows_it_and_flagged",
    ),
    _one(
        "dead broker elected", "a leader is a living broker", "metadata/decisions/settling.py",
        "if n in brokers and not brokers[n].is_fenced]",
        "if n in brokers]",
        _DECIDED + "test_a_fenced_leader_is_followed_by_a_living_member_in_sync",
    ),
    _one(
        "last in-sync member removed", "the in-sync set never becomes empty", "metadata/decisions/settling.py",
        "    waited_for = trusted or holders[:1] or [n for n in now.replicas if n in now.isr]\n",
        "    waited_for: list[int] = []\n",
        _DECIDED + "test_the_last_member_stays_in_sync_and_leads_again_when_it_is_back",
    ),
    _one(
        "in-sync set of a past partition epoch accepted", "an in-sync set is changed by compare-and-set",
        "metadata/decisions/partitions.py",
        "    if partition.partition_epoch != proposal.partition_epoch:\n",
        "    if partition.partition_epoch < proposal.partition_epoch:\n",
        _DECIDED + "test_an_in_sync_set_is_changed_only_under_the_epochs_that_its_leader_knows",
    ),
    _one(
        "in-sync member of an earlier life accepted", "a member is in sync in the life in which it proved it",
        "metadata/decisions/partitions.py",
        "    if broker.broker_epoch != epoch:\n",
        "    if broker.broker_epoch < epoch:\n",
        _DECIDED + "test_an_in_sync_set_is_changed_only_under_the_epochs_that_its_leader_knows",
    ),
    _one(
        "lost memory not asked for", "a broker that lost unsynced records leaves the in-sync sets first",
        "metadata/decisions/membership.py",
        "    if not request.is_intact and request.node_id in image.brokers:\n",
        "    if False:\n",
        _DECIDED + "test_a_power_cut_takes_a_broker_out_of_sync_only_where_memory_counted",
    ),
    _one(
        "two processes of one node id", "a node id is one living process", "metadata/controlling.py",
        "is_alive=before is not None and not before.is_fenced and now_ms - heard_ms < FENCE_MS,",
        "is_alive=False,",
        _ACTIVE + "test_a_second_process_of_a_node_id_waits_until_the_first_one_is_silent",
    ),
    _one(
        "lease of a broker that is being fenced", "no broker that is being fenced has its lease renewed", "metadata/controlling.py",
        "            is_fenced = committed.is_fenced or pending.is_fenced\n",
        "            is_fenced = committed.is_fenced\n",
        _ACTIVE + "test_a_broker_that_is_being_fenced_gets_no_lease_before_the_fence_is_committed",
    ),
    _one(
        "lease without end", "a broker that hears no controller stops leading before another one leads", "broker/membership.py",
        " and now_ms < self._lease_ms + LEASE_MS\n",
        "\n",
        _MEMBER + "test_a_broker_leads_for_the_time_of_its_lease_from_when_it_sent_the_heartbeat",
    ),
    _one(
        "forwarded request carried out twice", "a request that is sent again is carried out once", "broker/forwarding.py",
        "        if key in self._served:\n            return self._served[key]\n",
        "",
        _MEMBER + "test_a_request_that_comes_again_is_carried_out_once",
    ),
    _one(
        "moved request asked again", "what may have been done is not done again when the controller changes", "broker/forwarding.py",
        "controller != waiting.sent_to and not waiting.is_safe and done is None\n",
        "False\n",
        _MEMBER + "test_when_the_controller_changes_what_was_sent_to_the_last_one_is_unknown_and_not_asked_again",
    ),
)  # fmt: skip

_STORE: Final = (
    _one(
        "truncation not synced before the cut", "a truncated log is cut when the journal says so on disk", "store/store.py",
        "        try:\n            self._journal.sync()\n        except OSError as error:\n"
            '            self._go_offline(f"the journal could not be synced for a trun',
        "        try:\n            pass\n        except OSError as error:\n"
            '            self._go_offline(f"the journal could not be synced for a trun',
        _CUTS + "test_a_truncation_whose_sync_fails_is_not_done_and_nothing_is_written_any_more",
    ),
    _one(
        "sync counts what was cut since", "a sync speaks of the log as it was when it began", "store/store.py",
        "                self._sync.ends.pop(log.id, None)",
        "                pass",
        _CUTS + "test_a_sync_under_way_reports_nothing_of_a_log_that_was_cut_meanwhile",
    ),
    _one(
        "recovery writes what was cut", "what was truncated does not come back", "store/recovery.py",
        "            if header.end_offset > bound:\n                break\n",
        "",
        _SWEEPS + "test_a_truncation_survives_the_end_of_its_process_in_any_disk_call",
    ),
    _one(
        "recovery does not cut again", "what was truncated does not come back", "store/recovery.py",
        "            elif cuts.bound < log.log_end:\n                self._truncate(log, cuts.bound)\n",
        "",
        _SWEEPS + "test_a_truncation_survives_the_end_of_its_process_in_any_disk_call",
    ),
    _one(
        "producers not rewound by a truncation", "a retry of what was cut is written", "store/truncation.py",
        "        log.producers.restore(producers)\n",
        "        pass\n",
        _CUTS + "test_producers_behind_the_memory_of_their_batches_lose_what_was_cut_and_nothing_else",
    ),
    _one(
        "epochs of a cut log kept", "the epochs are those of the batches that are there", "store/truncation.py",
        "tuple(each for each in log.epochs if each.offset < end) if end > log.log_start else ()",
        "log.epochs",
        _SWEEPS + "test_a_truncation_survives_the_end_of_its_process_in_any_disk_call",
    ),
)  # fmt: skip

_Q: Final = "metadata/quorum/"
_QUORUM: Final = (
    _one(
        "vote not persisted", "one vote in a term", _Q + "core.py",
        "        hard_state = self.hard_state if self._is_hard_dirty else None\n",
        "        hard_state = HardState(self.term) if self._is_hard_dirty else None\n",
        _RAFT + "test_a_vote_leaves_only_when_it_is_synced_and_outlives_a_crash",
    ),
    _one(
        "vote for a shorter log", "who is elected has all that is committed (Raft 5.4.1)", _Q + "campaigning.py",
        "    is_up_to_date = (request.last_term, request.log_end) >= (log.last_term, log.end)",
        "    is_up_to_date = bool(log)",
        _RAFT + "test_a_newer_term_beats_a_longer_log_and_a_longer_log_an_equal_one",
    ),
    _one(
        "entry of an old term committed by counting", "only entries of the own term are counted (Raft 5.4.2, figure 8)", _Q + "leading.py",
        " and core.log.term_at(end) == core.term:",
        ":",
        _RAFT + "test_figure_8_an_entry_of_an_old_term_is_not_committed_by_counting",
    ),
    _one(
        "leader counts what it has not synced", "what is committed is on the disks of a majority", _Q + "leading.py",
        "core.log.persisted_end if voter == core.me",
        "core.log.end if voter == core.me",
        _RAFT + "test_a_leader_alone_commits_when_it_synced_and_not_before",
    ),
    _one(
        "follower answers before its sync", "what is committed is on the disks of a majority", _Q + "following.py",
        "            core.send(self._acceptance(message, message.prev_end, match_end))\n",
        "            core.send_early(self._acceptance(message, message.prev_end, match_end))\n",
        _RAFT + "test_a_follower_answers_for_entries_when_they_are_synced_and_for_heartbeats_at_once",
    ),
)  # fmt: skip

CLUSTER_MUTATIONS: Final = (*REPLICATION_MUTATIONS, *_CONTROLLER, *_STORE, *_QUORUM)
