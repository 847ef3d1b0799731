"""A disk that fills up under a broker, for real: producers are refused by name, readers go on, space comes back, nothing is lost."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Final, NamedTuple

from campaign import free_port
from lives import Lives
from places import SmallDisk

import zmqmq
from zmqmq.errors import DiskFull, ZmqmqError

DISK_BYTES: Final = 24 << 20
VALUE_BYTES: Final = 32 << 10
REFUSAL_SECONDS_MAX: Final = 10.0
"""A produce on a full disk is refused within this."""
RETURN_SECONDS_MAX: Final = 20.0
"""With space again, a produce succeeds within this."""
DELIVERY_SECONDS: Final = 1.0
TOPIC: Final = "filling"
BROKER_TOML: Final = """\
[store]
journal_bytes_max = "1MiB"
journal_allocate_bytes = "256KiB"
checkpoint_ms_max = 200
remove_ms_max = 100
disk_reserve_bytes = "2MiB"
"""


class Filled(NamedTuple):
    acked: int
    refused: int
    figures: str
    wrong: list[str]


class Filling:
    """A broker on a small disk, its producer, and what was acknowledged."""

    def __init__(self, scratch: Path, disk: SmallDisk) -> None:
        self.wrong: list[str] = []
        self.acked: dict[int, bytes] = {}
        self.refused: set[bytes] = set()
        self.slowest_refusal = 0.0
        self._disk = disk
        self._number = 0
        self._errors = scratch / "errors.txt"
        config = scratch / "broker.toml"
        config.write_text(BROKER_TOML)
        self._url = f"tcp://127.0.0.1:{free_port()}"
        data = disk.path / "data"
        arguments = [
            "serve",
            "--config",
            str(config),
            "--data",
            str(data),
            "--listen",
            self._url,
            "--http",
            "none",
            "--log-level",
            "warning",
        ]
        self.lives = Lives(data, arguments, self._errors)

    def run(self) -> str:
        """What there is to tell."""
        self._expect(self.lives.start(), "the broker does not start")
        with zmqmq.Client(self._url, timeout=REFUSAL_SECONDS_MAX) as client:
            client.admin.create_topic(TOPIC, config={"compression": "none", "segment_bytes": "1MiB"})
            self._produce_until_full(client)
            self._read_all(client, "full by its own records")
            self.lives.end()
            self._expect(self.lives.start(), "the reserve is not enough to start on")
            client.admin.create_topic("while-full")
            client.admin.delete_records(TOPIC, {0: max(self.acked) // 2})
            self._produce_until_taken(client)
            ballast = self._disk.fill()
            self._produce_until_full(client)
            self._read_all(client, "full by somebody else")
        self.lives.end()
        starts = "starts" if self.lives.start() else "does not start"
        ballast.unlink()
        if not self.lives.is_alive:
            self._expect("space" in self._tail(), "it does not start on a full disk, and does not say why")
            self._expect(self.lives.start(), "it does not start with space again")
        with zmqmq.Client(self._url, timeout=REFUSAL_SECONDS_MAX) as client:
            self._produce_until_taken(client)
            self._read_all(client, "after all")
        self._expect(self.lives.end() == -9, "the broker ended by itself")
        return f"refused after {self.slowest_refusal:.1f} s at most; a killed broker {starts} on a full disk"

    def _produce(self, client: zmqmq.Client) -> ZmqmqError | None:
        head = b"%08d" % self._number
        value = head + hashlib.shake_128(head).digest(VALUE_BYTES)
        self._number += 1
        started = time.monotonic()
        try:
            with client.producer(TOPIC, delivery_timeout=DELIVERY_SECONDS) as producer:
                receipt = producer.send(value).result(REFUSAL_SECONDS_MAX)
        except ZmqmqError as error:
            self.slowest_refusal = max(self.slowest_refusal, time.monotonic() - started)
            if error.outcome == "not_written":
                self.refused.add(value)
            return error
        assert receipt.offset is not None
        self.acked[receipt.offset] = value
        return None

    def _produce_until_full(self, client: zmqmq.Client) -> None:
        for _ in range(2 * DISK_BYTES // VALUE_BYTES):
            error = self._produce(client)
            if error is not None:
                told = f"{type(error).__name__} {error} {error.hint}"
                self._expect(isinstance(error, DiskFull) or "space" in told, f"a full disk is told as {told}")
                self._expect(error.outcome == "not_written", f"a full disk leaves the outcome {error.outcome}")
                return
        self.wrong.append("the disk was never full")

    def _produce_until_taken(self, client: zmqmq.Client) -> None:
        deadline = time.monotonic() + RETURN_SECONDS_MAX
        while (error := self._produce(client)) is not None:
            if time.monotonic() > deadline:
                self.wrong.append(f"with space again a produce still gets {type(error).__name__}: {error}")
                return

    def _read_all(self, client: zmqmq.Client, when: str) -> None:
        found = {}
        with client.reader(TOPIC, start=zmqmq.Offset.START, stop=zmqmq.Offset.END) as reader:
            for message in reader:
                found[message.offset] = message.raw_value
        start = min(found)
        lost = [offset for offset, value in self.acked.items() if offset >= start and found.get(offset) != value]
        self._expect(not lost, f"{when}: {len(lost)} acknowledged records are not there, the first is {lost[:1]}")
        self._expect(not self.refused & set(found.values()), f"{when}: a record that was reported as not written is there")

    def _expect(self, is_so: bool, words: str) -> None:
        if not is_so:
            self.wrong.append(f"{words}: {self._tail()[-300:]}")

    def _tail(self) -> str:
        return self._errors.read_text(errors="replace")[-2_000:]


def fill(scratch: Path) -> Filled:
    with SmallDisk(scratch, DISK_BYTES) as disk:
        filling = Filling(scratch, disk)
        try:
            figures = filling.run()
        finally:
            filling.lives.close()
        return Filled(len(filling.acked), len(filling.refused), figures, filling.wrong)
