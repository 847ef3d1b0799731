"""Virtual time: order, pauses, deaths, and bugs that do not get lost."""

from __future__ import annotations

import asyncio

import pytest

from zmqmq.testing.sim.clock import SimClock
from zmqmq.testing.sim.kernel import SimBug, Stuck, World


def test_events_of_one_moment_run_in_the_order_in_which_they_were_asked_for() -> None:
    world, seen = World(), list[str]()
    world.at(5, seen.append, "b")
    world.at(5, seen.append, "c")
    world.at(3, seen.append, "a")
    world.run_until(lambda: False, 10)
    assert seen == ["a", "b", "c"]
    assert world.now_us == 10


def test_a_task_sleeps_in_virtual_time_and_its_timeouts_strike() -> None:
    world = World()

    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await asyncio.sleep(3600)
        await asyncio.sleep(100)
        return asyncio.get_running_loop().time()

    assert world.process("p").run(main(), 1000) == 103


def test_what_does_not_end_in_its_time_is_stuck() -> None:
    process = World().process("p")
    with pytest.raises(Stuck, match="p did not end within 5"):
        process.run(asyncio.sleep(6), 5)


def test_a_paused_process_does_everything_later_and_a_dead_one_nothing() -> None:
    world, seen = World(), list[tuple[str, int]]()
    process = world.process("p")

    async def tick() -> None:
        while True:
            await asyncio.sleep(1)
            seen.append(("tick", world.now_us // 1_000_000))

    process.create_task(tick())
    world.at(1_500_000, process.pause)
    world.at(4_200_000, process.resume)
    world.at(6_500_000, process.kill)
    world.run_until(lambda: False, 20_000_000)
    assert seen == [("tick", 1), ("tick", 4), ("tick", 5), ("tick", 6)]
    world.dispose()


def test_an_exception_that_nobody_catches_ends_the_run_and_says_where() -> None:
    world = World()

    def broken() -> None:
        raise ZeroDivisionError("in the product")

    world.process("b0").call_later(1, broken)
    with pytest.raises(SimBug, match=r"b0: .*ZeroDivisionError\('in the product'\)"):
        world.run_until(lambda: False, 2_000_000)


def test_clocks_drift_and_jump_but_never_go_back_where_they_must_not() -> None:
    world = World()
    clock = SimClock(world, skew_us=-2_000, drift_ppm=100_000, start_us=5_000_000)
    right = SimClock(world)
    started_us = clock.monotonic_us()
    assert right.wall_ms() - clock.wall_ms() == 2
    world.run_until(lambda: False, 10_000_000)
    assert clock.monotonic_us() - started_us == 11_000_000
    clock.jump(-3_600_000_000)
    assert clock.monotonic_us() - started_us == 11_000_000
    assert right.wall_ms() - clock.wall_ms() > 3_500_000


@pytest.mark.parametrize("drift_ppm", [-100_000, -7, 0, 7, 100_000])
def test_a_timer_set_by_a_drifting_clock_never_strikes_too_early(drift_ppm: int) -> None:
    world = World()
    clock = SimClock(world, drift_ppm=drift_ppm, start_us=123_456_789)
    for wanted_ms in range(clock.monotonic_ms(), clock.monotonic_ms() + 5_000, 37):
        at_us = clock.world_us(wanted_ms)
        world.run_until(lambda: False, at_us)
        assert clock.monotonic_ms() >= wanted_ms
