"""Targets: settings that people write. See ``targets``."""

from __future__ import annotations

import random
from typing import Final

import msgspec
from fuzzing import Target
from mutating import TEXT, Trees

from zmqmq import topic_config
from zmqmq.broker.config import parse_config as parse_broker_config
from zmqmq.errors import InvalidConfig
from zmqmq_cli.toml import toml

CONFIGS: Final = (
    b"retention_ms=7d\nsegment_bytes=64MiB",
    b"durability=replicated\ncompression=none\nmin_insync_replicas=2",
    b"retention_bytes=unlimited\nsegment_ms=250ms\nmessage_bytes_max=1.5MiB\ncleanup_policy=delete",
)
BROKERS: Final = (
    b'data = "d"\nlisten = ["tcp://127.0.0.1:5570", "inproc://x"]\nhttp = "127.0.0.1:0"\n',
    b'node_id = 7\n[limits]\nconnections_max = 10\nin_flight_bytes_max = "8MiB"\n',
    b'insecure_plaintext = true\nlisten = "tcp://0.0.0.0:1"\nadvertise = "h"\n[store]\ncheckpoint_ms_max = "5s"\ndisk_bytes_max = -1',
)


def check_topic_config(data: bytes) -> None:
    pairs = [line.partition("=") for line in data.decode(errors="replace").split("\n")]
    texts = {name: value for name, _, value in pairs}
    known = topic_config.stored_config(texts)
    assert topic_config.parse_config(topic_config.describe_config(known)) == known
    assert topic_config.parse_config(texts) == known


def check_broker_config(data: bytes) -> None:
    config = parse_broker_config(data.decode(errors="replace"))
    assert parse_broker_config(toml(config)) == config


def lines_of(body: bytes, _: random.Random) -> bytes:
    tree = msgspec.json.decode(body)
    return "\n".join([f"{name}={value}" for name, value in tree.items()] if isinstance(tree, dict) else [str(tree)]).encode(
        errors="replace"
    )


_TREES: Final = tuple(msgspec.json.encode(dict(line.split("=") for line in each.decode().split("\n"))) for each in CONFIGS)

TARGETS: Final = (
    Target(
        "topic-config", check_topic_config, (InvalidConfig,), CONFIGS,
        tokens=TEXT, trees=Trees(_TREES, msgspec.json.decode, msgspec.json.encode, lines_of), reason_characters=24,
    ),
    Target("broker-config", check_broker_config, (InvalidConfig,), BROKERS, tokens=TEXT, reason_characters=18),
)  # fmt: skip
