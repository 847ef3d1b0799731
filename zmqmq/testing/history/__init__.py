"""The history checker: what clients did and saw, checked against what a log promises (docs/history.md).

``check(operations)`` gives a ``Report``; ``Recorder`` builds operations in memory, ``load`` reads them from a file.
"""

from zmqmq.testing.history.check import check
from zmqmq.testing.history.findings import ANOMALIES, Finding
from zmqmq.testing.history.lines import load, read, save
from zmqmq.testing.history.model import Batch, Operation, Poll, Seen, Send
from zmqmq.testing.history.recorder import Recorder
from zmqmq.testing.history.report import Anomaly, Metrics, Options, Report

__all__ = [
    "ANOMALIES",
    "Anomaly",
    "Batch",
    "Finding",
    "Metrics",
    "Operation",
    "Options",
    "Poll",
    "Recorder",
    "Report",
    "Seen",
    "Send",
    "check",
    "load",
    "read",
    "save",
]
