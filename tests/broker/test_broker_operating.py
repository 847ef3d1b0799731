"""What operators ask for, as decisions on an image."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from zmqmq.broker.operating import operate
from zmqmq.errors import InvalidConfig, NotEnoughReplicas, UnknownTopic, ZmqmqError
from zmqmq.metadata.image import ClusterImage, PartitionImage, apply
from zmqmq.metadata.records import Assignment, BrokerChanged, BrokerRegistered, TopicCreated
from zmqmq.wire.requests import DrainBroker, LeaderMove, MoveLeaders, Reassign, RemoveBroker, ReplicaMove

ORDERS = b"o" * 16
ALL = (1, 2, 3)
START = apply(
    ClusterImage(),
    [
        *(BrokerRegistered(node, f"dir-{node}", f"tcp://h:{node}") for node in (1, 2, 3, 4)),
        TopicCreated(
            ORDERS,
            "orders",
            [Assignment(ALL, ALL, 1), Assignment(ALL, ALL, 2), Assignment(ALL, (1, 2), 1)],
            {"min_insync_replicas": "2"},
        ),
    ],
)


def after(request: Any, image: ClusterImage = START) -> tuple[PartitionImage, ...]:
    decision = operate(request, image)
    assert decision.error is None, decision.error
    return apply(image, decision.records).topics[ORDERS].partitions


def move(*moves: tuple[int, int], balance: bool = False) -> MoveLeaders:
    return MoveLeaders(1, 0, [LeaderMove("orders", number, node) for number, node in moves], balance)


def test_a_moved_leader_is_the_preferred_one_under_a_new_epoch() -> None:
    moved = after(move((0, 3)))
    assert (moved[0].leader, moved[0].replicas, moved[0].isr) == (3, (3, 1, 2), ALL)
    before = START.topics[ORDERS].partitions[0]
    assert (moved[0].leader_epoch, moved[0].partition_epoch) == (before.leader_epoch + 1, before.partition_epoch + 1)
    assert moved[1:] == START.topics[ORDERS].partitions[1:]


def test_who_leads_already_becomes_preferred_without_a_new_leadership() -> None:
    moved = after(move((1, 2)))
    before = START.topics[ORDERS].partitions[1]
    assert (moved[1].replicas, moved[1].leader_epoch) == ((2, 1, 3), before.leader_epoch)
    assert operate(move((0, 1)), START).records == ()


def test_balance_gives_leaders_back_but_not_those_that_were_named() -> None:
    assert [each.leader for each in after(move(balance=True))] == [1, 1, 1]
    assert [each.leader for each in after(move((1, 3), balance=True))] == [1, 3, 1]
    assert operate(move(balance=True), apply(START, operate(move(balance=True), START).records)).records == ()


def test_moves_that_are_under_way_are_cancelled_all_or_by_name() -> None:
    wanted = [ReplicaMove("orders", 0, [4, 2, 3]), ReplicaMove("orders", 1, [4, 2, 3])]
    moving = apply(START, operate(Reassign(1, 0, wanted), START).records)
    assert [each.adding for each in moving.topics[ORDERS].partitions] == [(4,), (4,), ()]
    one = after(Reassign(1, 0, [ReplicaMove("orders", 1)], cancel=True), moving)
    assert [each.adding for each in one] == [(4,), (), ()]
    every = after(Reassign(1, 0, cancel=True), moving)
    assert [each.adding for each in every] == [(), (), ()]
    assert all(set(each.replicas) == set(ALL) for each in every)
    assert operate(Reassign(1, 0, cancel=True), START).records == ()


def test_a_broker_is_drained_once() -> None:
    decision = operate(DrainBroker(1, 0, 1), START)
    drained = apply(START, decision.records)
    assert [each.leader for each in drained.topics[ORDERS].partitions] == [2, 2, 2]
    assert operate(DrainBroker(1, 0, 1), drained).records == ()


@pytest.mark.parametrize(
    ("request_", "kind", "said"),
    [
        (move((0, 4)), InvalidConfig, "broker 4 keeps no replica that stays"),
        (move((2, 3)), NotEnoughReplicas, "broker 3 is not in sync"),
        (move((9, 1)), UnknownTopic, "partitions 0 to 2, not 9"),
        (MoveLeaders(1, 0, [LeaderMove("none", 0, 1)], balance=True), UnknownTopic, "'none' does not exist"),
        (Reassign(1, 0, [ReplicaMove("orders", 0, [])]), InvalidConfig, "at least one"),
        (Reassign(1, 0, [ReplicaMove("none", 0)], cancel=True), UnknownTopic, "'none' does not exist"),
        (DrainBroker(1, 0, 9), InvalidConfig, "broker 9 is not registered"),
        (RemoveBroker(1, 0, 1), InvalidConfig, "keeps replicas of orders/0"),
        (RemoveBroker(1, 0, 4), InvalidConfig, "is running"),
    ],
)
def test_what_cannot_be_decides_nothing_and_says_why(request_: Any, kind: type[ZmqmqError], said: str) -> None:
    decision = operate(request_, START)
    assert decision.records == ()
    assert isinstance(decision.error, kind)
    assert said in str(decision.error)
    assert decision.error.hint or kind is UnknownTopic or "replicas must be" in str(decision.error)


@pytest.mark.parametrize(("fields", "state"), [({"is_fenced": True}, "fenced"), ({"is_draining": True}, "draining")])
def test_only_a_running_broker_can_be_given_leadership(fields: dict[str, bool], state: str) -> None:
    flags = {"is_fenced": False, "is_draining": False} | fields
    decision = operate(move((0, 2)), apply(START, [BrokerChanged(2, START.brokers[2].broker_epoch, **flags)]))
    assert f"broker 2 is {state}" in str(decision.error)


def test_a_fenced_broker_without_replicas_is_removed() -> None:
    fenced = apply(START, [BrokerChanged(4, START.brokers[4].broker_epoch, is_fenced=True, is_draining=False)])
    assert 4 not in apply(fenced, operate(RemoveBroker(1, 0, 4), fenced).records).brokers
    assert msgspec.structs.asdict(operate(RemoveBroker(1, 0, 4), fenced))["error"] is None
