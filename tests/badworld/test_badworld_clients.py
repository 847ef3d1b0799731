"""Clients that are killed, paused, forked, shared, closed twice or forgotten, and brokers that restart under every call."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bad_world import WAIT_S, BrokerProcess, unharmed, wait_for

import zmqmq
from zmqmq import Client, Offset, errors


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    made = BrokerProcess(tmp_path)
    yield made
    made.close()


class Program:
    """A Python program that talks over its pipes."""

    def __init__(self, text: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", text, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def signal(self, how: signal.Signals) -> None:
        self.process.send_signal(how)

    def end(self) -> tuple[int, str]:
        """Exit code and stderr; killed if it does not end."""
        try:
            _, stderr = self.process.communicate(timeout=WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, stderr = self.process.communicate()
            raise AssertionError(f"the program hangs: {stderr}") from None
        return self.process.returncode, stderr

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


# ── killed and paused ────────────────────────────────────────────────────────────────────────────────

READ_ALL = """
import sys, zmqmq
mq = zmqmq.Client(sys.argv[1])
reader = mq.reader("flood")
print("reading", flush=True)
for message in reader:
    if message.offset == int(sys.argv[2]):
        print("done", flush=True)
        break
"""


def test_a_stopped_consumer_costs_the_broker_nothing_and_reads_on_when_it_goes_on(broker: BrokerProcess) -> None:
    count = 300
    with Client(broker.url) as mq:
        mq.admin.create_topic("flood", config={"compression": "none"})
        reader = Program(READ_ALL, broker.url, str(count - 1))
        assert reader.line() == "reading"
        reader.signal(signal.SIGSTOP)
        with unharmed(broker), mq.producer("flood") as out:
            out.send_many([bytes(1_000_000)] * count)
        reader.signal(signal.SIGCONT)
        assert reader.line() == "done"
        reader.kill()


def test_killed_readers_and_producers_leave_nothing_behind(broker: BrokerProcess) -> None:
    with Client(broker.url) as mq:
        mq.admin.create_topic("flood")
        with unharmed(broker):
            for _ in range(3):
                reader = Program(READ_ALL, broker.url, "1000000000")
                assert reader.line() == "reading"
                reader.kill()
            producer = Program(
                "import sys, zmqmq\nout = zmqmq.Client(sys.argv[1]).producer('flood')\nprint('go', flush=True)\n"
                "while True: out.send(b'x' * 1000)",
                broker.url,
            )
            assert producer.line() == "go"
            wait_for(lambda: mq.admin.offsets("flood")[0].end > 1_000, "the producer produces")
            producer.kill()
        with mq.reader("flood", stop=Offset.END) as found:
            assert all(message.value == b"x" * 1000 for message in found)


def test_a_producer_paused_beyond_every_heartbeat_goes_on_without_loss_or_duplicates(broker: BrokerProcess) -> None:
    program = """
import sys, zmqmq
mq = zmqmq.Client(sys.argv[1])
out = mq.producer("t", linger=0)
handles = []
for i in range(4_000):
    handles.append(out.send(b"%d" % i))
    if i == 500:
        handles[-1].result(10)
        print("under way", flush=True)
        sys.stdin.readline()
out.close()
"""
    with Client(broker.url) as mq:
        mq.admin.create_topic("t")
        producer = Program(program, broker.url)
        assert producer.line() == "under way"
        assert producer.process.stdin is not None
        producer.process.stdin.write("\n")
        producer.process.stdin.flush()
        producer.signal(signal.SIGSTOP)
        threading.Event().wait(3.8)  # longer than ZeroMQ's heartbeats: the broker has parted from it
        producer.signal(signal.SIGCONT)
        code, stderr = producer.end()
        assert code == 0, stderr
        with mq.reader("t", stop=Offset.END) as reader:
            assert [int(message.value) for message in reader] == list(range(4_000))


# ── forked ───────────────────────────────────────────────────────────────────────────────────────────

MULTIPROCESSING = """
import multiprocessing, sys, warnings, zmqmq
warnings.simplefilter("ignore", DeprecationWarning)
url = sys.argv[1]
parent = zmqmq.Client(url)
parent.admin.create_topic("t")
out = parent.producer("t")
out.send(b"parent before")

def work(name):
    try:
        out.send(b"inherited")
    except zmqmq.errors.ClosedError as told:
        assert "fork" in str(told)
    else:
        raise SystemExit("the child used what it inherited")
    with zmqmq.Client(url) as own:
        own.produce("t", b"child %d" % name)

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=work, args=(i,)) for i in range(4)]
    for child in children: child.start()
    for child in children: child.join(20)
    assert [child.exitcode for child in children] == [0] * 4, [child.exitcode for child in children]
    out.send(b"parent behind")
    parent.close()
    with zmqmq.Client(url) as mq, mq.reader("t", stop=zmqmq.Offset.END) as reader:
        found = [message.value for message in reader]
    assert found[-1] == b"parent behind", found  # the first was still gathering when the children began
    assert sorted(found[:-1]) == [*[b"child %d" % i for i in range(4)], b"parent before"], found
"""

PREFORK = """
import os, sys, warnings, zmqmq
warnings.simplefilter("ignore", DeprecationWarning)
url, path = sys.argv[1:]
master = zmqmq.Client(url)          # as an application that is loaded before gunicorn forks
embedded = zmqmq.open(path)
master.admin.create_topic("t")
embedded.admin.create_topic("e")
embedded.produce("e", b"1")

def serve(number):
    own = None
    for use in (lambda: master.produce("t", b"x"), lambda: embedded.produce("e", b"x")):
        try:
            use()
        except zmqmq.errors.ClosedError:
            pass
        else:
            return 1
    own = zmqmq.Client(url)
    for i in range(20):
        own.produce("t", b"%d-%d" % (number, i))
    own.close()
    return 0

workers = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = serve(number)
        finally:
            os._exit(code)
    workers.append(pid)
assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers] == [0, 0, 0]
assert master.admin.offsets("t")[0].end == 60
assert embedded.produce("e", b"2").offset == 1
embedded.close()
master.close()
with zmqmq.open(path) as again:
    assert again.produce("e", b"3").offset == 2
"""


@pytest.mark.parametrize("program", [MULTIPROCESSING, PREFORK], ids=["multiprocessing", "prefork"])
def test_forked_children_use_their_own_clients_and_the_parent_goes_on(broker: BrokerProcess, tmp_path: Path, program: str) -> None:
    path = tmp_path / "program.py"
    path.write_text(program)
    arguments = [broker.url] if program is MULTIPROCESSING else [broker.url, str(tmp_path / "embedded")]
    done = subprocess.run([sys.executable, str(path), *arguments], capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


# ── shared, closed, forgotten ────────────────────────────────────────────────────────────────────────


def test_many_threads_use_everything_of_one_client_at_once(broker: BrokerProcess) -> None:
    failures: list[BaseException] = []
    with Client(broker.url) as mq:
        mq.admin.create_topic("t", 4)
        out = mq.producer("t")
        uses: list[Callable[[int], object]] = [
            lambda i: out.send(b"%d" % i, key=b"k%d" % (i % 7)),
            lambda i: mq.produce("t", b"%d" % i),
            lambda _: out.flush(10),
            lambda _: mq.admin.topics(),
            lambda _: mq.admin.offsets("t"),
            lambda _: mq.stats(),
            lambda i: read_some(mq, i),
            lambda i: make_and_drop(mq, i),
        ]

        def work(use: Callable[[int], object]) -> None:
            try:
                for i in range(30):
                    use(i)
            except BaseException as error:  # noqa: BLE001 - shown below
                failures.append(error)

        threads = [threading.Thread(target=work, args=(use,)) for use in uses * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
            assert not thread.is_alive(), "a thread hangs"
        out.close()
    assert failures == []


def read_some(mq: Client, number: int) -> None:
    with mq.reader("t", start=Offset.START) as reader:
        reader.batch(10 + number, timeout=0.01)


def make_and_drop(mq: Client, number: int) -> None:
    name = f"own-{threading.get_ident()}-{number}"
    mq.admin.create_topic(name)
    mq.produce(name, b"x")
    mq.admin.delete_topic(name)


def test_a_client_closed_by_one_thread_under_the_others_ends_them_all_by_name(broker: BrokerProcess) -> None:
    mq = Client(broker.url)
    mq.admin.create_topic("t")
    out = mq.producer("t")
    told: list[str] = []

    def work(use: Callable[[], object]) -> None:
        try:
            while True:
                use()
        except errors.ZmqmqError as error:
            told.append(type(error).__name__)

    uses = [lambda: out.send(b"x"), lambda: mq.produce("t", b"x"), mq.admin.topics, lambda: next(iter(mq.reader("t", start=Offset.END)))]
    threads = [threading.Thread(target=work, args=(use,)) for use in uses]
    for thread in threads:
        thread.start()
    wait_for(lambda: mq.admin.offsets("t")[0].end > 50, "all are busy")
    started = time.monotonic()
    mq.close(5)
    mq.close()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive(), "a thread hangs"
    assert time.monotonic() - started < 5
    assert set(told) == {"ClosedError"}, told


def test_what_is_forgotten_unclosed_warns_and_ends_its_thread_and_connection(broker: BrokerProcess) -> None:
    before = threading.active_count()
    with Client(broker.url) as other:
        other.admin.create_topic("t")
        for _ in range(5):
            mq = Client(broker.url)
            reader, out = mq.reader("t"), mq.producer("t")
            mq.produce("t", b"x")
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                del mq, reader, out
                gc.collect()
            assert any(issubclass(warning.category, ResourceWarning) for warning in told)
        wait_for(lambda: threading.active_count() <= before + 1, "the threads ended")


def test_a_program_that_ends_without_closing_ends_in_time(broker: BrokerProcess) -> None:
    program = Program(
        "import sys, zmqmq\nmq = zmqmq.Client(sys.argv[1])\nmq.admin.create_topic('t')\nout = mq.producer('t')\nout.send(b'x').result(5)\n"
        "reader = mq.reader('t')\nprint(reader.poll(5).value, flush=True)",
        broker.url,
    )
    assert program.line() == "b'x'"
    code, stderr = program.end()
    assert code == 0, stderr
    assert "Traceback" not in stderr


# ── a broker that restarts ───────────────────────────────────────────────────────────────────────────

CALLS: dict[str, Callable[[Client, zmqmq.Producer[bytes], int], object]] = {
    "produce": lambda mq, _, __: mq.produce("t", b"x"),
    "produce acks 1": lambda mq, _, __: mq.produce("t", b"x", acks=1),
    "send and flush": lambda _, out, __: (out.send(b"x"), out.flush(10)),
    "send_many": lambda _, out, __: [handle.result(10) for handle in [out.send_many([b"x"] * 10)]],
    "read": lambda mq, _, __: read_first(mq),
    "seek": lambda mq, _, __: read_by_time(mq),
    "create": lambda mq, _, i: mq.admin.create_topic(f"new-{i}", exist_ok=True),
    "delete": lambda mq, _, i: (mq.admin.create_topic(f"old-{i}", exist_ok=True), mq.admin.delete_topic(f"old-{i}")),
    "alter": lambda mq, _, i: mq.admin.alter_topic("t", {"retention_ms": f"{i + 1}d"}),
    "list": lambda mq, _, __: mq.admin.topics(),
    "offsets": lambda mq, _, __: mq.admin.offsets("t"),
    "new producer": lambda mq, _, __: mq.producer("t").close(),
    "client": lambda mq, _, __: new_client(mq),
}
MAY_RAISE = (errors.RetriableError, errors.TopicExists, errors.UnknownTopic, errors.DeliveryFailed)
"""TopicExists and UnknownTopic: of a call whose first attempt was carried out and not answered."""


def read_first(mq: Client) -> None:
    with mq.reader("t", stop=Offset.exact(1)) as reader:
        assert [message.offset for message in reader] == [0]


def read_by_time(mq: Client) -> None:
    with mq.reader("t", start=Offset.last(1)) as reader:
        assert reader.poll(10) is not None


def new_client(mq: Client) -> None:
    (address,) = mq.stats().connections
    with Client(address, timeout=10) as other:
        other.admin.offsets("t")


def test_whatever_is_called_while_the_broker_is_killed_and_restarted_ends_in_success_or_a_retriable_error(broker: BrokerProcess) -> None:
    stopping = threading.Event()
    done = dict.fromkeys(CALLS, 0)
    failures: list[str] = []
    with Client(broker.url, timeout=10) as mq:
        mq.admin.create_topic("t")
        mq.produce("t", b"first")
        out = mq.producer("t")

        def work(name: str) -> None:
            i = 0
            while not stopping.is_set():
                started = time.monotonic()
                i += 1
                try:
                    CALLS[name](mq, out, i)
                    done[name] += 1
                except MAY_RAISE:
                    pass
                except BaseException as error:  # noqa: BLE001 - shown below
                    failures.append(f"{name}: {error!r}")
                    return
                if time.monotonic() - started > 11:
                    failures.append(f"{name} took {time.monotonic() - started:.1f} s")

        threads = [threading.Thread(target=work, args=(name,)) for name in CALLS]
        for thread in threads:
            thread.start()
        for _ in range(3):
            before = dict(done)
            wait_for(lambda before=before: failures or all(done[name] > before[name] for name in CALLS), "every call succeeds again")
            broker.kill()
            broker.start()
        stopping.set()
        for name, thread in zip(CALLS, threads, strict=True):
            thread.join(15)
            assert not thread.is_alive(), f"{name} hangs"
        out.close()
    assert failures == []
    assert "Traceback" not in broker.stderr()
