"""A thread of its own for the jobs of one worker; their end is told by a wake-up."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from time import perf_counter_ns
from typing import Generic

from zmqmq.broker.worker import Done, JobT
from zmqmq.transport.wakeup import Wakeup


class WorkerThread(Generic[JobT]):
    """Implements ``worker.Worker``."""

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
        if self._crash is not None:
            raise self._crash
        done = self._done
        if done is not None:
            self._done = None
            self.is_busy = False
        return done

    @property
    def has_crashed(self) -> bool:
        return self._crash is not None

    def wait(self, timeout_s: float) -> None:
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
