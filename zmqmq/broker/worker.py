"""One thread that runs the jobs that block on the disk, so that the loop goes on meanwhile.

One job at a time; its end is seen by ``take_done`` after the wake-up was set. A job that raises anything but
OSError is a bug: ``take_done`` raises it in the loop, so that it is seen.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from time import perf_counter_ns
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from zmqmq.transport.wakeup import Wakeup


class Job(Protocol):
    def run(self) -> None: ...


JobT = TypeVar("JobT", bound=Job)


class Done(Struct, Generic[JobT], frozen=True):
    """How a job ended, and how long it took."""

    job: JobT
    error: OSError | None
    elapsed_us: int


class Worker(Generic[JobT]):
    """``submit``, ``take_done`` and ``close`` belong to the loop's thread."""

    def __init__(self, name: str, wakeup: Wakeup) -> None:
        self.is_busy = False
        self._wakeup = wakeup
        self._jobs: SimpleQueue[JobT | None] = SimpleQueue()
        self._done: Done[JobT] | None = None
        self._crash: BaseException | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: JobT) -> None:
        assert not self.is_busy
        self.is_busy = True
        self._ended.clear()
        self._jobs.put(job)

    def take_done(self) -> Done[JobT] | None:
        """The job that ended, once."""
        if self._crash is not None:
            raise self._crash
        done = self._done
        if done is not None:
            self._done = None
            self.is_busy = False
        return done

    @property
    def has_crashed(self) -> bool:
        """A job had a bug; ``take_done`` raises it."""
        return self._crash is not None

    def wait(self, timeout_s: float) -> None:
        """Until the running job ended, or the time is over."""
        if self.is_busy:
            self._ended.wait(timeout_s)

    def close(self, timeout_s: float) -> None:
        self._jobs.put(None)
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            started = perf_counter_ns()
            error = None
            try:
                job.run()
            except OSError as raised:
                error = raised
            except BaseException as bug:  # noqa: BLE001 - handed to the loop, which raises it
                self._crash = bug
            self._done = Done(job, error, (perf_counter_ns() - started) // 1000)
            self._ended.set()
            self._wakeup.set()
