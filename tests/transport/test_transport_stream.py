"""The stream on real sockets: one subscriber that stopped costs little, and nobody else."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from peer_process import PeerProcess, peer_process

from zmqmq.errors import AddressInUse
from zmqmq.ports import Buffer
from zmqmq.transport.router import RouterTransport
from zmqmq.transport.sockets import QUEUE_MESSAGES_MAX
from zmqmq.transport.stream import ZmqStream
from zmqmq.transport.wakeup import Wakeup

WAIT_S = 20.0
LOOPBACK = "tcp://127.0.0.1:0"
KEY = b"\x01" + bytes(20)


@pytest.fixture
def stream() -> Iterator[ZmqStream]:
    made = ZmqStream()
    yield made
    made.close()


@pytest.fixture
def follower(stream: ZmqStream) -> Iterator[ZmqStream]:
    made = ZmqStream()
    made.subscribe(1, KEY)
    made.follow({1: stream.bind(LOOPBACK)})
    until(stream, lambda: stream.publish(KEY, [b"first"]) and made.receive(100, 1 << 20))
    yield made
    made.close()


def until(stream: ZmqStream, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    poller = select.poll()
    poller.register(stream.fileno(), select.POLLIN)
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        poller.poll(5)


def subscribed(stream: ZmqStream, peer: PeerProcess) -> None:
    """``peer`` has its first message."""
    deadline = time.monotonic() + WAIT_S
    poller = select.poll()
    poller.register(peer.output, select.POLLIN)
    while not poller.poll(5):
        assert time.monotonic() < deadline
        stream.publish(KEY, [b"hello"])
    assert peer.read() == "received"


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_stopped_subscriber_costs_bounded_memory_and_no_other_subscriber(stream: ZmqStream) -> None:
    address = stream.bind(LOOPBACK)
    with peer_process("stream", address, KEY.hex()) as stopped, peer_process("stream", address, KEY.hex()) as other:
        subscribed(stream, stopped)
        subscribed(stream, other)
        stopped.pause()
        before, greatest = rss_bytes(), 0
        size = 256 << 10
        began = time.monotonic()
        for _ in range(1000):
            assert stream.publish(KEY, [os.urandom(16) + bytes(size)])
            greatest = max(greatest, rss_bytes())
        assert time.monotonic() - began < WAIT_S
        assert greatest - before < 2 * QUEUE_MESSAGES_MAX * size + (32 << 20)
        told: list[str] = []
        poller = select.poll()
        poller.register(other.output, select.POLLIN)

        def has_told() -> bool:
            stream.publish(KEY, [b"tell"])
            if poller.poll(5):
                told.append(other.read())
            return bool(told)

        until(stream, has_told)
        assert told == ["received"]


def test_messages_of_one_key_come_in_order(stream: ZmqStream, follower: ZmqStream) -> None:
    seen: list[bytes] = []
    for number in range(QUEUE_MESSAGES_MAX // 2):
        stream.publish(KEY, [b"%d" % number, bytes(number * 2000)])
    until(follower, lambda: seen.extend(bytes(frames[1]) for frames in follower.receive(100, 1 << 30)) or seen[-1:] == [b"31"])
    assert [one for one in seen if one != b"first"] == [b"%d" % number for number in range(QUEUE_MESSAGES_MAX // 2)]


def test_the_wait_of_the_router_ends_for_a_stream(stream: ZmqStream, follower: ZmqStream) -> None:
    wakeup = Wakeup()
    router = RouterTransport(wakeup)
    router.watch(follower)
    try:
        for number in range(20):
            stream.publish(KEY, [b"one"])
            stream.publish(KEY, [b"two"])
            began = time.monotonic()
            for _ in range(2):  # taken one by one, with a wait before each
                received: list[list[Buffer]] = []
                while not received:
                    router.wait(int(WAIT_S * 1000))
                    received = follower.receive(1, 1 << 20)
            assert time.monotonic() - began < WAIT_S / 2, f"message {number} woke nobody"
    finally:
        router.close()
        wakeup.close()


def test_receiving_takes_from_all_in_turn_and_stops_at_its_bounds(stream: ZmqStream, follower: ZmqStream) -> None:
    second = ZmqStream()
    try:
        follower.subscribe(2, KEY)
        follower.follow({1: stream.bind(LOOPBACK), 2: second.bind(LOOPBACK)})
        sources: set[bytes] = set()

        def has_both() -> bool:
            for publisher, name in ((stream, b"one"), (second, b"two")):
                publisher.publish(KEY, [name])
            taken = follower.receive(2, 1 << 20)
            sources.update(bytes(frames[1]) for frames in taken)
            assert len(taken) <= 2
            return sources >= {b"one", b"two"}

        until(follower, has_both)
    finally:
        second.close()


def test_an_address_that_is_taken_is_a_named_error(stream: ZmqStream) -> None:
    address = stream.bind(LOOPBACK)
    other = ZmqStream()
    with pytest.raises(AddressInUse):
        other.bind(address)
    other.close()


def test_a_publisher_with_a_bad_address_is_not_followed(stream: ZmqStream, caplog: pytest.LogCaptureFixture) -> None:
    stream.subscribe(2, KEY)
    stream.follow({2: "nonsense://x"})
    assert "broker 2 cannot be followed at 'nonsense://x'" in caplog.text
    assert stream.receive(10, 1 << 20) == []
