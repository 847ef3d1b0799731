"""Runs a broker's disk jobs in virtual time: a job happens at one moment between its submission and the news of its end."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Generic

from zmqmq.broker.worker import Done, JobT
from zmqmq.testing.sim.disk import SimDisk
from zmqmq.testing.sim.kernel import Process


class SimWorker(Generic[JobT]):
    """Implements ``broker.worker.Worker``. ``perform`` runs what may end the process by a power cut; ``job_us_mean`` is how long a
    job takes on a disk that is well."""

    def __init__(
        self,
        process: Process,
        random: Random,
        disk: SimDisk,
        perform: Callable[[Callable[[], None]], bool],
        wake: Callable[[], None],
        *,
        job_us_mean: float,
    ) -> None:
        self.is_busy = False
        self.has_crashed = False
        self._job_us_mean = job_us_mean
        self._process = process
        self._random = random
        self._disk = disk
        self._perform = perform
        self._wake = wake
        self._done: Done[JobT] | None = None

    def submit(self, job: JobT) -> None:
        assert not self.is_busy
        self.is_busy = True
        total_us = int(self._random.expovariate(1.0) * self._job_us_mean) + self._disk.sync_delay_us()
        before_us = int(self._random.random() * total_us)
        self._process.call_later(before_us / 1e6, self._run, job, before_us, total_us)

    def take_done(self) -> Done[JobT] | None:
        done, self._done = self._done, None
        if done is not None:
            self.is_busy = False
        return done

    def wait(self, timeout_s: float) -> None:
        """Time goes on when the turn is over."""

    def close(self, timeout_s: float) -> None:
        """There is no thread to end."""

    def _run(self, job: JobT, before_us: int, total_us: int) -> None:
        error: OSError | None = None

        def run() -> None:
            nonlocal error
            try:
                job.run()
            except OSError as raised:
                error = raised

        if self._perform(run):
            self._process.call_later((total_us - before_us) / 1e6, self._finish, Done(job, error, total_us))

    def _finish(self, done: Done[JobT]) -> None:
        self._done = done
        self._wake()
