"""Directories that earlier versions wrote, killed in the middle of their work: they open, hold what they held, and go on."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard
from broker.raw_client import RawClient, make_batch
from fixtures.make import config, contents

import zmqmq
from zmqmq import Offset
from zmqmq.clock import SystemClock
from zmqmq.store.disk import RealDisk
from zmqmq.store.verify import rebuild_indexes, verify_directory
from zmqmq.wire.requests import GetMetadata, Produce, ProduceEntry

FIXTURES = Path(__file__).parent.parent / "fixtures"
YEAR_MS = 365 * 86_400_000
VERSIONS = sorted(path.name.removeprefix("data-").removesuffix(".json") for path in FIXTURES.glob("data-*.json"))


@pytest.fixture(params=[0, 10 * YEAR_MS], ids=["today", "years later"], autouse=True)
def later(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories grow old."""
    today = SystemClock.wall_ms
    monkeypatch.setattr(SystemClock, "wall_ms", lambda self: today(self) + request.param)
    monkeypatch.setattr(SystemClock, "wall_ns", lambda self: self.wall_ms() * 1_000_000)


@pytest.fixture(params=VERSIONS)
def told(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """What the directory holds, which lies unpacked in ``tmp_path / "data"``."""
    packed = (FIXTURES / f"data-{request.param}.tar.zst").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(zstandard.decompress(packed))) as archive:
        archive.extractall(tmp_path / "data", filter="data")
    found: dict[str, Any] = json.loads((FIXTURES / f"data-{request.param}.json").read_text())
    return found


def check_contents(mq: zmqmq.Client, told: dict[str, Any]) -> None:
    found = contents(mq)
    assert {name: topic["partitions"] for name, topic in found.items()} == {
        name: topic["partitions"] for name, topic in told["topics"].items()
    }
    for name, topic in told["topics"].items():
        assert topic["config"].items() <= found[name]["config"].items()  # a later version may have more settings


def test_there_is_a_directory_of_a_released_version() -> None:
    assert "0.1" in VERSIONS


def test_a_directory_of_an_earlier_version_verifies_as_it_is(told: dict[str, Any], tmp_path: Path) -> None:
    assert verify_directory(RealDisk(), str(tmp_path / "data")).is_ok


def test_a_directory_of_an_earlier_version_opens_with_everything_in_it(told: dict[str, Any], tmp_path: Path) -> None:
    with zmqmq.open(tmp_path / "data", config=config(60_000)) as mq:
        assert mq.broker.report.torn
        assert not mq.broker.report.was_clean
        check_contents(mq, told)
    assert verify_directory(RealDisk(), str(tmp_path / "data")).is_ok


def test_a_directory_of_an_earlier_version_is_read_after_its_indexes_were_built_anew(told: dict[str, Any], tmp_path: Path) -> None:
    for index in (tmp_path / "data").rglob("*.index"):
        index.unlink()
    assert rebuild_indexes(RealDisk(), str(tmp_path / "data")) > 10
    with zmqmq.open(tmp_path / "data", config=config(60_000)) as mq:
        check_contents(mq, told)


def test_a_directory_of_an_earlier_version_is_written_on_and_knows_its_producers(told: dict[str, Any], tmp_path: Path) -> None:
    producer, sequence = told["producer_id"], told["last_sequence"]
    with zmqmq.open(tmp_path / "data", config=config(60_000)) as mq, RawClient(mq.url) as raw:
        topic_id = raw.call(GetMetadata, topics=["orders"]).topics[0].topic_id

        def send(sequence: int) -> int:
            data = make_batch(b"a", b"b", producer_id=producer, sequence=sequence)
            result = raw.call(Produce, (data,), entries=[ProduceEntry(topic_id, 0)]).results[0]
            assert result.error is None
            offset: int = result.base_offset
            return offset

        assert send(sequence) == told["last_offset"]
        assert send(sequence + 2) == told["topics"]["orders"]["partitions"]["0"]["end"]
        mq.admin.create_topic("new")
        for i in range(50):
            mq.produce("rolled", b"%d" % i * 200, partition=0)
    with zmqmq.open(tmp_path / "data", config=config(60_000)) as mq:
        end = told["topics"]["rolled"]["partitions"]["0"]["end"]
        with mq.reader("rolled", partitions=[0], start=Offset.exact(end), stop=Offset.END) as reader:
            assert [message.value for message in reader] == [b"%d" % i * 200 for i in range(50)]
    assert verify_directory(RealDisk(), str(tmp_path / "data")).is_ok
