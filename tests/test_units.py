"""Durations, sizes and topic settings as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqmq.errors import InvalidConfig
from zmqmq.topic_config import SETTINGS, TopicConfig, describe_config, parse_config, stored_config
from zmqmq.units import format_bytes, format_duration_ms, human_bytes, parse_bytes, parse_duration_ms


@pytest.mark.parametrize(
    ("text", "milliseconds"), [("7d", 604_800_000), ("1.5h", 5_400_000), ("250ms", 250), ("90", 90), ("unlimited", -1), ("2 min", 120_000)]
)
def test_durations(text: str, milliseconds: int) -> None:
    assert parse_duration_ms(text) == milliseconds


def test_a_number_without_end_is_refused() -> None:
    with pytest.raises(InvalidConfig):
        parse_duration_ms("9" * 400)
    with pytest.raises(InvalidConfig):
        parse_bytes("1." + "0" * 400 + "MiB")


@pytest.mark.parametrize(("text", "size"), [("64MiB", 67_108_864), ("10kB", 10_000), ("512", 512), ("1g", 1 << 30), ("unlimited", -1)])
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "7 days ago", "MiB", "1.2.3s", "5parsec"])
def test_nonsense_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        parse_duration_ms(text)
    assert "7d" in caught.value.hint


@given(st.integers(-1, 2**50))
def test_formatting_is_exact(value: int) -> None:
    assert parse_duration_ms(format_duration_ms(value)) == value
    assert parse_bytes(format_bytes(value)) == value


def test_human_sizes_are_short() -> None:
    assert [human_bytes(n) for n in (0, 999, 1536, 4.1 * (1 << 30))] == ["0 B", "999 B", "1.5 K", "4.1 G"]


def test_a_topic_configuration_is_typed() -> None:
    config = parse_config({"retention_ms": "7d", "segment_bytes": "64MiB", "durability": "replicated"})
    assert config == TopicConfig(retention_ms=604_800_000, segment_bytes=64 << 20, durability="replicated")


def test_an_unknown_setting_suggests_the_near_one() -> None:
    with pytest.raises(InvalidConfig, match="retention_m") as caught:
        parse_config({"retention_m": "7d"})
    assert "retention_ms" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("durability", "maybe"),
        ("segment_bytes", "12"),
        ("min_insync_replicas", "two"),
        ("retention_ms", "0"),
        ("message_bytes_max", "5MiB"),
    ],
)
def test_a_bad_value_names_the_setting(name: str, value: str) -> None:
    with pytest.raises(InvalidConfig, match=name) as caught:
        parse_config({name: value})
    assert caught.value.hint


def test_settings_from_the_future_are_ignored_when_they_come_from_the_log() -> None:
    assert stored_config({"colour": "blue", "retention_ms": "1h"}) == TopicConfig(retention_ms=3_600_000)


def test_every_setting_is_described_and_reads_back() -> None:
    described = describe_config(TopicConfig())
    assert set(described) == set(SETTINGS) == set(TopicConfig.__struct_fields__)
    assert parse_config(described) == TopicConfig()
