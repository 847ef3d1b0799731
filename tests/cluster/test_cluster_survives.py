"""What clients of three real brokers may rely on when processes die: nothing acknowledged is lost, nothing is read twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from zmqmq import Client, Offset
from zmqmq.errors import LogTruncated
from zmqmq.testing.brokers import TestCluster

PATIENCE_S = 20.0
RECORDS = 30


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    """One for all tests here; each leaves it healthy, and has topics of its own."""
    cluster = TestCluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.wait_until_healthy()
        yield cluster
    finally:
        cluster.close()


def values(client: Client, topic: str) -> list[bytes]:
    with client.reader(topic, start=Offset.START, stop=Offset.END, timeout=PATIENCE_S) as reader:
        return [message.value for message in reader]


def test_what_was_acknowledged_is_there_after_all_brokers_were_killed_at_once(cluster: TestCluster) -> None:
    with cluster.client(timeout=PATIENCE_S) as client:
        client.admin.create_topic("kept", replication_factor=3)
        sent = [b"%d" % number for number in range(RECORDS)]
        with client.producer("kept") as producer:
            handle = producer.send_many(sent)
            handle.result(PATIENCE_S)
        for node in cluster.nodes:
            cluster.kill(node)
        for node in cluster.nodes:
            cluster.restart(node)
        client.produce("kept", b"afterwards")
        cluster.wait_until_healthy()
        assert values(client, "kept") == [*sent, b"afterwards"]


def test_a_client_that_was_told_one_address_goes_on_when_that_broker_dies(cluster: TestCluster) -> None:
    with cluster.client(timeout=PATIENCE_S) as client:
        client.admin.create_topic("told", replication_factor=3)
    known = cluster.leader("told")
    with Client(cluster.urls[known], timeout=PATIENCE_S) as client:
        client.produce("told", b"before")
        cluster.kill(known)
        client.produce("told", b"after")
        assert values(client, "told") == [b"before", b"after"]
        cluster.restart(known)
        cluster.wait_until_healthy()


def test_a_reader_gets_every_record_once_and_in_order_while_leaders_change(cluster: TestCluster) -> None:
    sent = [b"%d" % number for number in range(RECORDS)]
    found: list[bytes] = []

    def read() -> None:
        with cluster.client(timeout=PATIENCE_S) as client, client.reader("followed") as reader:
            deadline = time.monotonic() + 2 * PATIENCE_S
            while len(found) < len(sent) and time.monotonic() < deadline:
                found.extend(message.value for message in reader.batch(timeout=0.2))

    with cluster.client(timeout=PATIENCE_S) as client:
        client.admin.create_topic("followed", replication_factor=3)
        thread = threading.Thread(target=read)
        thread.start()
        leader = -1
        for number, value in enumerate(sent):
            if number == RECORDS // 3:
                leader = cluster.leader("followed")
                cluster.kill(leader)
            if number == 2 * RECORDS // 3:
                cluster.restart(leader)
                cluster.wait_until_healthy()
                client.admin.balance_leaders()
            client.produce("followed", value)
        thread.join(2 * PATIENCE_S)
    assert found == sent


def test_no_write_fails_when_a_leader_is_asked_to_stop(cluster: TestCluster) -> None:
    with cluster.client(timeout=PATIENCE_S) as client:
        client.admin.create_topic("drained", replication_factor=3)
        leader = cluster.leader("drained")
        codes: list[int] = []
        thread = threading.Thread(target=lambda: codes.append(cluster.stop(leader)))
        thread.start()
        sent = []
        while thread.is_alive() or len(sent) < RECORDS:
            sent.append(b"%d" % len(sent))
            client.produce("drained", sent[-1])
        thread.join(PATIENCE_S)
        assert codes == [0]
        assert values(client, "drained") == sent
        cluster.restart(leader)
        cluster.wait_until_healthy()


def test_a_reader_is_told_when_records_that_it_read_are_gone(cluster: TestCluster) -> None:
    settings = {"min_insync_replicas": "1", "unclean_election": "true"}
    with cluster.client(timeout=PATIENCE_S) as client:
        client.admin.create_topic("risky", replication_factor=2, config=settings)
        client.produce("risky", b"common")
        partition = client.admin.describe_topic("risky").partitions[0]
        leader = partition.leader
        behind = next(node for node in partition.replicas if node != leader)
        cluster.kill(behind)
        with client.reader("risky") as reader:
            for number in range(3):
                client.produce("risky", b"alone %d" % number, acks=1)
            seen = [next(iter(reader)).value for _ in range(4)]
            assert seen[-1] == b"alone 2"
            cluster.kill(leader)
            cluster.restart(behind)
            client.produce("risky", b"another history")
            with pytest.raises(LogTruncated) as caught:
                _read_until_it_raises(reader)
            assert caught.value.log_end == 1
        cluster.restart(leader)
        cluster.wait_until_healthy()


def _read_until_it_raises(reader: object) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        reader.batch(timeout=0.2)  # type: ignore[attr-defined]
