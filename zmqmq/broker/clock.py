"""The real clock of a broker."""

from __future__ import annotations

import time

from zmqmq.broker.dispatch import Now


class SystemClock:
    """Implements ``ports.Clock``."""

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def now(self) -> Now:
        return Now(time.time_ns() // 1_000_000, time.monotonic_ns() // 1000)
