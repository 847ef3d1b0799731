"""Random lives of a little cluster: whatever happens, the laws of ``replica_world`` hold, and after a calm everybody agrees."""

from __future__ import annotations

import random

import pytest
from replica_world import World

SEEDS_PER_TEST = 100


def live(seed: int) -> World:
    rng = random.Random(seed)
    world = World(seed, nodes=rng.choice([2, 3, 3, 3]), is_fsync=rng.random() < 0.6)
    world.loss = rng.choice([0.0, 0.02, 0.1, 0.3])
    world.doubling = rng.choice([0.0, 0.1])
    world.delay_ms_max = rng.choice([0, 0, 60, 400])
    world.disk_full = rng.choice([0.0, 0.0, 0.05])
    image_chance = rng.choice([1.0, 0.5, 0.1])
    rate = rng.choice([0.2, 0.8])
    number = 0
    for _ in range(rng.choice([40, 100, 160])):
        for node in world.nodes:
            while node is not None and node.leader is not None and rng.random() < rate:
                number += 1
                node.produce(b"%08d" % number)
        if rng.random() < 0.06:
            trouble(world, rng)
        world.step(rng.choice([5, 25, 25, 120]), image_chance=image_chance)
        world.check_followers()
    world.calm()
    return world


def trouble(world: World, rng: random.Random) -> None:
    node = rng.randrange(len(world.nodes))
    controller = world.controller
    kind = rng.random()
    if world.nodes[node] is None:
        world.start(node)
    elif kind < 0.35:
        is_last = controller.isr == (node,)
        # Unsynced records of the last member may go with its power: nobody promised them for longer.
        world.crash(node, loses_power=rng.random() < 0.6 and (world.is_fsync or not is_last) and may_lose_power(world))
    elif kind < 0.5:
        controller.elect(rng.choice(controller.isr))
    elif kind < 0.6:
        controller.fence(node) if node in controller.alive else controller.unfence(node)
    elif kind < 0.75:
        world.cut = {(node, other) for other in range(len(world.nodes))} if rng.random() < 0.5 else set()
    elif kind < 0.85:
        world.sync_chance[node] = rng.choice([0.0, 0.1, 0.9])
    else:
        for number in list(range(len(world.nodes))):
            if world.nodes[number] is not None and number not in controller.alive:
                controller.unfence(number)


def may_lose_power(world: World) -> bool:
    return world.is_fsync or all(node is not None for node in world.nodes)


@pytest.mark.parametrize("block", range(4))
def test_in_any_life_committed_records_stay_and_everybody_agrees_in_the_end(block: int) -> None:
    for seed in range(block * SEEDS_PER_TEST, (block + 1) * SEEDS_PER_TEST):
        try:
            live(seed)
        except BaseException:
            print(f"replay with live({seed})")
            raise
