"""What operators are told of a cluster: its state counted, and the events between two images."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqmq.broker.events import EVENTS_MAX, KINDS, EventLog
from zmqmq.broker.status import LISTED_MAX, Quorum, changed_reply, cluster_reply
from zmqmq.metadata.image import NO_LEADER, ClusterImage, apply
from zmqmq.metadata.records import (
    Assignment,
    BrokerChanged,
    BrokerRegistered,
    BrokerRemoved,
    MetadataRecord,
    PartitionChanged,
    TopicAltered,
    TopicCreated,
    TopicDeleted,
)
from zmqmq.wire.replies import ClusterReply

ORDERS = b"o" * 16
BROKERS = [BrokerRegistered(node, f"dir-{node}", f"tcp://h:{node}", rack=f"r{node}", control=f"tcp://h:1{node}") for node in (1, 2, 3)]
CREATED = TopicCreated(
    ORDERS, "orders", [Assignment((1, 2, 3), (1, 2, 3), 1), Assignment((2, 3, 1), (2, 3, 1), 2)], {"min_insync_replicas": "2"}
)
START = apply(ClusterImage(), [*BROKERS, CREATED])
QUORUM = Quorum(2, 7, (1, 2, 3))


def changed(number: int = 0, image: ClusterImage = START, **fields: Any) -> PartitionChanged:
    before = image.topics[ORDERS].partitions[number]
    known = {name: getattr(before, name) for name in before.__struct_fields__}
    return PartitionChanged(topic_id=ORDERS, partition=number, **(known | {"partition_epoch": before.partition_epoch + 1} | fields))


def told(image: ClusterImage) -> ClusterReply:
    return cluster_reply(5, image, cluster_id="c", node_id=1, quorum=QUORUM)


# --- status


def test_a_healthy_cluster_is_counted() -> None:
    reply = told(START)
    assert (reply.correlation_id, reply.cluster_id, reply.node_id, reply.controller, reply.controller_epoch) == (5, "c", 1, 2, 7)
    assert (reply.metadata_index, reply.topics, reply.partitions) == (START.index, 1, 2)
    assert (reply.under_replicated, reply.under_min, reply.leaderless, reply.moving, reply.not_preferred) == (0, 0, 0, 0, 0)
    assert [(broker.node_id, broker.leaders, broker.replicas, broker.in_sync) for broker in reply.brokers] == [
        (1, 1, 2, 2),
        (2, 1, 2, 2),
        (3, 0, 2, 2),
    ]
    assert (reply.brokers[0].rack, reply.brokers[0].control, reply.brokers[0].endpoint) == ("r1", "tcp://h:11", "tcp://h:1")


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({"isr": (1, 2)}, (1, 0, 0, 0, 0)),
        ({"isr": (1,)}, (1, 1, 0, 0, 0)),
        ({"isr": (1,), "leader": NO_LEADER}, (1, 1, 1, 0, 0)),
        ({"leader": 3}, (0, 0, 0, 0, 1)),
        ({"replicas": (1, 2, 3, 4), "adding": (4,), "removing": (3,)}, (0, 0, 0, 1, 0)),
        ({"replicas": (1, 2, 3, 4), "adding": (4,), "removing": (3,), "isr": (1, 2)}, (0, 0, 0, 1, 0)),
        ({"replicas": (1, 2, 3, 4), "adding": (4,), "isr": (1, 2)}, (1, 0, 0, 1, 0)),
    ],
)
def test_each_trouble_is_counted_and_the_partition_named(fields: dict[str, Any], counts: tuple[int, ...]) -> None:
    reply = told(apply(START, [changed(**fields)]))
    assert (reply.under_replicated, reply.under_min, reply.leaderless, reply.moving, reply.not_preferred) == counts
    assert [(each.topic, each.partition) for each in reply.troubled] == [("orders", 0)] * any(counts[:3])
    assert [each.partition for each in reply.reassigning] == [0] * counts[3]


def test_an_answer_names_a_bounded_number_of_partitions_and_counts_all() -> None:
    count = LISTED_MAX + 1
    image = apply(START, [TopicCreated(b"m" * 16, "many", [Assignment((1, 2), (1,), 1)] * count)])
    reply = told(image)
    assert (reply.under_replicated, len(reply.troubled)) == (count, LISTED_MAX)


def test_what_was_decided_is_told_as_the_partitions_are_after_it() -> None:
    records: list[MetadataRecord] = [changed(leader=2), changed(1, leader=3), BrokerChanged(1, 0, is_fenced=False, is_draining=True)]
    reply = changed_reply(9, records, apply(START, records))
    assert (reply.correlation_id, reply.count) == (9, 2)
    assert [(each.topic, each.partition, each.leader) for each in reply.partitions] == [("orders", 0, 2), ("orders", 1, 3)]
    assert changed_reply(9, [], START).count == 0


# --- events


def happened(*records: MetadataRecord, image: ClusterImage = START) -> list[tuple[str, str, int, int, str]]:
    log = EventLog()
    log.on_image(image, 1)
    log.on_image(apply(image, records), 2)
    return [(event.kind, event.topic, event.partition, event.node_id, event.text) for event in log.after(-1)]


@pytest.mark.parametrize(
    ("record", "event"),
    [
        (changed(leader=2, leader_epoch=1), ("leader-change", "orders", 0, 2, "1 → 2, epoch 1")),
        (changed(leader=NO_LEADER, leader_epoch=1), ("leader-change", "orders", 0, -1, "1 → none, epoch 1")),
        (changed(isr=(1, 3)), ("isr-shrink", "orders", 0, 2, "[1,2,3] → [1,3]")),
        (changed(isr=(1,)), ("isr-shrink", "orders", 0, -1, "[1,2,3] → [1]")),
        (
            changed(replicas=(1, 2, 3, 4), adding=(4,), removing=(1,)),
            ("reassign-started", "orders", 0, -1, "adding [4], removing [1]"),
        ),
        (BrokerChanged(2, 1, is_fenced=True, is_draining=False), ("broker-fenced", "", -1, 2, "")),
        (BrokerChanged(2, 1, is_fenced=False, is_draining=True), ("broker-draining", "", -1, 2, "")),
        (BrokerRemoved(2), ("broker-removed", "", -1, 2, "")),
        (BrokerRegistered(4, "d", "tcp://h:4"), ("broker-registered", "", -1, 4, "tcp://h:4, epoch 4")),
        (BrokerRegistered(3, "d", ""), ("broker-registered", "", -1, 3, "no address, epoch 4")),
        (TopicCreated(b"n" * 16, "new", [Assignment((1,), (1,), 1)]), ("topic-created", "new", -1, -1, "1 partition")),
        (TopicAltered(ORDERS, {"retention_ms": "5"}), ("topic-altered", "orders", -1, -1, "retention_ms=5")),
        (TopicDeleted(ORDERS), ("topic-deleted", "orders", -1, -1, "")),
    ],
)
def test_each_change_is_one_event(record: MetadataRecord, event: tuple[str, str, int, int, str]) -> None:
    assert happened(record) == [event]
    assert event[0] in KINDS


def test_a_replica_that_comes_back_and_a_broker_too() -> None:
    small = apply(START, [changed(isr=(1,)), BrokerChanged(2, 1, is_fenced=True, is_draining=False)])
    records = [changed(isr=(1, 2), image=small), BrokerChanged(2, 1, is_fenced=False, is_draining=False)]
    assert [each[0] for each in happened(*records, image=small)] == ["broker-unfenced", "isr-expand"]


def test_a_leader_that_was_neither_in_sync_nor_eligible_is_told_as_unclean() -> None:
    alone = apply(START, [changed(isr=(1,))])
    assert [each[0] for each in happened(changed(isr=(2,), leader=2, image=alone), image=alone)] == [
        "unclean-election",
        "isr-shrink",
        "isr-expand",
    ]
    eligible = apply(START, [changed(isr=(1,), eligible=(2,))])
    assert happened(changed(isr=(2,), leader=2, image=eligible), image=eligible)[0][0] == "leader-change"


@pytest.mark.parametrize(("replicas", "kind"), [((2, 3, 4), "reassign-completed"), ((1, 2, 3), "reassign-cancelled")])
def test_a_move_ends_as_completed_or_as_cancelled(replicas: tuple[int, ...], kind: str) -> None:
    moving = apply(START, [changed(replicas=(2, 3, 4, 1), adding=(4,), removing=(1,))])
    record = changed(replicas=replicas, adding=(), removing=(), isr=replicas, leader=2, image=moving)
    assert (kind, "orders", 0, -1, f"replicas [{','.join(map(str, replicas))}]") in happened(record, image=moving)


def test_a_restart_of_a_broker_raises_epochs_and_is_no_change_of_leaders() -> None:
    assert [each[0] for each in happened(BROKERS[0])] == ["broker-registered"]


def test_another_controller_is_told_with_the_next_change() -> None:
    log = EventLog()
    log.on_controller(1, 3, 10)
    log.on_image(START, 11)
    log.on_controller(1, 3, 12)
    log.on_controller(2, 4, 13)
    assert log.after(-1) == []
    log.on_image(apply(START, [BrokerRemoved(1)]), 14)
    assert [(event.number, event.time_ms, event.kind, event.node_id, event.text) for event in log.after(START.index)] == [
        (START.index + 1, 13, "controller-change", 2, "1 → 2, epoch 4"),
        (START.index + 1, 14, "broker-removed", 1, ""),
    ]


def test_the_ring_forgets_the_oldest_and_says_from_where_it_knows_all() -> None:
    log = EventLog(3)
    image = START
    log.on_image(image, 0)
    for _ in range(5):
        image = apply(image, [BrokerRegistered(9, "d", "e")])
        log.on_image(image, 0)
    assert len(log) == 3
    assert log.known_after == START.index + 2
    assert [event.number - START.index for event in log.after(-1)] == [3, 4, 5]


STEPS = st.lists(
    st.sampled_from(
        [
            BrokerRegistered(9, "d", "e"),
            BrokerRemoved(9),
            changed(isr=(1, 2)),
            changed(isr=(1, 2, 3)),
            changed(1, leader=3),
            changed(1, leader=2),
            TopicAltered(ORDERS, {"retention_ms": "5"}),
        ]
    ),
    max_size=12,
)


@given(records=STEPS, cuts=st.sets(st.integers(1, 12)), heard=st.integers(0, 12))
def test_who_goes_on_with_another_broker_misses_nothing(records: list[MetadataRecord], cuts: set[int], heard: int) -> None:
    """One broker saw the records one by one, another in pieces: what lasted of what the first told is in what the second tells."""
    images = [START]
    for record in records:
        images.append(apply(images[-1], [record]))
    pieces, single = EventLog(EVENTS_MAX), EventLog(EVENTS_MAX)
    for image in images:
        single.on_image(image, 0)
    for index, image in enumerate(images):
        if index in cuts | {0, len(images) - 1}:
            pieces.on_image(image, 0)
    at = START.index + min(heard, len(records))
    looks = [0, *sorted(cut for cut in cuts if cut < len(images))]
    looked = max(look for look in looks if look <= at - START.index)
    lasting = changes(images[at - START.index], images[-1])
    assert lasting <= heard_of(single, at)
    # What came and went between two looks was seen by nobody there.
    assert lasting & changes(images[looked], images[-1]) <= heard_of(pieces, at)


def changes(before: ClusterImage, after: ClusterImage) -> set[tuple[str, str, int]]:
    log = EventLog(EVENTS_MAX)
    log.on_image(before, 0)
    log.on_image(msgspec.structs.replace(after, index=after.index + 1), 0)
    return heard_of(log, -1)


def heard_of(log: EventLog, after: int) -> set[tuple[str, str, int]]:
    return {(event.kind, event.topic, event.partition) for event in log.after(after)}
