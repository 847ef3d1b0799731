"""How a thread waits for something watched."""

from __future__ import annotations

import threading

from zmqmq.client.accumulator import Batch
from zmqmq.client.watching import Watched
from zmqmq.errors import TimeoutError


def wait(watched: Watched, timeout: float | None) -> bool:
    """Whether it was ready, or somebody said so, within ``timeout``. Ctrl-C interrupts it."""
    gate = threading.Lock()
    gate.acquire()
    watched.watch(gate.release)
    try:
        return gate.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
    finally:
        watched.unwatch(gate.release)


def wait_for_batch(batch: Batch, timeout: float | None) -> None:
    """Until the batch is resolved. Raises TimeoutError."""
    if batch.outcome is None and not wait(batch, timeout):
        raise no_receipt(batch, timeout)


def no_receipt(batch: Batch, timeout: float | None) -> TimeoutError:
    return TimeoutError(
        f"no receipt from {batch.topic}-{batch.partition}" + ("" if timeout is None else f" within {max(0.0, timeout):g} s"),
        hint="it is still under way: wait longer, or look at the broker with 'zmqmq ping'",
        outcome="unknown",
    )
