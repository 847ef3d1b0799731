"""``zmqmq dev``: real brokers started, watched and ended by one command. Mostly one of them, for the time it takes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live import SECONDS_MAX, Command

from zmqmq import Client
from zmqmq.errors import AddressInUse, InvalidConfig
from zmqmq.testing.processes import NodePlan, check_free, free_ports, is_alive
from zmqmq_cli.dev_cluster import DevCluster, Note, read_note, write_note


class Dev(Command):
    """The command for a user of its own, with no address given."""

    def __init__(self, home: Path) -> None:
        super().__init__("")
        self.environment = {name: value for name, value in self.environment.items() if name != "ZMQMQ_BROKERS"}
        self.environment |= {"XDG_CONFIG_HOME": str(home), "TMPDIR": str(home)}
        self.folder = home / "zmqmq"

    def note(self) -> Any:
        return json.loads((self.folder / "dev.json").read_text())


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    command = Dev(tmp_path)
    yield command
    command("dev", "stop")


def test_a_cluster_in_the_background_is_used_by_commands_until_it_is_stopped(dev: Dev, tmp_path: Path) -> None:
    done = dev("dev", "--port", "0", "--topics", "orders:6,events:1:1", "--detach")
    header, *rows, export = done.stdout.splitlines()
    assert header.split() == ["NODE", "CLIENTS", "HTTP"]
    nodes, urls, https = zip(*(row.split() for row in rows), strict=True)
    assert (nodes, export) == (("0", "1", "2"), f"export ZMQMQ_BROKERS={','.join(urls)}")
    assert all(http.startswith("127.0.0.1:") for http in https)
    assert re.fullmatch(r'context "dev" selected; controller [012]; ready in [\d.]+ s +\(end it with  zmqmq dev stop\)\n', done.stderr)

    assert dev("topic", "list").stdout == "events  1  1\norders  6  3\n"
    again = dev("dev", "-n", "1", "--port", "0")
    assert again.returncode == 2
    assert again.stderr.startswith("Error: a dev cluster runs already, processes ")
    assert "zmqmq dev stop" in again.stderr

    directory = Path(dev.note()["directory"])
    assert directory.parent == tmp_path
    stopped = dev("dev", "stop")
    assert (stopped.returncode, stopped.stdout) == (0, "stopped 3 brokers\n")
    assert not directory.exists()
    assert dev("context", "list").stdout == ""
    assert dev("dev", "stop").stderr == "no dev cluster runs\n"


def test_ctrl_c_ends_all_brokers_and_keeps_the_data_where_it_was_wanted(dev: Dev, tmp_path: Path) -> None:
    data = tmp_path / "kept"
    for value in (b"1", b"2"):
        process = dev.start("dev", "-n", "1", "--port", "0", "--data", str(data), "--topics", "t", "-f", "jsonl")
        assert process.stdout is not None
        row = json.loads(process.stdout.readline())
        with Client(row["clients"]) as client:
            client.produce("t", value)
            assert client.admin.offsets("t")[0].end == int(value)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=SECONDS_MAX)
        assert (process.returncode, said.splitlines()[-1]) == (130, f"stopped; the data is in {data}")
        assert not is_alive(row["pid"], str(data))
    done = dev("dev", "-n", "3", "--port", "0", "--data", str(data))
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, f"Error: {data} holds a cluster of 1 broker, not of 3")


def test_a_broker_that_dies_is_told_and_the_last_one_ends_the_command(dev: Dev) -> None:
    process = dev.start("dev", "-n", "1", "--port", "0", "--json")
    assert process.stdout is not None
    row = json.loads(process.stdout.readline())
    os.kill(row["pid"], signal.SIGKILL)
    _, said = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 1
    assert f"node 0 ended with code -9; its log is {row['log']}" in said
    assert Path(row["log"]).exists()


def test_a_broker_that_cannot_start_says_why(dev: Dev, tmp_path: Path) -> None:
    (tmp_path / "d" / "node-0").mkdir(parents=True)
    (tmp_path / "d" / "node-0" / "data").write_text("not a directory")
    done = dev("dev", "-n", "1", "--port", "0", "--data", str(tmp_path / "d"))
    assert done.returncode == 1
    assert done.stderr.startswith("Error: node 0 ended with code 1: ")
    assert str(tmp_path / "d" / "node-0" / "broker.log") in done.stderr.splitlines()[2]


def test_a_taken_port_is_named_before_anything_starts(dev: Dev) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = dev("dev", "-n", "1", "--port", str(port - 1))
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: port {port} of 127.0.0.1, for node 0, is taken")
    assert not (dev.folder / "dev.json").exists()


def test_a_note_of_a_cluster_that_is_gone_keeps_nobody_from_a_new_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    write_note(Note(str(tmp_path / "gone"), True, (os.getpid(),)))  # noqa: FBT003 - a tuple's member
    note = read_note()
    assert note is not None
    assert note.running == []
    for damaged in ("", "{", '{"directory": 1}', "[]"):
        (tmp_path / "zmqmq" / "dev.json").write_text(damaged)
        assert read_note() is None


# --- plans


def test_three_brokers_get_two_ports_each_and_addresses_among_themselves(tmp_path: Path) -> None:
    base = next(port for port in range(20_000, 60_000, 50) if all(_is_free(port + i) for i in range(6)))
    plans = DevCluster(3, str(tmp_path), base).plans
    assert [plan.url for plan in plans] == [f"tcp://127.0.0.1:{base + 2 * i}" for i in range(3)]
    assert [plan.http for plan in plans] == [f"127.0.0.1:{base + 2 * i + 1}" for i in range(3)]
    controls = {plan.control for plan in plans}
    assert len(controls) == 3
    assert {plan.control for plan in DevCluster(3, str(tmp_path), base).plans} == controls


def test_what_a_broker_is_told_is_a_configuration_that_it_takes(tmp_path: Path) -> None:
    from zmqmq.broker.config import control_address, load_config, peer_addresses

    ports = free_ports(2)
    plans = [NodePlan(i, tmp_path / str(i), f"tcp://127.0.0.1:{i + 1}", control=f"tcp://127.0.0.1:{ports[i]}") for i in range(2)]
    config = load_config(str(plans[1].write_config(plans)))
    assert (config.node_id, config.listen, config.http) == (1, ("tcp://127.0.0.1:2",), "")
    assert peer_addresses(config) == {0: plans[0].control, 1: plans[1].control}
    assert control_address(config) == plans[1].control


def test_ports_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="leaves no room for 3 brokers"):
        DevCluster(3, str(tmp_path), 65_533)


def test_a_free_port_is_free_and_a_taken_one_is_told() -> None:
    (port,) = free_ports(1)
    check_free(port, "node 0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(AddressInUse, match="node 0"):
            check_free(taken.getsockname()[1], "node 0")


def _is_free(port: int) -> bool:
    try:
        check_free(port, "")
    except AddressInUse:
        return False
    return True
