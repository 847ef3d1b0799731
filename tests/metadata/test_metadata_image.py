"""Records, image and decisions: the image is a function of the records alone, and decisions see what is on its way."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqmq.errors import InvalidConfig, InvalidRecord, TopicExists, UnknownTopic, UnsupportedVersion
from zmqmq.metadata.controller import PRODUCER_ID_BLOCK, ClusterLimits, Controller
from zmqmq.metadata.decisions.placement import place
from zmqmq.metadata.image import ClusterImage, apply
from zmqmq.metadata.records import (
    Assignment,
    BrokerRegistered,
    FeatureLevelSet,
    PartitionChanged,
    ProducerIdsAllocated,
    TopicAltered,
    TopicCreated,
    TopicDeleted,
    decode,
    encode,
)
from zmqmq.wire.requests import AlterTopic, CreateTopic, DeleteTopic


def create(name: str = "orders", partitions: int = 0, replication: int = 0, **config: str) -> CreateTopic:
    return CreateTopic(1, 1000, name, partitions, replication, config)


def controller(brokers: int = 1, **limits: int) -> Controller:
    made = Controller(ClusterLimits(**limits), random.Random(1))
    made.on_committed(-1, tuple(BrokerRegistered(node, "d", "") for node in range(brokers)))
    return made


def commit(controller: Controller, request: CreateTopic | AlterTopic | DeleteTopic) -> ClusterImage:
    decision = controller.decide(request)
    assert decision.error is None
    controller.on_proposed(1, decision.records)
    return controller.on_committed(1, decision.records)


@st.composite
def histories(draw: st.DrawFn) -> list:
    """Records that a controller could have written."""
    records: list = []
    alive: list[bytes] = []
    for number in range(draw(st.integers(0, 25))):
        kind = draw(st.sampled_from(["register", "create", "alter", "delete", "change", "ids", "feature"]))
        if kind == "register":
            records.append(BrokerRegistered(draw(st.integers(0, 2)), f"d{number}", "tcp://x:1"))
        elif kind == "create":
            topic_id = number.to_bytes(16, "big")
            alive.append(topic_id)
            leaders = draw(st.lists(st.integers(0, 2), min_size=1, max_size=3))
            records.append(TopicCreated(topic_id, f"t{number}", [Assignment((leader,), (leader,), leader) for leader in leaders]))
        elif kind == "alter" and alive:
            records.append(TopicAltered(draw(st.sampled_from(alive)), {"retention_ms": f"{number + 1}d"}))
        elif kind == "delete" and alive:
            records.append(TopicDeleted(alive.pop(draw(st.integers(0, len(alive) - 1)))))
        elif kind == "change" and alive:
            leader = draw(st.integers(-1, 2))
            records.append(PartitionChanged(draw(st.sampled_from(alive)), 0, leader, number, number, (0, 1), (0,), (1,)))
        elif kind == "ids":
            records.append(ProducerIdsAllocated(0, 0, number * 10))
        else:
            records.append(FeatureLevelSet("groups", number))
    return records


@given(histories(), st.lists(st.integers(1, 5)))
def test_records_make_the_same_image_however_they_are_grouped(records: list, sizes: list[int]) -> None:
    at_once = apply(ClusterImage(), records)
    one_by_one = ClusterImage()
    for record in records:
        one_by_one = apply(one_by_one, [record])
    grouped, rest = ClusterImage(), list(records)
    for size in [*sizes, max(1, len(rest))]:
        grouped, rest = apply(grouped, rest[:size]), rest[size:]
    assert at_once == one_by_one == grouped
    assert at_once.index == len(records)
    assert at_once.partition_count == sum(len(topic.partitions) for topic in at_once.topics.values())


@given(histories())
def test_records_survive_the_log(records: list) -> None:
    assert [decode(encode(record)) for record in records] == records


@given(st.binary(max_size=40))
def test_any_bytes_decode_or_raise_a_named_error(value: bytes) -> None:
    with contextlib.suppress(InvalidRecord, UnsupportedVersion):
        assert encode(decode(value))


def test_a_record_from_the_future_says_what_to_do() -> None:
    with pytest.raises(UnsupportedVersion) as raised:
        decode(b"\x02\x91\x01")
    assert "upgrade" in raised.value.hint


def test_every_registration_raises_the_leader_epochs_of_that_broker_only() -> None:
    image = apply(
        ClusterImage(), [BrokerRegistered(0, "a", ""), TopicCreated(b"t" * 16, "t", [Assignment((0,), (0,), 0), Assignment((1,), (1,), 1)])]
    )
    again = apply(image, [BrokerRegistered(0, "a", ""), BrokerRegistered(0, "a", "")])
    assert [partition.leader_epoch for partition in again.topics[b"t" * 16].partitions] == [2, 0]
    assert again.brokers[0].broker_epoch == 3


def test_a_topic_is_created_with_the_defaults_of_the_cluster() -> None:
    image = commit(controller(brokers=4), create())
    topic = image.topic("orders")
    assert topic is not None
    assert len(topic.partitions) == 1
    assert len(topic.partitions[0].replicas) == 3


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (create("a b"), "not allowed"),
        (create("__groups"), "reserved"),
        (create(partitions=-1), "partitions must be 1 to"),
        (create(partitions=9), "partitions must be 1 to 8"),
        (create(replication=2), "replication factor must be 1 to 1"),
        (create(min_insync_replicas="2"), "min_insync_replicas must be 1 to 1"),
        (create(retention="7d"), "unknown topic setting"),
        (create(retention_ms="soon"), "retention_ms"),
    ],
)
def test_a_bad_topic_is_refused_with_the_rule(request_: CreateTopic, said: str) -> None:
    error = controller(topic_partitions_max=8).decide(request_).error
    assert isinstance(error, InvalidConfig)
    assert said in str(error)


def test_limits_of_topics_and_partitions_hold_for_what_is_on_its_way_too() -> None:
    made = controller(topics_max=2, partitions_max=5)
    made.on_proposed(1, made.decide(create("a", 4)).records)
    assert "limit of 5" in str(made.decide(create("b", 2)).error)
    made.on_proposed(2, made.decide(create("b", 1)).records)
    assert "limit is 2" in str(made.decide(create("c", 1)).error)


def test_decisions_see_proposals_and_forget_those_that_were_refused() -> None:
    made = controller()
    first, second = made.decide(create("first")), made.decide(create("second"))
    made.on_proposed(1, first.records)
    made.on_proposed(2, second.records)
    assert isinstance(made.decide(create("second")).error, TopicExists)
    assert made.committed.topic("first") is None
    made.on_refused(2)
    assert made.decide(create("second")).error is None
    assert isinstance(made.decide(create("first")).error, TopicExists)
    assert made.on_committed(1, first.records).topic("first") is not None
    assert made.pending == made.committed


def test_an_unknown_topic_comes_with_the_names_that_are_near() -> None:
    made = controller()
    commit(made, create("orders"))
    error = made.decide(DeleteTopic(1, 1000, "ordres")).error
    assert isinstance(error, UnknownTopic)
    assert error.similar == ("orders",)


def test_altering_sets_unsets_and_refuses_as_creating_does() -> None:
    made = controller()
    commit(made, create("t", retention_ms="1d", segment_ms="1h"))
    image = commit(made, AlterTopic(1, 1000, "t", {"retention_bytes": "1GiB"}, ["retention_ms"]))
    assert image.topic("t").config == {"segment_ms": "1h", "retention_bytes": "1GiB"}
    assert image.topic("t").settings.retention_bytes == 1 << 30
    assert made.decide(AlterTopic(1, 1000, "t", {}, ["retention_ms"])).records == ()
    assert "did you mean" in made.decide(AlterTopic(1, 1000, "t", {}, ["retention_m"])).error.hint
    assert made.decide(AlterTopic(1, 1000, "t", {"min_insync_replicas": "3"})).error is not None


def test_a_deleted_name_can_be_used_again_under_another_id() -> None:
    made = controller()
    first = commit(made, create("t")).topic("t").topic_id
    commit(made, DeleteTopic(1, 1000, "t"))
    assert commit(made, create("t")).topic("t").topic_id != first


def test_producer_id_blocks_never_overlap() -> None:
    made = controller()
    ends = []
    for _ in range(3):
        decision = made.allocate_producer_ids(0)
        made.on_proposed(len(ends), decision.records)
        ends.append(made.pending.producer_ids_end)
    assert ends == [PRODUCER_ID_BLOCK, 2 * PRODUCER_ID_BLOCK, 3 * PRODUCER_ID_BLOCK]


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 9), st.integers(0, 100))
def test_placement_is_even_and_never_puts_two_replicas_on_one_broker(brokers: int, partitions: int, replicas: int, first: int) -> None:
    replicas = min(replicas, brokers)
    placed = place(dict.fromkeys(range(brokers), ""), partitions, replicas, first)
    leads = [0] * brokers
    for assignment in placed:
        assert len(set(assignment.replicas)) == replicas
        assert assignment.leader == assignment.replicas[0]
        leads[assignment.leader] += 1
    assert max(leads) - min(leads) <= 1
