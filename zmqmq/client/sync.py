"""``Client``: the synchronous face. One I/O thread and one metadata cache; producers and readers are its children.

Nothing is started by hand and nothing waits without a deadline.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime as dt
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, Unpack, overload

from zmqmq.client.admin import Admin
from zmqmq.client.arguments import Seconds, acks_of, seconds_of, topic_of
from zmqmq.client.asking import Asker
from zmqmq.client.base import PRODUCERS_MAX, BaseClient, ClientStats, is_of_an_older_topic, logger
from zmqmq.client.core import ClientCore
from zmqmq.client.gathering import Headers
from zmqmq.client.intake import Intake
from zmqmq.client.io_thread import IoThread
from zmqmq.client.opening import (
    GRACE_S,
    TIMEOUT_S,
    ProducerArguments,
    ProducerSettings,
    ReaderArguments,
    ReaderSettings,
    leave_producer,
    leave_reader,
    open_producer,
    open_reader,
    takes,
)
from zmqmq.client.producer import Producer
from zmqmq.client.reader import Reader
from zmqmq.client.serde import Serde
from zmqmq.errors import ClosedError, UnknownTopic, ZmqmqError
from zmqmq.model import Acks, Delivery, Offset

V = TypeVar("V")


class Client(BaseClient):
    """A connection to a cluster. Safe to use from many threads; a context manager."""

    def __init__(
        self, brokers: str | Sequence[str] | None = None, *, client_id: str = "", timeout: Seconds = TIMEOUT_S, name: str = ""
    ) -> None:
        """``brokers``: addresses to begin with (a list, or one string with commas); $ZMQMQ_BROKERS or tcp://127.0.0.1:5570
        without. Connects when it is first used. ``timeout``: how long calls wait unless they say otherwise."""
        super().__init__(brokers, client_id, timeout)
        self._io = IoThread(self._core, self._clock, name or f"zmqmq-client-{client_id or hex(id(self))}")
        self._asker = Asker(self._io, self.timeout)
        self._lock = threading.Lock()
        self._producers: weakref.WeakSet[Producer[Any]] = weakref.WeakSet()
        self._readers: weakref.WeakSet[Reader[Any]] = weakref.WeakSet()
        self._ready_producers: dict[tuple[str, int, float], Producer[bytes]] = {}
        self.admin = Admin(self._asker)
        self._begin()
        _open_clients.add(self)

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
        name, level = topic_of(topic), acks_of(acks)
        seconds = self.timeout if timeout is None else seconds_of("timeout", timeout, low=0.001)
        deadline = time.monotonic() + seconds
        for may_repeat in (True, False):
            try:
                producer = self._ready_producer(name, level, seconds)
            except ZmqmqError as error:
                error.outcome = "not_written"
                raise
            try:
                handle = producer.send(value, key=key, headers=headers, partition=partition, timestamp=timestamp)
                return handle.result(max(0.0, deadline - time.monotonic()) + GRACE_S)
            except (UnknownTopic, ClosedError) as error:
                self._forget_producer(producer)
                if not (may_repeat and is_of_an_older_topic(error)):
                    raise
        raise AssertionError("the second time returns or raises")

    @overload
    def producer(self, topic: str, *, value: Serde[V], **arguments: Unpack[ProducerArguments]) -> Producer[V]: ...
    @overload
    def producer(self, topic: str, **arguments: Unpack[ProducerArguments]) -> Producer[bytes]: ...
    @takes(ProducerSettings.of)
    def producer(self, topic: str, *, value: Serde[Any] | None = None, **arguments: Unpack[ProducerArguments]) -> Producer[Any]:
        """A producer of one topic. ``compression`` is the topic's setting unless given. Raises UnknownTopic."""
        return self._producer(topic_of(topic), ProducerSettings.of(value=value, **arguments), self.timeout)

    def _producer(self, topic: str, settings: ProducerSettings, timeout: float) -> Producer[Any]:
        self._check_open()
        outbox = self._asker.run(open_producer(self._io, topic, settings, self._random, timeout=timeout))
        leave = partial(leave_producer, outbox)
        producer: Producer[Any] = Producer(
            outbox, settings.value, settings.key, max_block=settings.max_block, on_close=lambda: self._maybe_in_io(leave)
        )
        self._outboxes.add(outbox)
        self._producers.add(producer)
        return producer

    def _ready_producer(self, topic: str, acks: int, seconds: float) -> Producer[bytes]:
        self._check_open()
        found = self._ready_producers.get((topic, acks, seconds))
        if found is not None:
            return found
        made = self._producer(topic, ProducerSettings.for_single_records(acks, seconds), seconds)
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

    @overload
    def reader(self, topic: str, *, value: Serde[V], **arguments: Unpack[ReaderArguments]) -> Reader[V]: ...
    @overload
    def reader(self, topic: str, **arguments: Unpack[ReaderArguments]) -> Reader[bytes]: ...
    @takes(ReaderSettings.of)
    def reader(self, topic: str, *, value: Serde[Any] | None = None, **arguments: Unpack[ReaderArguments]) -> Reader[Any]:
        """Read partitions (all, unless given) without a group. ``start`` and ``stop``: an Offset, a number, a time, or a mapping
        from partition to one. ``timeout``: iteration ends after so long without a message. Raises UnknownTopic."""
        self._check_open()
        settings = ReaderSettings.of(value=value, **arguments)
        intake = self._asker.run(open_reader(self._io, topic_of(topic), settings))
        leave = partial(leave_reader, intake.inbox)
        reader: Reader[Any] = Reader(
            intake,
            timeout=settings.timeout,
            patience=self.timeout,
            seek=partial(_seek, self._asker, intake),
            on_close=lambda: self._maybe_in_io(leave),
        )
        self._intakes.add(intake)
        self._readers.add(reader)
        return reader

    def _maybe_in_io(self, function: Callable[[ClientCore], None]) -> None:
        if self._io.is_alive:
            with contextlib.suppress(ClosedError):  # the thread ended meanwhile
                self._asker.in_io(function)

    def stats(self) -> ClientStats:
        """What this client did and holds."""
        return self._asker.in_io(self._stats_of)

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
            self._io.close(GRACE_S)
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
            self._tell_of_loss()
            self._io.close(0.0)

    def locks(self) -> Iterable[threading.Lock]:
        return [self._lock, *super().locks()]

    def on_forked(self, error: ClosedError) -> None:
        self._io.abandon(error)
        super().on_forked(error)


def _seek(asker: Asker, intake: Intake[Any], places: Mapping[int, Offset]) -> Mapping[int, int]:
    return asker.in_io(lambda _core: intake.seek_in_fetcher(places))


_open_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _close_at_exit() -> None:
    """A program that ends without ``close`` has its records delivered all the same; what is lost is said aloud."""
    for client in list(_open_clients):
        try:
            client.close()
        except ZmqmqError as error:
            logger.error("%r was closed by the end of the program: %s", client, error)


atexit.register(_close_at_exit)
