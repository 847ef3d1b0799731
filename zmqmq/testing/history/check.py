"""All checks over one history. Pure, and linear in the history's length but for sorting.

The same operations give the same report, whatever the hash seed: sets are asked, never listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from zmqmq.testing.history import brokers, cycles, metrics, records, sequences
from zmqmq.testing.history.findings import Finding
from zmqmq.testing.history.model import Operation
from zmqmq.testing.history.order import History
from zmqmq.testing.history.report import Options, Report, report

DEFAULTS: Final = Options()
_ALWAYS: Final = (
    records.inconsistent_offsets, records.duplicates, records.no_writers, records.lost_writes, records.unseen, records.vanished,
    sequences.inside_polls, sequences.outside_polls, sequences.sends,
    brokers.watermarks, brokers.epochs, brokers.sequences,
)  # fmt: skip
_OF_TRANSACTIONS: Final = (records.precommitted_reads, records.torn_transactions)


def check(operations: Iterable[Operation], options: Options = DEFAULTS) -> Report:
    """Find every anomaly. Raises InvalidHistory if the operations do not fit together."""
    history = History(operations)
    if options.subscribe is None:
        options = msgspec.structs.replace(options, subscribe=any(act.done.f == "subscribe" for act in history.acts))
    return report(_findings(history, options), metrics.measure(history), options)


def _findings(history: History, options: Options) -> Iterator[Finding]:
    for find in _ALWAYS:
        yield from find(history)
    yield from records.aborted_reads(history, of_transactions=options.read_committed)
    if options.read_committed:
        for find in _OF_TRANSACTIONS:
            yield from find(history)
    yield from cycles.cycles(history, ww=options.ww)
