"""Small stories in a simulated cluster: what the product does in one particular trouble."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from zmqmq.batch import HEADER_BYTES
from zmqmq.errors import CorruptLog, InvalidConfig, InvalidRecord, OutcomeUnknown
from zmqmq.store.verify import batches_of
from zmqmq.testing.sim import Cluster, MakeCluster, Nemesis, SimBug, SimClient, Stuck, UnknownMachine
from zmqmq.testing.sim.broker import State


async def write(mq: SimClient, topic: str, values: list[bytes]) -> None:
    await mq.admin.create_topic(topic, exist_ok=True)
    for value in values:
        await mq.produce(topic, value)


async def read(mq: SimClient, topic: str) -> list[bytes]:
    async with mq.reader(topic, timeout=2) as reader:
        return [message.value async for message in reader]


def restart(cluster: Cluster) -> None:
    broker = cluster.brokers[0]
    broker.stop()
    cluster.run_until(lambda: broker.state is State.DOWN, 15, "the broker stops")
    cluster.start()


def test_what_is_acknowledged_survives_a_power_cut(zmqmq_sim: MakeCluster) -> None:
    cluster = zmqmq_sim(seed=1)
    cluster.start()
    mq = cluster.client("c")
    cluster.run(mq, write(mq, "t", [b"1", b"2"]))
    cluster.brokers[0].cut_power("all")
    cluster.start()
    assert cluster.run(mq, read(mq, "t")) == [b"1", b"2"]


def test_a_call_to_a_machine_without_power_ends_at_its_deadline(zmqmq_sim: MakeCluster) -> None:
    cluster = zmqmq_sim(seed=2)
    cluster.start()
    mq = cluster.client("c", timeout=3)
    cluster.run(mq, write(mq, "t", [b"1"]))
    cluster.brokers[0].cut_power()
    began_us = cluster.world.now_us
    with pytest.raises(OutcomeUnknown, match="did not answer"):
        cluster.run(mq, mq.produce("t", b"2"))
    assert cluster.world.now_us - began_us < 3_500_000


@pytest.mark.parametrize("position", range(HEADER_BYTES))
def test_a_bit_of_a_batch_header_on_the_disk_harms_that_partition_only(zmqmq_sim: MakeCluster, position: int) -> None:
    cluster = zmqmq_sim(seed=3)
    cluster.start()
    mq = cluster.client("c")
    cluster.run(mq, write(mq, "damaged", [b"1", b"2", b"3"]))
    cluster.run(mq, write(mq, "well", [b"4"]))
    restart(cluster)
    disk = cluster.brokers[0].disk
    (path,) = [path for path, content in disk.files().items() if path.endswith(".log") and b"\xc4\x013" in content and "/logs/" in path]
    last = [batch.position for batch in batches_of(disk, path)][-1]  # the first two are well, so the broker sends what is behind them
    disk.flip(path, (last + position) * 8)
    with pytest.raises((CorruptLog, InvalidRecord)):
        cluster.run(mq, read(mq, "damaged"))
    assert cluster.run(mq, read(mq, "well")) == [b"4"]
    assert cluster.brokers[0].state is State.SERVING


def test_a_program_that_breaks_ends_the_run(zmqmq_sim: MakeCluster) -> None:
    cluster = zmqmq_sim(seed=4)
    cluster.start()

    async def broken(_mq: SimClient) -> None:
        raise ZeroDivisionError("in the program")

    cluster.spawn("service", broken)
    with pytest.raises(SimBug, match="the program of service broke: ZeroDivisionError"):
        cluster.run_for(1)


def test_healing_ends_what_the_nemesis_began_and_lets_it_begin_nothing(zmqmq_sim: MakeCluster) -> None:
    cluster = zmqmq_sim(seed=5, is_supervised=True)
    cluster.start()
    mq = cluster.client("c", timeout=60)
    cluster.run(mq, write(mq, "t", [b"1"]))
    Nemesis(cluster, 60, classes=("partition", "broker paused", "disk full", "segment rots", "disk dies"), every_s=1)
    cluster.run_for(12)
    assert cluster.chance.struck
    cluster.heal()
    struck = dict(cluster.chance.struck)
    cluster.run_until(cluster.is_serving, 15, "the broker serves")
    cluster.run_for(60)
    assert dict(cluster.chance.struck) == struck
    assert cluster.run(mq, read(mq, "t")) == [b"1"]
    with pytest.raises(InvalidConfig, match="healed"):
        Nemesis(cluster, 10)


def test_the_world_is_not_run_from_inside_itself(zmqmq_sim: MakeCluster) -> None:
    cluster = zmqmq_sim(seed=6)
    cluster.start()

    async def begin_again() -> None:
        cluster.start()

    with pytest.raises(Stuck, match="a loop runs already"):
        cluster.run(cluster.client("c"), begin_again())


WITH_NAMES: dict[str, Callable[[Cluster, str], object]] = {
    "block": lambda cluster, name: cluster.network.block("c", name),
    "unblock": lambda cluster, name: cluster.network.unblock(name, "c"),
    "part": lambda cluster, name: cluster.network.part("c", name),
    "join": lambda cluster, name: cluster.network.join("c", name),
    "clog": lambda cluster, name: cluster.network.clog(name, "c", 1),
    "lose": lambda cluster, name: cluster.network.lose("c", name),
    "break_links": lambda cluster, name: cluster.network.break_links(name),
    "kill_client": lambda cluster, name: cluster.kill_client(name),
    "clock": lambda cluster, name: cluster.clock(name),
    "spares": lambda cluster, name: Nemesis(cluster, 1, spares=(name,)),
}


@pytest.mark.parametrize("what", WITH_NAMES)
def test_a_machine_that_does_not_exist_is_refused_with_the_names_that_there_are(zmqmq_sim: MakeCluster, what: str) -> None:
    cluster = zmqmq_sim(seed=7)
    cluster.client("c")
    with pytest.raises(UnknownMachine, match=r"no machine 'broker0'\nthere are: b0, c"):
        WITH_NAMES[what](cluster, "broker0")


def test_a_task_that_breaks_and_that_nobody_awaits_ends_the_run(zmqmq_sim: MakeCluster) -> None:
    cluster = Cluster(seed=8)
    cluster.start()
    tasks = list[asyncio.Task[None]]()

    async def broken() -> None:
        raise ZeroDivisionError("beside the program")

    async def careless() -> None:
        tasks.append(asyncio.create_task(broken(), name="accounts"))
        await asyncio.sleep(1)

    cluster.run(cluster.client("service"), careless())
    with pytest.raises(SimBug, match="service: nobody awaited accounts, which broke: ZeroDivisionError"):
        cluster.close()


def test_a_task_that_breaks_and_is_awaited_later_is_no_bug_of_the_run() -> None:
    cluster = Cluster(seed=8)
    cluster.start()

    async def broken() -> None:
        raise ZeroDivisionError("noticed")

    async def careful() -> None:
        task = asyncio.create_task(broken())
        await asyncio.sleep(1)
        with contextlib.suppress(ZeroDivisionError):
            await task

    cluster.run(cluster.client("service"), careful())
    cluster.close()


def test_the_nemesis_never_strikes_the_client_that_drives_the_test_nor_those_to_spare(zmqmq_sim: MakeCluster) -> None:
    cluster = zmqmq_sim(seed=9)
    cluster.start()
    driver, spared, prey = (cluster.client(name) for name in ("driver", "spared", "prey"))
    Nemesis(cluster, 60, classes=("client killed",), every_s=0.5, spares=("spared",))
    cluster.run(driver, asyncio.sleep(60))
    assert [client.process.is_dead for client in (driver, spared, prey)] == [False, False, True]


def test_what_was_paused_twice_goes_on_when_both_pauses_are_over_or_when_the_cluster_heals(zmqmq_sim: MakeCluster) -> None:
    cluster = zmqmq_sim(seed=10)
    cluster.start()
    broker = cluster.brokers[0]
    broker.pause()
    broker.pause()
    broker.resume()
    assert broker.process.is_paused
    broker.resume()
    assert not broker.process.is_paused
    broker.pause()
    broker.pause()
    cluster.heal()
    assert not broker.process.is_paused


def test_clocks_are_right_and_steady_once_the_cluster_healed(zmqmq_sim: MakeCluster) -> None:
    cluster = zmqmq_sim(seed=12, has_faults=True)
    clocks = [cluster.client(f"c{number}").process.name for number in range(8)]
    cluster.start()
    cluster.run_for(30)
    wrong = [cluster.clock(name).wall_ms() for name in clocks]
    before = [cluster.clock(name).monotonic_us() for name in clocks]
    assert len(set(wrong)) > 1
    cluster.heal()
    assert [cluster.clock(name).monotonic_us() for name in clocks] == before
    cluster.run_for(30)
    assert len({cluster.clock(name).wall_ms() for name in clocks}) == 1
    assert [cluster.clock(name).monotonic_us() - then for name, then in zip(clocks, before, strict=True)] == [30_000_000] * len(clocks)
