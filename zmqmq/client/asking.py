"""Runs conversations with brokers in the caller's thread, through the I/O thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from zmqmq.client.core import ClientCore
from zmqmq.client.io_thread import IoThread
from zmqmq.client.steps import Ask, DefaultTimeout, Elapsed, InCore, Step, Steps
from zmqmq.errors import ZmqmqError

T = TypeVar("T")


class Asker:
    """Safe to use from many threads. ``timeout``: for questions that do not say otherwise."""

    def __init__(self, io: IoThread, timeout: float) -> None:
        self.io = io
        self.timeout = timeout

    def run(self, steps: Steps[T]) -> T:
        """The conversation's result."""
        given: Any = None
        try:
            while True:
                step = steps.send(given)
                try:
                    given = self._do(step)
                except ZmqmqError as error:
                    step = steps.throw(error)
                    given = self._do(step)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def in_io(self, function: Callable[[ClientCore], T]) -> T:
        """Run ``function(core)`` in the I/O thread; its value."""

        def run(_now_ms: int, answer: Callable[[list[T] | ZmqmqError], None]) -> None:
            try:
                answer([function(self.io.core)])
            except ZmqmqError as error:
                answer(error)

        return self.io.ask(run, self.timeout)[0]

    def _do(self, step: Step) -> Any:
        if isinstance(step, Ask):
            seconds = self.timeout if step.timeout is None else step.timeout
            return self.io.ask(lambda now_ms, answer: step.begin(self.io.core, seconds, now_ms, answer), seconds)
        if isinstance(step, InCore):
            return self.in_io(step.function)
        if isinstance(step, DefaultTimeout):
            return self.timeout
        if isinstance(step, Elapsed):
            return time.monotonic()
        return time.sleep(step.seconds)
