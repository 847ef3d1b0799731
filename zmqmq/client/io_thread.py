"""The one thread of a sync client: it owns the sockets, turns the engine and sleeps in between.

Other threads hand work over by ``call`` and ``poke``; the eventfd is written only when this thread sleeps.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from zmqmq.client.core import ClientCore
from zmqmq.client.engine import Engine, Pump
from zmqmq.errors import ClosedError, ZmqmqError
from zmqmq.ports import Clock
from zmqmq.transport.dealer import DealerTransport
from zmqmq.transport.wakeup import Wakeup

T = TypeVar("T")

_AWAKE: Final = -1
_LOOK_S: Final = 1.0
"""Who waits for an answer looks this often whether the thread still lives."""

logger = logging.getLogger("zmqmq")


class IoThread:
    """Started by the constructor; ends by ``close``, or with the engine's ``failure`` set when it broke."""

    def __init__(self, core: ClientCore, clock: Clock, name: str) -> None:
        self.core = core
        self.clock = clock
        self._now_ms = clock.monotonic_ms
        self._wakeup = Wakeup()
        self._transport = DealerTransport(self._wakeup.fd)
        self._engine = Engine(core, self._transport)
        self._dirty = False
        self._sleeps_until_ms = _AWAKE
        self._closing = False
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive() and not self._closing

    def call(self, function: Callable[[int], None]) -> None:
        """Run ``function(now_ms)`` in the I/O thread, in order."""
        if not self.is_alive:
            raise self._engine.closed_error("the client is closed")
        self._engine.calls.append(function)
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
        while not gate.acquire(timeout=min(timeout, _LOOK_S)):
            if not self._thread.is_alive():  # it answers everything before it ends, unless it broke
                raise self._engine.closed_error("the client closed while waiting")
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
        self._engine.failure = error
        self._closing = True
        self._sleeps_until_ms = _AWAKE

    def add(self, pump: Pump) -> None:
        self._engine.pumps[pump] = None

    def remove(self, pump: Pump) -> None:
        self._engine.pumps.pop(pump, None)

    def _main(self) -> None:
        try:
            while not self._closing:
                now_ms = self._now_ms()
                self._dirty = False
                self._engine.turn(now_ms)
                self._sleep(now_ms)
        except BaseException as error:
            self._engine.failure = error
            logger.critical("the I/O thread of a client broke; the client is of no use any more", exc_info=True)
            raise
        finally:
            self._closing = True
            self._engine.end(self._now_ms())
            self._wakeup.close()

    def _sleep(self, now_ms: int) -> None:
        until_ms = self._engine.next_ms(now_ms)
        self._sleeps_until_ms = until_ms
        timeout_ms = 0 if self._dirty else max(0, until_ms - self._now_ms())
        facts = self._transport.poll(timeout_ms)
        self._sleeps_until_ms = _AWAKE
        if self._transport.was_woken:
            self._wakeup.clear()
        self._engine.learn(facts, self._now_ms())
