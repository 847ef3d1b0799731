"""How producers and readers come to be: arguments are checked, the topic is asked for, the parts are put together.

The conversations join the parts to the engine; ``leave_producer`` and ``leave_reader`` part them from it again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypedDict, TypeVar

from msgspec import Struct

from zmqmq.client.accumulator import Accumulator
from zmqmq.client.arguments import (
    CheckedPlaces,
    Places,
    Seconds,
    acks_of,
    check_partitions,
    count_of,
    flag_of,
    maybe_seconds_of,
    offsets_of,
    partitions_of,
    places_of,
    refused,
    seconds_of,
    stops_of,
)
from zmqmq.client.core import ClientCore
from zmqmq.client.engine import Io
from zmqmq.client.fetcher import BUFFER_BYTES_MAX, Fetcher
from zmqmq.client.intake import Inbox, Intake
from zmqmq.client.outbox import Outbox
from zmqmq.client.routing import route_of
from zmqmq.client.sender import Sender
from zmqmq.client.serde import Serde, raw
from zmqmq.client.steps import Steps, find_topic, in_core
from zmqmq.model import BATCH_BYTES_MAX, Acks, Offset
from zmqmq.ports import Random
from zmqmq.topic_config import stored_config

F = TypeVar("F", bound=Callable[..., Any])

TIMEOUT_S: Final = 5.0
LINGER_S: Final = 0.005
BATCH_BYTES: Final = 256 << 10
BUFFER_BYTES: Final = 32 << 20
MAX_BLOCK_S: Final = 30.0
DELIVERY_TIMEOUT_S: Final = 30.0
GRACE_S: Final = 2.0
"""Beyond a delivery timeout, for the engine to say so."""
_LINGER_S_MAX: Final = 3600.0
_BATCH_ROOM_BYTES: Final = 64 << 10
_BUFFER_BYTES_MAX: Final = 1 << 40

Compression = Literal["zstd", "none"]


class ProducerArguments(TypedDict, total=False):
    """What ``producer`` takes beside topic and value serde."""

    key: Serde[Any] | None
    acks: Acks
    linger: Seconds
    compression: Compression | None
    idempotent: bool
    max_block: Seconds
    batch_bytes: int
    buffer_bytes: int
    delivery_timeout: Seconds


class ReaderArguments(TypedDict, total=False):
    """What ``reader`` takes beside topic and value serde."""

    partitions: Sequence[int] | None
    start: Places
    stop: Places | None
    key: Serde[Any] | None
    timeout: Seconds | None
    buffer_bytes: int


def takes(arguments: Callable[..., Any]) -> Callable[[F], F]:
    """For ``help()``: the method takes a topic and all that ``arguments`` takes."""

    def decorate(method: F) -> F:
        shown, given = inspect.signature(method), inspect.signature(arguments)
        first = [parameter for parameter in shown.parameters.values() if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
        method.__signature__ = shown.replace(parameters=[*first, *given.parameters.values()])  # type: ignore[attr-defined]  # as functions do
        return method

    return decorate


class ProducerSettings(Struct, frozen=True):
    """A producer's arguments, checked. Times in seconds."""

    value: Serde[Any]
    key: Serde[Any] | None
    acks: int
    linger: float
    compression: Compression | None
    idempotent: bool
    max_block: float
    batch_bytes: int
    buffer_bytes: int
    delivery_timeout: float
    keeps_failures: bool = True

    @classmethod
    def of(
        cls,
        *,
        value: Serde[Any] | None = None,
        key: Serde[Any] | None = None,
        acks: Acks = "all",
        linger: Seconds = LINGER_S,
        compression: Compression | None = None,
        idempotent: bool = True,
        max_block: Seconds = MAX_BLOCK_S,
        batch_bytes: int = BATCH_BYTES,
        buffer_bytes: int = BUFFER_BYTES,
        delivery_timeout: Seconds = DELIVERY_TIMEOUT_S,
    ) -> ProducerSettings:
        if compression not in (None, "zstd", "none"):
            raise refused("compression", compression, '"zstd" or "none", or None for what the topic says')
        return cls(
            _serde_of("value", value) or raw(),
            _serde_of("key", key),
            acks_of(acks),
            seconds_of("linger", linger, high=_LINGER_S_MAX),
            compression,
            flag_of("idempotent", idempotent),
            seconds_of("max_block", max_block),
            count_of("batch_bytes", batch_bytes, 1, BATCH_BYTES_MAX - _BATCH_ROOM_BYTES, "bytes"),
            count_of("buffer_bytes", buffer_bytes, batch_bytes, _BUFFER_BYTES_MAX, "bytes"),
            seconds_of("delivery_timeout", delivery_timeout, low=0.001),
        )

    @classmethod
    def for_single_records(cls, acks: int, seconds: float) -> ProducerSettings:
        """For ``produce``, whose caller waits for each receipt."""
        return cls(
            value=raw(),
            key=None,
            acks=acks,
            linger=0.0,
            compression=None,
            idempotent=True,
            max_block=seconds,
            batch_bytes=BATCH_BYTES,
            buffer_bytes=BUFFER_BYTES,
            delivery_timeout=seconds,
            keeps_failures=False,
        )


class ReaderSettings(Struct, frozen=True):
    """A reader's arguments, as far as they can be checked without the topic."""

    value: Serde[Any]
    key: Serde[Any] | None
    partitions: list[int] | None
    start: CheckedPlaces
    stop: CheckedPlaces | None
    timeout: float | None
    buffer_bytes: int

    @classmethod
    def of(
        cls,
        *,
        value: Serde[Any] | None = None,
        key: Serde[Any] | None = None,
        partitions: Sequence[int] | None = None,
        start: Places = Offset.START,
        stop: Places | None = None,
        timeout: Seconds | None = None,
        buffer_bytes: int = BUFFER_BYTES_MAX,
    ) -> ReaderSettings:
        wanted = None if partitions is None else partitions_of(partitions)
        if wanted == []:
            raise refused("partitions", partitions, "at least one partition, or None for all")
        return cls(
            _serde_of("value", value) or raw(),
            _serde_of("key", key),
            wanted,
            places_of("start", start),
            None if stop is None else places_of("stop", stop),
            maybe_seconds_of("timeout", timeout),
            count_of("buffer_bytes", buffer_bytes, 1, _BUFFER_BYTES_MAX, "bytes"),
        )


def _serde_of(name: str, serde: Any) -> Any:
    """None, or what can encode and decode; str and bytes each lack one of them."""
    if serde is not None and not (callable(getattr(serde, "encode", None)) and callable(getattr(serde, "decode", None))):
        raise refused(name, serde, "a serde: zmqmq.raw(), text(), json() or msgpack()")
    return serde


def open_producer(io: Io, topic: str, settings: ProducerSettings, random: Random, *, timeout: float | None = None) -> Steps[Outbox]:
    """Raises UnknownTopic."""
    info, reply = yield from find_topic(topic, timeout)
    route = route_of(info)
    compression = settings.compression or stored_config(info.config).compression
    accumulator = Accumulator(
        topic,
        batch_bytes=settings.batch_bytes,
        buffer_bytes=settings.buffer_bytes,
        linger_ms=int(settings.linger * 1000),
        delivery_ms=int(settings.delivery_timeout * 1000),
    )
    sender = Sender(topic, acks=settings.acks, idempotent=settings.idempotent, leader=io.core.leader_of(topic))
    turn = random.randrange(0, max(1, route.partition_count))
    outbox = Outbox(io, sender, accumulator, route, compress=compression == "zstd", turn=turn)
    outbox.keeps_failures = settings.keeps_failures

    def join(core: ClientCore) -> None:
        core.add_sender(sender)
        core.routing.on_reply(reply, is_refresh=False)
        io.add(outbox)

    yield from in_core(join)
    return outbox


def leave_producer(outbox: Outbox, core: ClientCore) -> None:
    """On the engine's side: fail what is left, and part from it."""
    outbox.before(0)
    outbox.sender.fail_all("were not delivered before the producer was closed")
    outbox.after()
    outbox.io.remove(outbox)
    core.remove_sender(outbox.sender)


def open_reader(io: Io, topic: str, settings: ReaderSettings) -> Steps[Intake[Any]]:
    """Raises UnknownTopic."""
    info, reply = yield from find_topic(topic)
    known = sorted(partition.partition for partition in info.partitions)
    check_partitions(settings.partitions or (), known, topic)
    wanted = known if settings.partitions is None else settings.partitions
    starts, stops = offsets_of(settings.start, wanted, Offset.START), stops_of(settings.stop, wanted)
    fetcher = Fetcher(info.topic_id, starts, stops, leader=io.core.leader_of(topic), buffer_bytes=settings.buffer_bytes)
    inbox = Inbox(io, fetcher)

    def join(core: ClientCore) -> None:
        core.add_fetcher(topic, fetcher)
        core.routing.on_reply(reply, is_refresh=False)
        io.add(inbox)

    yield from in_core(join)
    return Intake(inbox, topic, wanted, settings.value, settings.key)


def leave_reader(inbox: Inbox, core: ClientCore) -> None:
    """On the engine's side."""
    inbox.io.remove(inbox)
    core.remove_fetcher(inbox.fetcher)
