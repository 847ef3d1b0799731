"""Rare places in the code, by name, so that a test can prove that it reached what it is about.

``reached`` costs a look at a global; it stands only where something unusual happens, never on the way of every record. Nobody listens
unless a test or the simulator does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias, get_args

Mark: TypeAlias = Literal[
    "torn journal tail cut",
    "journal entries replayed",
    "deleted topic skipped in replay",
    "index rebuilt",
    "segment rolled",
    "journal switched",
    "journal retired",
    "append taken back",
    "disk full",
    "store offline",
    "checkpoint failed",
    "duplicate answered",
    "duplicate waits for its original",
    "gap in sequences refused",
    "unknown producer refused",
    "old producer epoch refused",
    "truncation noticed",
    "batch sent again",
    "batch ended as unknown",
    "lane renumbered",
    "connection lost under way",
    "request timed out",
    "fetch retried",
    "fetch waited",
    "replica fetch of another epoch refused",
    "replica parted from its leader",
    "replica cut back",
    "replica begins anew at the log start",
    "corrupt replica begins anew",
    "gap in the stream",
    "beat shows a lost tail",
    "damaged batches refused",
    "replica fetch given up",
    "beats missing",
    "in-sync set shrinks",
    "in-sync set grows",
    "refused proposal voided",
    "metadata write tried again",
    "metadata append timed out",
    "metadata entries dropped before a full disk",
    "lead handed over for want of disk space",
    "learner caught up",
    "cluster formed",
    "cluster joined",
    "registration lost",
    "lease ran out",
    "peer died by evidence",
    "forwarded request unknown",
    "forming began anew",
]
MARKS: Final[tuple[Mark, ...]] = get_args(Mark)

listener: Callable[[str], None] | None = None
"""Who wants to know. One at a time."""


def reached(name: Mark) -> None:
    """This place was reached."""
    if listener is not None:
        listener(name)
