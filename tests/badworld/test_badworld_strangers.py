"""Whatever reaches the port: the broker answers, refuses or drops it, and honest clients notice nothing."""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from bad_world import GREETING, BrokerProcess, command, frame, peer, ready, stranger, unharmed, wait_for

from zmqmq import Client, errors
from zmqmq.model import FRAME_BYTES_MAX
from zmqmq.wire import framing
from zmqmq.wire.requests import Hello


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    made = BrokerProcess(tmp_path_factory.mktemp("strangers"))
    yield made
    made.close()


HELLO = b"".join(frame(bytes(part), more=more) for part, more in zip(framing.encode(Hello(1, 1000)), (True, False), strict=True))

NOISE = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "http_post": b"POST /topics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 100_000,
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(512),
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "redis": b"*1\r\n$4\r\nPING\r\n",
    "kafka": struct.pack(">ihhih", 35, 18, 3, 1, -1) + b"x" * 25,
    "amqp": b"AMQP\x00\x00\x09\x01",
    "random": random.Random(1).randbytes(1 << 20),
    "zeros": bytes(1 << 20),
    "ones": b"\xff" * (1 << 20),
    "half_greeting": GREETING[:11],
    "zmtp1": b"\x01\x00" + b"\x05\x00hell",
    "zmtp2": b"\xff" + bytes(8) + b"\x7f\x01\x05" + b"\x00\x00",
    "zmtp_from_the_future": GREETING[:10] + b"\x09\x09" + GREETING[12:],
    "unknown_mechanism": GREETING[:12] + b"KERBEROS".ljust(20, b"\0") + bytes(32) + ready(),
    "curve_where_there_is_none": GREETING[:12] + b"CURVE".ljust(20, b"\0") + bytes(32),
    "no_ready": GREETING + frame(b"hello"),
    "ready_with_huge_metadata": GREETING + ready(b"DEALER", *[(b"X-%d" % i, bytes(10_000)) for i in range(100)]),
    "ready_with_lying_metadata": GREETING + command(b"READY", b"\x0bSocket-Type\xff\xff\xff\xffDEALER"),
    "wrong_socket_type": GREETING + ready(b"PUB"),
    "no_such_socket_type": GREETING + ready(b"\x00" * 300),
    "stolen_identity": GREETING + ready(b"DEALER", (b"Identity", b"\x00" * 5)) + HELLO,
    "request_before_ready": GREETING + ready() + HELLO,
}

WORDS = {
    "endless_subscriptions": command(b"SUBSCRIBE", b"x" * 200) * 5_000,
    "endless_pings": command(b"PING", b"\x00\x00ctx") * 5_000,
    "ping_with_huge_context": command(b"PING", b"\x00\x00" + bytes(100_000)),
    "unknown_commands": command(b"EXPLODE", bytes(200)) * 5_000,
    "second_ready": ready() * 100,
    "frame_of_2_to_the_63": frame(b"x", says_bytes=(1 << 63) - 1),
    "frame_of_2_to_the_64": frame(b"x", says_bytes=(1 << 64) - 1),
    "frame_over_the_limit": frame(bytes(FRAME_BYTES_MAX + 1)),
    "frame_cut": frame(b"x", says_bytes=FRAME_BYTES_MAX),
    "request_cut": HELLO[:-2],
    "many_frames": frame(bytes(100), more=True) * 20_000,
    "empty_frames": frame(b"") * 20_000,
    "many_empty_frames": frame(b"", more=True) * 100_000,
    "endless_hello": HELLO * 5_000,
    "garbage": random.Random(2).randbytes(1 << 20),
}


def test_no_noise_on_the_port_harms_anybody(broker: BrokerProcess) -> None:
    """All of it at once, each three times: one that breaks off at once, two that stay."""
    with ExitStack() as stay, unharmed(broker):
        for speak, sentences in ((stranger, NOISE), (peer, WORDS)):
            for data in sentences.values():
                speak(broker.port, data).close()
                for _ in range(2):
                    stay.enter_context(speak(broker.port, data))


def test_mutated_conversations_harm_nobody(broker: BrokerProcess) -> None:
    chance = random.Random(7)
    whole = GREETING + ready() + HELLO * 3
    with unharmed(broker):
        for _ in range(400):
            data = bytearray(whole)
            for _ in range(chance.randint(1, 8)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            stranger(broker.port, bytes(data[: chance.randrange(len(data))])).close()
        for _ in range(200):
            data = bytearray(HELLO * 3)
            for _ in range(chance.randint(1, 4)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            peer(broker.port, bytes(data)).close()


def test_connections_that_say_nothing_are_closed_after_the_handshake_time(broker: BrokerProcess) -> None:
    with ExitStack() as stay, unharmed(broker):
        silent = [stay.enter_context(stranger(broker.port)) for _ in range(200)]
        dripping = stay.enter_context(stranger(broker.port, GREETING[:11]))
        for made in (*silent, dripping):
            made.settimeout(10)
            while made.recv(1 << 16):
                pass


def test_frames_announced_and_never_sent_cost_no_memory(broker: BrokerProcess) -> None:
    with ExitStack() as stay, unharmed(broker):
        for _ in range(300):
            stay.enter_context(peer(broker.port, HELLO + frame(b"x", says_bytes=FRAME_BYTES_MAX)))


def test_a_message_without_end_is_cut_off(broker: BrokerProcess) -> None:
    """ZeroMQ bounds a frame, not how many of them make a message; all of them would be kept until the last one came."""
    chunk = frame(bytes(1 << 20), more=True)
    with unharmed(broker):
        with peer(broker.port, HELLO) as known:
            heard = b""
            while b"zmqmq/" not in heard:
                heard += known.recv(1 << 16)
            assert 16 << 20 < bytes_taken(known, chunk, 1 << 30) < 128 << 20
        with peer(broker.port) as unknown:
            assert bytes_taken(unknown, chunk, 1 << 30) < 64 << 20


def bytes_taken(connection: socket.socket, chunk: bytes, bytes_max: int) -> int:
    """How much the other side takes until it ends the connection; at some 200 MB/s."""
    sent = 0
    try:
        while sent < bytes_max:
            connection.sendall(chunk)
            sent += len(chunk)
            threading.Event().wait(0.004)
    except (BrokenPipeError, ConnectionResetError):
        pass
    return sent


def test_slow_http_requests_do_not_keep_health_checks_out(broker: BrokerProcess) -> None:
    http_port = int(broker.http.rpartition(":")[2])
    with ExitStack() as stay, unharmed(broker):
        for _ in range(100):
            stay.enter_context(stranger(http_port, b"GET /livez HT"))
        stay.enter_context(stranger(http_port, GREETING + ready() + HELLO))
        started = time.monotonic()
        with urllib.request.urlopen(f"{broker.http}/livez", timeout=5) as answer:
            assert answer.read() == b"ok\n"
        assert time.monotonic() - started < 1


def test_an_http_request_in_drops_ends_at_its_deadline(broker: BrokerProcess) -> None:
    with stranger(int(broker.http.rpartition(":")[2]), b"GET /livez HTTP/1.1\r\n") as made:
        made.settimeout(0.2)

        def ended() -> bool:
            try:
                made.sendall(b"X: y\r\n")
                return made.recv(100) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        wait_for(ended, "the request ended", 6)


def test_a_client_that_reaches_http_is_told_address_and_step(broker: BrokerProcess) -> None:
    address = broker.http.replace("http", "tcp")
    with Client(address, timeout=0.4) as client, pytest.raises(errors.BrokerUnavailable, match=f"{address}.*connect"):
        client.admin.topics()
    wait_for(broker.is_alive, "the broker lives")
