"""A distribution in powers of two, cheap enough for the hot path."""

from __future__ import annotations

from typing import Final

from zmqmq.wire.replies import Summary

BUCKETS: Final = 40
"""2**39 microseconds are six days."""


class SummaryCounter:
    """Counts microseconds; ``buckets[i]`` counts values below 2**i that no smaller one counts."""

    __slots__ = ("buckets", "count", "max_us", "total_us")

    def __init__(self) -> None:
        self.buckets = [0] * BUCKETS
        self.count = self.max_us = self.total_us = 0

    def add(self, us: int) -> None:
        self.buckets[min(us.bit_length(), BUCKETS - 1)] += 1
        self.count += 1
        self.total_us += us
        self.max_us = max(us, self.max_us)

    def summary(self) -> Summary:
        return Summary(self.count, self.total_us, self.max_us, list(self.buckets))
