"""Types of options: durations, sizes, rates, counts. Wrong input is a usage error that shows how to write it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # not generic before click 8.5

FORMAT = click.Choice(["text", "wide", "json", "jsonl", "yaml", "csv"])
ACKS: Final[dict[str, Literal["all", 1, 0]]] = {"all": "all", "1": 1, "0": 0}
_PORT_MAX: Final = 65_535
_MULTIPLES = {"k": 1_000, "m": 1_000_000}


class Parsed(_ParamType):
    """A type made of a function that raises ZmqmqError or ValueError."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self.parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from zmqmq.errors import ZmqmqError

        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ZmqmqError as error:
            self.fail(f"{error}; {error.hint}" if error.hint else str(error), param, ctx)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _seconds(text: str) -> float:
    """A bare number is seconds here, as in every other command line."""
    from zmqmq.units import parse_duration_ms

    try:
        seconds = float(text)
    except ValueError:
        seconds = parse_duration_ms(text) / 1000
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{text!r} is not a time to wait; write 5s, 250ms or 2m")
    return seconds


def _linger(text: str) -> float:
    """As a duration, and 0 is allowed."""
    return 0.0 if text.strip() in {"0", "0s", "0ms"} else _seconds(text)


def _size(text: str) -> int:
    from zmqmq.units import parse_bytes

    size = parse_bytes(text)
    if size < 0:
        raise ValueError(f"{text!r} is not a size; write 100, 1KiB or 4MiB")
    return size


def _rate(text: str) -> float:
    """Messages a second: 1000, 1000/s, 10k/s, 60/m."""
    number, _, unit = text.partition("/")
    per = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}.get(unit.strip())
    multiple = _MULTIPLES.get(number[-1:].lower(), 1)
    try:
        count = float(number[:-1] if multiple > 1 else number) * multiple
    except ValueError:
        count = 0.0
    if per is None or not 0 < count < float("inf"):
        raise ValueError(f"{text!r} is not a rate; write 1000/s, 10k/s or 60/m")
    return count / per


def _count(text: str) -> int:
    """A whole number, 1_000_000 and 10k and 1m allowed."""
    multiple = _MULTIPLES.get(text[-1:].lower(), 1)
    try:
        count = int(text[:-1]) * multiple if multiple > 1 else int(text.replace(",", ""))
    except ValueError:
        raise ValueError(f"{text!r} is not a number of messages; write 1000, 1_000_000 or 10k") from None
    if count < 1:
        raise ValueError(f"{text!r} is less than 1")
    return count


def _partitions(text: str) -> tuple[int, ...]:
    from zmqmq.model import PARTITIONS_MAX

    found: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdigit() or (dash and not high.isdigit()) or int(high or low) >= PARTITIONS_MAX:
            raise ValueError(f"{text!r} is not a list of partitions; write 0,3 or 0-5")
        found.extend(range(int(low), int(high if dash else low) + 1))
    return tuple(dict.fromkeys(found))


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"{text!r} is not of the form name=value")
    return name.strip(), value


def _partitions_and_replicas(text: str) -> tuple[int, int]:
    """``6`` or ``6:3``; 0 stands for the default."""
    partitions, colon, replicas = text.partition(":")
    if not partitions.isdigit() or not (replicas if colon else "0").isdigit():
        raise ValueError(f"{text!r} is not of the form PARTITIONS or PARTITIONS:REPLICAS")
    return int(partitions), int(replicas or "0")


def _share(text: str) -> float:
    """10% or 0.1, less than the whole."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise ValueError(f"{text!r} is not a share; write 10% or 0.1")
    return share


def _place(text: str) -> tuple[str, int]:
    """orders:3"""
    topic, colon, number = text.rpartition(":")
    if not colon or not topic or not (number.isascii() and number.isdigit()):
        raise ValueError(f"{text!r} is not of the form TOPIC:PARTITION")
    return topic, int(number)


def _nodes(text: str) -> tuple[int, ...]:
    """1 or 1,2,3"""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f"{text!r} is not a list of node ids; write 1,2,3")
    return tuple(dict.fromkeys(map(int, parts)))


def _new_topics(text: str) -> tuple[tuple[str, int, int], ...]:
    """orders:6:3,events; 0 stands for the default."""
    found = []
    for part in text.split(","):
        name, _, rest = part.strip().partition(":")
        if not name:
            raise ValueError(f"{text!r} names no topic; write orders:6,events")
        found.append((name, *_partitions_and_replicas(rest or "0")))
    return tuple(found)


def _brokers(text: str) -> str:
    """Addresses with commas between; what cannot be one is found before anybody waits for it."""
    for address in (part.strip() for part in text.split(",")):
        scheme, separator, rest = address.partition("://")
        if not separator or scheme not in {"tcp", "ipc", "inproc"} or not rest:
            raise ValueError(f"{address!r} is not a broker's address; write tcp://127.0.0.1:5570 or ipc://path")
        host, _, port = rest.rpartition(":")
        if scheme == "tcp" and not (host and port.isascii() and port.isdigit() and 0 < int(port) <= _PORT_MAX):
            raise ValueError(f"{address!r} has no port from 1 to {_PORT_MAX}; write tcp://127.0.0.1:5570")
    return text


BROKERS = Parsed("url", _brokers)
DURATION = Parsed("duration", _seconds)
LINGER = Parsed("duration", _linger)
SIZE = Parsed("size", _size)
RATE = Parsed("rate", _rate)
COUNT = Parsed("count", _count)
PARTITIONS = Parsed("partitions", _partitions)
SETTING = Parsed("name=value", _setting)
PARTITIONS_AND_REPLICAS = Parsed("p[:rf]", _partitions_and_replicas)
SHARE = Parsed("share", _share)
PLACE = Parsed("topic:partition", _place)
NODES = Parsed("nodes", _nodes)
NEW_TOPICS = Parsed("topics", _new_topics)
