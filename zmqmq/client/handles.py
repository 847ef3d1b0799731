"""What ``send`` and ``send_many`` give back: light handles, resolved a whole batch at a time.

A handle is its batch and a number. Waiting registers with the batch; nothing else is allocated per record.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from msgspec import Struct

from zmqmq.client.accumulator import Batch, Receipt
from zmqmq.client.arguments import Seconds, maybe_seconds_of, refused
from zmqmq.client.message import time_of
from zmqmq.client.waiting import wait_for_batch
from zmqmq.errors import Outcome, ZmqmqError
from zmqmq.model import Delivery

H = TypeVar("H")

logger = logging.getLogger("zmqmq")


class Failure(Struct, frozen=True):
    """A record that was not delivered. ``outcome``: it is in no log (``not_written``), or that is not known (``unknown``)."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    error: ZmqmqError
    outcome: Outcome


class Handle(Struct, gc=False, eq=False):
    """The future of one record. Safe to use from any thread."""

    batch: Batch
    index: int

    def done(self) -> bool:
        return self.batch.outcome is not None

    def result(self, timeout: Seconds | None = None) -> Delivery:
        """Wait for the receipt. Raises what went wrong with the record, or TimeoutError when ``timeout`` passes first; without
        one the producer's delivery timeout is the limit."""
        wait_for_batch(self.batch, maybe_seconds_of("timeout", timeout))
        return delivery(self.batch, self.index)

    def add_done_callback(self, callback: Callable[[Handle], Any]) -> None:
        """Call ``callback(handle)`` when the record is decided, in the client's I/O thread; at once if it is already. It must
        return soon and must not wait for other handles; what it raises is logged."""
        check_callback(callback)

        def call() -> None:
            try:
                callback(self)
            except Exception:  # it is the application's code, in the thread on which all of the client depends
                logger.exception("a delivery callback of %s-%d raised", self.batch.topic, self.batch.partition)

        self.batch.watch(call)


class Handles(Sequence[H], Generic[H]):
    """The futures of all records of one ``send_many``, in their order, without an object for each."""

    __slots__ = ("_count", "_make", "_table", "parts")

    def __init__(self, count: int, make: Callable[[Batch, int], H]) -> None:
        self.parts: list[tuple[Batch, int, Sequence[int]]] = []
        """Batch, the first of its records that belongs here, and which of these each one is."""
        self._count = count
        self._make = make
        self._table: list[H] | None = None

    def add(self, batch: Batch, first: int, positions: Sequence[int]) -> None:
        """The records at ``positions`` of the call are those of ``batch`` from ``first`` on."""
        self.parts.append((batch, first, positions))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._count} records, {'done' if self.done() else 'under way'})"

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return self._handles()[index]

    def __iter__(self) -> Iterator[H]:
        return iter(self._handles())

    def done(self) -> bool:
        return all(batch.outcome is not None for batch, _, _ in self.parts)

    def deliveries(self) -> list[Delivery]:
        """All receipts, once every record is decided. Raises the first error."""
        found: list[Any] = [None] * self._count
        for batch, first, positions in self.parts:
            for index, position in enumerate(positions, first):
                found[position] = delivery(batch, index)
        return found

    def _handles(self) -> list[H]:
        if self._table is None:
            table: list[Any] = [None] * self._count
            for batch, first, positions in self.parts:
                for index, position in enumerate(positions, first):
                    table[position] = self._make(batch, index)
            self._table = table
        return self._table


class BatchHandle(Handles[Handle]):
    """The futures of all records of one ``send_many``. Safe to use from any thread."""

    __slots__ = ()

    def __init__(self, count: int) -> None:
        super().__init__(count, Handle)

    def wait(self, timeout: Seconds | None = None) -> None:
        """Until every record is decided; cheaper than ``result``. Raises the first error."""
        seconds = maybe_seconds_of("timeout", timeout)
        deadline = None if seconds is None else time.monotonic() + seconds
        for batch, _, _ in self.parts:
            wait_for_batch(batch, None if deadline is None else deadline - time.monotonic())
            if isinstance(batch.outcome, ZmqmqError):
                raise batch.outcome.again()

    def result(self, timeout: Seconds | None = None) -> list[Delivery]:
        """All receipts. Raises the first error."""
        self.wait(timeout)
        return self.deliveries()


def check_callback(callback: object) -> None:
    if not callable(callback):
        raise refused("callback", callback, "a function of one handle")


def delivery(batch: Batch, index: int) -> Delivery:
    """The receipt of one record of a resolved batch, or its error raised."""
    outcome = batch.outcome
    if isinstance(outcome, ZmqmqError):
        raise outcome.again()
    assert isinstance(outcome, Receipt)
    offset = None if outcome.base_offset is None else outcome.base_offset + index
    when = time_of(outcome.append_time_ms)
    return Delivery(batch.topic, batch.partition, offset, when, outcome.leader_epoch, outcome.replicas, outcome.synced)
