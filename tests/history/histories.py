"""A short way to write histories: what each process does, in the order in which things happen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zmqmq.testing.history import Batch, Operation, Options, Poll, Recorder, Report, Seen, Send, check
from zmqmq.testing.history.model import Outcome, Process, Step

KEY = "t-0"
"""The key of tests that need only one."""


class Story(Recorder):
    """Whole operations in one call; time goes on by a millisecond with each line."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 0

    def _tick(self) -> int:
        self.now_ns += 1_000_000
        return self.now_ns

    def begin(self, process: Process, f: Any, steps: Sequence[Step] | None = None, **more: Any) -> int:
        return self.invoke(process, f, steps, self._tick(), **more)

    def end(self, process: Process, type: Outcome = "ok", steps: Sequence[Step] | None = None, **more: Any) -> int:
        return self.complete(process, type, steps, self._tick(), **more)

    def send(
        self, process: Process, value: Any, offset: int | None = None, type: Outcome = "ok", *, key: str = KEY, epoch: int = -1
    ) -> int:
        self.begin(process, "send", [Send(key, value)])
        return self.end(process, type, [Send(key, value, offset, epoch)])

    def sends(self, process: Process, records: Sequence[tuple[Any, int | None]], type: Outcome = "ok", *, f: str = "send") -> int:
        """Several records of one operation: (value, offset)."""
        self.begin(process, f, [Send(KEY, value) for value, _ in records])
        return self.end(process, type, [Send(KEY, value, offset) for value, offset in records])

    def poll(
        self,
        process: Process,
        records: Sequence[tuple[int, Any]] | Mapping[str, Sequence[tuple[int, Any]]],
        type: Outcome = "ok",
        **more: Any,
    ) -> int:
        """(offset, value) of KEY, or by key."""
        by_key = records if isinstance(records, Mapping) else {KEY: records}
        self.begin(process, "poll", [Poll()], final=more.pop("final", False))
        return self.end(process, type, [Poll({key: list(found) for key, found in by_key.items()}, more.pop("seen", {}))], **more)

    def told(self, process: Process, records: Sequence[tuple[int, Any]], watermark: int = -1, epoch: int = -1, *batches: Batch) -> int:
        """A poll with what the broker said beside it."""
        return self.poll(process, records, seen={KEY: Seen(high_watermark=watermark, leader_epoch=epoch, batches=batches)})

    def place(self, process: Process, f: str, keys: Sequence[str], type: Outcome = "ok") -> int:
        self.begin(process, f, keys=keys)
        return self.end(process, type)

    def found(self, **options: Any) -> list[str]:
        """The names of what a check finds."""
        return list(self.report(**options).counts())

    def report(self, **options: Any) -> Report:
        return check(self.operations, Options(**options))


def found_in(operations: Sequence[Operation], **options: Any) -> list[str]:
    return list(check(operations, Options(**options)).counts())
