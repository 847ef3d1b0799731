"""The async producer: encodes and gathers in its task; batches leave in the loop's next turn."""

from __future__ import annotations

import asyncio
import datetime as dt
import warnings
from collections.abc import Callable, Iterable, Sequence
from threading import get_ident
from typing import Any, Generic, NoReturn, TypeVar

from zmqmq.client.aio.driver import LoopDriver
from zmqmq.client.aio.handles import AsyncBatchHandle, AsyncHandle, wait_for_batch
from zmqmq.client.aio.waiting import wait
from zmqmq.client.arguments import Seconds, maybe_seconds_of
from zmqmq.client.gathering import Gatherer, Headers, Pause, Put
from zmqmq.client.opening import ProducerSettings, leave_producer
from zmqmq.client.outbox import Outbox
from zmqmq.client.producer import ERROR_FLUSH_S
from zmqmq.client.steps import Steps
from zmqmq.errors import ClosedError, TimeoutError, ZmqmqError

V = TypeVar("V")


class _NotNow(Exception):
    """The fast way does not do; ``AsyncProducer._make_way`` finds out why."""


class AsyncProducer(Generic[V]):
    """Sends records to one topic. Made by ``AsyncClient.producer``; safe to use from many tasks; an async context manager.

    It asks for its topic when it is first used or entered: UnknownTopic is raised there.
    """

    def __init__(
        self,
        topic: str,
        settings: ProducerSettings,
        driver: LoopDriver,
        open_: Callable[[], Steps[Outbox]],
        *,
        on_open: Callable[[Outbox], None],
    ) -> None:
        self.topic = topic
        self.closed: ZmqmqError | None = None
        self._settings = settings
        self._driver = driver
        self._open_steps = open_
        self._on_open = on_open
        self._opening = asyncio.Lock()
        self._outbox: Outbox | None = None
        self._gatherer: Gatherer | None = None
        self._put: Put[Any, AsyncHandle] = _put_later
        self._thread_id = 0
        self._is_running: Callable[[], bool] = bool

    def __repr__(self) -> str:
        unsent = 0 if self._outbox is None else len(self._outbox.accumulator.unresolved)
        return f"AsyncProducer({self.topic} {'closed' if self.closed else 'open'} unsent={unsent})"

    @property
    def is_open(self) -> bool:
        """The topic is known."""
        return self._outbox is not None and self.closed is None

    async def open(self) -> None:
        """Ask for the topic now. Raises UnknownTopic."""
        async with self._opening:
            if self._outbox is None:
                self._check_open()
                outbox = await self._driver.run(self._open_steps())
                gatherer = Gatherer(outbox, self._settings.value, self._settings.key)
                self._put = gatherer.put_function(_room_maker(outbox, self._driver), AsyncHandle)
                self._thread_id, self._is_running = self._driver.thread_id, self._driver.bound_loop.is_running
                self._outbox, self._gatherer = outbox, gatherer
                self._on_open(outbox)
                if self.closed is not None:
                    self._end(self.closed)

    async def send(
        self,
        value: V | None,
        *,
        key: Any = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp: dt.datetime | None = None,
    ) -> AsyncHandle:
        """Add a record; awaits only while the buffer is full (``max_block``, then BufferFull). ``None`` is a tombstone.
        Cancelled while it waits, it has added nothing."""
        if get_ident() != self._thread_id or not self._is_running():  # cheaper than to ask for the running loop
            self._driver.check()
        try:
            return self._put(value, key=key, headers=headers, partition=partition, timestamp=timestamp)
        except _NotNow:
            deadline = self._driver.now_s() + self._settings.max_block
        while True:
            await self._make_way(deadline)
            try:
                return self._put(value, key=key, headers=headers, partition=partition, timestamp=timestamp)
            except _NotNow:
                continue

    async def send_many(self, values: Iterable[V | None], *, keys: Sequence[Any] | None = None) -> AsyncBatchHandle:
        """``send`` for many values at once, several times faster. ``keys`` are as many as values. Cancelled, or out of time, it
        has added those that found room, which are sent."""
        outbox, gatherer = await self._opened()
        encoded, encoded_keys = gatherer.encoded(values, keys)
        handle = AsyncBatchHandle(len(encoded))
        deadline: float | None = None
        for pause in gatherer.many(encoded, encoded_keys, handle):
            if pause is Pause.FULL:
                deadline = deadline or self._driver.now_s() + self._settings.max_block
                await self._wait_for_space(outbox, deadline)
            else:
                deadline = None
                if self._driver.is_breathless:
                    await self._driver.breathe()
        return handle

    async def flush(self, timeout: Seconds | None = None) -> None:
        """Wait until everything sent so far is decided. Raises DeliveryFailed if a record was lost since the last flush, or
        TimeoutError; without ``timeout`` the delivery timeout is the limit."""
        seconds = maybe_seconds_of("timeout", timeout)
        self._check_open()
        if self._outbox is None:
            return
        deadline = None if seconds is None else self._driver.now_s() + seconds
        for batch in self._outbox.close_all():
            await wait_for_batch(batch, None if deadline is None else deadline - self._driver.now_s())
        self._outbox.raise_failures()

    async def _make_way(self, deadline: float) -> None:
        """Whatever ``_put`` found in its way."""
        if self._outbox is None:
            await self.open()
        elif not self._outbox.space.is_ready:
            await self._wait_for_space(self._outbox, deadline)
        else:
            await self._driver.breathe()

    async def _wait_for_space(self, outbox: Outbox, deadline: float) -> None:
        if not await wait(outbox.space, deadline - self._driver.now_s()):
            raise outbox.full_error(self._settings.max_block)

    async def _opened(self) -> tuple[Outbox, Gatherer]:
        if self._outbox is None or self._gatherer is None:
            await self.open()
        assert self._outbox is not None
        assert self._gatherer is not None
        self._driver.check()
        return self._outbox, self._gatherer

    def _check_open(self) -> None:
        self._driver.check()
        if self.closed is not None:
            raise type(self.closed)(str(self.closed), hint=self.closed.hint)

    async def close(self, timeout: Seconds | None = None) -> None:
        """Flush and end. Raises DeliveryFailed if a record was lost. What is not decided within ``timeout`` fails, and so it does
        at once when this is cancelled."""
        seconds = maybe_seconds_of("timeout", timeout)
        if self.closed is not None or not self._driver.is_alive:
            if self._outbox is not None:
                self._outbox.raise_failures()
            return
        try:
            await self.flush(seconds)
        except TimeoutError:
            self.abandon(ClosedError(f"the producer of {self.topic} was closed before its records were delivered"))
            if self._outbox is not None:
                self._outbox.raise_failures()
        finally:
            self.abandon(ClosedError(f"the producer of {self.topic} is closed", hint="make a new one with client.producer()"))

    def abandon(self, error: ZmqmqError) -> None:
        """End without waiting: what is not delivered fails."""
        if self.closed is None:
            self.closed = error
            self._end(error)

    def _end(self, error: ZmqmqError) -> None:
        if self._outbox is not None:
            self._outbox.end(error)
            if self._driver.is_alive:
                leave_producer(self._outbox, self._driver.core)
                self._driver.poke()

    async def __aenter__(self) -> AsyncProducer[V]:
        await self._opened()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Leaving by an error flushes all the same, for a short time, but that error is the one that is raised."""
        try:
            await self.close(None if kind is None else ERROR_FLUSH_S)
        except ZmqmqError:
            if kind is None:
                raise

    def __del__(self) -> None:
        outbox = getattr(self, "_outbox", None)
        if outbox is not None and outbox.closed is None and outbox.accumulator.unresolved:
            warnings.warn(f"{self!r} was dropped with undelivered records; use 'async with' or close()", ResourceWarning, stacklevel=2)


def _put_later(*_arguments: Any, **_more: Any) -> NoReturn:
    """In place of ``put``, before the topic is known."""
    raise _NotNow


def _room_maker(outbox: Outbox, driver: LoopDriver) -> Callable[[int, int, int], None]:
    """Room is made only when the record is put right after: an await in between could be cancelled, and leave it empty."""

    def make_room(partition: int, size: int, timestamp_ms: int) -> None:
        driver.check()
        if driver.is_breathless or not outbox.make_room(partition, size, timestamp_ms):
            raise _NotNow

    return make_room
