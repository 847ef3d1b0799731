"""The brokers behind ``zmqmq_cluster``: lives, orders, and ways that are cut. The rest of the fixture's promises need several brokers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from zmqmq.broker import peers
from zmqmq.errors import InvalidConfig, TimeoutError, ZmqmqError
from zmqmq.replication.messages import Beat, StreamHeader
from zmqmq.testing.brokers import TestCluster
from zmqmq.testing.cut import Cut, CutMesh, CutStream
from zmqmq.testing.processes import BrokerProcess, NodePlan

pytest_plugins = ("pytester",)


@pytest.mark.parametrize("zmqmq_cluster", [1], indirect=True)
def test_a_broker_is_killed_paused_and_restarted_with_its_data(zmqmq_cluster: TestCluster) -> None:
    cluster = zmqmq_cluster
    assert (cluster.nodes, cluster.running, cluster.brokers) == ([0], [0], cluster.urls[0])
    with cluster.client(timeout=10) as client:
        client.admin.create_topic("t")
        client.produce("t", b"1")
        cluster.kill(0)
        assert cluster.running == []
        cluster.restart(0)
        cluster.wait_until_healthy()
        client.produce("t", b"2")
        cluster.pause(0)
        with pytest.raises(TimeoutError):
            client.produce("t", b"3", timeout=0.2)
        cluster.partition(0)
        cluster.resume(0)
        cluster.heal()
        client.produce("t", b"4")
        assert client.admin.offsets("t")[0].end in (3, 4)
        assert (cluster.leader("t"), cluster.controller()) == (0, 0)
    assert cluster.stop(0) == 0
    assert "cut" in cluster.log(0)


def test_only_nodes_that_there_are_can_be_in_a_partition_and_only_once(tmp_path: Any) -> None:
    cluster = TestCluster(tmp_path, 1)
    try:
        for groups in ((1,), ({0}, {0})):
            with pytest.raises(InvalidConfig, match="must be of different nodes of"):
                cluster.partition(*groups)  # type: ignore[arg-type]  # a set, or a node
        with pytest.raises(InvalidConfig, match="there is no broker 5"):
            cluster.kill(5)
    finally:
        cluster.close()


def test_a_broker_that_cannot_start_is_told_with_its_reason(tmp_path: Any) -> None:
    plan = NodePlan(0, tmp_path / "node-0", "tcp://192.0.2.1:1")
    plan.write_config([plan])
    process = BrokerProcess(plan, ["python", "-c", "import sys; print('Error: listen = nowhere'); sys.exit(3)"])
    process.start()
    with pytest.raises(ZmqmqError, match="node 0 ended with code 3: listen = nowhere") as caught:
        process.wait_started(time.monotonic() + 20)
    assert str(process.log) in caught.value.hint


# --- ways that are cut


class Way:
    """A mesh or a stream that gives what was put into it."""

    def __init__(self) -> None:
        self.inbox: list[list[Any]] = []
        self.sent: list[int] = []
        self.dead: list[int] = []
        self.dropped_count = 7

    def send(self, node: int, frames: Sequence[Any]) -> bool:
        self.sent.append(node)
        return True

    def receive(self, count_max: int, bytes_max: int) -> list[list[Any]]:
        found, self.inbox = self.inbox, []
        return found

    def take_refused(self) -> list[int]:
        return self.dead


def from_node(node: int) -> list[Any]:
    return list(peers.encode(peers.Envelope("c", node, "d", 1), Beat(node, [])))


def test_a_cut_mesh_loses_what_goes_to_and_comes_from_those_beyond() -> None:
    cut, way = Cut(), Way()
    mesh = CutMesh(way, cut)  # type: ignore[arg-type]  # as much of one as is used
    cut.nodes = frozenset({2})
    way.inbox = [from_node(2), from_node(3), [b"what", b"\xc1", b"it is"], [b"short"]]
    way.dead = [2, 3]
    assert (mesh.send(2, []), mesh.send(3, []), way.sent) == (False, True, [3])
    assert mesh.receive(9, 9) == [from_node(3), [b"what", b"\xc1", b"it is"], [b"short"]]
    assert mesh.take_refused() == [3]
    assert mesh.dropped_count == 7
    cut.nodes = frozenset()
    way.inbox = [from_node(2)]
    assert mesh.receive(9, 9) == [from_node(2)]


def test_a_cut_stream_loses_batches_and_beats_of_those_beyond() -> None:
    cut, way = Cut(), Way()
    stream = CutStream(way, cut)  # type: ignore[arg-type]  # as much of one as is used
    cut.nodes = frozenset({2})
    batch, beat, other = (
        [b"key", msgspec.msgpack.encode(header), b"x"] for header in (StreamHeader(2, 0, 0, 0, 0), Beat(2, []), StreamHeader(3, 0, 0, 0, 0))
    )
    way.inbox = [batch, beat, other]
    assert stream.receive(9, 9) == [other]


# --- in somebody's tests


def test_the_report_of_a_failed_test_shows_what_the_brokers_said(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("zmqmq_cluster", [1], indirect=True)
        def test_that_fails(zmqmq_cluster):
            assert zmqmq_cluster.running == [0, 1]
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines([r"-* broker 0 -*", r"cut \d+\.", r"started tcp://127\.0\.0\.1:\d+"], consecutive=False)
