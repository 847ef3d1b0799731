"""A real broker over real sockets: it serves, survives strangers and bad input, and keeps what it acknowledged."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from raw_client import WAIT_MS, RawClient, make_batch

from zmqmq.broker.config import BrokerConfig
from zmqmq.broker.server import Broker
from zmqmq.errors import (
    AddressInUse,
    BrokerUnavailable,
    DataDirLocked,
    DataLost,
    InvalidConfig,
    LogOffline,
    RemoteProtocolError,
    UnsupportedVersion,
)
from zmqmq.model import FRAME_BYTES_MAX
from zmqmq.store.disk import RealDisk, RealFile
from zmqmq.transport.registry import lease
from zmqmq.transport.router import PEER_QUEUE_BYTES_MAX, PEER_WINDOW_BYTES, RouterTransport
from zmqmq.transport.sockets import new_dealer
from zmqmq.transport.wakeup import Wakeup
from zmqmq.wire import framing
from zmqmq.wire.replies import HelloReply
from zmqmq.wire.requests import (
    CreateTopic,
    DeleteEntry,
    DeleteRecords,
    DeleteTopic,
    Fetch,
    FetchEntry,
    GetMetadata,
    GetStats,
    ListOffsets,
    OffsetQuery,
    Ping,
    Produce,
    ProduceEntry,
)

TCP = "tcp://127.0.0.1:0"


def config(path: Path, **settings) -> BrokerConfig:
    return msgspec.structs.replace(BrokerConfig(data=str(path / "data"), listen=(TCP,), http=""), **settings)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(config(tmp_path))
    made.start()
    yield made
    made.close()


@pytest.fixture
def client(broker: Broker) -> Iterator[RawClient]:
    with RawClient(broker.endpoints[0]) as made:
        yield made


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_MS / 1000
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.002)


def test_what_is_produced_is_fetched_whole_and_again_after_a_restart(tmp_path: Path) -> None:
    broker = Broker(config(tmp_path))
    broker.start()
    with RawClient(broker.endpoints[0]) as client:
        topic = client.create("orders", 2)
        receipt = client.produce(topic, b"a", b"b", partition=1)
        assert (receipt.base_offset, receipt.replicas, receipt.synced) == (0, 1, 1)
        assert client.values(topic, 1) == [b"a", b"b"]
    broker.close()
    again = Broker(config(tmp_path))
    again.start()
    with RawClient(again.endpoints[0]) as client:
        assert client.call(GetMetadata).topics[0].partitions[1].leader_epoch == 1
        assert client.values(topic, 1) == [b"a", b"b"]
        assert client.produce(topic, b"c", partition=1).base_offset == 2
    again.close()


def test_a_waiting_fetch_is_answered_by_the_next_produce(client: RawClient) -> None:
    topic = client.create("orders")
    number = client.send(Fetch, wait_ms_max=WAIT_MS, entries=[FetchEntry(topic.topic_id, 0, 0)])
    client.send(Produce, (make_batch(b"v"),), entries=[ProduceEntry(topic.topic_id, 0)])
    answers = {reply.correlation_id: frames for reply, frames in (client.receive(), client.receive())}
    assert len(answers[number]) == 1


def test_big_batches_travel_both_ways(client: RawClient) -> None:
    topic = client.create("big", message_bytes_max="3MiB")
    value = os.urandom(2 << 20)
    client.produce(topic, value)
    assert client.values(topic) == [value]


def test_offsets_are_found_by_time(client: RawClient) -> None:
    topic = client.create("t")
    first = client.produce(topic, b"a")
    wait_for(lambda: client.produce(topic, b"b").append_time_ms > first.append_time_ms)
    queries = [OffsetQuery(topic.topic_id, 0, 2, time_ms) for time_ms in (0, first.append_time_ms + 1, 1 << 50)]
    found = client.call(ListOffsets, queries=queries).results
    assert found[0].offset == 0
    assert found[1].offset >= 1
    assert found[2].time_ms == -1


def test_deleted_records_stay_deleted_over_a_restart(tmp_path: Path) -> None:
    broker = Broker(config(tmp_path))
    broker.start()
    with RawClient(broker.endpoints[0]) as client:
        topic = client.create("t")
        client.produce(topic, b"a", b"b")
        client.produce(topic, b"c")
        assert client.call(DeleteRecords, entries=[DeleteEntry(topic.topic_id, 0, 2)]).results[0].log_start == 2
    broker.close()
    again = Broker(config(tmp_path))
    again.start()
    with RawClient(again.endpoints[0]) as client:
        with pytest.raises(DataLost):
            client.values(topic, offset=0)
        assert client.values(topic, offset=2) == [b"c"]
    again.close()


def test_a_deleted_topic_leaves_no_files(tmp_path: Path, broker: Broker, client: RawClient) -> None:
    topic = client.create("t")
    client.produce(topic, b"a")
    client.call(DeleteTopic, name="t")
    assert not (tmp_path / "data" / "logs" / topic.topic_id.hex()).exists()
    assert broker.unready() == ""


def test_replicated_records_reach_the_disk_soon_without_anybody_waiting(client: RawClient) -> None:
    topic = client.create("t", durability="replicated")
    assert client.produce(topic, b"a").synced == 0
    before = client.call(GetStats).sync.count
    wait_for(lambda: client.call(GetStats).sync.count > before)


def test_a_broker_opens_an_empty_directory_in_a_tenth_of_a_second(tmp_path: Path) -> None:
    warm = Broker(config(tmp_path / "warm"))
    warm.open()
    warm.close()
    started = time.perf_counter()
    broker = Broker(config(tmp_path))
    broker.start()
    elapsed = time.perf_counter() - started
    broker.close()
    assert elapsed < 0.1


def test_another_clients_fetch_does_not_wait_for_a_slow_sync(tmp_path: Path) -> None:
    slow = SlowDisk()
    broker = Broker(config(tmp_path), disk=slow)
    broker.start()
    with RawClient(broker.endpoints[0]) as writer, RawClient(broker.endpoints[0]) as reader:
        topic = writer.create("t")
        writer.produce(topic, b"a")
        slow.release.clear()
        writer.send(Produce, (make_batch(b"b"),), entries=[ProduceEntry(topic.topic_id, 0)])
        assert slow.entered.wait(5)
        assert reader.values(topic) == [b"a"]
        slow.release.set()
        assert writer.receive()[0].results[0].base_offset == 1
    broker.close()


class SlowDisk(RealDisk):
    """Its syncs wait for ``release``, or fail."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.release.set()
        self.entered = threading.Event()
        self.fails = False

    def open(self, path: str, *, create: bool = False, write: bool = True) -> RealFile:
        disk = self

        class SlowFile(RealFile):
            def fdatasync(self) -> None:
                if not disk.release.is_set():
                    disk.entered.set()
                    disk.release.wait(10)
                if disk.fails:
                    raise OSError(5, "Input/output error")
                super().fdatasync()

        file = super().open(path, create=create, write=write)
        slow = SlowFile(file._fd)
        file._fd = -1
        return slow


def test_a_failed_sync_stops_writes_for_good_and_says_so_everywhere(tmp_path: Path) -> None:
    disk = SlowDisk()
    broker = Broker(config(tmp_path, http="127.0.0.1:0"), disk=disk)
    broker.start()
    with RawClient(broker.endpoints[0]) as client:
        topic = client.create("t")
        client.produce(topic, b"a")
        disk.fails = True
        for _ in range(2):
            result = client.call(Produce, (make_batch(b"b"),), entries=[ProduceEntry(topic.topic_id, 0)])
            error = framing.raised(result.fault if hasattr(result, "fault") else result.results[0].error)
            assert isinstance(error, LogOffline)
            disk.fails = False
        assert client.values(topic) == [b"a"]
        assert "sync" in client.call(GetStats).offline
        with pytest.raises(urllib.error.HTTPError) as unready:
            urllib.request.urlopen(f"{broker.http_url}/readyz")
        assert unready.value.code == 503
        unready.value.close()
    broker.close()


def test_a_removed_directory_is_noticed(tmp_path: Path, broker: Broker, client: RawClient) -> None:
    client.create("t")
    shutil.rmtree(tmp_path / "data")
    wait_for(lambda: "removed" in broker.unready())
    with pytest.raises(LogOffline):
        raise framing.raised(client.call(CreateTopic, name="u").fault)


def test_a_broker_whose_directory_has_a_new_owner_stops_and_leaves_it_alone(tmp_path: Path, broker: Broker, client: RawClient) -> None:
    client.produce(client.create("t"), b"a")
    shutil.rmtree(tmp_path / "data")
    successor = Broker(config(tmp_path))
    successor.start()
    with RawClient(successor.endpoints[0]) as other:
        topic = other.create("u")
        other.produce(topic, b"b")
        wait_for(lambda: "replaced" in broker.unready())
        broker.close()
        assert other.produce(topic, b"c").synced == 1
    successor.close()
    again = Broker(config(tmp_path))
    again.start()
    with RawClient(again.endpoints[0]) as other:
        assert other.values(topic) == [b"b", b"c"]
    again.close()


def test_a_turn_takes_a_bounded_number_of_bytes() -> None:
    transport = RouterTransport(Wakeup())
    transport.bind("inproc://turn")
    held = lease("inproc://turn")
    dealer = new_dealer(held.context)
    dealer.connect("inproc://turn")
    for _ in range(7):
        dealer.send_multipart([b"x" * 1000, b"y" * 1000])
    taken = [len(transport.receive(3, bytes_max)) for bytes_max in (5000, 1 << 20, 0, 1, 1 << 20, 1 << 20)]
    assert taken == [3, 3, 0, 1, 0, 0]
    for _ in range(4):
        dealer.send_multipart([b"x" * 1000, b"y" * 1000])
    assert [len(transport.receive(9, 3000)) for _ in range(3)] == [2, 2, 0]
    dealer.close()
    transport.close()
    held.release()


def test_the_second_broker_on_a_directory_is_refused(tmp_path: Path, broker: Broker) -> None:
    with pytest.raises(DataDirLocked):
        Broker(config(tmp_path)).start()
    assert broker.unready() == ""


def test_a_taken_port_is_named(tmp_path: Path, broker: Broker) -> None:
    with pytest.raises(AddressInUse, match=broker.endpoints[0]):
        Broker(config(tmp_path / "other", listen=(broker.endpoints[0],))).start()


def test_a_taken_http_port_is_named_and_everything_is_let_go(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AddressInUse, match=address):
            Broker(config(tmp_path, http=address)).start()
    broker = Broker(config(tmp_path))
    broker.start()
    broker.close()


def test_another_node_id_than_the_directorys_is_refused(tmp_path: Path, broker: Broker) -> None:
    broker.close()
    with pytest.raises(InvalidConfig, match="belongs to node 0"):
        Broker(config(tmp_path, node_id=3)).start()


def test_closing_twice_is_fine_and_gives_the_last_receipts(tmp_path: Path) -> None:
    broker = Broker(config(tmp_path))
    broker.start()
    with RawClient(broker.endpoints[0]) as client:
        topic = client.create("t")
        client.send(Produce, (make_batch(b"v"),), entries=[ProduceEntry(topic.topic_id, 0)])
        wait_for(lambda: any(leader.next_offset for leader in broker._loop.node.partitions))
        broker.close()
        broker.close()
        assert client.receive()[0].results[0].base_offset == 0


def test_a_bug_in_the_loop_ends_the_broker_loudly_and_loses_nothing(tmp_path: Path) -> None:
    broker = Broker(config(tmp_path))
    broker.open()

    def bug(*_: object) -> None:
        raise RuntimeError("a bug")

    broker._loop.node.on_tick = bug
    with pytest.raises(RuntimeError, match="a bug"):
        broker.run()
    with pytest.raises(RuntimeError, match="a bug"):
        broker.close()
    again = Broker(config(tmp_path))
    again.start()
    again.close()


def test_inproc_names_end_with_their_broker(tmp_path: Path) -> None:
    broker = Broker(config(tmp_path, listen=("inproc://here",)))
    broker.start()
    held = lease("inproc://here")
    assert held.is_alive
    broker.close()
    assert not held.is_alive
    held.release()
    with pytest.raises(BrokerUnavailable):
        lease("inproc://here")


def test_python_without_assertions_is_refused() -> None:
    code = "from zmqmq.broker.config import BrokerConfig; from zmqmq.broker.server import Broker; Broker(BrokerConfig())"
    ended = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert "does not run without assertions" in ended.stderr


def port_of(broker: Broker) -> int:
    return int(broker.endpoints[0].rpartition(":")[2])


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        os.urandom(4096),
        b"\xff" + b"\x00" * 8 + b"\x7f" + b"\x00" * 64,
    ],
)
def test_noise_on_the_port_harms_nobody(broker: Broker, client: RawClient, noise: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port_of(broker))) as stranger:
        stranger.sendall(noise)
        assert client.call(Ping)


def test_messages_of_another_protocol_or_version_get_a_named_error(client: RawClient) -> None:
    for frames, error in (
        ([b"", b"hello"], RemoteProtocolError),
        ([b"x"], RemoteProtocolError),
        ([framing.PROTOCOL], RemoteProtocolError),
        ([framing.PROTOCOL[:-1] + b"\x09", b"\x93\x0c\x07\x01"], UnsupportedVersion),
        ([framing.PROTOCOL, b"\xc1"], RemoteProtocolError),
        ([framing.PROTOCOL, b"\x91" * 5000], RemoteProtocolError),
        ([framing.PROTOCOL, b"\x93\x7f\x07\x01"], RemoteProtocolError),
        ([framing.PROTOCOL, b"\x93\x0c\x07\x01", *[b""] * 5000], RemoteProtocolError),
    ):
        client.send_frames(frames)
        reply, _ = client.receive()
        assert isinstance(framing.raised(reply.fault), error)
    assert client.call(GetStats).errors["RemoteProtocolError"] == 7


def test_an_oversized_frame_ends_that_connection_only(broker: Broker, client: RawClient) -> None:
    with RawClient(broker.endpoints[0]) as rude:
        rude.send_frames([framing.PROTOCOL, b"\x93\x0c\x07\x01", b"x" * (FRAME_BYTES_MAX + 1)])
        assert client.call(Ping)


def test_a_client_that_reads_no_answers_costs_a_bounded_amount_and_delays_nobody(broker: Broker, client: RawClient) -> None:
    topic = client.create("big", message_bytes_max="3MiB")
    client.produce(topic, os.urandom(2 << 20))
    with RawClient(broker.endpoints[0]) as deaf:
        for _ in range(150):  # more than ZeroMQ takes on the side of the deaf
            deaf.send(Fetch, entries=[FetchEntry(topic.topic_id, 0, 0)])
        wait_for(lambda: client.call(GetStats).errors.get("RepliesDropped", 0) > 0)
        assert client.call(Ping)
        assert broker._transport.unread_bytes <= PEER_WINDOW_BYTES + PEER_QUEUE_BYTES_MAX + (3 << 20)
        assert deaf.receive()[1]
    wait_for(lambda: client.call(Ping) is not None and broker._transport.unread_bytes == 0)


def test_clients_that_left_do_not_count(tmp_path: Path) -> None:
    settings = config(tmp_path)
    broker = Broker(msgspec.structs.replace(settings, limits=msgspec.structs.replace(settings.limits, connections_max=20)))
    broker.start()
    with RawClient(broker.endpoints[0]) as client:
        topic = client.create("t")
        for _ in range(100):
            with RawClient(broker.endpoints[0]) as short:
                assert isinstance(short.hello, HelloReply)
                short.produce(topic, b"v")
        wait_for(lambda: client.call(GetStats).connections == 1)
    broker.close()


def test_the_last_words_of_a_client_that_left_are_heard(broker: Broker, client: RawClient) -> None:
    topic = client.create("t")
    for _ in range(20):
        short = RawClient(broker.endpoints[0])
        for _ in range(25):
            short.send(Produce, (make_batch(b"v"),), acks=0, entries=[ProduceEntry(topic.topic_id, 0)])
        short.socket.close(linger=WAIT_MS)
        short.close()
    wait_for(lambda: len(client.values(topic)) == 500)
    wait_for(lambda: client.call(GetStats).connections == 1)
    assert client.call(GetStats).errors == {}


def test_health_is_told_over_http(tmp_path: Path) -> None:
    broker = Broker(config(tmp_path, http="127.0.0.1:0"))
    broker.start()
    for path, text in (("/livez", b"ok\n"), ("/readyz", b"ok\n"), ("/", b"zmqmq broker: /livez /readyz\n")):
        with urllib.request.urlopen(broker.http_url + path) as answer:
            assert answer.read() == text
    with pytest.raises(urllib.error.HTTPError) as missing:
        urllib.request.urlopen(broker.http_url + "/etc/passwd")
    missing.value.close()
    broker.close()


SERVE = """
import sys
from zmqmq.broker.config import BrokerConfig
from zmqmq.broker.server import Broker
broker = Broker(BrokerConfig(data=sys.argv[1], listen=("tcp://127.0.0.1:0",), http=""))
broker.open()
print(broker.endpoints[0], flush=True)
broker.run()
"""


def serve(path: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert process.stdout is not None
    process.stdout.close()


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    acknowledged: list[tuple[int, bytes]] = []
    topic = None
    for life in range(3):
        process, endpoint = serve(tmp_path / "data")
        with RawClient(endpoint) as client:
            topic = topic or client.create("t")
            found = client.values(topic)
            for offset, value in acknowledged:
                assert found[offset] == value
            pending: dict[int, bytes] = {}
            for i in range(200):
                value = b"%d-%d" % (life, i)
                pending[client.send(Produce, (make_batch(value),), entries=[ProduceEntry(topic.topic_id, 0)])] = value
            for _ in range(100):
                reply, _ = client.receive()
                acknowledged.append((reply.results[0].base_offset, pending[reply.correlation_id]))
            kill(process)
    broker = Broker(config(tmp_path))
    broker.start()
    with RawClient(broker.endpoints[0]) as client:
        found = client.values(topic)
        assert all(found[offset] == value for offset, value in acknowledged)
        assert client.produce(topic, b"next").leader_epoch == 3
    broker.close()
    assert len(acknowledged) == 300
