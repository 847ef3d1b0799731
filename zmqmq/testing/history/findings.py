"""The anomalies by name, and one finding of one of them."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from zmqmq.testing.history.model import Value

ANOMALIES: Final = {
    "inconsistent-offsets": "an offset holds two values",
    "duplicate": "a value has two offsets",
    "no-writer": "a polled value was sent by nobody",
    "G1a": "a value was read whose send had failed",
    "precommitted-read": "a transaction polled what it had itself sent",
    "lost-write": "a value that must be there was passed over by every reader",
    "unseen": "an acknowledged value was never read, not by the final polls either",
    "vanished": "a value was read, and the final polls did not find it again",
    "torn-transaction": "a transaction shows some of its sends and not the others",
    "int-poll-skip": "one operation polled past a record",
    "int-nonmonotonic-poll": "one operation polled a key backwards, or a record twice",
    "poll-skip": "two operations of a process left out a record between them",
    "nonmonotonic-poll": "a process went back, or polled a record again",
    "int-nonmonotonic-send": "one operation's sends to a key are in the log in another order",
    "nonmonotonic-send": "a process's later send is in the log before an earlier one",
    "int-send-skip": "another's record lies between the sends of one operation",
    "watermark-regression": "a process was told a smaller high watermark by the same leader",
    "watermark-overrun": "a record was polled from beyond the high watermark told with it",
    "epoch-regression": "a batch has a smaller leader epoch than one before it in the log",
    "sequence-reuse": "a sequence number of a producer is in the log twice",
    "G0": "transactions' writes go round in a circle",
    "G0-process": "writes and the order of a process go round in a circle",
    "G0-realtime": "writes and the order of time go round in a circle",
    "G1c": "information flows round in a circle",
    "G1c-process": "information and the order of a process go round in a circle",
    "G1c-realtime": "information and the order of time go round in a circle",
}
"""In the order of reports."""


class Finding(Struct, frozen=True, omit_defaults=True):
    """One example. ``operations`` are the indexes of the completions involved, or of invocations that never completed."""

    anomaly: str
    what: str
    key: str | None = None
    offsets: tuple[int, ...] = ()
    values: tuple[Value, ...] = ()
    operations: tuple[int, ...] = ()
