"""Disks that are full, fail, or go away under a running broker: what a producer and a reader are told, and what is kept."""

from __future__ import annotations

import errno
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from bad_world import BrokerProcess, until_refused, wait_for
from failing_disk import FailingDisk

from zmqmq import Client, Offset, errors
from zmqmq.broker.config import BrokerConfig
from zmqmq.broker.server import Broker
from zmqmq.store.store import StoreOptions

SMALL = StoreOptions(journal_bytes_max=256 << 10, journal_allocate_bytes=64 << 10, checkpoint_ms_max=50, disk_reserve_bytes=0)


class World:
    """A broker on a disk that fails on demand, and a client of it that does not wait long."""

    def __init__(self, place: Path) -> None:
        self.disk = FailingDisk()
        self.config = BrokerConfig(data=str(place / "data"), listen=("tcp://127.0.0.1:0",), http="", store=SMALL)
        self.broker = self._start()
        self.mq = Client(self.broker.endpoints[0], timeout=5)
        self.mq.admin.create_topic("t")
        self.mq.admin.create_topic("other")
        self.acknowledged: list[bytes] = []

    def _start(self) -> Broker:
        broker = Broker(self.config, disk=self.disk)
        broker.start()
        return broker

    def produce(self, *, timeout: float = 5) -> None:
        value = b"%06d" % len(self.acknowledged) + random.randbytes(1000)
        assert self.mq.produce("t", value, timeout=timeout).synced == 1
        self.acknowledged.append(value)

    def refused(self, *, timeout: float = 0.3) -> errors.ZmqmqError:
        with pytest.raises(errors.ZmqmqError) as told:
            self.mq.produce("t", b"refused", timeout=timeout)
        return told.value

    def read(self, topic: str = "t") -> list[bytes]:
        with self.mq.reader(topic, stop=Offset.END, timeout=5) as reader:
            return [message.value for message in reader]

    def restart(self) -> None:
        self.broker.close()
        self.disk.faults.clear()
        self.disk.room = None
        self.config = msgspec.structs.replace(self.config, listen=(self.broker.endpoints[0],))
        self.broker = self._start()

    def close(self) -> None:
        self.mq.close()
        self.broker.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    for _ in range(3):
        made.produce()
    yield made
    made.close()


# ── full ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_full_disk_refuses_producers_by_name_keeps_readers_going_and_heals_itself(world: World) -> None:
    world.disk.room = 0
    error = world.refused()
    assert "DiskFull" in type(error).__name__ or "space" in str(error).lower(), error
    assert error.outcome == "not_written"
    assert world.read() == world.acknowledged
    assert world.broker.unready() == ""
    world.disk.room = None
    world.produce()
    world.restart()
    assert world.read() == world.acknowledged


def test_a_producer_that_waits_through_a_full_disk_delivers_when_there_is_room(world: World) -> None:
    world.disk.room = 0
    threading.Timer(0.3, lambda: setattr(world.disk, "room", None)).start()
    world.produce(timeout=10)
    assert world.disk.struck
    assert world.read() == world.acknowledged


@pytest.mark.parametrize("room", [0, 1, 500, 5_000, 40_000, 70_000, 100_000])
def test_wherever_the_disk_fills_up_what_was_acknowledged_is_kept_and_what_was_refused_is_not_there(world: World, room: int) -> None:
    """Into the middle of journal growth, rolls, checkpoints, the metadata log."""
    world.disk.room = room
    assert until_refused(lambda _: world.produce(timeout=0.1), 500).outcome == "not_written"
    assert world.read() == world.acknowledged
    world.restart()
    assert world.read() == world.acknowledged
    world.produce()


def test_a_full_disk_refuses_topics_by_name_and_keeps_those_there_are(world: World) -> None:
    world.disk.room = 1_000
    refused = until_refused(lambda i: world.mq.admin.create_topic(f"x{i}"), 500)
    assert "DiskFull" in repr(refused) or "space" in str(refused)
    world.disk.room = None
    world.mq.admin.create_topic("there-is-room")
    before = [found.name for found in world.mq.admin.topics()]
    world.restart()
    assert [found.name for found in world.mq.admin.topics()] == before


def test_a_limit_of_the_file_size_is_a_full_disk_too(tmp_path: Path) -> None:
    """RLIMIT_FSIZE: the system's own refusal, without any simulation."""
    broker = BrokerProcess(tmp_path, rlimits={"RLIMIT_FSIZE": 6 << 20}, store={"journal_allocate_bytes": 1 << 20})
    try:
        with Client(broker.url, timeout=5) as mq:
            mq.admin.create_topic("t", config={"compression": "none", "segment_bytes": "64MiB"})
            kept: list[object] = []
            refused = until_refused(lambda _: kept.append(mq.produce("t", bytes(100_000), timeout=0.5)), 400)
            assert refused.outcome == "not_written"
            with mq.reader("t", stop=Offset.END) as reader:
                assert sum(1 for _ in reader) == len(kept) > 10
        assert "Traceback" not in broker.stderr()
    finally:
        broker.close()


# ── input and output errors ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("call", "path"), [("fdatasync", "/journal/"), ("pwritev", "/journal/")])
def test_a_failed_journal_takes_the_log_offline_for_good_and_readers_go_on(world: World, call: str, path: str) -> None:
    world.disk.faults[call, path] = errno.EIO
    error = world.refused()
    assert error.outcome == "unknown"
    world.disk.faults.clear()
    again = world.refused()
    assert "nothing any more" in str(again)
    assert again.outcome == "not_written"
    assert world.broker.unready()
    assert world.read() == world.acknowledged
    world.restart()
    found = world.read()
    assert found[: len(world.acknowledged)] == world.acknowledged
    assert found[len(world.acknowledged) :] in ([], [b"refused"])


@pytest.mark.parametrize(
    ("call", "path", "error"),
    [("fdatasync", ".log", errno.EIO), ("fdatasync", ".log", errno.ENOSPC), ("sync_directory", "/logs", errno.ENOSPC)],
)
def test_a_failed_sync_in_a_checkpoint_is_never_tried_again(world: World, call: str, path: str, error: int) -> None:
    """Not even after a mere lack of space: what was to be synced may be gone, and a second sync would not tell."""
    world.mq.admin.create_topic("new")  # its first record makes directories, which have to be synced
    world.disk.faults[call, path] = error
    until_refused(lambda _: world.mq.produce("new", b"x", timeout=0.2), 1_000)
    wait_for(world.broker.unready, "the broker says that it does not serve")
    world.disk.faults.clear()
    assert world.refused().outcome == "not_written"
    assert len(world.disk.struck) == 1
    assert world.read() == world.acknowledged
    world.restart()
    assert world.read()[: len(world.acknowledged)] == world.acknowledged


def test_a_failed_write_of_a_segment_takes_only_its_partition_out_of_service(world: World) -> None:
    topic_id = world.mq.admin.describe_topic("t").topic_id.hex()
    world.disk.faults["pwritev", f"/{topic_id}/"] = errno.EIO
    error = world.refused()
    assert error.outcome == "not_written"
    assert world.mq.produce("other", b"fine").offset == 0
    assert world.read() == world.acknowledged
    world.restart()
    world.produce()
    assert world.read() == world.acknowledged


def test_a_failed_read_is_told_to_that_reader_and_passes(world: World) -> None:
    world.disk.faults["pread", ".log"] = errno.EIO
    with world.mq.reader("t") as reader:
        assert reader.poll(0.3) is None
        world.produce()
        world.disk.faults.clear()
        assert [reader.poll(5).value for _ in world.acknowledged] == world.acknowledged


# ── directories ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.EIO, errno.ENOSPC, errno.EMFILE])
@pytest.mark.parametrize("call", ["mkdir", "create", "open", "listdir", "rename", "sync_directory"])
def test_whatever_fails_at_the_opening_is_an_error_with_a_path_and_harms_nothing(tmp_path: Path, call: str, error: int) -> None:
    disk = FailingDisk()
    config = BrokerConfig(data=str(tmp_path / "data"), listen=("inproc://opening",), http="", store=SMALL)
    disk.faults[call, ""] = error
    with pytest.raises(errors.ZmqmqError, match="data") as told:
        Broker(config, disk=disk).start()
    assert told.value.hint
    disk.faults.clear()
    open_and_close(config, disk)
    if call not in {"mkdir", "create"}:  # nothing of that is left to do
        disk.faults[call, ""] = error
        with pytest.raises(errors.ZmqmqError, match="data"):
            Broker(config, disk=disk).start()
        disk.faults.clear()
        open_and_close(config, disk)


def open_and_close(config: BrokerConfig, disk: FailingDisk) -> None:
    broker = Broker(config, disk=disk)
    broker.start()
    broker.close()


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zmqmq_cli", "serve", "--listen", "tcp://127.0.0.1:0", "--http", "none", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def test_a_directory_that_is_a_file_or_cannot_be_made_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for data in (str(tmp_path / "file"), str(tmp_path / "file" / "below"), "/proc/zmqmq-data"):
        done = serve("--data", data)
        assert done.returncode not in {0, 1} or done.stderr
        assert data in done.stderr
        assert "Traceback" not in done.stderr


def test_two_brokers_on_one_directory_the_second_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    first = BrokerProcess(tmp_path)
    try:
        done = serve("--data", str(first.data))
        assert done.returncode != 0
        assert str(first.data) in done.stderr
        assert "Traceback" not in done.stderr
        with Client(first.url) as mq:
            mq.admin.create_topic("t")
            assert mq.produce("t", b"x").offset == 0
    finally:
        first.close()


def test_a_directory_that_was_taken_away_is_said_and_does_not_come_back_empty(world: World) -> None:
    data = Path(world.config.data)
    away = data.with_name("away")
    data.rename(away)
    wait_for(world.broker.unready, "the broker notices")
    error = world.refused()
    assert "removed" in str(error) or "gone" in str(error)
    assert not (data / "logs").exists()
    shutil.rmtree(data, ignore_errors=True)
    away.rename(data)
    world.restart()
    assert world.read()[: len(world.acknowledged)] == world.acknowledged
