"""The mesh on real sockets, against real processes that die or stop, and against strangers."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from peer_process import PeerProcess, peer_process

from zmqmq.errors import AddressInUse, InvalidConfig
from zmqmq.model import FRAME_BYTES_MAX
from zmqmq.ports import Buffer
from zmqmq.transport import mesh as mesh_module
from zmqmq.transport.evidence import Place, place_of, place_of_peer
from zmqmq.transport.mesh import PEER_BYTES_MAX, ZmqMesh
from zmqmq.transport.router import RouterTransport
from zmqmq.transport.sockets import MESH_QUEUE_MESSAGES_MAX
from zmqmq.transport.wakeup import Wakeup

WAIT_S = 20.0
EVIDENCE_S_MAX = 1.0
"""Some milliseconds where nothing else runs; the machine of the tests is shared."""
CLOSE_S_MAX = 5.0
LOOPBACK = "tcp://127.0.0.1:0"


@pytest.fixture
def mesh() -> Iterator[ZmqMesh]:
    made = ZmqMesh()
    yield made
    made.close()


def until(mesh: ZmqMesh, condition: Callable[[], object], timeout_s: float = WAIT_S) -> bool:
    deadline = time.monotonic() + timeout_s
    poller = select.poll()
    poller.register(mesh.fileno(), select.POLLIN)
    while not condition():
        if time.monotonic() > deadline:
            return False
        ms_max = mesh.before_wait()
        poller.poll(20 if ms_max is None else min(20, ms_max))
    return True


def connect(mesh: ZmqMesh, peer: PeerProcess) -> None:
    mesh.set_peers({2: peer.line})
    assert until(mesh, lambda: mesh.send(2, [b"hello"]))
    assert peer.read() == "received"


@pytest.mark.parametrize("kind", ["tcp", "ipc", "name"])
def test_a_killed_process_is_known_to_be_dead_at_once(mesh: ZmqMesh, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "name":  # as if the address were a name, which is not looked up
        monkeypatch.setattr(mesh_module, "place_of", lambda _address: None)
    with peer_process("mesh", f"ipc://{tmp_path}/mesh" if kind == "ipc" else LOOPBACK) as peer:
        connect(mesh, peer)
        assert mesh.take_refused() == []
        refused: list[int] = []
        peer.kill()
        began = time.monotonic()
        assert until(mesh, lambda: refused.extend(mesh.take_refused()) or refused)
        assert time.monotonic() - began < EVIDENCE_S_MAX
        assert refused == [2]


def test_a_stopped_process_is_bounded_and_gives_no_evidence(mesh: ZmqMesh) -> None:
    with peer_process("mesh", LOOPBACK) as peer:
        connect(mesh, peer)
        peer.pause()
        payload = bytes(1 << 20)
        taken = 0
        while mesh.send(2, [payload]):
            taken += 1
            assert taken < 200
        assert taken * len(payload) >= PEER_BYTES_MAX
        assert not until(mesh, mesh.take_refused, 4.5)  # longer than the heartbeat's patience: the connection ended
        peer.resume()
        assert until(mesh, lambda: mesh.send(2, [b"tell"]))
        assert peer.read() == "received"


def test_small_messages_to_a_stopped_process_are_bounded_in_number(mesh: ZmqMesh) -> None:
    with peer_process("mesh", LOOPBACK) as peer:
        connect(mesh, peer)
        peer.pause()
        payload = bytes(60_000)  # neither tracked nor small enough to hide in the kernel
        taken = 0
        while mesh.send(2, [payload]):
            taken += 1
            assert taken < 10 * MESH_QUEUE_MESSAGES_MAX


def test_a_frame_that_would_end_the_connection_is_not_sent(mesh: ZmqMesh) -> None:
    with peer_process("mesh", LOOPBACK) as peer:
        connect(mesh, peer)
        assert not mesh.send(2, [bytes(FRAME_BYTES_MAX + 1)])
        assert mesh.send(2, [bytes(FRAME_BYTES_MAX), b"tell"])
        assert peer.read() == "received"


def test_the_wait_of_the_router_ends_for_a_mesh(mesh: ZmqMesh) -> None:
    wakeup = Wakeup()
    router = RouterTransport(wakeup)
    router.watch(mesh)
    other = ZmqMesh()
    try:
        other.set_peers({1: mesh.bind(LOOPBACK)})
        assert until(other, lambda: other.send(1, [b"first"]))
        assert until(mesh, lambda: mesh.receive(1, 1 << 20))
        for number in range(20):
            assert other.send(1, [b"one"])
            assert other.send(1, [b"two"])
            began = time.monotonic()
            for _ in range(2):  # taken one by one, with a wait before each
                received: list[list[Buffer]] = []
                while not received:
                    router.wait(int(WAIT_S * 1000))
                    received = mesh.receive(1, 1 << 20)
            assert time.monotonic() - began < WAIT_S / 2, f"message {number} woke nobody"
    finally:
        other.close()
        router.close()
        wakeup.close()


def test_strangers_disturb_nobody(mesh: ZmqMesh) -> None:
    address = mesh.bind(LOOPBACK)
    host, port = address.removeprefix("tcp://").split(":")
    strangers = [socket.create_connection((host, int(port))) for _ in range(5)]
    other = ZmqMesh()
    try:
        for number, stranger in enumerate(strangers):
            stranger.sendall([b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, bytes(1000), b"\xff\0\0\0\0\0\0\0\1\x7f\3", b"x"][number])
        other.set_peers({1: address})
        assert until(other, lambda: other.send(1, [b"mine"]))
        received: list[list[bytes]] = []
        assert until(mesh, lambda: received.extend([[bytes(f) for f in frames] for frames in mesh.receive(9, 1 << 20)]) or received)
        assert received == [[b"mine"]]
    finally:
        other.close()
        for stranger in strangers:
            stranger.close()


def test_addresses_that_cannot_be_had_are_named_errors(mesh: ZmqMesh) -> None:
    address = mesh.bind(LOOPBACK)
    other = ZmqMesh()
    with pytest.raises(AddressInUse):
        other.bind(address)
    with pytest.raises(InvalidConfig):
        other.bind("tcp://nonsense")
    other.close()


def test_a_peer_with_a_bad_address_is_one_that_is_not_reached(mesh: ZmqMesh, caplog: pytest.LogCaptureFixture) -> None:
    mesh.set_peers({2: "nonsense://x", 3: LOOPBACK})
    assert not mesh.send(2, [b"x"])
    assert "broker 2 cannot be reached at 'nonsense://x'" in caplog.text
    assert mesh.take_refused() == []


def test_closing_is_quick_whatever_waits(mesh: ZmqMesh) -> None:
    with peer_process("mesh", LOOPBACK) as peer:
        connect(mesh, peer)
        peer.pause()
        while mesh.send(2, [bytes(1 << 20)]):
            pass
        began = time.monotonic()
        mesh.close()
        assert time.monotonic() - began < CLOSE_S_MAX


def test_places_are_numeric_or_unknown() -> None:
    assert place_of("tcp://127.0.0.1:5570") == Place(socket.AF_INET, ("127.0.0.1", 5570))
    assert place_of("tcp://[::1]:5570") == Place(socket.AF_INET6, ("::1", 5570))
    assert place_of("ipc:///a/b") == Place(socket.AF_UNIX, "/a/b")
    assert place_of("ipc://@b") == Place(socket.AF_UNIX, "\0b")
    for unknown in ("tcp://broker-1:5570", "tcp://127.0.0.1:*", "inproc://x", "tcp://", "127.0.0.1:5570"):
        assert place_of(unknown) is None


def test_the_other_end_of_a_connection_has_to_fit_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            fd = client.fileno()
            assert place_of_peer(fd, f"tcp://broker-1:{port}") == Place(socket.AF_INET, ("127.0.0.1", port))
            assert place_of_peer(fd, f"tcp://broker-1:{port}0") is None
    assert place_of_peer(fd, f"tcp://broker-1:{port}") is None
