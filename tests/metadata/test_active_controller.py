"""The active controller: registrations, silence, evidence, leases, proposals of leaders; answers only after the commit."""

from __future__ import annotations

import random

from metadata.metadata_world import INTERNAL, create, registration

from zmqmq.metadata.controller import ClusterLimits, Controller
from zmqmq.metadata.controlling import BALANCE_MS, GRACE_MS, STALL_MS, ActiveController, MetadataAppend
from zmqmq.metadata.image import NO_LEADER, ClusterImage, PartitionImage
from zmqmq.metadata.messages import (
    FENCE_MS,
    HEARTBEAT_MS,
    LEASE_MS,
    AlterPartitions,
    BrokerAccepted,
    BrokerRefused,
    ControlMessage,
    Heartbeat,
    HeartbeatReply,
    PartitionProposal,
    PartitionsRefused,
)
from zmqmq.wire.requests import CreateTopic


class Cluster:
    """An active controller, a log that commits when it is told to, and brokers that send heartbeats while they are alive."""

    def __init__(self, brokers: int = 3, **options: frozenset[int]) -> None:
        self.controller = Controller(ClusterLimits(), random.Random(1))
        self.active = ActiveController(self.controller, **options)
        self.now_ms = 10_000
        self.alive: set[int] = set()
        self.received: list[tuple[int, ControlMessage]] = []
        self.log: list[MetadataAppend] = []
        self.active.on_leader(1, self.now_ms)
        for node_id in range(brokers):
            self.start(node_id)
        self.received.clear()

    @property
    def image(self) -> ClusterImage:
        return self.controller.committed

    def partition(self, number: int = 0) -> PartitionImage:
        topic = self.image.topic("t")
        assert topic is not None
        return topic.partitions[number]

    def create(self, request: CreateTopic) -> None:
        self.active.propose(self.controller.decide(request))
        self.commit()

    def start(self, node_id: int, **options: int) -> None:
        self.alive.add(node_id)
        self.tell(registration(node_id, **options))
        self.commit()

    def tell(self, message: ControlMessage) -> None:
        self.active.on_message(message, self.now_ms)
        self.turn()

    def turn(self) -> None:
        self.active.on_time(self.now_ms)
        self.log.extend(self.active.take_appends())
        self.received.extend(self.active.take_messages())

    def commit(self) -> None:
        self.turn()
        while self.log:
            append = self.log.pop(0)
            assert append.index == self.controller.committed.index
            self.controller.on_committed(append.proposal_id, append.records)
            self.active.on_committed(append.proposal_id, self.now_ms)
            self.turn()

    def refuse(self) -> None:
        refused, self.log = self.log, []
        for append in refused:
            self.controller.on_refused(append.proposal_id)
            self.active.on_refused(append.proposal_id)

    def heartbeat(self, node_id: int, **options: object) -> HeartbeatReply:
        broker = self.image.brokers[node_id]
        options = {"applied_index": self.image.index, "broker_epoch": broker.broker_epoch} | options
        self.tell(Heartbeat(node_id, sent_ms=self.now_ms, **options))
        reply = self.received[-1][1]
        assert isinstance(reply, HeartbeatReply)
        return reply

    def run(self, duration_ms: int, *, commits: bool = True) -> None:
        for _ in range(duration_ms // HEARTBEAT_MS):
            self.now_ms += HEARTBEAT_MS
            for node_id in sorted(self.alive):
                self.heartbeat(node_id)
            self.turn()
            if commits:
                self.commit()

    def propose(self, isr: tuple[int, ...], number: int = 0) -> None:
        partition, topic = self.partition(number), self.image.topic("t")
        assert topic is not None
        brokers = self.image.brokers
        members = [(n, brokers[n].broker_epoch) for n in isr]
        change = PartitionProposal(topic.topic_id, number, partition.leader_epoch, partition.partition_epoch, members)
        self.tell(AlterPartitions(partition.leader, brokers[partition.leader].broker_epoch, [change]))

    def answers(self, kind: type) -> list:
        found = [message for _, message in self.received if isinstance(message, kind)]
        self.received.clear()
        return found


def with_topic() -> Cluster:
    made = Cluster()
    made.create(create("t", 3, 3))
    return made


def test_a_registration_is_answered_when_it_is_committed_and_not_before() -> None:
    made = Cluster(brokers=0)
    made.tell(registration(7))
    assert made.answers(BrokerAccepted) == []
    made.tell(registration(7))
    assert len(made.log) == 1
    made.commit()
    assert [m.broker_epoch for m in made.answers(BrokerAccepted)] == [made.image.brokers[7].broker_epoch]


def test_a_registration_that_comes_again_is_answered_again_and_not_made_again() -> None:
    made = Cluster()
    epoch = made.image.brokers[1].broker_epoch
    made.tell(registration(1))
    assert [m.broker_epoch for m in made.answers(BrokerAccepted)] == [epoch]
    assert made.log == []


def test_a_new_controller_knows_the_registrations_of_the_last_one() -> None:
    made = Cluster()
    made.active.on_lost()
    made.active.on_leader(2, made.now_ms)
    made.tell(registration(1))
    assert len(made.answers(BrokerAccepted)) == 1


def test_a_second_process_of_a_node_id_waits_until_the_first_one_is_silent() -> None:
    made = Cluster()
    made.run(300)
    made.tell(registration(1, start=1))
    (refused,) = made.answers(BrokerRefused)
    assert "share a node id" in refused.fault.hint
    made.alive.discard(1)
    made.run(FENCE_MS)
    made.start(1, start=1)
    assert len(made.answers(BrokerAccepted)) == 1


def test_a_registration_that_the_log_refused_is_made_when_it_is_asked_for_again() -> None:
    made = Cluster(brokers=0)
    made.tell(registration(7))
    made.refuse()
    assert 7 not in made.controller.pending.brokers
    made.start(7)
    assert len(made.answers(BrokerAccepted)) == 1


def test_strangers_are_refused() -> None:
    made = Cluster(brokers=0, known_nodes=frozenset({1}))
    made.tell(registration(7))
    assert "peers" in made.answers(BrokerRefused)[0].fault.hint


def test_a_silent_broker_is_fenced_after_the_fence_time_and_the_others_lead() -> None:
    made = with_topic()
    made.run(1000)
    made.alive.discard(0)
    made.run(FENCE_MS - HEARTBEAT_MS)
    assert not made.image.brokers[0].is_fenced
    made.run(HEARTBEAT_MS)
    assert made.image.brokers[0].is_fenced
    assert all(made.partition(n).leader in (1, 2) for n in range(3))
    assert LEASE_MS < FENCE_MS


def test_evidence_fences_at_once() -> None:
    made = with_topic()
    made.alive.discard(0)
    made.active.on_evidence(0, made.now_ms)
    made.commit()
    assert made.image.brokers[0].is_fenced


def test_a_broker_that_is_being_fenced_gets_no_lease_before_the_fence_is_committed() -> None:
    made = with_topic()
    assert not made.heartbeat(0).is_fenced
    made.active.on_evidence(0, made.now_ms)
    made.turn()
    assert made.heartbeat(0, applied_index=0).is_fenced
    assert not made.image.brokers[0].is_fenced


def test_a_past_life_of_a_broker_gets_no_lease() -> None:
    made = with_topic()
    past = made.image.brokers[0].broker_epoch
    made.run(100)
    made.active.on_evidence(0, made.now_ms)
    made.commit()
    made.tell(registration(0, start=1))
    assert made.heartbeat(0, broker_epoch=past).is_fenced
    made.commit()
    assert made.heartbeat(0, broker_epoch=past).is_fenced
    assert not made.heartbeat(0).is_fenced


def test_a_fenced_broker_comes_back_with_a_heartbeat_that_knows_of_the_fence() -> None:
    made = with_topic()
    before = made.image.index
    made.active.on_evidence(0, made.now_ms)
    made.commit()
    assert made.heartbeat(0, applied_index=before).is_fenced
    made.commit()
    assert made.image.brokers[0].is_fenced, "what it sent before it knew may have waited in a queue"
    made.heartbeat(0)
    assert made.heartbeat(0).is_fenced, "not before the commit"
    made.commit()
    assert not made.heartbeat(0).is_fenced


def test_a_new_controller_gives_everybody_more_than_the_whole_fence_time() -> None:
    """The one before may have renewed leases until it noticed that it had lost touch."""
    made = with_topic()
    made.alive.clear()
    made.run(FENCE_MS - HEARTBEAT_MS)
    made.active.on_lost()
    made.active.on_leader(2, made.now_ms)
    made.run(FENCE_MS + GRACE_MS - HEARTBEAT_MS)
    assert not any(broker.is_fenced for broker in made.image.brokers.values())
    made.run(HEARTBEAT_MS)
    assert all(broker.is_fenced for broker in made.image.brokers.values())


def test_a_controller_that_stood_still_fences_nobody_for_it() -> None:
    made = with_topic()
    made.run(300)
    made.now_ms += 10 * FENCE_MS
    made.turn()
    made.run(STALL_MS)
    assert not any(broker.is_fenced for broker in made.image.brokers.values())


def test_a_new_controller_completes_what_the_last_one_left() -> None:
    made = with_topic()
    made.active.on_evidence(0, made.now_ms)
    made.turn()
    (append,) = made.log
    made.log.clear()
    made.active.on_lost()
    made.controller.on_committed(append.proposal_id, append.records[:1])
    assert made.image.brokers[0].is_fenced
    assert any(made.partition(n).leader == 0 for n in range(3))
    made.active.on_leader(2, made.now_ms)
    made.commit()
    assert all(made.partition(n).leader in (1, 2) for n in range(3))


def test_proposals_of_one_round_are_one_append() -> None:
    made = with_topic()
    for number in range(3):
        partition, topic = made.partition(number), made.image.topic("t")
        leader = made.image.brokers[partition.leader]
        change = PartitionProposal(
            topic.topic_id, number, partition.leader_epoch, partition.partition_epoch, [(leader.node_id, leader.broker_epoch)]
        )
        made.active.on_message(AlterPartitions(leader.node_id, leader.broker_epoch, [change]), made.now_ms)
    made.turn()
    assert [len(append.records) for append in made.log] == [3]


def test_a_proposal_that_is_on_its_way_is_neither_made_nor_refused_again() -> None:
    made = with_topic()
    isr = made.partition().isr[:2]
    made.propose(isr)
    made.propose(isr)
    assert len(made.log) == 1
    made.commit()
    assert made.partition().isr == isr
    assert made.answers(PartitionsRefused) == []


def test_a_proposal_under_past_epochs_is_refused_with_the_epoch_it_named() -> None:
    made = with_topic()
    partition, topic = made.partition(), made.image.topic("t")
    leader = made.image.brokers[partition.leader]
    change = PartitionProposal(topic.topic_id, 0, partition.leader_epoch, 77, [(leader.node_id, leader.broker_epoch)])
    made.tell(AlterPartitions(leader.node_id, leader.broker_epoch, [change]))
    (refused,) = made.answers(PartitionsRefused)
    assert (refused.node_id, refused.refusals[0].partition_epoch) == (leader.node_id, 77)


def test_a_broker_that_wants_to_stop_may_when_its_leaders_have_moved() -> None:
    made = with_topic()
    assert not made.heartbeat(0, wants_stop=True).may_stop
    assert not made.heartbeat(0, wants_stop=True).may_stop, "not before the commit"
    made.commit()
    assert made.heartbeat(0, wants_stop=True).may_stop
    assert all(made.partition(n).leader != 0 and 0 not in made.partition(n).isr for n in range(3))


def test_a_broker_whose_disk_failed_leads_only_what_nobody_else_can() -> None:
    made = with_topic()
    made.heartbeat(0, offline="sync failed")
    made.commit()
    assert all(made.partition(n).leader != 0 for n in range(3))
    assert made.image.brokers[0].is_draining


def test_leaders_go_home_some_time_after_their_broker_is_back() -> None:
    made = with_topic()
    made.active.on_evidence(0, made.now_ms)
    made.commit()
    made.run(200)
    for number in range(3):
        made.propose((0, 1, 2), number)
    made.commit()
    made.run(BALANCE_MS)
    assert all(made.partition(n).leader == made.partition(n).replicas[0] for n in range(3))


def test_internal_topics_grow_when_brokers_come() -> None:
    made = Cluster(brokers=1)
    made.controller.on_proposed(-5, (INTERNAL,))
    made.controller.on_committed(-5, (INTERNAL,))
    made.start(1)
    topic = made.image.topic("__internal")
    assert topic is not None
    assert [partition.adding for partition in topic.partitions] == [(1,), (1,)]


def test_who_does_not_lead_says_and_appends_nothing() -> None:
    made = with_topic()
    made.propose((made.partition().leader,))
    made.log.clear()
    made.active.on_lost()
    made.tell(registration(9))
    made.active.on_message(Heartbeat(0, 0, 0, 0), made.now_ms)
    made.active.on_evidence(0, made.now_ms)
    made.now_ms += 10 * FENCE_MS
    made.turn()
    assert (made.log, made.received, made.active.next_deadline_ms) == ([], [], None)
    assert made.controller.pending == made.controller.committed


def test_nobody_leads_while_nobody_is_there() -> None:
    made = with_topic()
    made.alive.clear()
    made.run(FENCE_MS)
    assert made.partition().leader == NO_LEADER
    assert made.partition().isr == made.partition().replicas


def test_a_broker_that_registers_after_a_long_silence_is_not_fenced_for_it() -> None:
    made = with_topic()
    made.alive.discard(0)
    made.run(10 * FENCE_MS)
    made.tell(registration(0, start=5))
    made.run(200, commits=False)
    made.commit()
    assert not made.image.brokers[0].is_fenced


def test_what_the_log_refused_is_decided_again() -> None:
    made = with_topic()
    made.alive.discard(0)
    made.active.on_evidence(0, made.now_ms)
    made.turn()
    made.refuse()
    assert not made.controller.pending.brokers[0].is_fenced
    made.run(FENCE_MS)
    assert made.image.brokers[0].is_fenced
    assert all(made.partition(n).leader in (1, 2) for n in range(3))
