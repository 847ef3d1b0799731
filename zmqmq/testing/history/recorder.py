"""Builds a history while things happen. Not for several threads at once: give them one lock, or a recorder each and one order."""

from __future__ import annotations

from collections.abc import Sequence

from zmqmq.errors import InvalidHistory
from zmqmq.testing.history import lines
from zmqmq.testing.history.model import Function, Kind, Operation, Outcome, Process, Step


class Recorder:
    """``operations`` is what has happened so far; hand it to ``check``."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._pending: dict[Process, Operation] = {}

    def __repr__(self) -> str:
        return f"Recorder({len(self.operations)} operations, {len(self._pending)} pending)"

    def invoke(
        self,
        process: Process,
        f: Function,
        value: Sequence[Step] | None,
        time_ns: int,
        *,
        keys: Sequence[str] | None = None,
        final: bool = False,
    ) -> int:
        """A process begins something; the operation's index. Raises InvalidHistory if it has not ended what it began before."""
        if process in self._pending:
            raise InvalidHistory(
                f"process {process} begins a {f} before its {self._pending[process].f} ended", hint="complete it, or use another process"
            )
        operation = self._add(process, "invoke", f, time_ns, value, keys=keys, rebalanced=None, final=final)
        self._pending[process] = operation
        return operation.index

    def complete(
        self,
        process: Process,
        type: Outcome,
        value: Sequence[Step] | None,
        time_ns: int,
        *,
        rebalanced: Sequence[str] | None = None,
    ) -> int:
        """It ended, ``ok``, ``fail`` or ``info``; the completion's index. Raises InvalidHistory if nothing was begun."""
        invoked = self._pending.pop(process, None)
        if invoked is None:
            raise InvalidHistory(f"process {process} ends what it did not begin", hint="invoke it first")
        return self._add(process, type, invoked.f, time_ns, value, keys=None, rebalanced=rebalanced, final=invoked.final).index

    def save(self, path: str) -> None:
        """Write the file that ``zmqmq history check`` reads."""
        lines.save(self.operations, path)

    def _add(
        self,
        process: Process,
        type: Kind,
        f: Function,
        time_ns: int,
        value: Sequence[Step] | None,
        *,
        keys: Sequence[str] | None,
        rebalanced: Sequence[str] | None,
        final: bool,
    ) -> Operation:
        operation = Operation(
            index=len(self.operations),
            process=process,
            type=type,
            f=f,
            time_ns=time_ns,
            value=None if value is None else list(value),
            keys=None if keys is None else list(keys),
            rebalanced=None if rebalanced is None else list(rebalanced),
            final=final,
        )
        self.operations.append(operation)
        return operation
