"""The sync reader: waits for news from the I/O thread, checks and decodes in the caller's thread.

The I/O thread has the next batches on their way before these are decoded. A reader belongs to one thread; only ``stop``
may be called from any other, or from a signal handler.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from types import FrameType
from typing import Final, Generic, Protocol, TypeVar

from zmqmq.client.arguments import Place, Seconds, count_of, seconds_of
from zmqmq.client.intake import Intake, Step
from zmqmq.client.message import Message
from zmqmq.client.waiting import wait
from zmqmq.errors import ZmqmqError
from zmqmq.model import Offset

V = TypeVar("V")

_WAIT_SLICE_S: Final = 1.0
"""A waiting reader looks this often whether the I/O thread still lives."""


class Reader(Generic[V]):
    """Reads partitions of one topic, in order within each. Made by ``Client.reader``; a context manager.

    Iterating waits for records; it ends on ``stop()``, when every partition reached its stop, or when no record came for
    ``timeout``.
    """

    def __init__(
        self,
        intake: Intake[V],
        *,
        timeout: float | None,
        patience: float,
        seek: Callable[[Mapping[int, Offset]], Mapping[int, int]],
        on_close: Callable[[], None],
    ) -> None:
        self.topic = intake.topic
        self._intake = intake
        self._timeout = timeout
        self._patience = patience
        self._seek = seek
        self._on_close = on_close

    def __repr__(self) -> str:
        return f"Reader({self.topic} {self._intake.state} partitions={self._intake.partitions})"

    def __iter__(self) -> Iterator[Message[V]]:
        return chain.from_iterable(self._iterators())

    def poll(self, timeout: Seconds = 0.0) -> Message[V] | None:
        """The next message, or None when there is none within ``timeout``."""
        seconds = seconds_of("timeout", timeout)
        found = next(self._intake.rest, None)
        if found is None and self._pull(seconds):
            found = next(self._intake.rest, None)
        return found

    def batch(self, max_messages: int = 500, timeout: Seconds = 1.0) -> list[Message[V]]:
        """What is there, up to ``max_messages``; waits at most ``timeout`` for the first; an empty list when idle."""
        return self._batch(count_of("max_messages", max_messages, 0), seconds_of("timeout", timeout))

    def batches(self, max_messages: int = 500) -> Iterator[list[Message[V]]]:
        """Lists of up to ``max_messages``, never empty, until iteration would end: the fastest way to read."""
        return self._batches(count_of("max_messages", max_messages, 1))

    def stop(self) -> None:
        """End the iteration before its next message. From any thread, or a signal handler; for good."""
        self._intake.stop()
        self._intake.inbox.notify()

    def _batches(self, max_messages: int) -> Iterator[list[Message[V]]]:
        while messages := self._batch(max_messages, self._timeout):
            yield messages

    def _batch(self, max_messages: int, timeout: float | None) -> list[Message[V]]:
        messages = self._intake.take(max_messages)
        if not messages and max_messages > 0 and self._pull(timeout):
            messages = self._intake.take(max_messages)
        return messages

    def _iterators(self) -> Iterator[Iterator[Message[V]]]:
        if not self._intake.is_stopped:
            yield self._intake.rest
        while self._pull(self._timeout):
            yield self._intake.rest

    def _pull(self, timeout: float | None) -> bool:
        """Make the next non-empty batch the current one. False: idle, stopped, or all stops reached."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (step := self._intake.advance()) is Step.NOTHING:
            if not self._wait(deadline):
                return False
        return step is Step.MESSAGES

    def _wait(self, deadline: float | None) -> bool:
        left = _WAIT_SLICE_S if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return False
        wait(self._intake.inbox, min(left, _WAIT_SLICE_S))
        return True

    def position(self) -> dict[int, int]:
        """The next offset of each partition: what was handed out lies before it. Waits until the start is known."""
        deadline = time.monotonic() + self._patience
        while not self._intake.settle():
            if self._intake.is_stopped or not self._wait(deadline):
                raise self._intake.unsettled_error()
        return self._intake.position()

    def high_watermarks(self) -> dict[int, int]:
        """The end of each partition as of its last answer; -1 before the first."""
        return self._intake.inbox.fetcher.high_watermarks()

    def seek(self, place: Place | Mapping[int, Place], *, partition: int | None = None) -> None:
        """Go on from another place: of one partition, of those that a mapping names, or of all."""
        places = self._intake.places(place, partition)
        self._intake.check_open()
        self._intake.on_seek(self._seek(places))

    @property
    def closed(self) -> ZmqmqError | None:
        return self._intake.closed

    def close(self, timeout: Seconds | None = None) -> None:  # noqa: ARG002 - as all closes; this one waits for nothing
        """Ask for no more. Any later use raises ClosedError."""
        if self._intake.closed is None:
            self._intake.close()
            self._intake.inbox.notify()
            self._on_close()

    def __enter__(self) -> Reader[V]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Stoppable(Protocol):
    def stop(self) -> None:
        """From a signal handler."""


@contextlib.contextmanager
def stop_on_signals(*readers: Stoppable) -> Iterator[None]:
    """Within the block SIGINT and SIGTERM end the readers' loops instead of the program. Main thread only."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for reader in readers:
            reader.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
