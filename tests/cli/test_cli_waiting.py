"""A broker that is away: what is said, who goes on waiting, and what the counts say in the end."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live import COMMAND, SECONDS_MAX, Command, ServeProcess

from zmqmq.client.accumulator import Batch, Receipt
from zmqmq.client.handles import Handle
from zmqmq.errors import BrokerUnavailable, InvalidRecord, OutcomeUnknown, TimeoutError, ZmqmqError
from zmqmq_cli import merge, waiting
from zmqmq_cli.input_formats import Given
from zmqmq_cli.main import run
from zmqmq_cli.settings import Settings
from zmqmq_cli.tally import Tally

DEAD = "tcp://127.0.0.1:1"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    process = ServeProcess(tmp_path_factory.mktemp("waiting") / "data")
    yield process
    process.end(signal.SIGTERM)


def line_with(stream: Any, text: str) -> str:
    """The next line that holds the text; the stream's end fails."""
    for line in stream:
        if text in line:
            return str(line)
    raise AssertionError(f"no line with {text!r}")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds are long for a test."""
    monkeypatch.setattr(waiting, "SILENCE_S", 0.3)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("arguments", [["topic", "list"], ["produce", "t", "1"], ["consume", "t"], ["tail", "t"]])
def test_it_is_said_once_what_is_waited_for(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-b", DEAD, "--timeout", "900ms", *arguments]) == 3
    said, *error = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"waiting for {DEAD}: connection refused.* … \(Ctrl-C to stop\)", said)
    assert len(error) == 3


@pytest.mark.usefixtures("soon")
def test_quiet_waits_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-b", DEAD, "--timeout", "900ms", "-q", "topic", "list"]) == 3
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_tail_waits_for_its_broker_to_come_back_and_goes_on(tmp_path: Path) -> None:
    process = ServeProcess(tmp_path / "data")
    command = Command(process.url)
    command("produce", "t", "1", "--create")
    tail = command.start("tail", "t", "-o", "start", "-f", r"%v\n")
    try:
        assert tail.stdout is not None
        assert tail.stderr is not None
        assert tail.stdout.readline() == "1\n"
        process.end(signal.SIGKILL)
        assert f"waiting for {process.url}: " in tail.stderr.readline()
        process = ServeProcess(tmp_path / "data", listen=process.url)
        command("produce", "t", "2")
        assert tail.stdout.readline() == "2\n"
        assert tail.stderr.readline() == "a broker answers again\n"
        tail.send_signal(signal.SIGINT)
        assert tail.communicate(timeout=SECONDS_MAX) == ("", "")
        assert tail.returncode == 0
    finally:
        tail.kill()
        process.end(signal.SIGTERM)


class FailingReader:
    """Fails some times, as a reader does every half minute without a broker, then gives a batch and ends."""

    topic = "t"

    def __init__(self, *failures: ZmqmqError) -> None:
        self.failures = list(failures)

    def batches(self, _count: int) -> Iterator[list[str]]:
        if self.failures:
            raise self.failures.pop(0)
        yield ["message"]


def test_who_follows_outwaits_every_passing_failure_and_tells_each_once() -> None:
    said: list[str] = []
    away, late = BrokerUnavailable("away"), TimeoutError("late")
    reader: Any = FailingReader(away, late, away, late)
    assert list(merge.batches(reader, said.append)) == [["message"]]
    assert said == ["waiting: late … (Ctrl-C to stop)"]


def test_who_does_not_follow_ends_by_it_and_nobody_outwaits_damage() -> None:
    for failure, tell in ((BrokerUnavailable("away"), None), (InvalidRecord("damaged"), print)):
        reader: Any = FailingReader(failure)
        with pytest.raises(type(failure)):
            list(merge.batches(reader, tell))


# --- counts


def tally_of(*, sent: int, acked: int = 0, failed: int = 0, unknown: int = 0, error: ZmqmqError | None = None) -> Tally:
    tally = Tally(Settings(), None)
    tally.sent, tally.acked, tally.failed, tally.unknown, tally.error = sent, acked, failed, unknown, error
    return tally


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"sent": 100, "acked": 38, "failed": 62}, "62 of 100 messages were not delivered: away"),
        ({"sent": 100, "acked": 99, "failed": 1}, "1 of 100 messages was not delivered: away"),
        ({"sent": 1, "failed": 1}, "the message was not delivered: away"),
        ({"sent": 1, "unknown": 1}, "the message was not delivered (it may have been written all the same): away"),
        ({"sent": 9, "failed": 4, "unknown": 5}, "9 of 9 messages were not delivered (5 of them may have been written all the same): away"),
        ({"sent": 2, "acked": 2}, "away"),
    ],
)
def test_one_error_covers_all_failures(counts: dict[str, int], said: str) -> None:
    found = tally_of(**counts, error=BrokerUnavailable("away", hint="start it")).failure()
    assert isinstance(found, BrokerUnavailable)
    assert (str(found), found.hint) == (said, "start it")


def test_the_error_of_one_batch_is_not_told_as_if_it_were_all() -> None:
    error = TimeoutError("1 records to orders-1 were not delivered in time: no broker answers: x")
    assert str(tally_of(sent=3, failed=2, error=error).failure()) == "2 of 3 messages were not delivered: no broker answers: x"


def test_the_counts_always_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    tally_of(sent=442_086, acked=442_085, error=OutcomeUnknown("x")).report("t", "all")
    assert capsys.readouterr().err.startswith("442,086 messages, 442,085 acked, 0 failed, 1 unknown, ")
    tally_of(sent=1, acked=1).report("t", "0")
    assert capsys.readouterr().err.startswith("1 message, 1 sent unacknowledged, 0 failed, ")


def test_ctrl_c_never_loses_count(broker: ServeProcess) -> None:
    command = Command(broker.url)
    for _ in range(3):
        producing = command.start("produce", "counted", "--create", "--repeat", "100000000", "-o", "%o\\n", "x" * 20)
        assert producing.stdout is not None
        producing.stdout.readline()
        producing.send_signal(signal.SIGINT)
        _, said = producing.communicate(timeout=SECONDS_MAX)
        assert producing.returncode == 130
        found = re.fullmatch(r"([\d,]+) messages, ([\d,]+) acked, 0 failed, \S+ m?s\n", said)
        assert found is not None, said
        assert found[1] == found[2]


def test_a_second_ctrl_c_ends_the_waiting_for_a_broker_that_is_away(tmp_path: Path) -> None:
    process = ServeProcess(tmp_path / "data")
    command = Command(process.url)
    producing = command.start("produce", "t", "--create", "--rate", "50/s", "--repeat", "100000", "-o", "%o\\n", "x")
    try:
        assert producing.stdout is not None
        assert producing.stderr is not None
        producing.stdout.readline()
        process.end(signal.SIGKILL)
        line_with(producing.stderr, "waiting for tcp://")
        producing.send_signal(signal.SIGINT)
        assert "Ctrl-C again to stop at once" in line_with(producing.stderr, "receipts")
        producing.send_signal(signal.SIGINT)
        _, said = producing.communicate(timeout=SECONDS_MAX)
    finally:
        producing.kill()
    assert producing.returncode == 130
    found = re.search(r"(\d+) messages, (\d+) acked, (\d+) failed(?:, (\d+) unknown)?, ", said)
    assert found is not None, said
    sent, acked, failed, unknown = (int(count or 0) for count in found.groups())
    assert sent == acked + failed + unknown
    assert sent > acked


def test_the_summary_is_an_object_on_stdout_for_programs(broker: ServeProcess) -> None:
    done = Command(broker.url)("produce", "counted", "--create", "--json", "a", "b")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found.pop("seconds") > 0
    assert found == {"topic": "counted", "messages": 2, "acked": 2, "unacknowledged": 0, "failed": 0, "unknown": 0}


def test_lines_typed_on_a_terminal_are_messages(broker: ServeProcess) -> None:
    command = Command(broker.url)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "produce", "typed", "--create"], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=command.environment
    )
    os.close(theirs)
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == b"type lines, Ctrl-D to end\n"
        os.write(ours, b"one\ntwo\n\x04")
        out, said = process.communicate(timeout=SECONDS_MAX)
    finally:
        process.kill()
        os.close(ours)
    assert (process.returncode, out) == (0, b"")
    assert said.startswith(b"2 messages, 2 acked, 0 failed")
    assert command("consume", "typed", "-e", "-f", "%v ").stdout == "one two "


class StillProducer:
    """Takes everything, and no receipt ever comes by itself."""

    topic = "t"

    def __init__(self) -> None:
        self.handles: list[Handle] = []

    def send(self, *_arguments: object, **_more: object) -> Handle:
        self.handles.append(Handle(Batch("t", 0, 0, linger_ms=0, deadline_ms=0), 0))
        return self.handles[-1]


def test_messages_without_a_receipt_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmqmq_cli.tally.OUTSTANDING_MAX", 10)
    tally, out = tally_of(sent=0), StillProducer()
    sending = threading.Thread(target=lambda: [tally.send(out, Given(b"x")) for _ in range(15)], daemon=True)  # type: ignore[arg-type]
    sending.start()
    deadline = time.monotonic() + SECONDS_MAX
    while len(out.handles) < 10 and time.monotonic() < deadline:
        time.sleep(0.001)
    sending.join(0.3)
    assert (len(out.handles), sending.is_alive()) == (10, True)
    for number in range(15):
        while len(out.handles) <= number and time.monotonic() < deadline:
            time.sleep(0.001)
        batch = out.handles[number].batch
        while not batch.watchers and time.monotonic() < deadline:
            time.sleep(0.001)
        batch.outcome = Receipt(number, 0, 0, 1, 1)
        batch.notify()
    sending.join(SECONDS_MAX)
    assert not sending.is_alive()
    assert (tally.sent, tally.acked) == (15, 15)
