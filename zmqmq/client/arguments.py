"""What people pass to the client, checked once and turned into the values that the machines use."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Final, TypeAlias

from zmqmq.errors import InvalidConfig, UnknownTopic
from zmqmq.model import Offset
from zmqmq.wire.requests import ACKS_ALL

Seconds: TypeAlias = float | dt.timedelta
Place: TypeAlias = Offset | int | dt.datetime
Places: TypeAlias = Place | Mapping[int, Place]

ADDRESS_DEFAULT: Final = "tcp://127.0.0.1:5570"
ADDRESS_VARIABLE: Final = "ZMQMQ_BROKERS"
_SCHEMES: Final = ("tcp://", "ipc://", "inproc://")


def addresses_of(brokers: str | Sequence[str] | None) -> list[str]:
    """The addresses given, or those of the environment, or the default one."""
    if brokers is None:
        brokers = os.environ.get(ADDRESS_VARIABLE) or ADDRESS_DEFAULT
    found = [part.strip() for part in brokers.split(",")] if isinstance(brokers, str) else list(brokers)
    for address in found:
        if not address.startswith(_SCHEMES):
            raise InvalidConfig(
                f"broker address {address!r} is not allowed", hint="write it like tcp://127.0.0.1:5570, ipc://path or inproc://name"
            )
    return list(dict.fromkeys(found))


def seconds_of(name: str, value: Seconds, *, low: float = 0.0, high: float = 86_400.0 * 365) -> float:
    """Seconds within a range."""
    found = value.total_seconds() if isinstance(value, dt.timedelta) else float(value)
    if not low <= found <= high:
        raise InvalidConfig(f"{name} is {found:g} s", hint=f"it must be {low:g} to {high:g} seconds")
    return found


def maybe_seconds_of(name: str, value: Seconds | None) -> float | None:
    return None if value is None else seconds_of(name, value)


def bytes_of(name: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise InvalidConfig(f"{name} is {value}", hint=f"it must be {low} to {high} bytes")
    return value


def acks_of(acks: str | int) -> int:
    """The number that travels."""
    if acks == "all":
        return ACKS_ALL
    if acks in {0, 1} and isinstance(acks, int):
        return int(acks)
    raise InvalidConfig(f"acks is {acks!r}", hint='it must be "all", 1 or 0')


def offset_of(place: Place) -> Offset:
    """An offset by number, time or name."""
    if isinstance(place, Offset):
        return place
    if isinstance(place, dt.datetime):
        return Offset.at(place)
    return Offset.exact(place)


def offsets_of(places: Places | None, partitions: Sequence[int], default: Offset) -> dict[int, Offset]:
    """One offset per partition; ``default`` for those that a mapping does not name."""
    if places is None:
        return dict.fromkeys(partitions, default)
    if not isinstance(places, Mapping):
        return dict.fromkeys(partitions, offset_of(places))
    check_partitions(places, partitions)
    return {partition: offset_of(places[partition]) if partition in places else default for partition in partitions}


def stops_of(places: Places | None, partitions: Sequence[int]) -> dict[int, Offset | None]:
    """As ``offsets_of``; partitions without a stop are read on for ever."""
    if places is None or not isinstance(places, Mapping):
        return dict.fromkeys(partitions, None if places is None else offset_of(places))
    check_partitions(places, partitions)
    return {partition: offset_of(places[partition]) if partition in places else None for partition in partitions}


def check_partitions(wanted: Collection[int], known: Sequence[int], topic: str = "") -> None:
    missing = sorted(set(wanted) - set(known))
    if missing:
        where = f" of topic {topic}" if topic else ""
        raise UnknownTopic(f"partition {missing[0]}{where} does not exist", hint=f"there are {len(known)}: {known[0]} to {known[-1]}")
