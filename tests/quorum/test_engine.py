"""The metadata log's contract, kept by quorums whose disks forget, fill up and sync late."""

from __future__ import annotations

import random

import pytest
from engine_disk import EngineDisk
from engine_run import EngineStory
from engine_world import EngineWorld

from zmqmq import batch
from zmqmq.effects import Append
from zmqmq.errors import CorruptLog, InvalidConfig, LogOffline, UnsupportedVersion
from zmqmq.facts import LogState
from zmqmq.metadata.local import LocalLog
from zmqmq.metadata.log import REPLAYED, Committed, Leader
from zmqmq.metadata.quorum.changing import ChangeDone
from zmqmq.metadata.quorum.disk import Save, Truncate, Writes
from zmqmq.metadata.quorum.effects import Persist
from zmqmq.metadata.quorum.engine import QuorumLog
from zmqmq.metadata.quorum.format import decode_entries, decode_saved, encode_entry, encode_saved
from zmqmq.metadata.quorum.state import Configuration, Entry, HardState, Member
from zmqmq.metadata.records import FeatureLevelSet, encode
from zmqmq.model import METADATA_PARTITION

SEEDS = range(30)
ME = Member(1, "a")


def calm(voters: int = 3, spares: int = 0) -> EngineWorld:
    world = EngineWorld(1, voters, spares)
    world.wait(world.leader)
    return world


def answer(world: EngineWorld, proposal_id: int, timeout_ms: float = 6_000) -> str:
    world.wait(lambda: proposal_id in world.contract.answers, timeout_ms)
    return world.contract.answers[proposal_id]


def test_seeds_keep_the_contract_and_meet_what_they_are_about() -> None:
    worlds = []
    for seed in SEEDS:
        story = EngineStory(seed)
        try:
            story.run()
        except AssertionError as error:
            error.add_note(f"python tests/quorum/engine_run.py {seed}")
            raise
        worlds.append(story.world)
    answers = [each for world in worlds for each in world.contract.answers.values()]
    assert {name: answers.count(name) > 100 for name in ("committed", "refused", "unknown")} == {
        "committed": True, "refused": True, "unknown": True,
    }  # fmt: skip
    assert sum(world.crashes for world in worlds) > 300
    assert sum(world.refused_writes for world in worlds) > 50
    assert sum(world.changes for world in worlds) > 30


@pytest.mark.parametrize(
    "entry",
    [
        Entry(5, 3, (b"x", b"y"), 7),
        Entry(0, 1),
        Entry(9, 2, (), -2, Configuration((ME,), (Member(2, "b"),))),
        Entry(0, 1, (b"z" * 5_000,)),
    ],
    ids=["records", "no-op", "configuration", "without a proposal"],
)
def test_an_entry_is_the_same_after_it_was_a_batch(entry: Entry) -> None:
    stamped = encode_entry(entry, 1_000)
    assert (stamped.header.base_offset, stamped.header.end_offset, stamped.header.leader_epoch) == (entry.index, entry.end, entry.term)
    assert stamped.header.is_control == (not entry.records)
    assert list(decode_entries(b"".join(bytes(each) for each in stamped.buffers))) == [entry]


def test_the_saved_state_is_the_same_after_it_was_bytes() -> None:
    hard_state, base = HardState(4, ME), Configuration((ME,))
    found = decode_saved(encode_saved(hard_state, base))
    assert (found.hard_state, found.base) == (hard_state, base)
    for damaged in (b"", b"\x01", b"\x01\xff"):
        with pytest.raises(CorruptLog):
            decode_saved(damaged)
    with pytest.raises(UnsupportedVersion):
        decode_saved(b"\x02")


def test_the_log_of_a_local_broker_is_that_of_a_quorum_of_one() -> None:
    disk = EngineDisk()
    local = LocalLog(1, disk.state(), lambda offset, end: disk.read(offset, end, 1 << 20))
    local.start()
    local.append(1, 0, 3, (FeatureLevelSet("x", 1), FeatureLevelSet("x", 2)))
    disk.perform((Append(METADATA_PARTITION, local.take_batches()),))
    disk.save_at_once(encode_saved(HardState(), Configuration((ME,))))
    quorum = QuorumLog(ME, disk.state(), disk.visible.saved, disk.read, random.Random(0))
    quorum.start(0)
    for _ in range(2):
        disk.perform(quorum.take_writes())
        quorum.on_written()
        quorum.on_sync_begun()
        quorum.on_synced(disk.visible.end, 1)
    events = quorum.take_events()
    assert events[0] == Committed(REPLAYED, 0, (FeatureLevelSet("x", 1), FeatureLevelSet("x", 2)))
    assert events[-1] == Leader(2, 3)


def test_a_full_disk_refuses_proposals_and_lets_another_one_lead() -> None:
    world = calm()
    leader = world.leader()
    assert leader is not None
    leader.disk.is_full = True
    first = leader.propose()
    assert answer(world, leader.propose()) == "refused"
    world.wait(lambda: world.leader() not in {None, leader})
    assert answer(world, first) in {"committed", "unknown"}
    leader.disk.is_full = False
    other = world.leader()
    assert other is not None
    assert answer(world, other.propose()) == "committed"
    world.wait(lambda: leader.handed_out == len(world.contract.history))


def test_a_lone_voter_whose_disk_is_full_goes_on_when_there_is_room() -> None:
    world = calm(1)
    leader = world.leader()
    assert leader is not None
    leader.disk.is_full = True
    waits = leader.propose()
    world.run_ms(1_000)
    assert waits not in world.contract.answers
    leader.disk.is_full = False
    assert answer(world, waits) == "committed"


def test_a_proposal_that_nobody_answers_becomes_unknown_and_may_be_read_later() -> None:
    world = calm(1)
    leader = world.leader()
    assert leader is not None
    leader.disk.is_full = True
    waits = leader.propose()
    assert answer(world, waits) == "unknown"
    before = len(world.contract.history)
    leader.disk.is_full = False
    world.wait(lambda: len(world.contract.history) > before)


def test_nothing_counts_that_was_written_after_the_sync_began() -> None:
    disk = EngineDisk()
    disk.save_at_once(encode_saved(HardState(), Configuration((ME,))))
    log = QuorumLog(ME, disk.state(), disk.visible.saved, disk.read, random.Random(0))
    log.start(0)
    (vote,) = log.take_writes()
    assert isinstance(vote, Save)
    assert decode_saved(vote.data).hard_state == HardState(1, ME)
    log.on_sync_begun()
    log.on_written()
    log.on_synced(0, 1)
    assert not log.is_leader
    log.on_sync_begun()
    log.on_synced(0, 2)
    assert log.is_leader


def test_what_gathers_while_the_disk_refuses_is_written_as_if_one_after_the_other() -> None:
    disk = EngineDisk()
    writes = Writes(decode_saved(encode_saved(HardState(), Configuration((ME,)))))
    writes.add(Persist(1, entries=(Entry(0, 1), Entry(1, 1), Entry(2, 1))))
    first = writes.take(0, 0)
    writes.on_refused(200)
    writes.add(Persist(2, truncate_from=2, entries=(Entry(2, 2), Entry(3, 2))))
    writes.add(Persist(3, truncate_from=3, entries=(Entry(3, 3), Entry(4, 3))))
    writes.add(Persist(4, HardState(4, ME), truncate_from=1, entries=(Entry(1, 4),)))
    writes.add(Persist(5, truncate_from=1, entries=(Entry(1, 5),)))
    assert writes.take(199, 0) == ()
    assert writes.take(200, 0) == first
    disk.perform(first)
    writes.on_written()
    second = writes.take(200, 0)
    assert second[0] == Truncate(1)
    assert isinstance(second[1], Save)
    assert decode_saved(second[1].data).hard_state == HardState(4, ME)
    disk.perform(second)
    writes.on_sync_begun()
    assert writes.on_synced() == 1, "the second was not answered when the sync began"
    writes.on_written()
    writes.on_sync_begun()
    assert writes.on_synced() == 5
    assert [(entry.index, entry.term) for entry in decode_entries(disk.read(0, 9, 1 << 20))] == [(0, 1), (1, 5)]


def test_a_failed_disk_ends_a_member_and_answers_what_waits() -> None:
    world = calm(1)
    leader = world.leader()
    assert leader is not None
    leader.disk.is_full = True
    waits = leader.propose()
    leader.do(lambda log: log.on_offline(LogOffline("a sync failed")))
    assert world.contract.answers[waits] == "unknown"
    assert leader.log is not None
    assert leader.log.next_deadline_ms() is None
    assert leader.log.take_writes() == ()


def test_a_member_is_added_promoted_and_removed() -> None:
    world = calm(3, spares=1)
    leader = world.leader()
    assert leader is not None
    assert leader.log is not None
    log, member = leader.log, world.engines[4].member
    done: list[ChangeDone] = []

    def change(aim: str) -> None:
        done.clear()
        log.change(1, member, aim)  # type: ignore[arg-type]
        leader.do(lambda _: None)
        count = world.changes
        world.wait(lambda: world.changes > count or done)

    change("voter")
    assert member in log.configuration.voters
    world.wait(lambda: world.engines[4].handed_out == len(world.contract.history))
    change("removed")
    assert member not in log.configuration.members


def test_the_lead_goes_only_to_a_voter() -> None:
    world = calm(3, spares=1)
    leader = world.leader()
    assert leader is not None
    assert leader.log is not None
    with pytest.raises(InvalidConfig, match="node 4 is no voter"):
        leader.log.transfer(4)
    target = next(node_id for node_id in (1, 2, 3) if node_id != leader.member.node_id)
    leader.do(lambda log: log.transfer(target))
    world.wait(lambda: world.engines[target].told is not None)


def test_a_damaged_log_is_not_opened() -> None:
    disk = EngineDisk()
    disk.save_at_once(encode_saved(HardState(), Configuration((ME,))))
    stamped = encode_entry(Entry(0, 1, (encode(FeatureLevelSet("x", 1)),)), 0)
    disk.perform((Append(METADATA_PARTITION, (stamped,)),))
    base, end, data = disk.visible.batches[0]
    disk.visible.batches[0] = (base, end, data[: batch.HEADER_BYTES] + b"?" + data[batch.HEADER_BYTES + 1 :])
    with pytest.raises(CorruptLog, match="damaged behind index 0"):
        QuorumLog(ME, disk.state(), disk.visible.saved, disk.read, random.Random(0))
    for state in (LogState(0, 0, 0, (), {}, 0, 0, "bad"), LogState(5, 9, 9, (), {}, 0, 0)):
        with pytest.raises(CorruptLog):
            QuorumLog(ME, state, disk.visible.saved, disk.read, random.Random(0))
