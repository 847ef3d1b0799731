"""Turns the engine of an async client in the loop of its caller.

A turn happens when a socket has something, when the application had something (``poke``: once per round of the loop, however
often), and at the engine's deadlines. No application code runs inside a turn: whoever waits is woken through the loop.

States: unbound -> bound to a loop by the first use -> ended, by ``end`` or because a turn broke. Ctrl-C inside a turn breaks it:
the client then ends at once, as truthfully as it can, because half a turn leaves nothing that could be relied on.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from zmqmq.client.aio.waiting import call_from_anywhere
from zmqmq.client.core import ClientCore
from zmqmq.client.engine import Connections, Engine, Pump
from zmqmq.client.steps import Ask, DefaultTimeout, Elapsed, InCore, Step, Steps
from zmqmq.errors import ClosedError, ZmqmqError
from zmqmq.ports import Clock
from zmqmq.transport.dealer import Fact

T = TypeVar("T")

BREATHE_MS: Final = 2
"""A task that sends or reads without ever having to wait lets the others run this often."""

logger = logging.getLogger("zmqmq")


class LoopConnections(Connections, Protocol):
    """What turns an event of a socket into a turn; ``transport.loop_dealer.LoopDealers`` fits."""

    loop: asyncio.AbstractEventLoop

    def take_facts(self) -> list[Fact]: ...

    def has_more(self) -> bool: ...

    def next_ms(self, now_ms: int) -> int | None: ...


class LoopDriver:
    """Belongs to one loop, but for ``drop`` and ``abandon``. ``timeout``: for questions that do not say otherwise."""

    def __init__(
        self, core: ClientCore, timeout: float, clock: Clock, connections: Callable[[Callable[[], None]], LoopConnections]
    ) -> None:
        self.core = core
        self.timeout = timeout
        self.clock = clock
        self._now_ms = clock.monotonic_ms
        self._dealers = connections(self._turn)
        self._engine = Engine(core, self._dealers)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.thread_id = 0
        self._is_ended = False
        self._is_turn_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = 0
        self._breathed_ms = 0

    def __repr__(self) -> str:
        return f"LoopDriver({'ended' if self._is_ended else 'unbound' if self._loop is None else 'bound'})"

    @property
    def is_bound(self) -> bool:
        return self._loop is not None

    @property
    def bound_loop(self) -> asyncio.AbstractEventLoop:
        """From any thread."""
        assert self._loop is not None
        return self._loop

    @property
    def is_alive(self) -> bool:
        return not self._is_ended

    def now_s(self) -> float:
        """Seconds since some start, for deadlines."""
        return self.clock.monotonic_us() / 1e6

    def check(self) -> asyncio.AbstractEventLoop:
        """The loop it is bound to, by now. Raises ClosedError when it has ended, or belongs to another loop."""
        if self._is_ended:
            raise self._engine.closed_error("the client is closed")
        running = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = self._dealers.loop = running
            self.thread_id = threading.get_ident()
        if running is not self._loop:
            raise ClosedError(
                "the client belongs to another event loop",
                hint="make an AsyncClient in each loop; from another thread use asyncio.run_coroutine_threadsafe",
            )
        return running

    def call(self, function: Callable[[int], None]) -> None:
        """Run ``function(now_ms)`` in the next turn, in order."""
        if self._is_ended:
            raise self._engine.closed_error("the client is closed")
        self._engine.calls.append(function)
        self.poke()

    def poke(self, at_ms: int = 0) -> None:
        """There is something to do, or will be at ``at_ms``."""
        if self._is_ended or self._loop is None:
            return
        now_ms = self._now_ms()
        if at_ms <= now_ms:
            if not self._is_turn_due:
                self._is_turn_due = True
                self._loop.call_soon(self._turn)
        elif self._timer is None or at_ms < self._timer_ms:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_ms = at_ms
            self._timer = self._loop.call_at(self._loop.time() + (at_ms - now_ms) / 1000, self._on_timer)

    def add(self, pump: Pump) -> None:
        self._engine.pumps[pump] = None

    def remove(self, pump: Pump) -> None:
        self._engine.pumps.pop(pump, None)

    async def run(self, steps: Steps[T]) -> T:
        """Lead a conversation; its result. Cancelled, it ends where it is: an unsafe question may still be carried out."""
        given: Any = None
        try:
            while True:
                step = steps.send(given)
                try:
                    given = await self._do(step)
                except ZmqmqError as error:
                    given = await self._do(steps.throw(error))
        except StopIteration as stop:
            result: T = stop.value
            return result

    @property
    def is_breathless(self) -> bool:
        """Time to let others run: ``await breathe()``."""
        return self._now_ms() - self._breathed_ms >= BREATHE_MS

    async def breathe(self) -> None:
        await asyncio.sleep(0)
        self._breathed_ms = self._now_ms()

    def end(self) -> None:
        """Answer everything, close every connection. Waits for nothing."""
        if self._is_ended:
            return
        self._is_ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._engine.end(self._now_ms())

    def drop(self) -> None:
        """``end``, from wherever the garbage collector runs."""
        if self._loop is None or self._loop.is_closed() or threading.get_ident() == self.thread_id:
            self.end()
        else:
            call_from_anywhere(self._loop, self.end)

    def abandon(self, error: ClosedError) -> None:
        """After ``fork()``, in the child: the loop's descriptors are the parent's too, so nothing is taken out of it."""
        self._engine.failure = error
        self._is_ended = True

    def _on_timer(self) -> None:
        self._timer = None
        self._turn()

    def _turn(self) -> None:
        self._is_turn_due = False
        if self._is_ended:
            return
        try:
            now_ms = self._breathed_ms = self._now_ms()
            self._engine.learn(self._dealers.take_facts(), now_ms)
            self._engine.turn(now_ms)
            self.poke(0 if self._dealers.has_more() else self._next_ms(now_ms))
        except BaseException as error:
            self._engine.failure = error
            logger.critical("an AsyncClient broke and is of no use any more", exc_info=True)
            self.end()
            raise

    def _next_ms(self, now_ms: int) -> int:
        next_ms = self._engine.next_ms(now_ms)
        look_ms = self._dealers.next_ms(now_ms)
        return next_ms if look_ms is None else min(next_ms, look_ms)

    async def _do(self, step: Step) -> Any:
        loop = self.check()
        if isinstance(step, DefaultTimeout):
            return self.timeout
        if isinstance(step, Elapsed):
            return self.now_s()
        if isinstance(step, InCore):
            value = step.function(self.core)
            self.poke()
            return value
        if isinstance(step, Ask):
            return await self._ask(step, loop)
        return await asyncio.sleep(step.seconds)

    async def _ask(self, step: Ask, loop: asyncio.AbstractEventLoop) -> Any:
        future: asyncio.Future[Any] = loop.create_future()

        def answer(reply: Any) -> None:
            if not future.done() and not loop.is_closed():
                future.set_result(reply)

        step.begin(self.core, self.timeout if step.timeout is None else step.timeout, self._now_ms(), answer)
        self.poke()
        reply = await future
        if isinstance(reply, ZmqmqError):
            raise reply
        return reply
