"""Which role a broker takes for a partition, and what it may do to its log in it."""

from __future__ import annotations

import pytest

from zmqmq.broker.dispatch import Dispatch
from zmqmq.broker.partitions import Partitions
from zmqmq.broker.replicas import Replicas
from zmqmq.facts import LogState
from zmqmq.metadata.image import ClusterImage, PartitionImage, TopicImage, apply
from zmqmq.metadata.records import Assignment, TopicCreated
from zmqmq.model import PartitionId

TOPIC = b"t" * 16
ME = 0


class DamagedLogs:
    def state(self, partition: PartitionId) -> LogState:
        return LogState(0, 9, 9, (), {}, 0, -1, error=f"{partition} is damaged")


def topic() -> TopicImage:
    created = TopicCreated(TOPIC, "t", [Assignment([0, 1, 2], [1], 1, [0])], {"min_insync_replicas": "2"})
    return apply(ClusterImage(), (created,)).topics[TOPIC]


@pytest.mark.parametrize(("isr", "eligible", "is_reset"), [((1, 0), (), False), ((1,), (0,), False), ((1, 2), (), True)])
def test_a_damaged_log_is_thrown_away_only_when_its_broker_cannot_be_elected(
    isr: tuple[int, ...], eligible: tuple[int, ...], *, is_reset: bool
) -> None:
    logs, dispatch = DamagedLogs(), Dispatch()
    replicas = Replicas(ME, logs, Partitions(ME, logs, dispatch), dispatch)
    replicas.on_registered(1, ClusterImage())
    replicas.place(PartitionId(TOPIC, 0), topic(), PartitionImage(1, 1, 1, (0, 1, 2), isr, eligible), 0)
    assert bool(replicas.following.take_work().resets) == is_reset
