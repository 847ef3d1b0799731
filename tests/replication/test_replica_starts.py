"""A follower's log start: told by the leader, and said to it when a power cut cannot bring the records back."""

from __future__ import annotations

from replica_world import PARTITION

from zmqmq.effects import MoveLogStart
from zmqmq.facts import EpochStart, LogState
from zmqmq.replication.follower import PartitionFollower
from zmqmq.replication.messages import BeatEntry, ReplicaResult

LEADER = 0


def following() -> PartitionFollower:
    made = PartitionFollower(PARTITION, LEADER, 1, LogState(0, 5, 5, (EpochStart(1, 0),), {}, 0, -1))
    assert made.on_fetched(made.fetch_entry(), ReplicaResult(*PARTITION, 1, 5, 0, 5), b"")
    return made


def beat(log_start: int) -> BeatEntry:
    return BeatEntry(*PARTITION, 1, 5, 1, 5, log_start)


def test_a_new_log_start_is_reported_when_it_is_on_disk() -> None:
    follower = following()
    follower.on_beat(beat(3))
    assert follower.take_effects() == [MoveLogStart(PARTITION, 3)]
    follower.on_start_moved(3)
    assert (follower.log_start, follower.report_entry().log_start) == (3, 0)
    follower.on_start_synced(3)
    assert follower.report_entry().log_start == 3
    assert follower.wants_report


def test_what_retention_removed_before_is_made_durable_when_the_leader_asks() -> None:
    """Retention says nothing in the journal, so a power cut may bring its records back."""
    follower = following()
    follower.on_start_moved(4)
    follower.on_beat(beat(3))
    assert follower.take_effects() == [MoveLogStart(PARTITION, 3)]
    follower.on_start_synced(3)
    assert follower.report_entry().log_start == 3
