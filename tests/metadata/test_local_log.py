"""The metadata log of one broker: committed means synced, all or nothing, and a new open reads what was committed."""

from __future__ import annotations

import pytest

from zmqmq.errors import DiskFull, Fenced, InvalidConfig, LogOffline
from zmqmq.facts import EpochStart, LogState
from zmqmq.metadata.local import LocalLog
from zmqmq.metadata.log import Committed, Leader, Lost, Passed, Refused, Unknown
from zmqmq.metadata.records import BrokerRegistered, TopicDeleted

REGISTERED = (BrokerRegistered(0, "d", ""),)


class Disk:
    """The metadata partition as bytes."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, bytes]] = []
        self.end = 0
        self.epochs: tuple[EpochStart, ...] = ()

    def open(self) -> LocalLog:
        log = LocalLog(0, LogState(0, self.end, self.end, self.epochs, {}, 0, -1), self.read)
        log.start()
        return log

    def read(self, offset: int, end: int) -> bytes:
        return b"".join(data for last, data in self.batches if offset < last <= end)[: 1 << 20]

    def write(self, log: LocalLog) -> None:
        for stamped in log.take_batches():
            if not self.epochs or self.epochs[-1].epoch < stamped.header.leader_epoch:
                self.epochs = (*self.epochs, EpochStart(stamped.header.leader_epoch, stamped.header.base_offset))
            self.batches.append((stamped.header.end_offset, b"".join(stamped.buffers)))
            self.end = stamped.header.end_offset
        log.on_written()


def test_an_append_is_committed_when_it_is_synced() -> None:
    disk = Disk()
    log = disk.open()
    assert log.take_events() == [Leader(1, 0)]
    log.append(1, 0, 7, REGISTERED)
    disk.write(log)
    assert log.take_events() == []
    log.on_synced(1)
    assert log.take_events() == [Committed(7, 0, REGISTERED)]
    assert list(log.read(0)) == [Committed(-1, 0, REGISTERED)]


def test_the_next_open_replays_and_leads_in_a_new_term() -> None:
    disk = Disk()
    log = disk.open()
    log.append(1, 0, 1, REGISTERED)
    log.append(1, 1, 2, (TopicDeleted(b"x"), TopicDeleted(b"y")))
    disk.write(log)
    again = disk.open()
    records = (*REGISTERED, TopicDeleted(b"x"), TopicDeleted(b"y"))
    assert again.take_events() == [Committed(-1, 0, records), Leader(2, 3)]
    assert [entry.index for entry in again.read(1)] == [1]


@pytest.mark.parametrize(("epoch", "index"), [(0, 0), (2, 0), (1, 1)])
def test_a_wrong_epoch_or_index_is_refused(epoch: int, index: int) -> None:
    log = Disk().open()
    log.take_events()
    log.append(epoch, index, 7, REGISTERED)
    (event,) = log.take_events()
    assert isinstance(event, Refused)
    assert isinstance(event.error, Fenced)


def test_a_failed_append_refuses_all_that_were_on_top_of_it() -> None:
    disk = Disk()
    log = disk.open()
    log.append(1, 0, 1, REGISTERED)
    disk.write(log)
    log.append(1, 1, 2, REGISTERED)
    log.append(1, 2, 3, REGISTERED)
    log.take_batches()
    log.on_append_failed(DiskFull("full", outcome="not_written"))
    log.on_synced(1)
    events = [(type(event), event.proposal_id) for event in log.take_events()[1:]]
    assert events == [(Refused, 2), (Refused, 3), (Committed, 1)]
    log.append(1, 1, 4, REGISTERED)
    assert len(log.take_batches()) == 1


def test_a_journal_that_may_hold_the_entry_leaves_the_outcome_unknown() -> None:
    log = Disk().open()
    log.take_events()
    log.append(1, 0, 1, REGISTERED)
    log.take_batches()
    log.on_append_failed(LogOffline("EIO", outcome="unknown"))
    (event,) = log.take_events()
    assert isinstance(event, Unknown)


def test_a_failed_sync_leaves_the_outcome_unknown_and_ends_leadership() -> None:
    disk = Disk()
    log = disk.open()
    log.append(1, 0, 1, REGISTERED)
    disk.write(log)
    log.take_events()
    log.on_offline(LogOffline("gone", outcome="unknown"))
    assert {type(event) for event in log.take_events()} == {Unknown, Lost}


def test_one_append_has_a_limit() -> None:
    log = Disk().open()
    log.take_events()
    log.append(1, 0, 1, (BrokerRegistered(0, "x" * (600 << 10), ""),))
    (event,) = log.take_events()
    assert isinstance(event, Refused)
    assert isinstance(event.error, InvalidConfig)


def test_a_barrier_passes_behind_what_was_committed() -> None:
    log = Disk().open()
    log.barrier(5)
    assert log.take_events() == [Leader(1, 0), Passed(5)]
