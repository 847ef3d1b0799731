"""Truncation and reset: what is left, in every crash, with every job under way."""

from __future__ import annotations

from contextlib import suppress

import pytest
from cut_world import PLACES, CutWorld
from hypothesis import given, settings
from hypothesis import strategies as st

from zmqmq.testing.sim.disk import LOSSES, PowerCut

A, B = PLACES


def workload(world: CutWorld) -> None:
    """Truncations within the active segment, into sealed ones, below the checkpoint, over a roll, of two logs; a reset."""
    for _ in range(4):
        world.append(A, B)
    world.sync()
    world.checkpoint()
    world.append(A)
    end = world.model[A].end
    world.epoch += 1
    world.truncate(p0=end - 1, p1=world.model[B].end)
    world.append(A)
    world.truncate(p0=world.model[A].batches[2].header.end_offset, p1=world.model[B].batches[4].header.end_offset)
    world.epoch += 1
    for _ in range(3):
        world.append(A, B)
    world.begin_sync()
    world.save(A, b"vote")
    world.truncate(p0=world.model[A].batches[-2].header.base_offset)
    world.append(A)
    world.end_sync()
    world.begin_checkpoint()
    world.truncate(p1=world.model[B].batches[2].header.base_offset + 1)
    world.epoch += 1
    world.append(B, count=4)
    world.end_checkpoint()
    world.reset(A, world.model[A].end + 7)
    world.append(A, B)
    world.sync()


@pytest.mark.parametrize("loss", [*LOSSES, "kill"])
def test_a_truncation_survives_the_end_of_its_process_in_any_disk_call(loss: str) -> None:
    call = 0
    while True:
        world = CutWorld(5)
        world.disk.fuse = call
        try:
            workload(world)
        except PowerCut:
            world.crash(loss)
            call += 1
            continue
        break
    assert call > 100


def test_a_recovery_of_truncated_logs_may_be_cut_short_in_any_disk_call() -> None:
    for call in range(0, 200, 3):
        world = CutWorld(5)
        workload(world)
        world.truncate(p0=world.model[A].batches[0].header.base_offset, p1=2)
        world.append(A, B)
        world.crash(LOSSES[call % len(LOSSES)], fuse=call)
        world.append(A, B)
        world.checkpoint()
        world.crash("all")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 32), lives=st.integers(1, 4), fuse=st.integers(5, 300))
def test_whatever_happens_the_log_is_what_its_journal_says(seed: int, lives: int, fuse: int) -> None:
    world = CutWorld(seed)
    for _ in range(lives):
        world.disk.fuse = fuse
        with suppress(PowerCut):
            world.run(50)
        world.crash(world.random.choice((*LOSSES, "kill")), fuse=world.random.choice((None, world.random.randrange(60))))


@pytest.mark.parametrize("loss", ["all", "pages", "nothing"])
def test_a_checkpoint_under_way_stays_right_when_a_log_is_cut_in_any_of_its_calls(loss: str) -> None:
    call = 0
    while True:
        world = CutWorld(3)
        for _ in range(6):
            world.append(A, B)
        world.begin_checkpoint()

        def cut(world: CutWorld = world) -> None:
            world.epoch += 1
            world.truncate(p0=world.model[A].batches[1].header.end_offset, p1=world.model[B].batches[-1].header.base_offset)
            world.append(A, B)
            world.reset(B, 3)
            world.append(B)

        world.disk.hook = (call, cut)
        world.run_checkpoint()
        is_over, world.disk.hook = world.disk.hook is not None, None
        if call % 2:
            world.end_checkpoint()
        assert not world.store.offline
        world.check()
        world.crash(loss)
        world.append(A, B)
        world.checkpoint()
        world.crash(loss)
        if is_over:
            break
        call += 1
    assert call > 10
