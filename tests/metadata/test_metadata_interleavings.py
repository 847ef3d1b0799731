"""Any order of restarts, fences, power cuts, changes and moves keeps every law of partitions, and every committed record."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from metadata.metadata_world import INTERNAL, World, create

from zmqmq.metadata.decisions import membership, partitions
from zmqmq.metadata.decisions.decision import Decision

BROKERS = 4
PLACES = [("replicated", 0), ("replicated", 1), ("synced", 0), ("unclean", 0), ("__internal", 0), ("__internal", 1)]

nodes = st.integers(0, BROKERS - 1)
places = st.sampled_from(PLACES)
cuts = st.none() | st.integers(1, 4)
steps = st.one_of(
    st.tuples(st.just("flow"), places),
    st.tuples(st.just("flow"), places),
    st.tuples(st.just("write"), places),
    st.tuples(st.just("replicate"), places, nodes),
    st.tuples(st.just("isr"), places, st.sets(nodes)),
    st.tuples(st.just("fence"), st.lists(nodes, min_size=1, max_size=3, unique=True), cuts),
    st.tuples(st.just("restart"), nodes, cuts),
    st.tuples(st.just("power cut"), nodes, st.integers(0, 3), cuts),
    st.tuples(st.just("unfence"), nodes),
    st.tuples(st.just("drain"), nodes, cuts),
    st.tuples(st.just("minimum"), st.sampled_from(PLACES), st.integers(1, 3)),
    st.tuples(st.just("reassign"), places, st.lists(nodes, min_size=1, max_size=3, unique=True)),
    st.tuples(st.just("cancel"), places),
    st.tuples(st.just("prefer"), st.integers(1, 3)),
    st.tuples(st.just("grow")),
    st.tuples(st.just("repair")),
)


def take(world: World, step: tuple) -> None:
    match step:
        case ("flow", place):
            world.flow(*place)
        case ("write", place):
            world.write(*place)
        case ("replicate", place, node):
            world.replicate(*place, node)
        case ("isr", place, wanted):
            world.change_isr(*place, wanted)
        case ("fence", dead, cut):
            world.fence(*dead, cut=cut)
        case ("restart", node, cut):
            world.register(node, cut=cut)
        case ("power cut", node, kept, cut):
            world.register(node, is_intact=False, kept=kept, cut=cut)
        case ("unfence", node):
            world.take(membership.unfence(node, world.image))
        case ("drain", node, cut):
            world.take(membership.drain(node, world.image), cut)
        case ("minimum", (name, _), minimum):
            world.alter_min(name, minimum)
        case ("reassign", place, target):
            take_if_allowed(world, partitions.reassign({place: target}, world.image))
        case ("cancel", place):
            take_if_allowed(world, partitions.cancel_reassign(*place, world.image))
        case ("prefer", count):
            world.take(partitions.prefer_leaders(world.image, count))
        case ("grow",):
            world.grow()
        case ("repair",):
            world.take(membership.repaired(world.image))


def take_if_allowed(world: World, decision: Decision) -> None:
    if decision.error is None:
        world.take(decision)


def world_of_topics() -> World:
    world = World(BROKERS)
    world.create(create("replicated", 2, durability="replicated"))
    world.create(create("synced", 1, replicas=2))
    world.create(create("unclean", 1, unclean_election="true"))
    world.take(Decision((INTERNAL,)))
    return world


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=60))
def test_no_interleaving_breaks_a_law_or_loses_a_committed_record(taken: list[tuple]) -> None:
    world = world_of_topics()
    for step in taken:
        take(world, step)
    assert membership.repaired(world.image).records == ()


@settings(max_examples=50, deadline=None)
@given(st.lists(steps, max_size=40))
def test_whatever_happened_a_healed_cluster_leads_every_partition(taken: list[tuple]) -> None:
    world = world_of_topics()
    for step in taken:
        take(world, step)
    for node in range(BROKERS):
        world.register(node)
    assert all(partition.leader >= 0 for topic in world.image.topics.values() for partition in topic.partitions)
