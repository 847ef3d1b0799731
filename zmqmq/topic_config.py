"""The settings of a topic: names, defaults, ranges and meaning in one place.

On the wire and in the metadata log a configuration is a map of strings, holding only what was set;
here it becomes a typed value. A key that this version does not know is kept and ignored when read from
the log, refused when set.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from msgspec import Struct

from zmqmq.errors import InvalidConfig, ZmqmqError
from zmqmq.model import BATCH_BYTES_MAX, MESSAGE_BYTES_MAX
from zmqmq.units import UNLIMITED, format_bytes, format_duration_ms, parse_bytes, parse_duration_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_WEEK_MS = 604_800_000
_HUGE = 1 << 62


class TopicConfig(Struct, frozen=True):
    """Every setting with its value, set or default. See ``SETTINGS`` for what each one means."""

    durability: Literal["fsync", "replicated"] = "fsync"
    cleanup_policy: Literal["delete"] = "delete"
    retention_ms: int = _WEEK_MS
    retention_bytes: int = UNLIMITED
    segment_bytes: int = 256 << 20
    segment_ms: int = _WEEK_MS
    message_bytes_max: int = MESSAGE_BYTES_MAX
    min_insync_replicas: int = 1
    unclean_election: bool = False
    compression: Literal["zstd", "none"] = "zstd"


class Setting(NamedTuple):
    """One row of the reference of topic settings."""

    name: str
    parse: Callable[[str], Any]
    format: Callable[[Any], str]
    rule: str
    doc: str


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise InvalidConfig(f"{text!r} is not one of {', '.join(allowed)}")
        return text

    return parse


def _bounded(parse: Callable[[str], int], low: int, high: int, *, unlimited: bool = False) -> Callable[[str], int]:
    def checked(text: str) -> int:
        value = parse(text)
        if not (low <= value <= high or (unlimited and value == UNLIMITED)):
            raise InvalidConfig(f"{text!r} is out of range")
        return value

    return checked


def _truth(text: str) -> bool:
    return _choice("true", "false")(text) == "true"


def _format_truth(value: bool) -> str:
    return "true" if value else "false"


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InvalidConfig(f"{text!r} is not a whole number") from error


SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("durability", _choice("fsync", "replicated"), str, "fsync or replicated",
                "What an acknowledgement waits for: the disk of each in-sync replica, or its memory."),
        Setting("cleanup_policy", _choice("delete"), str, "delete",
                "What happens to old records."),
        Setting("retention_ms", _bounded(parse_duration_ms, 1, _HUGE, unlimited=True), format_duration_ms, "at least 1ms, or unlimited",
                "Sealed segments whose newest record is older than this are removed."),
        Setting("retention_bytes", _bounded(parse_bytes, 1, _HUGE, unlimited=True), format_bytes, "at least 1, or unlimited",
                "Per partition: the oldest sealed segments beyond this size are removed."),
        Setting("segment_bytes", _bounded(parse_bytes, 4096, 1 << 31), format_bytes, "4KiB to 2GiB",
                "A segment is sealed before it grows beyond this size."),
        Setting("segment_ms", _bounded(parse_duration_ms, 100, _HUGE), format_duration_ms, "at least 100ms",
                "A segment is sealed when its first record is older than this."),
        Setting("message_bytes_max", _bounded(parse_bytes, 1, BATCH_BYTES_MAX - 4096), format_bytes, "1 to 4MiB less 4KiB",
                "Largest record (key, value and headers) and so the smallest allowed batch limit."),
        Setting("min_insync_replicas", _bounded(_integer, 1, 255), str, "1 to the number of replicas",
                "Fewer in-sync replicas than this: writes are refused. A topic of several replicas is created with a majority of them."),
        Setting("unclean_election", _truth, _format_truth, "true or false",
                "A replica that may lack acknowledged records may lead when no other is left: losing them instead of waiting."),
        Setting("compression", _choice("zstd", "none"), str, "zstd or none",
                "What producers compress batches with unless they are told otherwise."),
    )
}  # fmt: skip


def parse_config(overrides: Mapping[str, str]) -> TopicConfig:
    """The typed settings. Raises InvalidConfig that names the field, the value and the rule, or the nearest name."""
    values: dict[str, Any] = {}
    for name, text in overrides.items():
        setting = SETTINGS.get(name)
        if setting is None:
            near = difflib.get_close_matches(name, SETTINGS, n=1)
            raise InvalidConfig(
                f"unknown topic setting {name!r}",
                hint=f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(SETTINGS))}",
            )
        try:
            values[name] = setting.parse(str(text))
        except ZmqmqError as error:
            raise InvalidConfig(f"topic setting {name}: {error}", hint=error.hint or f"allowed: {setting.rule}") from error
    return TopicConfig(**values)


def stored_config(overrides: Mapping[str, str]) -> TopicConfig:
    """As ``parse_config``, for what the metadata log holds: names from the future are ignored."""
    return parse_config({name: text for name, text in overrides.items() if name in SETTINGS})


def describe_config(config: TopicConfig) -> dict[str, str]:
    """Every setting as people write it."""
    return {name: setting.format(getattr(config, name)) for name, setting in SETTINGS.items()}
