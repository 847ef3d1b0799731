"""The bounds that ZeroMQ does not have, seen from the router's own side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import zmq
from bad_world import frame, peer, wait_for

from zmqmq.transport import guard
from zmqmq.transport.router import RouterTransport
from zmqmq.transport.sockets import new_context, new_dealer
from zmqmq.transport.wakeup import Wakeup


class Router:
    """A router that is polled while a test waits."""

    def __init__(self, connections_max: int) -> None:
        self.transport = RouterTransport(Wakeup(), connections_max=connections_max)
        self.port = int(self.transport.bind("tcp://127.0.0.1:0").rpartition(":")[2])
        self.messages: list[list[int]] = []

    def turn_until(self, condition: Callable[[], object], what: str) -> None:
        def turned() -> object:
            self.transport.wait(5)
            self.messages += [[len(part) for part in frames] for _, frames in self.transport.receive(100, 64 << 20)]
            return condition()

        wait_for(turned, what)


@pytest.fixture
def router() -> Iterator[Router]:
    made = Router(5)
    yield made
    made.transport.close()


def test_connections_beyond_the_bound_are_cut_and_those_that_said_something_stay(router: Router) -> None:
    known = [peer(router.port, frame(b"hello")) for _ in range(3)]
    router.turn_until(lambda: len(router.messages) == 3, "three are known")
    silent = [peer(router.port) for _ in range(10)]
    router.turn_until(lambda: router.transport.cut_count >= 8, "eight are cut")
    for made in known:
        made.sendall(frame(b"again"))
    router.turn_until(lambda: len(router.messages) == 6, "the three are heard again")
    assert router.transport.connection_count == 5
    for made in (*known, *silent):
        made.close()
    router.turn_until(lambda: router.transport.connection_count == 0, "all are gone")


def test_a_connection_that_says_nothing_in_time_is_cut(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router.transport._guard, "_stranger_s_max", 0.1)
    with peer(router.port) as silent:
        router.turn_until(lambda: router.transport.cut_count == 1, "it is cut")
        assert b"" in iter(lambda: silent.recv(1000), None)


def test_who_sends_much_and_finishes_its_messages_is_never_cut(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """However far it is ahead: the kernel may hold more than the bound."""
    monkeypatch.setattr(guard, "UNFINISHED_BYTES_MAX", 1 << 20)
    context = new_context()
    dealer = new_dealer(context)
    dealer.setsockopt(zmq.SNDTIMEO, 20_000)
    dealer.connect(f"tcp://127.0.0.1:{router.port}")

    def flood() -> None:
        for _ in range(300):
            dealer.send_multipart([b"x" * 400_000, b"y" * 400_000])

    thread = threading.Thread(target=flood)
    thread.start()
    router.turn_until(lambda: len(router.messages) == 300, "everything came")
    thread.join()
    assert router.transport.cut_count == 0
    dealer.close()
    context.term()


def test_a_message_without_end_is_cut(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "UNFINISHED_BYTES_MAX", 1 << 20)
    with peer(router.port, frame(b"hello")) as endless:
        router.turn_until(lambda: router.messages, "it is known")
        endless.sendall(frame(bytes(2 << 20), more=True))
        router.turn_until(lambda: router.transport.cut_count == 1, "it is cut")


def test_peers_in_this_process_have_no_descriptor_and_are_served() -> None:
    transport = RouterTransport(Wakeup(), connections_max=1)
    transport.bind("inproc://guarded")
    dealers = [new_dealer(transport._context) for _ in range(3)]
    for dealer in dealers:
        dealer.connect("inproc://guarded")
        dealer.send(b"hello")
    heard = 0
    while heard < 3:
        transport.wait(100)
        heard += len(transport.receive(10, 64 << 20))
    assert (transport.connection_count, transport.cut_count) == (0, 0)
    for dealer in dealers:
        dealer.close()
    transport.close()
