"""Brokers that do not belong to a cluster of real ones: each ends with an error that says why, and what to do; the others go on."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from zmqmq.broker.config import BrokerConfig
from zmqmq.broker.server import Broker
from zmqmq.testing.brokers import TestCluster
from zmqmq.testing.processes import HOST, START_SECONDS_MAX, BrokerProcess, NodePlan, free_ports, serve_command, wait_until

DELIVERY_S = 20.0


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def cluster(directory: Path) -> Iterator[TestCluster]:
    cluster = TestCluster(directory)
    try:
        cluster.wait_until_healthy()
        yield cluster
    finally:
        cluster.close()


def peers_of(directory: Path) -> str:
    """As the cluster's brokers were told them."""
    lines = (directory / "node-0" / "broker.toml").read_text().splitlines()
    return next(line for line in lines if line.startswith("peers"))


def refused(path: Path, *lines: str) -> tuple[int | None, str]:
    """Exit code and last words of a broker with this configuration, which must end by itself."""
    path.mkdir(parents=True, exist_ok=True)
    plan = NodePlan(0, path, "")
    given = {line.partition(" ")[0] for line in lines}
    defaults = {"data": f'data = "{path}/data"', "listen": f'listen = ["tcp://{HOST}:0"]', "http": 'http = ""'}
    plan.config_file.write_text("\n".join([*lines, *(line for name, line in defaults.items() if name not in given)]) + "\n")
    process = BrokerProcess(plan, serve_command(plan))
    process.start()
    return ended(process)


def ended(process: BrokerProcess) -> tuple[int | None, str]:
    code = process.wait_ended(START_SECONDS_MAX)
    return code, process.said()


def still_serves(cluster: TestCluster) -> None:
    with cluster.client(timeout=DELIVERY_S) as client:
        assert client.admin.describe_cluster().controller in cluster.nodes
        assert not [broker for broker in client.admin.describe_cluster().brokers if broker.is_fenced]


def test_a_second_broker_of_one_node_id(cluster: TestCluster, directory: Path, tmp_path: Path) -> None:
    code, said = refused(tmp_path, "node_id = 1", peers_of(directory))
    assert code not in (0, None, -9), said
    assert "is taken by another program" in said
    still_serves(cluster)


def test_a_second_broker_in_one_directory(cluster: TestCluster, directory: Path, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    data = directory / "node-1" / "data"
    code, said = refused(tmp_path, "node_id = 1", peers_of(directory), f'control = "tcp://{HOST}:{port}"', f'data = "{data}"')
    assert code not in (0, None, -9), said
    assert "is open in another process" in said
    still_serves(cluster)


def test_a_wiped_directory_under_its_old_node_id_until_the_old_one_is_back(cluster: TestCluster, directory: Path, tmp_path: Path) -> None:
    cluster.kill(2)
    config = (directory / "node-2" / "broker.toml").read_text().splitlines()
    code, said = refused(tmp_path, *[line for line in config if not line.startswith("data")])
    assert code not in (0, None, -9), said
    assert "Error: node 2 of cluster" in said
    assert "bring the old data directory back" in said
    cluster.restart(2)
    cluster.wait_until_healthy()


def test_a_directory_of_another_cluster(cluster: TestCluster, directory: Path, tmp_path: Path) -> None:
    cluster.kill(2)
    other = Broker(BrokerConfig(data=str(tmp_path / "data"), node_id=2, listen=(f"tcp://{HOST}:0",), http=""))
    other.start()
    other.close()
    config = (directory / "node-2" / "broker.toml").read_text().splitlines()
    code, said = refused(tmp_path, *[line for line in config if not line.startswith("data")])
    assert code not in (0, None, -9), said
    assert "Error: this broker belongs to cluster" in said
    assert "correct --peers" in said
    cluster.restart(2)
    cluster.wait_until_healthy()


def test_brokers_that_were_told_different_peers(tmp_path: Path) -> None:
    ports = free_ports(3)
    entries = [f'"{node}@tcp://{HOST}:{port}"' for node, port in enumerate(ports)]
    processes = []
    for node, told in enumerate((entries[:2], entries)):
        path = tmp_path / str(node)
        path.mkdir()
        plan = NodePlan(node, path, "")
        plan.config_file.write_text(
            f'node_id = {node}\ndata = "{path}/data"\nlisten = ["tcp://{HOST}:0"]\nhttp = ""\npeers = [{", ".join(told)}]\n'
        )
        processes.append(BrokerProcess(plan, serve_command(plan)))
        processes[-1].start()
    try:
        wait_until(lambda: not all(process.is_running for process in processes), time.monotonic() + START_SECONDS_MAX, lambda: "all run")
        found = [ended(process) for process in processes if not process.is_running]
        waits = [process.said() for process in processes if process.is_running]
    finally:
        for process in processes:
            process.kill()
    for code, said in found:
        assert code not in (0, None, -9), said
        assert "Error: this broker was told the peers" in said
        assert "give all first brokers of a cluster the same --peers" in said
    assert all("waiting for the brokers" in said for said in waits)


@pytest.mark.parametrize(
    ("peers", "words"),
    [
        ("0@tcp://127.0.0.1:1,0@tcp://127.0.0.1:2", "'0@tcp://127.0.0.1:2' names a node or an address for the second time"),
        ("0@tcp://127.0.0.1:1,1@tcp://127.0.0.1:1", "'1@tcp://127.0.0.1:1' names a node or an address for the second time"),
    ],
)
def test_peers_that_cannot_be(tmp_path: Path, peers: str, words: str) -> None:
    command = [sys.executable, "-m", "zmqmq_cli", "serve", "--data", tmp_path, "--listen", f"tcp://{HOST}:0", "--http", "none"]
    done = subprocess.run(
        [str(word) for word in [*command, "--peers", peers]], capture_output=True, text=True, timeout=START_SECONDS_MAX, check=False
    )
    assert done.returncode not in (0, None)
    assert words in done.stderr
