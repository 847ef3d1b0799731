"""Lines of a log file go through a broker that is killed with -9 in the middle, and come back unchanged.

The lines are made up; a folder of real ``*.log`` files in ``ZMQMQ_LINES_DIR`` is taken as well.
"""

from __future__ import annotations

import os
import random
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import BrokerProcess

import zmqmq
from zmqmq.store.disk import RealDisk
from zmqmq.store.verify import verify_directory

LINES = 2_000
SHRINK_MIN = 3.5
SECONDS_MAX = 30.0
LINGER_SECONDS = 0.5
"""Long enough that the batches of a small file are full on the slowest machine."""


def made_up_lines() -> list[bytes]:
    """A log as a service writes it: few components, repeated phrases, changing numbers; CRLF is part of a line."""
    chance = random.Random(7)
    components = ["auth", "billing", "cache", "db", "gateway", "mailer", "search", "worker"]
    phrases = [
        "accepted connection from 10.0.{}.{} port {}",
        "request {} took {} ms, status {}",
        "retrying after {} errors, next try in {} s, queue {}",
        "session {} closed for user u{} after {} s",
    ]
    lines = []
    for number in range(LINES):
        moment = f"2026-11-22 12:{number // 600 % 60:02}:{number // 10 % 60:02},{number % 10:03}"
        phrase = chance.choice(phrases).format(*(chance.randrange(1, 250) for _ in range(3)))
        lines.append(f"{moment} INFO {chance.choice(components)}[{chance.randrange(100, 120)}]: {phrase}\r".encode())
    return lines


def line_sets() -> dict[str, list[bytes]]:
    sets = {"made-up": made_up_lines()}
    folder = os.environ.get("ZMQMQ_LINES_DIR")
    for path in sorted(Path(folder).glob("*.log")) if folder else ():
        sets[path.name] = path.read_bytes().removesuffix(b"\n").split(b"\n")
    return sets


LINE_SETS = line_sets()


def key_of(line: bytes) -> bytes:
    """The component or process name of a line, as far as its format tells."""
    words = line.replace(b"|", b" ").split()
    return next((word.split(b"[")[0].rstrip(b":") for word in words if word[:1].isalpha() and word not in {b"INFO", b"Dec", b"LabSZ"}), b"")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    process = BrokerProcess(tmp_path / "data")
    process.start()
    yield process
    process.close()


def produce_over_a_kill(broker: BrokerProcess, topic: str, keyed: list[tuple[bytes | None, bytes]]) -> None:
    """Everything is acknowledged, although the broker dies with batches under way and comes back."""
    with zmqmq.Client(broker.url) as mq, mq.producer(topic, linger=0.001, delivery_timeout=SECONDS_MAX) as out:
        half = threading.Event()

        def kill_and_restart() -> None:
            assert half.wait(SECONDS_MAX)
            broker.kill()
            broker.start()

        nemesis = threading.Thread(target=kill_and_restart)
        nemesis.start()
        for number, (key, value) in enumerate(keyed):
            if number == len(keyed) // 2:
                half.set()
            out.send(value, key=key)
            if number % 50 == 0 and nemesis.is_alive() and half.is_set():
                nemesis.join(0.02)
        out.flush(SECONDS_MAX)
        nemesis.join(SECONDS_MAX)


def test_the_made_up_lines_have_several_keys() -> None:
    assert len({key_of(line) for line in LINE_SETS["made-up"]}) == 8


def read(broker: BrokerProcess, topic: str) -> list[zmqmq.Message[bytes]]:
    with zmqmq.Client(broker.url) as mq, mq.reader(topic, stop=zmqmq.Offset.END) as reader:
        return list(reader)


@pytest.mark.parametrize("name", LINE_SETS)
def test_keyed_lines_come_back_in_order_per_key_over_a_kill(broker: BrokerProcess, name: str) -> None:
    lines = LINE_SETS[name]
    with zmqmq.Client(broker.url) as mq:
        mq.admin.create_topic("keyed", partitions=4)
    produce_over_a_kill(broker, "keyed", [(key_of(line), line) for line in lines])
    expected: dict[bytes, list[bytes]] = defaultdict(list)
    found: dict[bytes, list[bytes]] = defaultdict(list)
    for line in lines:
        expected[key_of(line)].append(line)
    for message in read(broker, "keyed"):
        assert message.key is not None
        found[message.key].append(message.value)
    assert found == expected


@pytest.mark.parametrize("name", LINE_SETS)
def test_with_one_partition_the_file_comes_back_exactly_over_a_kill(broker: BrokerProcess, name: str) -> None:
    lines = LINE_SETS[name]
    with zmqmq.Client(broker.url) as mq:
        mq.admin.create_topic("whole")
    produce_over_a_kill(broker, "whole", [(None, line) for line in lines])
    messages = read(broker, "whole")
    assert [message.value for message in messages] == lines
    assert [message.offset for message in messages] == list(range(len(lines)))


@pytest.mark.parametrize("name", LINE_SETS)
def test_the_segments_are_a_fraction_of_the_text_and_verify(broker: BrokerProcess, name: str) -> None:
    lines = LINE_SETS[name]
    with zmqmq.Client(broker.url) as mq:
        mq.admin.create_topic("small")
        with mq.producer("small", linger=LINGER_SECONDS) as out:
            for line in lines:
                out.send(line, key=key_of(line))
    assert broker.stop() == 0
    segments = [path for path in broker.data.glob("logs/*/*/*.log") if "0000000001/0" not in str(path.parent)]
    text_bytes = sum(len(line) + 1 for line in lines)
    assert text_bytes / sum(path.stat().st_size for path in segments) >= SHRINK_MIN
    report = verify_directory(RealDisk(), str(broker.data))
    assert report.findings == []
    assert sum(each.record_count for each in report.partitions) >= len(lines)
