"""The history of leader epochs in a log: which epoch began where, oldest first.

Both sides of a replication compare their logs with it: batches are written only by leaders, each in an epoch of its own, so two logs that
hold a batch of the same end and epoch are equal up to there.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from operator import attrgetter
from typing import Final

from zmqmq.facts import EpochStart

NO_EPOCH: Final = -1

_epoch_of: Final = attrgetter("epoch")
_offset_of: Final = attrgetter("offset")


def last_epoch(epochs: Sequence[EpochStart]) -> int:
    """The epoch of the last batch, NO_EPOCH if there never was one."""
    return epochs[-1].epoch if epochs else NO_EPOCH


def epoch_before(epochs: Sequence[EpochStart], offset: int) -> int:
    """The epoch of the batch that ends at ``offset``."""
    if epochs and epochs[-1].offset < offset:
        return epochs[-1].epoch
    index = bisect.bisect_left(epochs, offset, key=_offset_of) - 1
    return epochs[index].epoch if index >= 0 else NO_EPOCH


def end_of_epoch(epochs: Sequence[EpochStart], epoch: int, log_start: int, log_end: int) -> tuple[int, int]:
    """The largest epoch <= ``epoch`` that the log holds, and its end; (NO_EPOCH, log start) if there is none."""
    index = bisect.bisect_right(epochs, epoch, key=_epoch_of) - 1
    if index < 0:
        return NO_EPOCH, log_start
    end = epochs[index + 1].offset if index + 1 < len(epochs) else log_end
    return epochs[index].epoch, end


def cut_at(epochs: Sequence[EpochStart], end: int) -> list[EpochStart]:
    """What is left when the log is cut to ``end``."""
    return list(epochs[: bisect.bisect_left(epochs, end, key=_offset_of)])
