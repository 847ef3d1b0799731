"""What people pass to the client, checked once and turned into the values that the machines use.

The arguments are ``object`` here, whatever the signatures promise: programs without mypy call as well. Each check raises
InvalidConfig, which names the argument, what was given, and in its hint what it must be.
"""

from __future__ import annotations

import datetime as dt
import operator
import os
import re
import reprlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, get_args, get_type_hints

from zmqmq.errors import InvalidConfig, UnknownTopic
from zmqmq.model import OFFSET_MAX, Offset, check_topic_name
from zmqmq.wire.requests import ACKS_ALL

Seconds: TypeAlias = float | dt.timedelta
Place: TypeAlias = Offset | int | dt.datetime
Places: TypeAlias = Place | Mapping[int, Place]
CheckedPlaces: TypeAlias = Offset | dict[int, Offset]

ADDRESS_DEFAULT: Final = "tcp://127.0.0.1:5570"
ADDRESS_VARIABLE: Final = "ZMQMQ_BROKERS"
INTEGER_MAX: Final = OFFSET_MAX
"""The wire has no larger one."""
SECONDS_MAX: Final = 86_400.0 * 365

_ADDRESS: Final = re.compile(r"tcp://[^/]+:(?P<port>[0-9]{1,5})|ipc://.+|inproc://.+")
_PORT_MAX: Final = 65_535
_NO_LISTS: Final = (str, bytes, bytearray, memoryview, Mapping)
"""They can be iterated over, but nobody means that."""
_KINDS: Final = get_args(get_type_hints(Offset)["kind"])
_PLACE_RULE: Final = "Offset.START, Offset.END, Offset.last(n), the number of an offset, or a datetime with a time zone"

_short: Final = reprlib.Repr()
_SHOWN_MAX: Final = 150
"""Characters of a wrong value."""
_short.maxstring = _short.maxother = 60


def refused(name: str, value: object, rule: str) -> InvalidConfig:
    """The error for an argument that is of no use."""
    return InvalidConfig(f"{name} is {_short.repr(value)[:_SHOWN_MAX]} ({type(value).__name__})", hint=f"it must be {rule}")


def addresses_of(brokers: object) -> list[str]:
    """The addresses given, or those of the environment, or the default one."""
    if brokers is None:
        brokers = os.environ.get(ADDRESS_VARIABLE) or ADDRESS_DEFAULT
    listed = brokers.split(",") if isinstance(brokers, str) else items_of("brokers", brokers, "addresses, in a list or with commas")
    if not listed:
        raise refused("brokers", brokers, "at least one address, or None for the default")
    return list(dict.fromkeys(_address_of(address) for address in listed))


def _address_of(given: object) -> str:
    address = text_of("broker address", given, "a str like tcp://127.0.0.1:5570").strip()
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise InvalidConfig(
            f"broker address {_short.repr(address)} is not allowed", hint="write it like tcp://127.0.0.1:5570, ipc://path or inproc://name"
        )
    port = found["port"]
    if port is not None and not 1 <= int(port) <= _PORT_MAX:
        raise InvalidConfig(f"broker address {address!r} is not allowed", hint=f"the port must be 1 to {_PORT_MAX}")
    return address


def seconds_of(name: str, value: object, *, low: float = 0.0, high: float = SECONDS_MAX) -> float:
    """Seconds within a range."""
    if isinstance(value, dt.timedelta):
        value = value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, float | int):
        raise refused(name, value, "a number of seconds, or a timedelta")
    if not low <= value <= high:
        raise InvalidConfig(f"{name} is {_short.repr(value)} s", hint=f"it must be {low:g} to {high:g} seconds")
    return float(value)


def maybe_seconds_of(name: str, value: object) -> float | None:
    return None if value is None else seconds_of(name, value)


def whole_of(name: str, value: object) -> int:
    """An integer of any size; no bool, no float."""
    found = _index(value)
    if found is None:
        raise refused(name, value, "a whole number")
    return found


def count_of(name: str, value: object, low: int, high: int = INTEGER_MAX, unit: str = "") -> int:
    """An integer within a range."""
    found = whole_of(name, value)
    if not low <= found <= high:
        limits = f"{low} or more" if high == INTEGER_MAX else f"{low} to {high}"
        raise InvalidConfig(f"{name} is {found}", hint=f"it must be {limits}{unit and ' ' + unit}")
    return found


def _index(value: object) -> int | None:
    """What Python itself takes for an index, numbers of other libraries included, but for bool."""
    if isinstance(value, bool):
        return None
    try:
        return int(operator.index(value))  # type: ignore[arg-type]  # it raises for what is none
    except TypeError:
        return None


def flag_of(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise refused(name, value, "True or False")
    return value


def text_of(name: str, value: object, rule: str = "a str") -> str:
    """A str that can be sent: lone surrogates have no UTF-8."""
    if not isinstance(value, str):
        raise refused(name, value, rule)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise refused(name, value, "text without lone surrogates") from error
    return value


def topic_of(value: object, name: str = "topic", *, is_new: bool = False) -> str:
    """The name of a topic. Those of the cluster itself can be used, not made."""
    return check_topic_name(text_of(name, value, "the name of a topic, a str"), internal=not is_new)


def items_of(name: str, values: object, rule: str) -> list[Any]:
    """What there is to iterate over, as a list; the same one if it is one."""
    if isinstance(values, list):
        return values
    if isinstance(values, _NO_LISTS) or not isinstance(values, Iterable):
        raise refused(name, values, rule)
    return list(values)


def mapping_of(name: str, value: object, rule: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise refused(name, value, rule)
    return value


def texts_of(name: str, value: object) -> list[str]:
    return [text_of(f"a name in {name}", item) for item in items_of(name, value, "a list of names")]


def config_of(name: str, value: object) -> dict[str, str]:
    """Settings of a topic as they travel. Which there are and what they may be, the broker knows."""
    found = {}
    for setting, wanted in mapping_of(name, value, 'a mapping, as {"retention_ms": "7d"}').items():
        text_of(f"a name in {name}", setting)
        if isinstance(wanted, bool) or not isinstance(wanted, str | int | float):
            raise refused(f"{name}[{setting!r}]", wanted, "a str or a number; for the default leave it out")
        found[setting] = text_of(f"{name}[{setting!r}]", str(wanted))
    return found


def acks_of(acks: object) -> int:
    """The number that travels."""
    if acks == "all":
        return ACKS_ALL
    if type(acks) is int and acks in (0, 1):
        return acks
    raise refused("acks", acks, '"all", 1 or 0')


def partitions_of(value: object) -> list[int]:
    """Numbers of partitions, each once, in order."""
    listed = items_of("partitions", value, "a list of partition numbers, or None for all")
    return sorted({whole_of("partition", item) for item in listed})


def offset_of(name: str, place: object) -> Offset:
    """An offset by number, time or name."""
    if isinstance(place, Offset):
        if place.kind not in _KINDS or type(place.value) is not int:
            raise refused(name, place, _PLACE_RULE)
        return place
    if isinstance(place, dt.datetime):
        if place.utcoffset() is None:
            raise refused(name, place, "a time with a time zone, as datetime.now(UTC)")
        return Offset.at(place)
    number = _index(place)
    if number is None or number > INTEGER_MAX:
        raise refused(name, place, _PLACE_RULE)
    if number < 0:
        raise InvalidConfig(f"{name} must not be negative, got {number}", hint="to count from the end: Offset.last(n)")
    return Offset.exact(number)


def places_of(name: str, places: object) -> CheckedPlaces:
    """One place for all partitions, or one for each that a mapping names."""
    if isinstance(places, Mapping):
        return {whole_of(f"a partition in {name}", number): offset_of(f"{name}[{number}]", place) for number, place in places.items()}
    return offset_of(name, places)


def offsets_of(places: CheckedPlaces, partitions: Sequence[int], default: Offset) -> dict[int, Offset]:
    """One offset per partition; ``default`` for those that a mapping does not name."""
    if isinstance(places, Offset):
        return dict.fromkeys(partitions, places)
    check_partitions(places, partitions)
    return {partition: places.get(partition, default) for partition in partitions}


def stops_of(places: CheckedPlaces | None, partitions: Sequence[int]) -> dict[int, Offset | None]:
    """As ``offsets_of``; partitions without a stop are read on for ever."""
    if places is None or isinstance(places, Offset):
        return dict.fromkeys(partitions, places)
    check_partitions(places, partitions)
    return {partition: places.get(partition) for partition in partitions}


def check_partitions(wanted: Collection[int], known: Sequence[int], topic: str = "") -> None:
    missing = sorted(set(wanted) - set(known))
    if missing:
        where = f" of topic {topic}" if topic else ""
        raise UnknownTopic(f"partition {missing[0]}{where} does not exist", hint=f"there are {len(known)}: {known[0]} to {known[-1]}")
