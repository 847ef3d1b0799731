"""Small stories in a simulated cluster: what the product does in one particular trouble."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from zmqmq.batch import HEADER_BYTES
from zmqmq.errors import CorruptLog, InvalidRecord, OutcomeUnknown
from zmqmq.store.verify import batches_of
from zmqmq.testing.sim import Cluster, SimClient
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
