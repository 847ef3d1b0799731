"""Small stories in a simulated cluster: what the product does in one particular trouble."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from zmqmq.batch import HEADER_BYTES
from zmqmq.errors import CorruptLog, InvalidConfig, InvalidRecord, OutcomeUnknown
from zmqmq.store.verify import batches_of
from zmqmq.testing.sim import Cluster, Nemesis, SimBug, SimClient, Stuck
from zmqmq.testing.sim.broker import State

MakeCluster = Callable[..., Cluster]


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
