"""What runs the jobs that block on the disk, so that the loop goes on meanwhile.

One job at a time. A job that raises anything but OSError is a bug: ``take_done`` raises it in the loop, so that it is seen.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from msgspec import Struct


class Job(Protocol):
    def run(self) -> None: ...


JobT = TypeVar("JobT", bound=Job)


class Done(Struct, Generic[JobT], frozen=True):
    """How a job ended, and how long it took."""

    job: JobT
    error: OSError | None
    elapsed_us: int


class Worker(Protocol[JobT]):
    """All of it belongs to the loop's thread. The end of a job ends the transport's ``wait``."""

    @property
    def is_busy(self) -> bool:
        """A job was submitted and not taken back by ``take_done``."""

    @property
    def has_crashed(self) -> bool:
        """A job had a bug; ``take_done`` raises it."""

    def submit(self, job: JobT) -> None: ...

    def take_done(self) -> Done[JobT] | None:
        """The job that ended, once."""

    def wait(self, timeout_s: float) -> None:
        """Until the running job ended, or the time is over."""

    def close(self, timeout_s: float) -> None:
        """Run no more jobs; the running one has so long to end."""
