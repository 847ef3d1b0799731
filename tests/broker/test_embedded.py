"""The broker inside the caller's process, and the fixture made of it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import zmqmq
from zmqmq.errors import ClosedError, DataDirLocked, UnknownTopic
from zmqmq.testing.broker import TestBroker


def test_an_embedded_broker_is_a_client_with_a_url(tmp_path: Path) -> None:
    with zmqmq.open(tmp_path / "data") as mq:
        mq.admin.create_topic("orders")
        assert mq.produce("orders", b"1").synced == 1
        with zmqmq.Client(mq.url) as other, other.reader("orders", stop=zmqmq.Offset.END) as reader:
            assert [message.value for message in reader] == [b"1"]
        with pytest.raises(DataDirLocked):
            zmqmq.open(tmp_path / "data")
    with zmqmq.open(tmp_path / "data", listen="tcp://127.0.0.1:0") as mq:
        assert mq.url.startswith("tcp://127.0.0.1:")
        with zmqmq.Client(mq.url) as other:
            assert other.produce("orders", b"2").leader_epoch == 1


def test_two_embedded_brokers_live_side_by_side(tmp_path: Path) -> None:
    with zmqmq.open(tmp_path / "a") as a, zmqmq.open(tmp_path / "b") as b:
        a.admin.create_topic("t")
        assert a.produce("t", b"1").offset == 0
        with pytest.raises(UnknownTopic):
            b.produce("t", b"1")


def test_a_forked_child_gets_an_error_and_leaves_the_parent_alone(tmp_path: Path) -> None:
    with zmqmq.open(tmp_path / "data") as mq:
        mq.admin.create_topic("t")
        child = os.fork()
        if child == 0:
            outcome = 1
            try:
                mq.produce("t", b"from the child")
            except ClosedError:
                outcome = 0
            finally:
                os._exit(outcome)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert mq.produce("t", b"from the parent").offset == 0
    with zmqmq.open(tmp_path / "data"):
        pass


def test_a_child_that_lives_on_does_not_keep_the_directory_locked(tmp_path: Path) -> None:
    mq = zmqmq.open(tmp_path / "data")
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write_end)
        os.read(read_end, 1)  # until the parent has opened the directory again
        os._exit(0)
    mq.close()
    zmqmq.open(tmp_path / "data").close()
    os.close(write_end)
    os.close(read_end)
    os.waitpid(child, 0)


def test_the_fixture_is_a_real_broker_that_restarts_at_the_same_address(tmp_path: Path) -> None:
    started = time.perf_counter()
    broker = TestBroker(tmp_path / "broker")
    assert time.perf_counter() - started < 0.1
    url = broker.url
    with zmqmq.Client(url) as mq:
        mq.admin.create_topic("orders")
        mq.produce("orders", b"1")
        broker.restart()
        assert broker.url == url
        assert mq.produce("orders", b"2", timeout=10).offset == 1
        assert [message.value for message in broker.messages("orders")] == [b"1", b"2"]
    broker.close()
