"""How a thread wakes another that sleeps in ``poll``: an eventfd, or a pipe where there is none."""

from __future__ import annotations

import contextlib
import os
import threading


class Wakeup:
    """``set`` may be called from any thread or signal handler, ``clear`` and ``close`` belong to the one that polls ``fd``."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self.fd = self._write_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self.fd, self._write_fd = os.pipe()
            os.set_blocking(self.fd, False)
            os.set_blocking(self._write_fd, False)
        self._closed = False
        self._lock = threading.RLock()  # else a late ``set`` could write into a file that got the same number

    def set(self) -> None:
        with self._lock:
            if not self._closed:
                with contextlib.suppress(BlockingIOError):  # it is full, so it is set
                    os.write(self._write_fd, b"\1\0\0\0\0\0\0\0")

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 4096)

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self.fd)
                if self._write_fd != self.fd:
                    os.close(self._write_fd)
