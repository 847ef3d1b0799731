"""Where bits may turn over: only in files that nobody writes again, so that the bit can be turned back."""

from __future__ import annotations

from collections.abc import Callable

from zmqmq.testing.sim import Cluster, SimClient
from zmqmq.testing.sim.broker import State
from zmqmq.testing.sim.rot import sealed_segments

MakeCluster = Callable[..., Cluster]

VALUE = bytes(2048)
"""Two of them do not fit into one segment of the topic."""


async def write(mq: SimClient, count: int) -> None:
    await mq.admin.create_topic("t", exist_ok=True, config={"segment_bytes": "4096", "compression": "none"})
    for _ in range(count):
        await mq.produce("t", VALUE)


def started(make: MakeCluster) -> tuple[Cluster, SimClient]:
    cluster = make(seed=9)
    cluster.start()
    return cluster, cluster.client("c")


def segments_with_values(cluster: Cluster) -> list[str]:
    return [path for path, content in cluster.brokers[0].disk.files().items() if "/logs/" in path and VALUE in content]


def test_a_segment_that_recovery_writes_again_does_not_rot_though_a_newer_one_is_there(zmqmq_sim: MakeCluster) -> None:
    cluster, mq = started(zmqmq_sim)
    cluster.run(mq, write(mq, 4))
    assert len(segments_with_values(cluster)) == 4
    assert sealed_segments(cluster.brokers[0]) == []


def test_a_segment_before_the_end_that_the_checkpoint_tells_may_rot_and_stays_what_it_was(zmqmq_sim: MakeCluster) -> None:
    cluster, mq = started(zmqmq_sim)
    broker = cluster.brokers[0]
    cluster.run(mq, write(mq, 3))
    broker.stop()
    cluster.run_until(lambda: broker.state is State.DOWN, 15, "the broker stops")
    cluster.start()
    cluster.run(mq, write(mq, 2))
    sealed = sealed_segments(broker)
    before = [(path, bytes(node.content)) for path, node in sealed]
    assert [path for path, _ in before] == segments_with_values(cluster)[:2]
    broker.cut_power("all")
    cluster.start()
    assert [(path, bytes(node.content)) for path, node in sealed] == before
    assert all(broker.disk.tree.node(path) is node for path, node in sealed)
