"""Which partitions retention looks at next, so that idle ones cost nothing."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zmqmq.model import PartitionId
    from zmqmq.store.partition_log import PartitionLog

DUE_MAX: Final = 64
"""Partitions handed out at a time, so that one call does not hold the loop up."""


class Schedule:
    """A heap of times. An entry counts only while its log's ``scheduled_ms`` says the same."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, PartitionId]] = []

    def add(self, log: PartitionLog, *, not_before: int = 0) -> None:
        """Look at the log when it is next due, if it ever is."""
        due = log.due_ms()
        if due is None:
            return
        due = max(due, not_before)
        if log.scheduled_ms is None or due < log.scheduled_ms:
            log.scheduled_ms = due
            heapq.heappush(self._heap, (due, log.id))

    def take_due(self, logs: Mapping[PartitionId, PartitionLog], now_ms: int) -> Iterator[PartitionLog]:
        """Logs to look at now. Each is to be added again."""
        count = 0
        while self._heap and self._heap[0][0] <= now_ms and count < DUE_MAX:
            scheduled_ms, partition = heapq.heappop(self._heap)
            log = logs.get(partition)
            if log is not None and log.scheduled_ms == scheduled_ms:
                log.scheduled_ms = None
                count += 1
                yield log
