"""What must hold after each turn of a broker. One method, one line of the list in docs/simulator.md."""

from __future__ import annotations

from msgspec import Struct

from zmqmq.broker.loop import Loop
from zmqmq.model import METADATA_PARTITION, PartitionId
from zmqmq.replication.leader import PartitionLeader


class Violation(AssertionError):
    """A promise is broken. The message names the invariant first."""


class _Last(Struct):
    """What was seen of a partition last, and in which opening."""

    opening: int
    epoch: int
    high_watermark: int
    log_start: int
    synced_end: int
    log_end: int


class Invariants:
    """Remembers what was, to compare with what is."""

    def __init__(self) -> None:
        self.check_count = 0
        self._last: dict[tuple[str, PartitionId], _Last] = {}
        self._leaders: dict[tuple[PartitionId, int], tuple[str, int]] = {}
        """Who led in which epoch, and in which of its openings."""
        self._term: dict[str, tuple[int, int]] = {}
        """Of each broker, the last opening that served and the metadata log's term in it."""

    def after_turn(self, broker: str, opening: int, loop: Loop) -> None:
        if loop.node.cluster is None:
            self._term_rises_with_each_opening(broker, opening, loop)
        for partition, leader in loop.node.partitions.leaders.items():
            last = self._last.get((broker, partition))
            now = (opening, leader.leadership.epoch, leader.high_watermark, leader.log_start, leader.synced_end, leader.log_end)
            if last is not None and last == _Last(*now):
                continue
            self.check_count += 1
            self._ends_in_order(leader)
            self._one_leader_in_an_epoch(broker, opening, leader)
            if last is not None:
                if last.opening == opening and (last.epoch == leader.leadership.epoch or loop.node.cluster is None):
                    self._watermark_never_falls(last, leader)
                    self._start_never_falls(last, leader)
                else:
                    self._epoch_rises_with_each_opening(last, leader)
                if loop.node.cluster is None:
                    self._synced_stays(last, leader)
            self._last[broker, partition] = _Last(*now)

    def _ends_in_order(self, leader: PartitionLeader) -> None:
        if not (leader.log_start <= leader.high_watermark <= leader.log_end <= leader.next_offset and leader.synced_end <= leader.log_end):
            raise Violation(f"ends in order: {leader!r} next={leader.next_offset}")
        if leader.config.durability == "fsync" and leader.high_watermark > max(leader.synced_end, leader.log_start):
            raise Violation(f"fsync watermark is on disk: {leader!r}")

    def _one_leader_in_an_epoch(self, broker: str, opening: int, leader: PartitionLeader) -> None:
        name = (leader.partition, leader.leadership.epoch)
        found = self._leaders.setdefault(name, (broker, opening))
        if found != (broker, opening):
            raise Violation(f"one leader in an epoch: {leader!r} on {broker}, opening {opening}, and on {found[0]}, opening {found[1]}")

    def _watermark_never_falls(self, last: _Last, leader: PartitionLeader) -> None:
        if leader.high_watermark < last.high_watermark:
            raise Violation(f"watermark never falls: {leader!r}, it was {last.high_watermark}")

    def _epoch_rises_with_each_opening(self, last: _Last, leader: PartitionLeader) -> None:
        if leader.leadership.epoch <= last.epoch:
            raise Violation(f"epoch rises with each opening: {leader!r}, it was {last.epoch}")

    def _term_rises_with_each_opening(self, broker: str, opening: int, loop: Loop) -> None:
        """Of the metadata log, as of every partition."""
        last_opening, last = self._term.get(broker, (0, 0))
        if last_opening == opening or not loop.node.is_ready:
            return
        term = loop.store.state(METADATA_PARTITION).epochs[-1].epoch
        if term <= last:
            raise Violation(f"term rises with each opening: the metadata log of {broker} has {term}, it had {last}")
        self._term[broker] = opening, term

    def _synced_stays(self, last: _Last, leader: PartitionLeader) -> None:
        if leader.log_end < last.synced_end:
            raise Violation(f"what was synced stays: {leader!r}, {last.synced_end} was on disk")

    def _start_never_falls(self, last: _Last, leader: PartitionLeader) -> None:
        """Within an opening: a crash may bring back what retention removed a moment before."""
        if leader.log_start < last.log_start:
            raise Violation(f"start never falls: {leader!r}, it was {last.log_start}")
