"""Virtual time: one heap of everything that will happen, and an asyncio loop for each simulated process.

Nothing ever sleeps: the world takes the earliest event, moves its clock there and runs it. Events of the same microsecond run in
the order in which they were asked for, so that the same seed takes the same way. A process is what can be killed or paused as one:
its loop holds its callbacks back while it is paused, and forgets them when it is dead.

Only the parts of asyncio that work without a socket, a thread or a signal are there; the others raise NotImplementedError.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import math
import sys
from asyncio import events
from collections.abc import Callable, Coroutine
from contextvars import Context
from itertools import count
from typing import Any, Final, TypeVar, TypeVarTuple

from zmqmq.errors import ZmqmqError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

US_PER_S: Final = 1_000_000
_FLOAT_US: Final = 0.01
CLOSE_TIMES_MAX: Final = 20
"""Awaits on the way out of a coroutine that is closed in the middle."""
EVENTS_MAX: Final = 500_000
"""Of one run; more means that something turns without end."""


class SimBug(Exception):
    """Code of the product, or of the program under test, raised where nobody catches."""


class Stuck(ZmqmqError):
    """What the simulation was to wait for did not happen in the time that it had."""


class UnknownMachine(ZmqmqError):
    """Nobody runs on a machine of this name. Its broker or client has to be made first."""


class World:
    """The clock and the heap. ``now_us`` counts from the start of the run."""

    def __init__(self) -> None:
        self.now_us = 0
        self.event_count = 0
        self.bug: SimBug | None = None
        """The first one; ``run_until`` raises it."""
        self._heap: list[tuple[int, int, asyncio.Handle, Process | None]] = []
        self._numbers = count()
        self._processes: list[Process] = []
        self._main = self.process("world")

    def process(self, name: str) -> Process:
        made = Process(self, name)  # type: ignore[abstract]  # what it lacks raises NotImplementedError
        self._processes.append(made)
        return made

    def check_machines(self, *names: str) -> None:
        """Raises UnknownMachine when one of them never had a process."""
        known = {process.name for process in self._processes if process is not self._main}
        for name in names:
            if name not in known:
                raise UnknownMachine(f"there is no machine {name!r}", hint=f"there are: {', '.join(sorted(known)) or 'none yet'}")

    def raise_unawaited(self) -> None:
        """Raises SimBug when a task ended with an exception that nobody asked for. Those of dead processes had nobody who could."""
        for process in self._processes:
            for task in process.unawaited():
                error = task.exception()
                raise SimBug(f"{process.name}: nobody awaited {task.get_name()}, which broke: {error!r}") from error

    def dispose(self) -> None:
        """The end of the world. Coroutines that were killed in the middle are closed by the collector, and what they complain of
        then is of no interest: their process is dead."""
        told, sys.unraisablehook = sys.unraisablehook, _ignore
        try:
            for process in self._processes:
                process.forget()
            self._processes.clear()
            self._heap.clear()
            gc.collect()
        finally:
            sys.unraisablehook = told

    def at(self, when_us: int, function: Callable[[*Ts], object], *arguments: *Ts) -> asyncio.Handle:
        """Run it then, or now if that is over."""
        return self.push(max(when_us, self.now_us), asyncio.Handle(function, arguments, self._main), None)

    def after(self, delay_us: int, function: Callable[[*Ts], object], *arguments: *Ts) -> asyncio.Handle:
        return self.at(self.now_us + delay_us, function, *arguments)

    def push(self, when_us: int, handle: asyncio.Handle, process: Process | None) -> asyncio.Handle:
        heapq.heappush(self._heap, (when_us, next(self._numbers), handle, process))
        return handle

    def run_until(self, is_over: Callable[[], bool], until_us: int) -> bool:
        """Run until the condition holds (then True), or the time has come, or nothing is left to happen."""
        if events._get_running_loop() is not None:  # noqa: SLF001
            raise Stuck(
                "a loop runs already", hint="call this from outside; inside a simulated program await, and use the brokers' methods"
            )
        heap = self._heap
        while not is_over():
            if not heap or heap[0][0] > until_us:
                self.now_us = max(self.now_us, until_us)
                return is_over()
            when_us, _, handle, process = heapq.heappop(heap)
            self.now_us = when_us
            if handle.cancelled():
                continue
            self.event_count += 1
            if self.event_count > EVENTS_MAX:
                raise Stuck(f"more than {EVENTS_MAX} events, at {self.now_us / US_PER_S:.6f} s", hint="something turns without end")
            if process is None:
                handle._run()  # noqa: SLF001 - what every loop does with its handles
            else:
                process.run_handle(handle)
            if self.bug is not None:
                raise self.bug
        return True

    def on_bug(self, where: str, error: BaseException) -> None:
        if self.bug is None:
            self.bug = SimBug(f"{where}: {error!r}")
            self.bug.__cause__ = error


class Process(asyncio.AbstractEventLoop):
    """The loop of one simulated process."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.is_dead = False
        self._pause_count = 0
        """How many hold it back; it goes on when all have resumed it."""
        self._held: list[asyncio.Handle] = []
        self._tasks: list[asyncio.Task[Any]] = []
        """All of them are kept: when a task is collected, and what its coroutine then does, must not depend on chance."""

    def __repr__(self) -> str:
        return f"Process({self.name}{' dead' if self.is_dead else ' paused' if self._pause_count else ''})"

    @property
    def is_paused(self) -> bool:
        return self._pause_count > 0

    def pause(self) -> None:
        self._pause_count += 1

    def resume(self) -> None:
        """End one pause."""
        self._pause_count = max(0, self._pause_count - 1)
        if not self._pause_count:
            self.wake()

    def wake(self) -> None:
        """End all pauses."""
        self._pause_count = 0
        held, self._held = self._held, []
        for handle in held:
            self.world.push(self.world.now_us, handle, self)

    def kill(self) -> None:
        """Nothing of it runs any more."""
        self.is_dead = True
        self._pause_count = 0
        self._held = []

    def forget(self) -> None:
        """``kill``, and let go of all that it held: coroutines that were in the middle of something are closed, or what they
        await would keep them for ever (handles of records are not seen by the collector)."""
        self.kill()
        events._set_running_loop(self)  # noqa: SLF001
        try:
            for task in self._tasks:
                if not task.done():
                    _close(task.get_coro())
        finally:
            events._set_running_loop(None)  # noqa: SLF001
            self._tasks.clear()

    def unawaited(self) -> list[asyncio.Task[Any]]:
        """Tasks that broke, and of which nobody took notice."""
        if self.is_dead:
            return []
        return [task for task in self._tasks if task._log_traceback]  # noqa: SLF001 - what asyncio asks, too

    def run_handle(self, handle: asyncio.Handle) -> None:
        if self.is_dead:
            return
        if self._pause_count:
            self._held.append(handle)
            return
        events._set_running_loop(self)  # noqa: SLF001 - what every loop does
        try:
            handle._run()  # noqa: SLF001
        finally:
            events._set_running_loop(None)  # noqa: SLF001

    def run(self, main: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Run the world until this coroutine of the process has ended; its result. Raises Stuck when it has not by then."""
        task: asyncio.Task[T] = self.create_task(main)
        if not self.world.run_until(task.done, self.world.now_us + int(timeout_s * US_PER_S)):
            task.cancel()
            raise Stuck(f"{self.name} did not end within {timeout_s:g} simulated seconds", hint="look at the trace")
        return task.result()

    def time(self) -> float:
        return self.world.now_us / US_PER_S

    def call_soon(self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> asyncio.Handle:
        return self.world.push(self.world.now_us, asyncio.Handle(callback, args, self, context), self)

    def call_soon_threadsafe(self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.world.push(self._us_of(when), handle, self)
        return handle

    def _us_of(self, when: float) -> int:
        """Never before it, but for what a float cannot say; and what lies ahead takes time, however little."""
        at_us = math.ceil(when * US_PER_S - _FLOAT_US)
        return max(at_us, self.world.now_us + (when > self.time()))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It stays in the heap and is passed over."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        return task

    def is_running(self) -> bool:
        return not self.is_dead

    def is_closed(self) -> bool:
        return self.is_dead

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Whatever nobody caught ends the run; a dead process has nobody who could."""
        error = context.get("exception")
        if not self.is_dead and error is not None:
            self.world.on_bug(f"{self.name}: {context.get('message', 'a bug')}", error)

    async def shutdown_asyncgens(self) -> None:
        """Generators of a simulated process end with it."""


def _close(coroutine: Any) -> None:
    """What it does on its way out, and what it complains of, is of no interest: its process is dead."""
    for _ in range(CLOSE_TIMES_MAX):
        try:
            coroutine.close()
        except Exception:  # noqa: BLE001, S112 - it awaits on its way out, or its clean-up fails without a world
            continue
        return


def _ignore(_unraisable: object) -> None:
    pass
