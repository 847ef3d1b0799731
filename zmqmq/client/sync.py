"""``Client``: the synchronous face. One I/O thread and one metadata cache; producers and readers are its children.

Nothing is started by hand and nothing waits without a deadline. After ``fork()`` the child's use of anything made before it
raises ClosedError and touches nothing of the parent's.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import random
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, TypeVar, overload

from msgspec import Struct

from zmqmq.client.accumulator import Accumulator
from zmqmq.client.admin import Admin
from zmqmq.client.arguments import (
    Places,
    Seconds,
    acks_of,
    addresses_of,
    bytes_of,
    check_partitions,
    maybe_seconds_of,
    offsets_of,
    seconds_of,
    stops_of,
)
from zmqmq.client.asking import Asker
from zmqmq.client.core import ClientCore
from zmqmq.client.fetcher import BUFFER_BYTES_MAX, Fetcher
from zmqmq.client.handles import BatchHandle, Failure, Handle
from zmqmq.client.io_thread import IoThread
from zmqmq.client.outbox import Outbox
from zmqmq.client.producer import Headers, Producer
from zmqmq.client.reader import Inbox, Reader, stop_on_signals
from zmqmq.client.routing import route_of
from zmqmq.client.sender import Sender
from zmqmq.client.serde import Serde, raw
from zmqmq.errors import ClosedError, InvalidConfig, UnknownTopic, ZmqmqError
from zmqmq.model import BATCH_BYTES_MAX, Acks, Delivery, Offset
from zmqmq.topic_config import stored_config

V = TypeVar("V")

TIMEOUT_S: Final = 5.0
LINGER_S: Final = 0.005
BATCH_BYTES: Final = 256 << 10
BUFFER_BYTES: Final = 32 << 20
MAX_BLOCK_S: Final = 30.0
DELIVERY_TIMEOUT_S: Final = 30.0
PRODUCERS_MAX: Final = 256
"""Producers that ``produce`` keeps ready, one per topic, acks and timeout; the oldest ends beyond it."""
_GRACE_S: Final = 2.0
"""Beyond a delivery timeout, for the I/O thread to say so."""
_BATCH_ROOM_BYTES: Final = 64 << 10

Compression = Literal["zstd", "none"]


class ClientStats(Struct, frozen=True):
    """Counters of one client since its start."""

    connections: dict[str, str]
    requests_sent: int
    buffered_bytes: int
    producers: int
    readers: int


class Client:
    """A connection to a cluster. Safe to use from many threads; a context manager."""

    def __init__(
        self, brokers: str | Sequence[str] | None = None, *, client_id: str = "", timeout: Seconds = TIMEOUT_S, name: str = ""
    ) -> None:
        """``brokers``: addresses to begin with (a list, or one string with commas); $ZMQMQ_BROKERS or tcp://127.0.0.1:5570
        without. Connects when it is first used. ``timeout``: how long calls wait unless they say otherwise."""
        self.closed: ZmqmqError | None = ClosedError("the client did not start")
        self.addresses = addresses_of(brokers)
        self.client_id = client_id
        self.timeout = seconds_of("timeout", timeout, low=0.001)
        self._random = random.Random()
        core = ClientCore(self.addresses, client_id=client_id, random=self._random)
        self._io = IoThread(core, name or f"zmqmq-client-{client_id or hex(id(self))}")
        self._asker = Asker(self._io, self.timeout)
        self._lock = threading.Lock()
        self._outboxes: weakref.WeakSet[Outbox] = weakref.WeakSet()
        self._producers: weakref.WeakSet[Producer[Any]] = weakref.WeakSet()
        self._readers: weakref.WeakSet[Reader[Any]] = weakref.WeakSet()
        self._ready_producers: dict[tuple[str, int, float], Producer[bytes]] = {}
        self.admin = Admin(self._asker)
        self.closed = None
        _clients.add(self)

    def __repr__(self) -> str:
        return f"Client({','.join(self.addresses)} {'closed' if self.closed else 'open'})"

    # -- producing ----------------------------------------------------------------------------------

    def produce(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | str | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp: dt.datetime | None = None,
        acks: Acks = "all",
        timeout: Seconds | None = None,
    ) -> Delivery:
        """Send one record and wait for its receipt. When ``timeout`` passes, the error's ``outcome`` tells the truth."""
        seconds = self.timeout if timeout is None else seconds_of("timeout", timeout, low=0.001)
        deadline = time.monotonic() + seconds
        try:
            producer = self._ready_producer(topic, acks_of(acks), seconds)
        except ZmqmqError as error:
            error.outcome = "not_written"
            raise
        try:
            handle = producer.send(value, key=key, headers=headers, partition=partition, timestamp=timestamp)
            return handle.result(max(0.0, deadline - time.monotonic()) + _GRACE_S)
        except (UnknownTopic, ClosedError):
            self._forget_producer(producer)  # the topic may have been made anew, with another id
            raise

    @overload
    def producer(
        self,
        topic: str,
        *,
        value: Serde[V],
        key: Serde[Any] | None = None,
        acks: Acks = "all",
        linger: Seconds = LINGER_S,
        compression: Compression | None = None,
        idempotent: bool = True,
        max_block: Seconds = MAX_BLOCK_S,
        batch_bytes: int = BATCH_BYTES,
        buffer_bytes: int = BUFFER_BYTES,
        delivery_timeout: Seconds = DELIVERY_TIMEOUT_S,
    ) -> Producer[V]: ...
    @overload
    def producer(
        self,
        topic: str,
        *,
        key: Serde[Any] | None = None,
        acks: Acks = "all",
        linger: Seconds = LINGER_S,
        compression: Compression | None = None,
        idempotent: bool = True,
        max_block: Seconds = MAX_BLOCK_S,
        batch_bytes: int = BATCH_BYTES,
        buffer_bytes: int = BUFFER_BYTES,
        delivery_timeout: Seconds = DELIVERY_TIMEOUT_S,
    ) -> Producer[bytes]: ...
    def producer(
        self,
        topic: str,
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
    ) -> Producer[Any]:
        """A producer of one topic. ``compression`` is the topic's setting unless given. Raises UnknownTopic."""
        outbox = self._outbox(
            topic,
            acks=acks_of(acks),
            idempotent=idempotent,
            linger=seconds_of("linger", linger, high=3600.0),
            compression=compression,
            batch_bytes=bytes_of("batch_bytes", batch_bytes, 1, BATCH_BYTES_MAX - _BATCH_ROOM_BYTES),
            buffer_bytes=bytes_of("buffer_bytes", buffer_bytes, batch_bytes, 1 << 40),
            delivery_timeout=seconds_of("delivery_timeout", delivery_timeout, low=0.001),
            timeout=self.timeout,
        )
        return self._producer(outbox, value or raw(), key, seconds_of("max_block", max_block))

    def _producer(self, outbox: Outbox, value: Serde[V], key: Serde[Any] | None, max_block: float) -> Producer[V]:
        producer = Producer(outbox, value, key, max_block=max_block, on_close=lambda: self._end_outbox(outbox))
        self._producers.add(producer)
        return producer

    def _ready_producer(self, topic: str, acks: int, seconds: float) -> Producer[bytes]:
        self._check_open()
        found = self._ready_producers.get((topic, acks, seconds))
        if found is not None:
            return found
        outbox = self._outbox(
            topic,
            acks=acks,
            idempotent=True,
            linger=0.0,
            compression=None,
            batch_bytes=BATCH_BYTES,
            buffer_bytes=BUFFER_BYTES,
            delivery_timeout=seconds,
            timeout=seconds,
        )
        outbox.keeps_failures = False
        made = self._producer(outbox, raw(), None, seconds)
        with self._lock:
            kept = self._ready_producers.setdefault((topic, acks, seconds), made)
            oldest = self._ready_producers[next(iter(self._ready_producers))] if len(self._ready_producers) > PRODUCERS_MAX else None
        if kept is not made:
            made.close()
        if oldest is not None:
            self._forget_producer(oldest)
        return kept

    def _forget_producer(self, producer: Producer[bytes]) -> None:
        with self._lock:
            self._ready_producers = {key: kept for key, kept in self._ready_producers.items() if kept is not producer}
        with contextlib.suppress(ZmqmqError):  # each record's caller got its own error
            producer.close(self.timeout)

    def _outbox(
        self,
        topic: str,
        *,
        acks: int,
        idempotent: bool,
        linger: float,
        compression: Compression | None,
        batch_bytes: int,
        buffer_bytes: int,
        delivery_timeout: float,
        timeout: float,
    ) -> Outbox:
        self._check_open()
        info, reply = self._asker.topic(topic, timeout)
        route = route_of(info)
        chosen = compression or stored_config(info.config).compression
        if chosen not in {"zstd", "none"}:
            raise InvalidConfig(f"compression is {chosen!r}", hint='it must be "zstd" or "none"')
        accumulator = Accumulator(
            topic,
            batch_bytes=batch_bytes,
            buffer_bytes=buffer_bytes,
            linger_ms=int(linger * 1000),
            delivery_ms=int(delivery_timeout * 1000),
        )
        core = self._io.core
        sender = Sender(topic, acks=acks, idempotent=idempotent, leader=core.leader_of(topic))
        turn = self._random.randrange(max(1, route.partition_count))
        outbox = Outbox(self._io, sender, accumulator, route, compress=chosen == "zstd", turn=turn)

        def join(core: ClientCore) -> None:
            core.add_sender(sender)
            core.routing.on_reply(reply, is_refresh=False)
            self._io.add(outbox)

        self._asker.in_io(join)
        self._outboxes.add(outbox)
        return outbox

    def _end_outbox(self, outbox: Outbox) -> None:
        """Fail what is left, and part from it."""

        def leave(core: ClientCore) -> None:
            outbox.before(0)
            outbox.sender.fail_all("were not delivered before the producer was closed")
            outbox.after()
            self._io.remove(outbox)
            core.remove_sender(outbox.sender)

        if self._io.is_alive:
            with contextlib.suppress(ClosedError):  # the thread ended meanwhile, and failed them itself
                self._asker.in_io(leave)

    # -- reading ------------------------------------------------------------------------------------

    @overload
    def reader(
        self,
        topic: str,
        *,
        value: Serde[V],
        partitions: Sequence[int] | None = None,
        start: Places = Offset.START,
        stop: Places | None = None,
        key: Serde[Any] | None = None,
        timeout: Seconds | None = None,
        buffer_bytes: int = BUFFER_BYTES_MAX,
    ) -> Reader[V]: ...
    @overload
    def reader(
        self,
        topic: str,
        *,
        partitions: Sequence[int] | None = None,
        start: Places = Offset.START,
        stop: Places | None = None,
        key: Serde[Any] | None = None,
        timeout: Seconds | None = None,
        buffer_bytes: int = BUFFER_BYTES_MAX,
    ) -> Reader[bytes]: ...
    def reader(
        self,
        topic: str,
        *,
        partitions: Sequence[int] | None = None,
        start: Places = Offset.START,
        stop: Places | None = None,
        value: Serde[Any] | None = None,
        key: Serde[Any] | None = None,
        timeout: Seconds | None = None,
        buffer_bytes: int = BUFFER_BYTES_MAX,
    ) -> Reader[Any]:
        """Read partitions (all, unless given) without a group. ``start`` and ``stop``: an Offset, a number, a time, or a mapping
        from partition to one. ``timeout``: iteration ends after so long without a message. Raises UnknownTopic."""
        self._check_open()
        idle = maybe_seconds_of("timeout", timeout)
        info, reply = self._asker.topic(topic)
        known = sorted(partition.partition for partition in info.partitions)
        check_partitions(partitions or (), known, topic)
        wanted = known if partitions is None else sorted(set(partitions))
        core = self._io.core
        starts, stops = offsets_of(start, wanted, Offset.START), stops_of(stop, wanted)
        fetcher = Fetcher(info.topic_id, starts, stops, leader=core.leader_of(topic), buffer_bytes=buffer_bytes)
        inbox = Inbox(self._io, fetcher)

        def join(core: ClientCore) -> None:
            core.add_fetcher(topic, fetcher)
            core.routing.on_reply(reply, is_refresh=False)
            self._io.add(inbox)

        def leave(core: ClientCore) -> None:
            self._io.remove(inbox)
            core.remove_fetcher(fetcher)

        self._asker.in_io(join)
        reader = Reader(
            inbox, topic, wanted, value or raw(), key, timeout=idle, patience=self.timeout, on_close=lambda: self._maybe_in_io(leave)
        )
        self._readers.add(reader)
        return reader

    def _maybe_in_io(self, function: Callable[[ClientCore], None]) -> None:
        if self.closed is None and self._io.is_alive:
            with contextlib.suppress(ClosedError):  # the thread ended meanwhile
                self._asker.in_io(function)

    # -- the client itself --------------------------------------------------------------------------

    def stats(self) -> ClientStats:
        """What this client did and holds."""
        connections, requests = self._asker.in_io(
            lambda core: ({session.address: session.state.value for session in core.sessions()}, core.requests_sent())
        )
        buffered = sum(outbox.accumulator.buffered_bytes for outbox in self._outboxes)
        return ClientStats(connections, requests, buffered, len(self._producers), len(self._readers))

    def close(self, timeout: Seconds | None = None) -> None:
        """Flush the producers, then end. Takes ``timeout`` (the client's, unless given) and a little; what is not delivered by
        then fails, and DeliveryFailed is raised."""
        if self.closed is not None:
            return
        seconds = self.timeout if timeout is None else seconds_of("timeout", timeout)
        deadline = time.monotonic() + seconds
        self.closed = ClosedError("the client is closed", hint="make a new one")
        failure: ZmqmqError | None = None
        try:
            for producer in list(self._producers):
                try:
                    producer.close(max(0.0, deadline - time.monotonic()))
                except ZmqmqError as error:
                    failure = failure or error
        finally:
            self._io.close(_GRACE_S)
            for reader in list(self._readers):
                reader.close()
        if failure is not None:
            raise failure

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Leaving by an error flushes all the same, but that error is the one that is raised."""
        try:
            self.close()
        except ZmqmqError:
            if kind is None:
                raise

    def __del__(self) -> None:
        if getattr(self, "closed", True) is None:
            warnings.warn(f"{self!r} was dropped without close(); use 'with'", ResourceWarning, stacklevel=2)
            self._io.close(0.0)

    def _check_open(self) -> None:
        if self.closed is not None:
            raise type(self.closed)(str(self.closed), hint=self.closed.hint)

    # -- fork ---------------------------------------------------------------------------------------

    def _locks(self) -> Iterator[threading.Lock]:
        yield self._lock
        for outbox in list(self._outboxes):
            yield outbox.lock

    def _on_forked(self) -> None:
        """In the child: nothing of the parent's is used any more, and nobody waits for it."""
        error = ClosedError("the client was made before fork(); only the parent may use it", hint="make a Client in each process")
        self.closed = error
        self._io.abandon(error)
        for outbox in self._outboxes:
            outbox.on_forked(error)
        for reader in self._readers:
            reader.closed = error


_clients: weakref.WeakSet[Client] = weakref.WeakSet()
_held: list[threading.Lock] = []


def _before_fork() -> None:
    """No lock may be held by a thread that will not exist in the child."""
    for client in list(_clients):
        for lock in client._locks():  # noqa: SLF001 - this module's own
            lock.acquire()
            _held.append(lock)


def _after_fork() -> None:
    while _held:
        _held.pop().release()


def _after_fork_in_child() -> None:
    _after_fork()
    for client in list(_clients):
        client._on_forked()  # noqa: SLF001 - this module's own


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)

__all__ = [
    "BatchHandle",
    "Client",
    "ClientStats",
    "Failure",
    "Handle",
    "Producer",
    "Reader",
    "stop_on_signals",
]
