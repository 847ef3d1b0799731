"""The async reader: its task waits for news, checks and decodes; the next batches are on their way meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Generic, TypeVar

from zmqmq.client.aio.driver import LoopDriver
from zmqmq.client.aio.waiting import call_from_anywhere, wait
from zmqmq.client.arguments import Place, Seconds, count_of, seconds_of
from zmqmq.client.intake import Intake, Step
from zmqmq.client.message import Message
from zmqmq.client.opening import ReaderSettings, leave_reader
from zmqmq.client.steps import Steps
from zmqmq.errors import ClosedError, ZmqmqError

V = TypeVar("V")


class AsyncReader(Generic[V]):
    """Reads partitions of one topic, in order within each. Made by ``AsyncClient.reader``; an async context manager.

    It asks for its topic when it is first used or entered: UnknownTopic is raised there. Iterating waits for records; it ends on
    ``stop()``, when every partition reached its stop, or when no record came for ``timeout``. Whatever is cancelled or left in
    the middle, the next call goes on behind the last message that was handed out. One task at a time.
    """

    def __init__(
        self,
        topic: str,
        settings: ReaderSettings,
        driver: LoopDriver,
        open_: Callable[[], Steps[Intake[Any]]],
        *,
        patience: float,
        on_open: Callable[[Intake[Any]], None],
    ) -> None:
        self.topic = topic
        self.closed: ZmqmqError | None = None
        self._timeout = settings.timeout
        self._driver = driver
        self._open_steps = open_
        self._on_open = on_open
        self._patience = patience
        self._opening = asyncio.Lock()
        self._intake: Intake[V] | None = None
        self._is_stopped = False

    def __repr__(self) -> str:
        state = "closed" if self.closed else "stopped" if self._is_stopped else "open"
        return f"AsyncReader({self.topic} {state} partitions={[] if self._intake is None else self._intake.partitions})"

    async def __aiter__(self) -> AsyncIterator[Message[V]]:
        intake = await self._opened()
        if not intake.is_stopped:
            for message in intake.rest:
                yield message
        while await self._pull(intake, self._timeout):
            for message in intake.rest:
                yield message

    async def poll(self, timeout: Seconds = 0.0) -> Message[V] | None:
        """The next message, or None when there is none within ``timeout``."""
        seconds = seconds_of("timeout", timeout)
        intake = await self._opened()
        found = next(intake.rest, None)
        if found is None and await self._pull(intake, seconds):
            found = next(intake.rest, None)
        return found

    async def batch(self, max_messages: int = 500, timeout: Seconds = 1.0) -> list[Message[V]]:
        """What is there, up to ``max_messages``; waits at most ``timeout`` for the first; an empty list when idle."""
        return await self._batch(count_of("max_messages", max_messages, 0), seconds_of("timeout", timeout))

    def batches(self, max_messages: int = 500) -> AsyncIterator[list[Message[V]]]:
        """Lists of up to ``max_messages``, never empty, until iteration would end: the fastest way to read."""
        return self._batches(count_of("max_messages", max_messages, 1))

    def stop(self) -> None:
        """End the iteration before its next message. From any thread, or a signal handler; for good."""
        self._is_stopped = True
        if self._intake is not None:
            self._intake.stop()
            call_from_anywhere(self._driver.bound_loop, self._intake.inbox.notify)

    async def _batches(self, max_messages: int) -> AsyncIterator[list[Message[V]]]:
        while messages := await self._batch(max_messages, self._timeout):
            yield messages

    async def _batch(self, max_messages: int, timeout: float | None) -> list[Message[V]]:
        intake = await self._opened()
        if self._driver.is_breathless:
            await self._driver.breathe()
        messages = intake.take(max_messages)  # no await behind it: a cancelled one would lose them
        if not messages and max_messages > 0 and await self._pull(intake, timeout):
            messages = intake.take(max_messages)
        return messages

    async def _pull(self, intake: Intake[V], timeout: float | None) -> bool:
        """Make the next non-empty batch the current one. False: idle, stopped, or all stops reached."""
        if self._driver.is_breathless:
            await self._driver.breathe()
        deadline = None if timeout is None else self._driver.now_s() + timeout
        while (step := intake.advance()) is Step.NOTHING:
            left = None if deadline is None else deadline - self._driver.now_s()
            if left is not None and left <= 0:
                return False
            await wait(intake.inbox, left)
        return step is Step.MESSAGES

    async def _opened(self) -> Intake[V]:
        self._driver.check()
        if self._intake is None:
            async with self._opening:
                if self._intake is None:
                    self._intake = await self._open()
        return self._intake

    async def _open(self) -> Intake[V]:
        self._check_open()
        intake: Intake[V] = await self._driver.run(self._open_steps())
        self._on_open(intake)
        if self._is_stopped:
            intake.stop()
        if self.closed is not None:
            self._leave(intake)
        return intake

    def _check_open(self) -> None:
        if self.closed is not None:
            raise type(self.closed)(str(self.closed), hint=self.closed.hint)

    async def position(self) -> dict[int, int]:
        """The next offset of each partition: what was handed out lies before it. Waits until the start is known."""
        intake = await self._opened()
        deadline = self._driver.now_s() + self._patience
        while not intake.settle():
            if intake.is_stopped or not await wait(intake.inbox, deadline - self._driver.now_s()):
                raise intake.unsettled_error()
        return intake.position()

    def high_watermarks(self) -> dict[int, int]:
        """The end of each partition as of its last answer; -1 before the first."""
        return {} if self._intake is None else self._intake.inbox.fetcher.high_watermarks()

    async def seek(self, place: Place | Mapping[int, Place], *, partition: int | None = None) -> None:
        """Go on from another place: of one partition, of those that a mapping names, or of all."""
        intake = await self._opened()
        places = intake.places(place, partition)
        intake.check_open()
        intake.on_seek(intake.seek_in_fetcher(places))
        self._driver.poke()

    async def close(self, timeout: Seconds | None = None) -> None:  # noqa: ARG002 - as all closes; this one waits for nothing
        """Ask for no more. Any later use raises ClosedError."""
        self.abandon()

    def abandon(self) -> None:
        """``close`` without an await."""
        if self.closed is None:
            self.closed = ClosedError(f"the reader of {self.topic} is closed", hint="make a new one with client.reader()")
            if self._intake is not None:
                self._leave(self._intake)

    def _leave(self, intake: Intake[V]) -> None:
        intake.close()
        intake.inbox.notify()
        if self._driver.is_alive:
            leave_reader(intake.inbox, self._driver.core)
            self._driver.poke()

    async def __aenter__(self) -> AsyncReader[V]:
        await self._opened()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.abandon()
