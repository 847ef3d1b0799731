"""A follower takes nothing that another leader epoch said, and asks for what its leader has and it does not."""

from __future__ import annotations

import pytest
from replica_world import PARTITION, built

from zmqmq import batch
from zmqmq.batch import stamp, stamp_seed
from zmqmq.facts import EpochStart, LogState
from zmqmq.replication.follower import PartitionFollower
from zmqmq.replication.messages import BeatEntry, ReplicaResult, StreamHeader

LEADER = 0
EPOCHS = (EpochStart(1, 0),)


def compared(leader_epoch: int) -> PartitionFollower:
    """It holds five records of epoch 1, as its leader does."""
    made = PartitionFollower(PARTITION, LEADER, leader_epoch, LogState(0, 5, 5, EPOCHS, {}, 0, -1))
    assert made.on_fetched(made.fetch_entry(), ReplicaResult(*PARTITION, leader_epoch, 5, 0, 5), b"")
    return made


def published(epoch: int) -> bytes:
    data = built(b"v")
    made = stamp(batch.parse_header(data), data, seed=stamp_seed(PARTITION), base_offset=5, leader_epoch=epoch, append_time_ms=1)
    return b"".join(bytes(buffer) for buffer in made.buffers)


@pytest.mark.parametrize("epoch", [1, 3])
def test_what_the_same_broker_published_in_another_epoch_is_not_appended(epoch: int) -> None:
    """It may have lost it since: the end of its log was not synced when its power went."""
    follower = compared(leader_epoch=2)
    follower.on_stream(StreamHeader(LEADER, epoch, 5, 1, 5), published(1))
    assert follower.take_effects() == []
    assert follower.next_offset == 5


def test_a_beat_of_another_epoch_moves_no_watermark() -> None:
    follower = compared(leader_epoch=2)
    follower.on_stream(StreamHeader(LEADER, 2, 5, 1, 5), published(2))
    follower.on_written()
    follower.on_beat(BeatEntry(*PARTITION, 1, 6, 1, 6))
    assert follower.high_watermark == 5


def test_a_beat_that_shows_a_longer_log_is_a_reason_to_fetch() -> None:
    """What was published before the beat is here, or lost."""
    follower = compared(leader_epoch=2)
    assert not follower.wants_fetch
    follower.on_beat(BeatEntry(*PARTITION, 2, 6, 2, 5))
    assert follower.wants_fetch
