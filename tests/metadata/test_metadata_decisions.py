"""What becomes of partitions when brokers come and go and leaders and operators ask: one situation, one sentence."""

from __future__ import annotations

import time

import pytest
from metadata.metadata_world import INTERNAL, World, create, registration

from zmqmq.errors import BrokerUnavailable, Fenced, InvalidConfig, NotLeader, Throttled, ZmqmqError
from zmqmq.metadata.decisions import membership, partitions
from zmqmq.metadata.decisions.decision import Decision, chunks
from zmqmq.metadata.image import NO_LEADER, ClusterImage, apply
from zmqmq.metadata.log import APPEND_BYTES_MAX
from zmqmq.metadata.messages import PartitionProposal
from zmqmq.metadata.quorum.state import records_bytes
from zmqmq.metadata.records import BrokerChanged, BrokerRegistered, PartitionChanged, encode
from zmqmq.wire.requests import AlterTopic


def world(replicas: int = 3, brokers: int = 3, **config: str) -> World:
    made = World(brokers)
    made.create(create("t", 1, replicas, **config))
    return made


def refusal(decision: Decision) -> ZmqmqError:
    assert decision.error is not None
    assert decision.records == ()
    return decision.error


def test_a_topic_of_three_replicas_needs_two_of_them_unless_told_otherwise() -> None:
    assert world().topic().settings.min_insync_replicas == 2
    assert world(replicas=1).topic().config == {}
    assert world(min_insync_replicas="1").topic().settings.min_insync_replicas == 1


def test_resetting_the_minimum_of_a_replicated_topic_gives_the_majority_again() -> None:
    made = world(min_insync_replicas="3")
    made.take(made.controller.decide(AlterTopic(1, 1000, "t", {}, ["min_insync_replicas"])))
    assert made.topic().settings.min_insync_replicas == 2


def test_a_fenced_leader_is_followed_by_a_living_member_in_sync() -> None:
    made = world()
    before = made.partition()
    made.fence(before.leader)
    after = made.partition()
    assert after.leader in before.isr
    assert after.isr == tuple(n for n in before.isr if n != before.leader)
    assert (after.leader_epoch, after.partition_epoch) == (before.leader_epoch + 1, before.partition_epoch + 1)


def test_the_first_replica_that_lives_is_elected() -> None:
    made = world()
    first, second, third = made.partition().replicas
    made.fence(first)
    assert made.partition().leader == second
    made.fence(second)
    assert made.partition().leader == third


def test_a_follower_that_is_fenced_changes_no_leader_epoch() -> None:
    made = world()
    before = made.partition()
    made.fence(before.replicas[2])
    assert made.partition().leader_epoch == before.leader_epoch
    assert made.partition().isr == before.replicas[:2]


def test_the_last_member_stays_in_sync_and_leads_again_when_it_is_back() -> None:
    made = world()
    order = made.partition().replicas
    for node in order:
        made.fence(node)
    assert made.partition().isr == (order[2],)
    assert made.partition().leader == NO_LEADER
    made.register(order[2])
    assert made.partition().leader == order[2]


def test_whoever_left_a_set_below_the_minimum_is_elected_when_the_last_member_dies() -> None:
    made = world()
    order = made.partition().replicas
    for node in order:
        made.fence(node)
    assert made.partition().eligible == (order[1],)
    made.register(order[0])
    assert made.partition().leader == NO_LEADER, "it left while two others went on committing"
    made.register(order[1])
    assert made.partition().leader == order[1]
    assert made.partition().eligible == (order[2],)


def test_nobody_is_eligible_once_the_set_has_the_minimum_again() -> None:
    made = world()
    first, second, third = made.partition().replicas
    made.fence(second, third)
    assert set(made.partition().eligible) == {second, third}
    made.register(third)
    made.take(made.propose("t", 0, (first, third)))
    assert made.partition().eligible == ()


def test_lowering_the_minimum_ends_the_claims_of_those_who_left() -> None:
    made = world()
    first, second, third = made.partition().replicas
    made.fence(second, third)
    made.alter_min("t", 1)
    assert made.partition().eligible == ()
    made.register(second)
    made.fence(first)
    assert made.partition().leader == NO_LEADER


def test_all_members_that_die_at_once_stay_in_sync_and_any_of_them_may_lead() -> None:
    made = world()
    order = made.partition().replicas
    made.fence(*order)
    assert made.partition().isr == order
    made.register(order[2])
    assert made.partition().leader == order[2]


def test_an_unclean_leader_is_elected_only_where_the_topic_allows_it_and_flagged() -> None:
    for allowed in (False, True):
        made = world(replicas=2, min_insync_replicas="1", unclean_election=str(allowed).lower())
        first, second = made.partition().replicas
        made.fence(second)
        made.register(second)
        decision = made.take(membership.fence([first], made.image))
        assert made.partition().leader == (second if allowed else NO_LEADER)
        assert [p.partition for p in decision.unclean] == ([0] if allowed else [])


def test_allowing_unclean_elections_elects_at_once() -> None:
    made = world(replicas=2, min_insync_replicas="1")
    first, second = made.partition().replicas
    made.fence(second)
    made.register(second)
    made.fence(first)
    decision = made.take(made.controller.decide(AlterTopic(1, 1000, "t", {"unclean_election": "true"})))
    assert made.partition().leader == second
    assert len(decision.unclean) == 1


def test_a_choice_over_the_heads_of_dead_members_is_flagged() -> None:
    made = world(durability="replicated", unclean_election="true")
    first, second, third = made.partition().replicas
    made.fence(third)
    made.fence(first, second)
    decision = made.take(membership.register(registration(first, is_intact=False, start=99), made.image))
    assert made.partition().leader == first
    assert len(decision.unclean) == 1


def test_a_restart_raises_the_epochs_of_what_the_broker_leads_and_moves_nothing() -> None:
    made = world()
    before = made.partition()
    made.register(before.leader)
    after = made.partition()
    assert (after.leader, after.isr) == (before.leader, before.isr)
    assert after.leader_epoch == before.leader_epoch + 1


@pytest.mark.parametrize("durability", ["replicated", "fsync"])
def test_a_power_cut_takes_a_broker_out_of_sync_only_where_memory_counted(durability: str) -> None:
    made = world(durability=durability)
    leader = made.partition().leader
    made.register(leader, is_intact=False)
    assert (made.partition().leader == leader) is False
    assert leader not in made.partition().isr
    assert leader not in made.partition().eligible
    alone = world(replicas=1, durability=durability)
    last = alone.partition().leader
    alone.register(last, is_intact=False)
    assert (alone.partition().leader, alone.partition().isr) == (last, (last,))


def test_who_may_have_lost_committed_records_is_not_eligible() -> None:
    made = world(durability="replicated")
    first, second, third = made.partition().replicas
    made.fence(third)
    made.register(second, is_intact=False)
    assert (made.partition().isr, made.partition().eligible) == ((first,), ())
    made.fence(first)
    assert made.partition().leader == NO_LEADER


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_controller_that_dies_within_a_registration_leaves_no_lead_with_lost_memory(cut: int) -> None:
    made = world(durability="replicated")
    first = made.partition().leader
    made.write("t", 0)
    made.flow("t", 0)
    made.register(first, is_intact=False, kept=0, cut=cut)
    assert made.partition().leader != first


def test_a_last_member_that_lost_its_memory_waits_for_the_one_that_did_not() -> None:
    made = world(replicas=2, durability="replicated")
    first, second = made.partition().replicas
    made.fence(second)
    made.fence(first)
    made.register(first, is_intact=False)
    assert (made.partition().leader, made.partition().isr) == (NO_LEADER, (second,))
    made.register(second)
    assert made.partition().leader == second


def test_a_wiped_broker_is_refused_and_told_how_to_come_back() -> None:
    made = world()
    error = refusal(membership.register(registration(1, directory="other"), made.image))
    assert isinstance(error, InvalidConfig)
    assert "zmqmq cluster remove 1" in error.hint


def test_two_brokers_of_one_node_id_exclude_each_other_but_not_one_that_asks_again() -> None:
    made = world()
    assert isinstance(refusal(membership.register(registration(1, start=99), made.image, is_alive=True)), Throttled)
    assert membership.register(registration(1, start=made.starts - 1), made.image, is_alive=True).error is None


def test_other_settings_and_unknown_brokers_are_refused_with_what_to_do() -> None:
    made = world()
    assert "'s2'" in str(refusal(membership.register(registration(4, settings="s2"), made.image)))
    assert "peers" in refusal(membership.register(registration(4), made.image, is_known=False)).hint
    made.fence(0, 1, 2)
    assert membership.register(registration(4, settings="s2"), made.image).error is None


def test_a_draining_broker_gives_away_what_somebody_else_can_lead_and_keeps_the_rest() -> None:
    made = world()
    made.create(create("alone", 1, 1))
    last = made.partition("alone").leader
    made.take(membership.drain(last, made.image))
    assert last not in made.partition().isr
    assert made.partition().leader != last
    assert made.partition("alone").leader == last
    assert membership.may_stop(last, made.image)
    made.register(last)
    assert not made.image.brokers[last].is_draining


def test_the_last_draining_broker_goes_on_leading() -> None:
    made = world()
    for node in range(3):
        made.take(membership.drain(node, made.image))
    assert made.partition().leader != NO_LEADER
    assert membership.drain(0, made.image).records == ()


def test_a_broker_that_drains_gives_up_its_lead_when_a_follower_has_caught_up() -> None:
    made = world()
    first, second, third = made.partition().replicas
    made.fence(second, third)
    made.take(membership.drain(first, made.image))
    assert made.partition().leader == first
    made.register(second)
    made.take(made.propose("t", 0, (first, second)), vouched=(first, second))
    assert (made.partition().leader, made.partition().isr) == (second, (second,))


def test_a_broker_is_removed_only_when_it_keeps_nothing_and_is_gone() -> None:
    made = world(replicas=1)
    keeper = made.partition().leader
    assert "reassign plan --from" in refusal(membership.remove(keeper, made.image)).hint
    other = (keeper + 1) % 3
    assert "running" in str(refusal(membership.remove(other, made.image)))
    assert "not registered" in str(refusal(membership.remove(9, made.image)))
    made.fence(other)
    made.take(membership.remove(other, made.image))
    assert other not in made.image.brokers
    assert membership.register(registration(other, directory="other"), made.image).error is None


def test_an_in_sync_set_is_changed_only_under_the_epochs_that_its_leader_knows() -> None:
    made = world()
    first, second, third = made.partition().replicas
    epochs = made.partition().leader_epoch, made.partition().partition_epoch
    assert isinstance(refusal(made.propose("t", 0, (first,), leader_epoch=epochs[0] + 1)), NotLeader)
    assert isinstance(refusal(made.propose("t", 0, (first,), partition_epoch=epochs[1] - 1)), NotLeader)
    made.take(made.propose("t", 0, (first, second)))
    assert (made.partition().isr, made.partition().partition_epoch) == ((first, second), epochs[1] + 1)
    made.take(made.propose("t", 0, (first, second)))  # the set as it is: an answer, and whatever was proposed before is void
    assert (made.partition().isr, made.partition().partition_epoch) == ((first, second), epochs[1] + 2)
    assert made.partition().leader_epoch == epochs[0]
    made.register(third)
    assert isinstance(refusal(made.propose("t", 0, (first, second, third), broker_epoch=0)), BrokerUnavailable)


def test_only_living_replicas_and_the_leader_itself_are_in_sync() -> None:
    made = world(brokers=4)
    first, second, third = made.partition().replicas
    stranger = next(n for n in range(4) if n not in (first, second, third))
    assert "keeps no replica" in str(refusal(made.propose("t", 0, (first, stranger))))
    assert "own in-sync set" in str(refusal(made.propose("t", 0, (second, third))))
    made.fence(third)
    assert "fenced" in str(refusal(made.propose("t", 0, (first, second, third))))
    made.register(third)
    made.take(membership.drain(third, made.image))
    assert "draining" in str(refusal(made.propose("t", 0, (first, second, third))))


def test_a_broker_of_a_past_epoch_may_not_change_partitions() -> None:
    made = world()
    leader = made.partition().leader
    proposal = PartitionProposal(made.topic().topic_id, 0, 0, 0, [])
    assert isinstance(refusal(partitions.alter_partition(leader, -1, proposal, made.image)), Fenced)


def test_replicas_move_when_the_new_ones_are_in_sync_and_not_before() -> None:
    made = world(replicas=2, brokers=4)
    old = made.partition().replicas
    new = tuple(n for n in range(4) if n not in old)
    made.take(partitions.reassign({("t", 0): new}, made.image))
    assert made.partition().leader == old[0]
    assert [(m.adding, m.removing, m.left) for m in partitions.moving(made.image)] == [(new, old, new)]
    made.take(made.propose("t", 0, (*old, new[0])))
    assert set(made.partition().replicas) == {0, 1, 2, 3}
    made.take(made.propose("t", 0, (*old, *new)), vouched=new)
    after = made.partition()
    assert (after.replicas, after.isr, after.leader, after.adding, after.removing) == (new, new, new[0], (), ())


def test_a_move_that_is_called_off_leaves_the_old_replicas() -> None:
    made = world(replicas=2, brokers=4)
    old = made.partition().replicas
    new = tuple(n for n in range(4) if n not in old)
    made.take(partitions.reassign({("t", 0): new}, made.image))
    made.take(partitions.cancel_reassign("t", 0, made.image))
    assert (set(made.partition().replicas), made.partition().leader) == (set(old), old[0])
    assert list(partitions.moving(made.image)) == []
    assert partitions.cancel_reassign("t", 0, made.image) == Decision()


@pytest.mark.parametrize(
    ("target", "said"),
    [((0, 0), "different"), ((), "at least one"), ((0,), "min_insync_replicas"), ((0, 9), "not registered"), ((0, 3), "fenced")],
)
def test_a_move_to_brokers_that_cannot_take_it_is_refused(target: tuple[int, ...], said: str) -> None:
    made = world(brokers=3)
    made.register(3)
    made.fence(3)
    assert said in str(refusal(partitions.reassign({("t", 0): target}, made.image)))


def test_leaders_go_back_to_the_first_replica_a_few_at_a_time() -> None:
    made = World(3)
    made.create(create("t", 6, 3))
    made.fence(0)
    made.register(0)
    preferred = [n for n, p in enumerate(made.topic().partitions) if p.replicas[0] == 0]
    assert partitions.prefer_leaders(made.image, 9).records == (), "it is not in sync yet"
    for number in preferred:
        made.take(made.propose("t", number, (0, 1, 2)))
    made.take(partitions.prefer_leaders(made.image, 1))
    assert [made.partition("t", n).leader == 0 for n in preferred] == [True, False]
    made.take(partitions.prefer_leaders(made.image, 9))
    assert all(p.leader == p.replicas[0] for p in made.topic().partitions)


def test_topics_of_zmqmq_itself_grow_with_the_cluster_and_no_others_do() -> None:
    made = World(1)
    made.take(Decision((INTERNAL,)))
    made.create(create("t", 1, 1))
    made.grow()
    assert made.partition("__internal").replicas == (0,)
    for node in (1, 2):
        made.register(node)
        made.grow()
        assert made.partition("__internal").isr[0] == 0
        for number in (0, 1):
            made.take(made.propose("__internal", number, tuple(range(node + 1))))
    assert set(made.partition("__internal").replicas) == {0, 1, 2}
    made.grow()
    assert made.topic("__internal").settings.min_insync_replicas == 2
    made.grow()
    assert made.partition("t").replicas == (0,)


def test_a_topic_can_be_created_while_a_broker_is_away_and_takes_it_in_later() -> None:
    made = World(3)
    made.fence(2)
    made.create(create("t", 3, 3))
    for partition in made.topic().partitions:
        assert set(partition.replicas) == {0, 1, 2}
        assert set(partition.isr) == {0, 1}
        assert partition.leader in (0, 1)


def test_a_decision_is_cut_into_appends_that_the_log_takes() -> None:
    records = tuple(PartitionChanged(bytes(16), n, 1, 2, 3, (1, 2, 3), (1, 2), (3,)) for n in range(30_000))
    cut = list(chunks(records))
    assert tuple(record for chunk in cut for record in chunk) == records
    assert len(cut) > 1
    assert all(records_bytes(tuple(encode(record) for record in chunk)) <= APPEND_BYTES_MAX for chunk in cut)


def cluster_of(topic_count: int, partition_count: int) -> ClusterImage:
    made = World(3)
    for number in range(topic_count):
        decision = made.controller.decide(create(f"t{number}", partition_count, 3))
        made.controller.on_proposed(1, decision.records)
        made.controller.on_committed(1, decision.records)
    return made.image


@pytest.mark.parametrize(("topic_count", "partition_count"), [(10, 1000), (2000, 5)])
def test_a_broker_of_ten_thousand_partitions_is_fenced_within_half_a_second(topic_count: int, partition_count: int) -> None:
    image = cluster_of(topic_count, partition_count)
    started = time.process_time()
    decision = membership.fence([0], image)
    for chunk in chunks(decision.records):
        image = apply(image, chunk)
    assert time.process_time() - started < 0.5
    assert sum(isinstance(record, PartitionChanged) for record in decision.records) == 10_000
    assert all(p.leader in (1, 2) for topic in image.topics.values() for p in topic.partitions)


def test_a_long_log_of_restarts_and_changes_is_replayed_in_proportion_to_its_length() -> None:
    image = cluster_of(20, 500)
    topics = list(image.topics.values())
    history = [
        record
        for turn in range(2000)
        for record in (
            BrokerRegistered(turn % 3, "d", ""),
            BrokerChanged(turn % 3, -1, is_fenced=True, is_draining=False),
            PartitionChanged(topics[turn % 20].topic_id, turn % 500, turn % 3, turn, turn, (0, 1, 2), (0, 1, 2)),
        )
    ]
    started = time.process_time()
    apply(image, history)
    assert time.process_time() - started < 2


def test_a_change_of_a_broker_that_registered_since_says_nothing() -> None:
    image = apply(ClusterImage(), [BrokerRegistered(0, "d", ""), BrokerRegistered(0, "d", "")])
    assert apply(image, [BrokerChanged(0, 0, is_fenced=True, is_draining=True)]).brokers == image.brokers
    assert apply(image, [BrokerChanged(0, 1, is_fenced=True, is_draining=False)]).brokers[0].is_fenced
