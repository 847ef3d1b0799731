"""A broker process to be ill-treated, an honest client that works beside it, and what both must never show."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zmqmq import Client, errors

WAIT_S = 20.0
RSS_GROWTH_BYTES_MAX = 64 << 20
HONEST_LATENCY_S_MAX = 1.0
"""Two cores are shared with the attack, so this is wide; a stall is what it is to find."""

_numbers = itertools.count()
_PROGRAM = """
import json, resource, sys
import msgspec
from zmqmq.broker.config import BrokerConfig
from zmqmq.broker.server import Broker
settings = json.loads(sys.argv[1])
for name, limit in settings.pop("rlimits", {}).items():
    resource.setrlimit(getattr(resource, name), (limit, limit))
broker = Broker(msgspec.convert(settings, BrokerConfig))
broker.open()
print(broker.endpoints[0], broker.http_url, flush=True)
broker.run()
"""


def wait_for(condition: Callable[[], object], what: str, seconds: float = WAIT_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come true: {what}"
        threading.Event().wait(0.005)


def until_refused(call: Callable[[int], object], count_max: int) -> errors.ZmqmqError:
    """Call it with 0, 1, 2 … until it raises one of zmqmq's errors."""
    for number in range(count_max):
        try:
            call(number)
        except errors.ZmqmqError as refused:
            return refused
    raise AssertionError(f"{count_max} calls were not refused")


class BrokerProcess:
    """One data directory and, from the first start on, one port."""

    def __init__(self, place: Path, **settings: Any) -> None:
        self.data = place / "data"
        self.url = "tcp://127.0.0.1:0"
        self.http = ""
        self._settings = settings
        self._errors = place / "broker.err"
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        settings = {"data": str(self.data), "listen": [self.url], "http": "127.0.0.1:0", **self._settings}
        with self._errors.open("a") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps(settings)], stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        assert self._process.stdout is not None
        words = self._process.stdout.readline().split()
        assert len(words) == 2, f"the broker did not start: {self.stderr()}"
        self.url, self.http = words

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signal(self, how: signal.Signals) -> None:
        os.kill(self.pid, how)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._reap()

    def close(self) -> None:
        """End it in order; it must be able to."""
        if self._process is not None:
            self.signal(signal.SIGCONT)
            self.kill()

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stderr(self) -> str:
        return self._errors.read_text()

    def rss_bytes(self) -> int:
        return rss_bytes(self.pid)

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _reap(self) -> None:
        assert self._process is not None
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Honest:
    """Produces a record, waits for its receipt, reads it back, again and again, in a thread. Nothing may go wrong."""

    def __init__(self, url: str) -> None:
        self.slowest_s = 0.0
        self.count = 0
        self._topic = topic = f"honest-{next(_numbers)}"
        self._client = Client(url, timeout=10)
        self._client.admin.create_topic(topic)
        self._failure: BaseException | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._main, name="honest")
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), "the honest client hangs"
        self._client.close()
        if self._failure is not None:
            raise self._failure

    def _main(self) -> None:
        try:
            with self._client.reader(self._topic) as reader:
                while not self._stopping.is_set():
                    self._round(reader)
                    self._stopping.wait(0.01)
        except BaseException as error:  # noqa: BLE001 - raised by stop()
            self._failure = error

    def _round(self, reader: Any) -> None:
        value = b"%d" % self.count
        started = time.monotonic()
        self._client.produce(self._topic, value)
        message = reader.poll(WAIT_S)
        self.slowest_s = max(self.slowest_s, time.monotonic() - started)
        assert message is not None
        assert message.value == value
        self.count += 1


@contextmanager
def unharmed(broker: BrokerProcess, *, latency_s: float = HONEST_LATENCY_S_MAX) -> Iterator[Honest]:
    """Within the block an honest client works; behind it the broker must be as it was."""
    honest = Honest(broker.url)
    wait_for(lambda: honest.count >= 3, "the honest client works")
    before = broker.rss_bytes()
    honest.slowest_s = 0.0
    try:
        yield honest
        done = honest.count
        wait_for(lambda: honest.count >= done + 3 or honest._failure is not None, "the honest client works on")
    finally:
        wait_for(lambda: honest.count or not broker.is_alive(), "the honest client was there")
        assert broker.is_alive(), f"the broker ended: {broker.stderr()[-3000:]}"
        honest.stop()
    assert "Traceback" not in broker.stderr()
    assert broker.rss_bytes() - before <= RSS_GROWTH_BYTES_MAX, f"the broker grew by {(broker.rss_bytes() - before) >> 20} MiB"
    assert honest.slowest_s <= latency_s, f"the honest client once waited {honest.slowest_s:.2f} s"


# ── ZMTP by hand ─────────────────────────────────────────────────────────────────────────────────────

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


def command(name: bytes, body: bytes) -> bytes:
    data = bytes([len(name)]) + name + body
    return b"\x06" + struct.pack(">Q", len(data)) + data


def ready(socket_type: bytes = b"DEALER", *more: tuple[bytes, bytes]) -> bytes:
    properties = ((b"Socket-Type", socket_type), *more)
    return command(b"READY", b"".join(bytes([len(name)]) + name + struct.pack(">I", len(value)) + value for name, value in properties))


def frame(data: bytes, *, more: bool = False, says_bytes: int | None = None) -> bytes:
    """A long frame; ``says_bytes``: the length that its header tells."""
    return bytes([2 | more]) + struct.pack(">Q", len(data) if says_bytes is None else says_bytes) + data


def peer(port: int, data: bytes = b"", socket_type: bytes = b"DEALER") -> socket.socket:
    """A connection that went through the handshake, and then sent ``data``. Who sends earlier is sent away."""
    made = stranger(port, GREETING + ready(socket_type))
    heard = b""
    while b"READY" not in heard:
        more = made.recv(1 << 16)
        assert more, "sent away in the handshake"
        heard += more
    try:
        made.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return made
    return made


def stranger(port: int, data: bytes = b"") -> socket.socket:
    """A TCP connection that sent ``data``, as far as the other side took it."""
    made = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
    try:
        made.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return made  # it was shown the door already
    return made
