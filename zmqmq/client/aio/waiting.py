"""How a task waits for something watched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from zmqmq.client.watching import Watched


async def wait(watched: Watched, timeout: float | None) -> bool:
    """Whether it was ready, or somebody said so, within ``timeout``."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bool] = loop.create_future()

    def finish(*, is_ready: bool) -> None:
        if not future.done():
            future.set_result(is_ready)

    def wake() -> None:
        if _get_running_loop() is loop:
            finish(is_ready=True)
        else:
            call_from_anywhere(loop, lambda: finish(is_ready=True))

    watched.watch(wake)
    timer = None if timeout is None else loop.call_later(max(0.0, timeout), lambda: finish(is_ready=False))
    try:
        return await future
    finally:
        watched.unwatch(wake)
        if timer is not None:
            timer.cancel()


def call_from_anywhere(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *arguments: Any) -> None:
    """Soon, in the loop, which is woken; never, if it is closed. From any thread or signal handler."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(function, *arguments)


def _get_running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
