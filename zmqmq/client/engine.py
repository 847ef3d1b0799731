"""One client at work, whoever drives it: the core, its pumps, its connections, and the calls that wait for their turn.

A *pump* brings what the application has to the core and back: one per producer or reader. ``turn`` does all that can be done
now. It belongs to one thread, the I/O thread of a sync client or the loop of an async one; ``calls`` may grow from any.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from zmqmq.client.core import ClientCore
from zmqmq.client.session import Connect, Disconnect, Transmit
from zmqmq.errors import ClosedError, ZmqmqError
from zmqmq.ports import Buffer, Clock
from zmqmq.transport.dealer import Connected, Drained, Fact, Lost, Received

SLEEP_MS_MAX: Final = 60_000


class Io(Protocol):
    """What producers and readers know of whoever drives the engine."""

    core: ClientCore
    clock: Clock

    @property
    def is_alive(self) -> bool:
        """It turns, and will turn again."""

    def call(self, function: Callable[[int], None]) -> None:
        """Run ``function(now_ms)`` in the next turn, in order."""

    def poke(self, at_ms: int = 0) -> None:
        """There is something to do, or will be at ``at_ms``. From any thread that may use the client."""

    def add(self, pump: Pump) -> None: ...

    def remove(self, pump: Pump) -> None: ...


class Pump(Protocol):
    """What is turned for a producer or a reader, always by the engine's own thread."""

    def before(self, now_ms: int) -> None:
        """Give the core what the application has for it."""

    def after(self) -> None:
        """Give the application what the core has for it."""

    def next_ms(self) -> int | None:
        """When to turn again at the latest."""

    def end(self, error: ZmqmqError) -> None:
        """The engine ends: nobody may be left waiting. ``before`` and ``after`` are called once more."""


class Connections(Protocol):
    """What performs the core's effects; ``transport.dealer.Dealers`` fits."""

    def connect(self, address: str) -> None: ...

    def disconnect(self, address: str) -> None: ...

    def send(self, address: str, frames: Sequence[Buffer]) -> bool: ...

    def close(self) -> None: ...


class Engine:
    """See the module."""

    def __init__(self, core: ClientCore, connections: Connections) -> None:
        self.core = core
        self.calls: deque[Callable[[int], None]] = deque()
        self.pumps: dict[Pump, None] = {}
        self.failure: BaseException | None = None
        """Why it ended, if it was not closed."""
        self._connections = connections

    def turn(self, now_ms: int) -> None:
        while self.calls:
            self.calls.popleft()(now_ms)
        for pump in self.pumps:
            pump.before(now_ms)
        self.core.advance(now_ms)
        for pump in self.pumps:
            pump.after()  # first, for whoever waits needs longer to wake up than the rest takes
        self._perform()

    def next_ms(self, now_ms: int) -> int:
        """When to turn again at the latest."""
        soonest = self.core.next_deadline_ms()
        if soonest is None:
            soonest = now_ms + SLEEP_MS_MAX
        for pump in self.pumps:
            time_ms = pump.next_ms()
            if time_ms is not None and time_ms < soonest:
                soonest = time_ms
        return soonest

    def learn(self, facts: Iterable[Fact], now_ms: int) -> None:
        """Tell the core what happened."""
        for fact in facts:
            if isinstance(fact, Received):
                self.core.on_message(fact.address, fact.frames, now_ms)
            elif isinstance(fact, Connected):
                self.core.on_connected(fact.address, now_ms)
            elif isinstance(fact, Lost):
                self.core.on_lost(fact.address, fact.reason, now_ms)
            elif isinstance(fact, Drained):
                self.core.on_drained(fact.address)

    def end(self, now_ms: int) -> None:
        """Nobody is left waiting: whatever is under way is answered."""
        error = self.closed_error("the client was closed")
        for pump in self.pumps:
            pump.end(error)
            pump.before(now_ms)
        self.core.close(error, now_ms)
        while self.calls:
            self.calls.popleft()(now_ms)
        self.core.close(error, now_ms)
        for pump in self.pumps:
            pump.after()
        self._connections.close()

    def closed_error(self, text: str) -> ClosedError:
        if isinstance(self.failure, ClosedError):
            return ClosedError(str(self.failure), hint=self.failure.hint)
        return ClosedError(text if self.failure is None else f"the client broke: {self.failure!r}", hint="make a new one")

    def _perform(self) -> None:
        for effect in self.core.take_effects():
            if isinstance(effect, Transmit):
                if not self._connections.send(effect.address, effect.frames):
                    self.core.on_congested(effect.address)
            elif isinstance(effect, Connect):
                self._connections.connect(effect.address)
            elif isinstance(effect, Disconnect):
                self._connections.disconnect(effect.address)
