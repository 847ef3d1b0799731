"""The broker's configuration: every mistake is named with field, value and rule."""

from __future__ import annotations

import pytest

from zmqmq.broker.config import BrokerConfig, load_config, parse_config
from zmqmq.errors import InvalidConfig


def test_an_empty_file_is_the_defaults() -> None:
    assert parse_config("") == BrokerConfig()


def test_sizes_and_durations_are_read_as_people_write_them() -> None:
    config = parse_config(
        """
        data = "/var/lib/zmqmq"
        listen = "tcp://127.0.0.1:0"
        replicated_sync_ms = "1s"
        [limits]
        in_flight_bytes_max = "8MiB"
        [store]
        journal_bytes_max = "16MiB"
        disk_bytes_max = "unlimited"
        """
    )
    assert config.listen == ("tcp://127.0.0.1:0",)
    assert config.replicated_sync_ms == 1000
    assert config.limits.in_flight_bytes_max == 8 << 20
    assert config.store.journal_bytes_max == 16 << 20


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lisen = 'x'", "did you mean listen?"),
        ("[limits]\nconnection_max = 5", "did you mean limits.connections_max?"),
        ("[stroe]\n", "did you mean store?"),
        ("node_id = 'one'", "node_id"),
        ("node_id = -1", "node_id = -1: must be 0 to"),
        ("listen = 5", "$.listen"),
        ("listen = ['udp://127.0.0.1:1']", "must be tcp://"),
        ("listen = ['tcp://127.0.0.1']", "must end with :port"),
        ("listen = ['tcp://0.0.0.0:5570']", "insecure_plaintext"),
        ("listen = ['tcp://*:5570']\ninsecure_plaintext = true", "advertise"),
        ("listen = ['tcp://example.org:5570']", "insecure_plaintext"),
        ("http = '0.0.0.0:80'", "insecure_plaintext"),
        ("http = '127.0.0.1'", "host:port"),
        ("data = ''", "must name a directory"),
        ("[limits]\nentries_max = 0", "limits.entries_max = 0: must be 1 to"),
        ("[limits]\nin_flight_bytes_max = '512MiB'", "must not be below"),
        ("[store]\njournal_bytes_max = 'much'", "store.journal_bytes_max"),
        ("x = ", "not TOML"),
    ],
)
def test_a_mistake_is_named(text: str, said: str) -> None:
    with pytest.raises(InvalidConfig) as raised:
        parse_config(text)
    assert said in f"{raised.value} {raised.value.hint}"


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tcp://[::1]:1", "tcp://localhost:1", "ipc:///tmp/x", "inproc://x"])
def test_this_machine_needs_no_permission(address: str) -> None:
    assert parse_config(f"listen = ['{address}']").listen == (address,)


def test_a_file_that_cannot_be_read_is_named(tmp_path) -> None:
    with pytest.raises(InvalidConfig, match=r"absent\.toml"):
        load_config(str(tmp_path / "absent.toml"))
    (tmp_path / "bad.toml").write_text("nod_id = 1")
    with pytest.raises(InvalidConfig, match=r"bad\.toml.*nod_id"):
        load_config(str(tmp_path / "bad.toml"))
