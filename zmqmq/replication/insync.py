"""Who is in sync: the committed set, what was proposed, and how far each follower is.

Pure. Every member that *may* be in the set counts: those of the committed set, and those that were proposed since, because nobody here can
know which proposal the controller took until a newer partition epoch shows. So an expansion counts from its proposal and a shrink
from its commit; a refusal alone changes nobody's counting, for a copy of the refused proposal may still be on its way.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from msgspec import Struct

LAG_MS_MAX: Final = 1_500
"""A follower that misses a record for longer than this leaves the in-sync set."""
PROPOSAL_RETRY_MS: Final = 500
"""Between a refusal and the next proposal, and between two copies of one proposal."""
_SAMPLE_MS: Final = 100
_SAMPLES_MAX: Final = 2 * LAG_MS_MAX // _SAMPLE_MS


class Leadership(Struct, frozen=True):
    """Under which epoch this broker leads, and with whom: ``isr`` names the in-sync replicas, itself included."""

    epoch: int
    isr: tuple[int, ...]
    partition_epoch: int = 0
    replicas: tuple[int, ...] = ()


class Progress(Struct):
    """How far one replica is, by its last report."""

    end: int
    synced_end: int
    high_watermark: int = 0
    log_start: int = 0
    broker_epoch: int = -1


class Growth:
    """Where the log ended at earlier times, for as long as a follower may lag. A sample stands for what was there before its time, in steps
    of 100 ms."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[tuple[int, int]] = deque(maxlen=_SAMPLES_MAX)

    def note(self, now_ms: int, end: int) -> None:
        samples = self._samples
        step_ms = now_ms - now_ms % _SAMPLE_MS + _SAMPLE_MS
        if samples and samples[-1][0] == step_ms:
            samples[-1] = (step_ms, end)
        elif not samples or samples[-1][1] != end:
            samples.append((step_ms, end))

    def due_end(self, now_ms: int) -> int:
        """What every replica should hold by now; -1 while nothing can be asked for yet."""
        due = -1
        for then_ms, end in self._samples:
            if then_ms > now_ms - LAG_MS_MAX:
                break
            due = end
        return due

    def overdue_ms(self, end: int) -> int | None:
        """When a replica that stays at ``end`` will miss a record for too long; None if it misses none."""
        return next((then_ms + LAG_MS_MAX for then_ms, known in self._samples if known > end), None)


class InSyncSet:
    """See the module. At most one proposal is open."""

    __slots__ = ("_is_open", "_is_refused", "committed", "counted", "partition_epoch", "proposed", "retry_ms")

    def __init__(self, leadership: Leadership) -> None:
        self.commit(leadership)

    def commit(self, leadership: Leadership) -> None:
        """The metadata log says so: every proposal of before is void or done."""
        self.committed = leadership.isr
        self.counted = leadership.isr
        self.partition_epoch = leadership.partition_epoch
        self.proposed: tuple[int, ...] | None = None
        self._is_open = False
        self._is_refused = False
        self.retry_ms = 0

    def propose(self, members: tuple[int, ...], now_ms: int) -> tuple[int, ...] | None:
        """What to propose so that ``members`` become the set; None while there is nothing to do, or a proposal is open."""
        if self._is_open or now_ms < self.retry_ms:
            return None
        if set(members) == set(self.committed) and not self._is_refused:
            return None
        # After a refusal even the committed set is proposed again: its commit raises the partition epoch, which voids the refused one.
        self.proposed = members
        self.counted = (*self.counted, *(node for node in members if node not in self.counted))
        self._is_open = True
        return members

    def on_refused(self, partition_epoch: int, now_ms: int) -> bool:
        """The controller did not take the proposal made at ``partition_epoch``. Tells whether it was ours."""
        if not self._is_open or partition_epoch != self.partition_epoch:
            return False
        self._is_open = False
        self._is_refused = len(self.counted) > len(self.committed)
        self.retry_ms = now_ms + PROPOSAL_RETRY_MS
        return True

    @property
    def is_open(self) -> bool:
        return self._is_open
