"""Three real brokers, broken on purpose: a client goes on and loses nothing, and operators see it."""

from __future__ import annotations

import subprocess
import sys

from zmqmq import Client
from zmqmq.testing.brokers import TestCluster

DELIVERY_S = 20


def produced(client: Client, value: bytes) -> None:
    client.produce("orders", value, timeout=DELIVERY_S)


def read(client: Client) -> list[bytes]:
    with client.reader("orders", timeout=2) as reader:
        return [message.value for message in reader]


def test_a_client_goes_on_when_its_leader_is_killed_cut_off_or_stopped(zmqmq_cluster: TestCluster) -> None:
    cluster = zmqmq_cluster
    with cluster.client(timeout=DELIVERY_S) as client:
        client.admin.create_topic("orders", replication_factor=3)
        produced(client, b"first")

        leader = cluster.leader("orders")
        cluster.kill(leader)
        produced(client, b"while one is dead")
        assert cluster.leader("orders") != leader
        cluster.restart(leader)
        cluster.wait_until_healthy()

        cut_off = cluster.leader("orders")
        cluster.partition(cut_off)
        produced(client, b"while one is cut off")
        cluster.heal()
        cluster.wait_until_healthy()

        paused = cluster.leader("orders")
        cluster.pause(paused)
        produced(client, b"while one is stopped")
        cluster.resume(paused)
        cluster.wait_until_healthy()
        assert read(client) == [b"first", b"while one is dead", b"while one is cut off", b"while one is stopped"]
        kinds = {event.kind for event in client.admin.events(node=next(n for n in cluster.nodes if n != leader)).events}
    assert {"broker-fenced", "broker-registered", "leader-change", "isr-shrink", "isr-expand"} <= kinds
    done = subprocess.run(
        [sys.executable, "-m", "zmqmq_cli", "-b", cluster.brokers, "cluster", "health"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "healthy  3 brokers, 1 partitions\n"), done.stderr


def test_no_write_fails_while_one_broker_after_the_other_is_restarted(zmqmq_cluster: TestCluster) -> None:
    cluster = zmqmq_cluster
    values = [f"{node} {when}".encode() for node in cluster.nodes for when in ("stopped", "back")]
    with cluster.client(timeout=DELIVERY_S) as client:
        client.admin.create_topic("orders", replication_factor=3)
        for node in cluster.nodes:
            assert cluster.stop(node) == 0
            produced(client, f"{node} stopped".encode())
            cluster.restart(node)
            cluster.wait_until_healthy()
            produced(client, f"{node} back".encode())
        client.admin.balance_leaders()
        assert read(client) == values
