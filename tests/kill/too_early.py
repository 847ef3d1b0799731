"""Planted bugs: what the kill test has to find, or it proves nothing. ``zygote.py --plant <name>`` starts brokers that have one.

A kill takes no written byte from the page cache, so an early acknowledgement shows only if it leaves before the write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from zmqmq.broker.loop import Loop
from zmqmq.broker.partitions import Partitions
from zmqmq.effects import Send
from zmqmq.model import METADATA_PARTITION
from zmqmq.producer_state import ProducerStates
from zmqmq.replication.leader import PartitionLeader
from zmqmq.store import replay
from zmqmq.store.disk import RealFile
from zmqmq.store.journal import Journal
from zmqmq.store.partition_log import PartitionLog
from zmqmq.wire.replies import ProduceResult


def acks_too_early() -> None:
    """The receipt leaves when the batch has its offset; the write comes after it."""
    append, write, perform = PartitionLeader.append, Partitions.write, Loop._perform_once

    def append_and_answer(self: PartitionLeader, *arguments: Any) -> Any:
        stamped = append(self, *arguments)
        if stamped is not None and self.partition != METADATA_PARTITION:
            for waits in (self._written, self._synced, self._committed):
                for each in waits:
                    self._receipts.append((each.ticket, ProduceResult(each.base_offset, each.leader_epoch, each.append_time_ms, 1, 1)))
                waits.clear()
        return stamped

    def write_and_touch(self: Partitions, leader: PartitionLeader, stamped: Any) -> None:
        write(self, leader, stamped)
        self.touch(leader)

    def answer_then_perform(self: Loop, effects: list[Any], now: Any) -> None:
        perform(self, [effect for effect in effects if isinstance(effect, Send)], now)
        self._transport.flush()
        perform(self, [effect for effect in effects if not isinstance(effect, Send)], now)

    Journal.check_room = lambda _self, **_: None  # type: ignore[method-assign,assignment]  # a refused write would betray it without a kill
    PartitionLeader.append = append_and_answer  # type: ignore[method-assign]
    Partitions.write = write_and_touch  # type: ignore[method-assign]
    Loop._perform_once = answer_then_perform  # type: ignore[method-assign]


def forgets_the_journal() -> None:
    """Recovery trusts the checkpoint alone."""
    scan = replay.scan

    def scan_nothing(*arguments: Any) -> replay.Replay:
        return replay.Replay((), None, scan(*arguments).next_sequence)

    replay.scan = scan_nothing


def forgets_its_producers() -> None:
    """Recovery brings no producer back, and a batch of an unknown one is taken as its first."""
    state, check = PartitionLog.state, ProducerStates.check

    def state_without_producers(self: PartitionLog) -> Any:
        return msgspec.structs.replace(state(self), producers={})

    def check_known(self: ProducerStates, header: Any) -> Any:
        return check(self, header) if header.producer_id in self.entries else None

    PartitionLog.state = state_without_producers  # type: ignore[method-assign]
    ProducerStates.check = check_known  # type: ignore[method-assign]


def never_syncs() -> None:
    """The disk is never asked to keep anything. Only a power cut shows it."""
    RealFile.fdatasync = lambda _self: None  # type: ignore[method-assign]


POWER_PLANTS: dict[str, Callable[[], None]] = {plant.__name__: plant for plant in (never_syncs,)}
"""Those that a kill cannot find."""
PLANTS: dict[str, Callable[[], None]] = {plant.__name__: plant for plant in (acks_too_early, forgets_the_journal, forgets_its_producers)}
