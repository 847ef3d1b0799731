"""Runs the body of a test in an event loop of either kind, with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
DEADLINE_S = 30


class Loop:
    def __init__(self, kind: str) -> None:
        self.kind = kind

    def run(self, body: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(DEADLINE_S):
                await body

        with asyncio.Runner(loop_factory=LOOPS[self.kind]) as runner:
            runner.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that a task brings about; the loop's deadline is the limit."""
    while not condition():
        await asyncio.sleep(0.001)


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
