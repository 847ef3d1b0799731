"""What ``Client`` and ``AsyncClient`` have in common: their arguments, their state, and what they tell of it."""

from __future__ import annotations

import logging
import random
import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, Final

from msgspec import Struct

from zmqmq.client.arguments import Seconds, addresses_of, seconds_of, text_of
from zmqmq.client.core import ClientCore
from zmqmq.client.forking import tell_of_forks
from zmqmq.client.intake import Intake
from zmqmq.client.outbox import Outbox
from zmqmq.clock import SystemClock
from zmqmq.errors import ClosedError, UnknownTopic, ZmqmqError
from zmqmq.ports import Clock, Random

PRODUCERS_MAX: Final = 256
"""Producers that ``produce`` keeps ready, one per topic, acks and timeout; the oldest ends beyond it."""


logger = logging.getLogger("zmqmq")


class ClientStats(Struct, frozen=True):
    """Counters of one client since its start."""

    connections: dict[str, str]
    requests_sent: int
    buffered_bytes: int
    producers: int
    readers: int
    obstacle: str = ""
    """Why no broker can be asked just now; empty when one can."""


def is_of_an_older_topic(error: ZmqmqError) -> bool:
    """A ready producer met this; nothing was written, and the topic may have been made anew, with another id."""
    return isinstance(error, UnknownTopic) and error.outcome == "not_written"


class BaseClient:
    """A subclass calls ``_begin`` when it is able to close what it holds."""

    def __init__(self, brokers: str | Sequence[str] | None, client_id: str, timeout: Seconds) -> None:
        self.closed: ZmqmqError | None = ClosedError("the client did not start")
        """Why nothing can be asked of the client any more, or not yet."""
        self.addresses = addresses_of(brokers)
        self.client_id = text_of("client_id", client_id)
        self.timeout = seconds_of("timeout", timeout, low=0.001)
        self._clock, self._random = self._time_and_chance()
        self._core = ClientCore(self.addresses, client_id=client_id, random=self._random)
        self._outboxes: weakref.WeakSet[Outbox] = weakref.WeakSet()
        self._intakes: weakref.WeakSet[Intake[Any]] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({','.join(self.addresses)} {'closed' if self.closed else 'open'})"

    def _time_and_chance(self) -> tuple[Clock, Random]:
        """The simulator has its own."""
        return SystemClock(), random.Random()

    def locks(self) -> Iterable[threading.Lock]:
        """For ``forking``."""
        return [outbox.lock for outbox in list(self._outboxes)]

    def on_forked(self, error: ClosedError) -> None:
        """For ``forking``."""
        self.closed = error
        for outbox in self._outboxes:
            outbox.on_forked(error)
        for intake in self._intakes:
            intake.closed = error

    def _begin(self) -> None:
        self.closed = None
        tell_of_forks(self)

    def _check_open(self) -> None:
        if self.closed is not None:
            raise type(self.closed)(str(self.closed), hint=self.closed.hint)

    def _tell_of_loss(self) -> None:
        """The client goes without having been closed. Without a handler of the application's, logging prints this on stderr."""
        batches = [batch for outbox in self._outboxes if outbox.closed is None for batch in list(outbox.accumulator.unresolved)]
        count = sum(batch.count or len(batch.records) for batch in batches)
        if count:
            logger.error("%r was dropped without close(): %d records were not delivered, or nobody heard of it", self, count)

    def _stats_of(self, core: ClientCore) -> ClientStats:
        """On the engine's side."""
        outboxes = [outbox for outbox in self._outboxes if outbox.closed is None]
        return ClientStats(
            {session.address: session.state.value for session in core.sessions()},
            core.requests_sent(),
            sum(outbox.accumulator.buffered_bytes for outbox in self._outboxes),
            len(outboxes),
            sum(intake.closed is None for intake in self._intakes),
            str(core.obstacle() or ""),
        )
