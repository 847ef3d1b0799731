"""The one thread of a sync client: it owns the sockets, drives the core and sleeps in between.

It only moves frames: what to do is decided by the core and by its *pumps* (producers and readers), which it turns before and
after each step of the core. Other threads hand work over by ``call`` and ``poke``; the eventfd is written only when this
thread sleeps.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from zmqmq.client.core import ClientCore
from zmqmq.client.session import Connect, Disconnect, Transmit
from zmqmq.errors import ClosedError, ZmqmqError
from zmqmq.transport.dealer import Connected, DealerTransport, Drained, Lost, Received
from zmqmq.transport.wakeup import Wakeup

T = TypeVar("T")

SLEEP_MS_MAX: Final = 60_000
_AWAKE: Final = -1

logger = logging.getLogger("zmqmq")


class Pump(Protocol):
    """What the I/O thread turns for a producer or a reader. All calls come from the I/O thread."""

    def before(self, now_ms: int) -> None:
        """Give the core what the application has for it."""

    def after(self) -> None:
        """Give the application what the core has for it."""

    def next_ms(self) -> int | None:
        """When to turn again at the latest."""

    def end(self, error: ZmqmqError) -> None:
        """The thread ends: nobody may be left waiting. ``before`` and ``after`` are called once more."""


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class IoThread:
    """Started by the constructor; ends by ``close``, or with ``failure`` set when it broke."""

    def __init__(self, core: ClientCore, name: str) -> None:
        self.core = core
        self.failure: BaseException | None = None
        self._wakeup = Wakeup()
        self._transport = DealerTransport(self._wakeup.fd)
        self._calls: deque[Callable[[int], None]] = deque()
        self._pumps: dict[Pump, None] = {}
        self._dirty = False
        self._sleeps_until_ms = _AWAKE
        self._closing = False
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    # -- from any thread ----------------------------------------------------------------------------

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive() and not self._closing

    def call(self, function: Callable[[int], None]) -> None:
        """Run ``function(now_ms)`` in the I/O thread, in order."""
        if not self.is_alive:
            raise self._closed_error("the client is closed")
        self._calls.append(function)
        self.poke()

    def ask(self, function: Callable[[int, Callable[[T | ZmqmqError], None]], None], timeout: float) -> T:
        """Run ``function(now_ms, answer)`` there and wait for its answer; an error is raised. Ctrl-C interrupts it."""
        gate = threading.Lock()
        gate.acquire()
        box: list[T | ZmqmqError] = []

        def answer(value: T | ZmqmqError) -> None:
            box.append(value)
            gate.release()

        self.call(lambda now_ms: function(now_ms, answer))
        while not gate.acquire(timeout=min(timeout, 1.0)):
            if not self._thread.is_alive():  # it answers everything before it ends, unless it broke
                raise self._closed_error("the client closed while waiting")
        found = box[0]
        if isinstance(found, ZmqmqError):
            raise found
        return found

    def poke(self, at_ms: int = 0) -> None:
        """There is something to do, or will be at ``at_ms``."""
        self._dirty = True
        if at_ms < self._sleeps_until_ms:
            self._sleeps_until_ms = _AWAKE
            self._wakeup.set()

    def close(self, timeout: float) -> None:
        """End the thread and its connections."""
        self._closing = True
        self._dirty = True
        self._wakeup.set()
        self._thread.join(timeout)

    def abandon(self, error: ClosedError) -> None:
        """After ``fork()``, in the child: the thread stayed with the parent, and so do its sockets."""
        self.failure = error
        self._closing = True
        self._sleeps_until_ms = _AWAKE

    # -- in the I/O thread --------------------------------------------------------------------------

    def add(self, pump: Pump) -> None:
        self._pumps[pump] = None

    def remove(self, pump: Pump) -> None:
        self._pumps.pop(pump, None)

    def _main(self) -> None:
        try:
            while not self._closing:
                self._turn(monotonic_ms())
        except BaseException as error:
            self.failure = error
            logger.critical("the I/O thread of a client broke; the client is of no use any more", exc_info=True)
            raise
        finally:
            self._end()

    def _turn(self, now_ms: int) -> None:
        self._dirty = False
        while self._calls:
            self._calls.popleft()(now_ms)
        for pump in self._pumps:
            pump.before(now_ms)
        self.core.advance(now_ms)
        self._perform()
        for pump in self._pumps:
            pump.after()
        self._sleep(now_ms)

    def _perform(self) -> None:
        for effect in self.core.take_effects():
            if isinstance(effect, Transmit):
                if not self._transport.send(effect.address, effect.frames):
                    self.core.on_congested(effect.address)
            elif isinstance(effect, Connect):
                self._transport.connect(effect.address)
            elif isinstance(effect, Disconnect):
                self._transport.disconnect(effect.address)

    def _sleep(self, now_ms: int) -> None:
        times = [self.core.next_deadline_ms(), *(pump.next_ms() for pump in self._pumps)]
        until_ms = min((time_ms for time_ms in times if time_ms is not None), default=now_ms + SLEEP_MS_MAX)
        self._sleeps_until_ms = until_ms
        timeout_ms = 0 if self._dirty else max(0, until_ms - monotonic_ms())
        facts = self._transport.poll(timeout_ms)
        self._sleeps_until_ms = _AWAKE
        self._wakeup.clear()
        now_ms = monotonic_ms()
        for fact in facts:
            if isinstance(fact, Received):
                self.core.on_message(fact.address, fact.frames, now_ms)
            elif isinstance(fact, Connected):
                self.core.on_connected(fact.address, now_ms)
            elif isinstance(fact, Lost):
                self.core.on_lost(fact.address, fact.reason, now_ms)
            elif isinstance(fact, Drained):
                self.core.on_drained(fact.address)

    def _end(self) -> None:
        """Nobody is left waiting: whatever is under way is answered."""
        self._closing = True
        now_ms = monotonic_ms()
        error = self._closed_error("the client was closed")
        for pump in self._pumps:
            pump.end(error)
            pump.before(now_ms)
        self.core.close(error, now_ms)
        while self._calls:
            self._calls.popleft()(now_ms)
        self.core.close(error, now_ms)
        for pump in self._pumps:
            pump.after()
        self._transport.close()
        self._wakeup.close()

    def _closed_error(self, text: str) -> ClosedError:
        if isinstance(self.failure, ClosedError):
            return ClosedError(str(self.failure), hint=self.failure.hint)
        return ClosedError(text if self.failure is None else f"the client's I/O thread broke: {self.failure!r}", hint="make a new Client")
