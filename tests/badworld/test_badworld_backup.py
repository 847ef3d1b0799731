"""``zmqmq log backup`` of a broker that is as busy as it can be: the copy serves everything acknowledged before it began."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from bad_world import WAIT_S, BrokerProcess, unharmed, wait_for

from zmqmq import Client, Offset

STORE = {"journal_bytes_max": 1 << 20, "journal_allocate_bytes": 64 << 10, "disk_reserve_bytes": 0, "remove_ms_max": 100}
"""A checkpoint every half a megabyte."""
SETTINGS = {"segment_bytes": "256KiB", "compression": "none"}


def backup(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zmqmq_cli", "log", "backup", str(source), str(target)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


class Load:
    """Numbers into four partitions as fast as they are acknowledged, and topics that come and go."""

    def __init__(self, url: str) -> None:
        self.acknowledged = 0
        self._url = url
        self._ending = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._guarded, args=(work,)) for work in (self._produce, self._change_topics)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(WAIT_S)
        assert self._failures == []

    def _guarded(self, work: Callable[[Client], None]) -> None:
        try:
            with Client(self._url) as mq:
                work(mq)
        except BaseException as error:  # noqa: BLE001 - shown by end()
            self._failures.append(error)

    def _produce(self, mq: Client) -> None:
        with mq.producer("numbers") as out:
            while not self._ending.is_set():
                batch = range(self.acknowledged, self.acknowledged + 200)
                out.send_many([b"%d:" % i + bytes(500) for i in batch], keys=[b"%d" % (i % 50) for i in batch])
                out.flush(10)
                self.acknowledged += 200

    def _change_topics(self, mq: Client) -> None:
        number = 0
        while not self._ending.is_set():
            number += 1
            mq.admin.create_topic(f"passing-{number}", 3)
            mq.produce(f"passing-{number}", bytes(2000))
            mq.produce("short", random.randbytes(100_000))
            mq.admin.delete_topic(f"passing-{number}")


def test_a_backup_under_full_load_serves_everything_acknowledged_before_and_a_prefix_of_the_rest(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path, store=STORE)
    try:
        with Client(broker.url) as mq:
            mq.admin.create_topic("numbers", 4, config=SETTINGS)
            mq.admin.create_topic("short", 1, config={**SETTINGS, "retention_bytes": "512KiB"})
        load = Load(broker.url)
        for number in range(2):
            wait_for(lambda number=number: load.acknowledged > (number + 1) * 10_000, "there is something to copy")
            acknowledged = load.acknowledged
            with unharmed(broker):
                done = backup(broker.data, tmp_path / f"copy{number}" / "data")
            assert done.returncode == 0, done.stderr
            check_copy(tmp_path / f"copy{number}", acknowledged)
        load.end()
    finally:
        broker.close()


def check_copy(place: Path, acknowledged: int) -> None:
    copy = BrokerProcess(place, store=STORE)
    try:
        with Client(copy.url) as mq:
            with mq.reader("numbers", stop=Offset.END) as reader:
                found = [(message.key, int(message.value.partition(b":")[0])) for message in reader]
            numbers = {number for _, number in found}
            assert len(numbers) == len(found)
            assert numbers >= set(range(acknowledged))
            for key in {key for key, _ in found}:
                of_key = [number for each, number in found if each == key]
                assert of_key == list(range(int(key), of_key[-1] + 1, 50)), "a prefix in order"
            with mq.reader("short", stop=Offset.END) as reader:
                assert all(len(message.value) == 100_000 for message in reader)
            mq.produce("numbers", b"goes on", key=b"x")
            assert (place / "data" / "identity").read_bytes() == (place.parent / "data" / "identity").read_bytes()
            mq.admin.create_topic("new")
        assert "Traceback" not in copy.stderr()
    finally:
        copy.close()


def test_a_backup_is_refused_in_words_when_it_cannot_be_made(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path)
    broker.kill()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x")
    for source, target, word in (
        (broker.data, tmp_path / "full", "not empty"),
        (broker.data, broker.data / "below", "cannot lie in it"),
        (tmp_path / "full", tmp_path / "new", "no zmqmq data directory"),
    ):
        done = backup(source, target)
        assert done.returncode == 2, done.stderr
        assert word in done.stderr
        assert "Traceback" not in done.stderr
    assert (tmp_path / "full" / "precious").read_text() == "x"
