"""``AsyncClient``: the asynchronous face, with the names and arguments of ``Client``."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import warnings
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, Unpack, overload

from zmqmq.client.aio.admin import AsyncAdmin
from zmqmq.client.aio.driver import LoopConnections, LoopDriver
from zmqmq.client.aio.producer import AsyncProducer
from zmqmq.client.aio.reader import AsyncReader
from zmqmq.client.arguments import Seconds, acks_of, seconds_of, topic_of
from zmqmq.client.base import PRODUCERS_MAX, BaseClient, ClientStats, is_of_an_older_topic
from zmqmq.client.gathering import Headers
from zmqmq.client.opening import (
    TIMEOUT_S,
    ProducerArguments,
    ProducerSettings,
    ReaderArguments,
    ReaderSettings,
    open_producer,
    open_reader,
    takes,
)
from zmqmq.client.serde import Serde
from zmqmq.errors import ClosedError, UnknownTopic, ZmqmqError
from zmqmq.model import Acks, Delivery
from zmqmq.transport.loop_dealer import LoopDealers

V = TypeVar("V")


class AsyncClient(BaseClient):
    """A connection to a cluster, for the tasks of one event loop; an async context manager.

    It belongs to the loop in which it is first used, and needs no other preparation.
    """

    def __init__(self, brokers: str | Sequence[str] | None = None, *, client_id: str = "", timeout: Seconds = TIMEOUT_S) -> None:
        """``brokers``: addresses to begin with (a list, or one string with commas); $ZMQMQ_BROKERS or tcp://127.0.0.1:5570
        without. Connects when it is first used. ``timeout``: how long calls wait unless they say otherwise."""
        super().__init__(brokers, client_id, timeout)
        self._driver = LoopDriver(self._core, self.timeout, self._clock, self._connections)
        self._producers: weakref.WeakSet[AsyncProducer[Any]] = weakref.WeakSet()
        self._readers: weakref.WeakSet[AsyncReader[Any]] = weakref.WeakSet()
        self._ready_producers: dict[tuple[str, int, float], AsyncProducer[bytes]] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self.admin = AsyncAdmin(self._driver)
        self._begin()

    async def produce(
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
        """Send one record and wait for its receipt. When ``timeout`` passes, the error's ``outcome`` tells the truth. Cancelled,
        the record may or may not be written."""
        name, level = topic_of(topic), acks_of(acks)
        seconds = self.timeout if timeout is None else seconds_of("timeout", timeout, low=0.001)
        for may_repeat in (True, False):
            producer = self._ready_producer(name, level, seconds)
            if not producer.is_open:
                try:
                    await producer.open()
                except ZmqmqError as error:
                    self._forget_producer(producer)
                    error.outcome = "not_written"
                    raise
            try:
                return await (await producer.send(value, key=key, headers=headers, partition=partition, timestamp=timestamp))
            except (UnknownTopic, ClosedError) as error:
                self._forget_producer(producer)
                if not (may_repeat and is_of_an_older_topic(error)):
                    raise
        raise AssertionError("the second time returns or raises")

    @overload
    def producer(self, topic: str, *, value: Serde[V], **arguments: Unpack[ProducerArguments]) -> AsyncProducer[V]: ...
    @overload
    def producer(self, topic: str, **arguments: Unpack[ProducerArguments]) -> AsyncProducer[bytes]: ...
    @takes(ProducerSettings.of)
    def producer(self, topic: str, *, value: Serde[Any] | None = None, **arguments: Unpack[ProducerArguments]) -> AsyncProducer[Any]:
        """A producer of one topic. ``compression`` is the topic's setting unless given. It raises UnknownTopic when it is entered
        or first used."""
        return self._producer(topic_of(topic), ProducerSettings.of(value=value, **arguments), self.timeout)

    def _producer(self, topic: str, settings: ProducerSettings, timeout: float) -> AsyncProducer[Any]:
        self._check_open()
        steps = partial(open_producer, self._driver, topic, settings, self._random, timeout=timeout)
        producer: AsyncProducer[Any] = AsyncProducer(topic, settings, self._driver, steps, on_open=self._outboxes.add)
        self._producers.add(producer)
        return producer

    def _ready_producer(self, topic: str, acks: int, seconds: float) -> AsyncProducer[bytes]:
        self._check_open()
        found = self._ready_producers.get((topic, acks, seconds))
        if found is None:
            if len(self._ready_producers) >= PRODUCERS_MAX:
                self._forget_producer(self._ready_producers[next(iter(self._ready_producers))])
            found = self._producer(topic, ProducerSettings.for_single_records(acks, seconds), seconds)
            self._ready_producers[topic, acks, seconds] = found
        return found

    def _forget_producer(self, producer: AsyncProducer[bytes]) -> None:
        """Nobody finds it any more; it ends when those who use it have their receipts."""
        self._ready_producers = {key: kept for key, kept in self._ready_producers.items() if kept is not producer}
        retiring = self._driver.check().create_task(_retire(producer, self.timeout))
        self._retiring.add(retiring)  # the loop itself would let it be collected
        retiring.add_done_callback(self._retiring.discard)

    @overload
    def reader(self, topic: str, *, value: Serde[V], **arguments: Unpack[ReaderArguments]) -> AsyncReader[V]: ...
    @overload
    def reader(self, topic: str, **arguments: Unpack[ReaderArguments]) -> AsyncReader[bytes]: ...
    @takes(ReaderSettings.of)
    def reader(self, topic: str, *, value: Serde[Any] | None = None, **arguments: Unpack[ReaderArguments]) -> AsyncReader[Any]:
        """Read partitions (all, unless given) without a group. ``start`` and ``stop``: an Offset, a number, a time, or a mapping
        from partition to one. ``timeout``: iteration ends after so long without a message. It raises UnknownTopic when it is
        entered or first used."""
        self._check_open()
        settings = ReaderSettings.of(value=value, **arguments)
        name = topic_of(topic)
        steps = partial(open_reader, self._driver, name, settings)
        reader: AsyncReader[Any] = AsyncReader(name, settings, self._driver, steps, patience=self.timeout, on_open=self._intakes.add)
        self._readers.add(reader)
        return reader

    def _connections(self, on_ready: Callable[[], None]) -> LoopConnections:
        """The simulator has its own."""
        return LoopDealers(on_ready)

    def stats(self) -> ClientStats:
        """What this client did and holds."""
        self._check_open()
        return self._stats_of(self._core)

    async def close(self, timeout: Seconds | None = None) -> None:
        """Flush the producers, then end. Takes ``timeout`` (the client's, unless given) and a little; what is not delivered by
        then fails, and DeliveryFailed is raised. Cancelled, it ends at once."""
        if self.closed is not None:
            return
        seconds = self.timeout if timeout is None else seconds_of("timeout", timeout)
        deadline = self._driver.now_s() + seconds
        if self._driver.is_bound and self._driver.is_alive:
            self._driver.check()
        self.closed = ClosedError("the client is closed", hint="make a new one")
        failure: ZmqmqError | None = None
        try:
            for producer in list(self._producers):
                try:
                    await producer.close(max(0.0, deadline - self._driver.now_s()))
                except ZmqmqError as error:
                    failure = failure or error
        finally:
            self._driver.end()
            for reader in list(self._readers):
                reader.abandon()
        if failure is not None:
            raise failure

    async def __aenter__(self) -> AsyncClient:
        self._check_open()
        self._driver.check()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Leaving by an error flushes all the same, but that error is the one that is raised."""
        try:
            await self.close()
        except ZmqmqError:
            if kind is None:
                raise

    def __del__(self) -> None:
        if getattr(self, "closed", True) is None and self._driver.is_bound:
            warnings.warn(f"{self!r} was dropped without close(); use 'async with'", ResourceWarning, stacklevel=2)
            self._tell_of_loss()
            self._driver.drop()

    def on_forked(self, error: ClosedError) -> None:
        self._driver.abandon(error)
        super().on_forked(error)


async def _retire(producer: AsyncProducer[bytes], timeout: float) -> None:
    with contextlib.suppress(ZmqmqError):  # each record's caller got its own error
        await producer.close(timeout)
