"""Written scenarios: the ways in which replicas of other systems came to differ, step by step."""

from __future__ import annotations

import msgspec
import pytest
from replica_world import PARTITION, STEP_MS, Node, World, built

from zmqmq import batch, marks
from zmqmq.replication.insync import LAG_MS_MAX
from zmqmq.replication.messages import ReplicaFetch, ReplicaFetchEntry


@pytest.fixture(autouse=True)
def reached(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rare places that a story went through."""
    names: list[str] = []
    monkeypatch.setattr(marks, "listener", names.append)
    return names


def settled(**options: object) -> World:
    world = World(**options)  # type: ignore[arg-type]
    world.calm()
    return world


def produce(world: World, *values: bytes) -> None:
    for value in values:
        assert world.leader().produce(value)


def node(world: World, number: int) -> Node:
    found = world.nodes[number]
    assert found is not None
    return found


def isolate(world: World, number: int) -> None:
    others = [other for other in range(len(world.nodes)) if other != number]
    world.cut |= {(number, other) for other in others} | {(other, number) for other in others}


def epochs_on_disk(world: World, number: int) -> list[int]:
    return [one.header.leader_epoch for one in world.disks[number].batches]


def test_a_follower_keeps_what_it_has_until_the_new_leader_says_what_to_cut(reached: list[str]) -> None:
    """KIP-101: cutting to its own watermark would lose a record that was acknowledged, when it is elected right after."""
    world = settled(nodes=2, min_insync=1)
    produce(world, b"a", b"b")
    world.run(20 * STEP_MS)
    assert set(world.acknowledged) == {b"a", b"b"}
    world.controller.elect(1 - world.controller.leader)
    world.step()
    follower = 1 - world.controller.leader
    world.crash(follower, loses_power=True)
    world.start(follower)
    world.step()
    world.controller.elect(follower)
    world.calm()
    assert len(world.committed) == 2
    assert "replica cut back" not in reached


def test_logs_that_parted_twice_are_compared_epoch_by_epoch(reached: list[str]) -> None:
    """KIP-279: a leader that skipped an epoch knows less than the follower; comparing the latest epoch once leaves both different."""
    world = settled(is_fsync=False, min_insync=1)
    first = world.controller.leader
    produce(world, b"common")
    world.run(300)
    isolate(world, first)
    produce(world, b"only first")
    world.step()
    second = next(number for number in world.controller.isr if number != first)
    world.controller.elect(second)
    isolate(world, second)
    world.step()
    world.step()
    produce(world, b"only second", b"only second too")
    world.step()
    third = next(number for number in range(3) if number not in {first, second})
    world.controller.elect(third)
    world.step()
    world.step()
    produce(world, b"third's")
    world.step()
    assert len({tuple(epochs_on_disk(world, number)) for number in range(3)}) == 3
    world.calm()
    assert "replica cut back" in reached
    assert [value for _, value in world.committed] == [b"common", b"third's"]


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_fetch_of_another_leader_epoch_is_refused(difference: int) -> None:
    """KIP-320."""
    world = settled()
    leading = world.leader().leading
    epoch = world.controller.leader_epoch
    fetch = ReplicaFetch(1, 1, 7, 1 << 20, [ReplicaFetchEntry(*PARTITION, epoch + difference, 0, -1)])
    (result,) = leading.answer(fetch).results
    assert result.fault is not None
    assert result.parting_end == -1
    assert not leading.answer(fetch).ranges


def test_a_partition_that_is_not_led_here_is_a_named_fault() -> None:
    world = settled()
    (result,) = world.leader().leading.answer(ReplicaFetch(1, 1, 7, 1, [ReplicaFetchEntry(b"x" * 16, 0, 0, 0, -1)])).results
    assert result.fault is not None
    assert "does not lead" in result.fault.message


def test_a_follower_joins_only_with_all_that_was_there_when_the_epoch_began() -> None:
    """Stale expansion: the new leader's watermark is still low; who has reached only that may miss committed records."""
    world = settled()
    produce(world, b"a", b"b", b"c")
    leader = world.controller.leader
    follower, late = (number for number in range(3) if number != leader)
    isolate(world, late)
    world.controller.fence(late)
    world.run(500)
    assert len(world.committed) == 3
    assert world.disks[late].end == 0
    world.crash(leader, loses_power=False)
    assert world.controller.leader == follower
    world.controller.unfence(late)
    world.step()
    machine = node(world, follower).leader
    assert machine is not None
    machine.high_watermark = 0
    report = node(world, late).following.follower(PARTITION)
    assert report is not None
    entry = msgspec.structs.replace(report.report_entry(), leader_epoch=machine.leadership.epoch)
    machine.on_report(late, entry, world.controller.epochs[late])
    assert not machine.may_join(late)
    machine.on_report(late, msgspec.structs.replace(entry, end=3, synced_end=2), world.controller.epochs[late])
    assert not machine.may_join(late)
    machine.on_report(late, msgspec.structs.replace(entry, end=3, synced_end=3), world.controller.epochs[late])
    assert machine.may_join(late)


def test_a_leader_that_lost_its_published_tail_never_gives_the_same_place_out_again(reached: list[str]) -> None:
    """A short power cut: followers hold what the leader forgot. Its next records get another epoch, and the followers cut theirs."""
    world = settled(nodes=2, is_fsync=True, min_insync=1)
    leader = world.controller.leader
    world.sync_chance = {0: 0.0, 1: 0.0}
    produce(world, b"lost")
    world.step()
    world.step()
    assert world.disks[1 - leader].end == 1
    world.disks[leader].truncate(0)
    world.nodes[leader] = None
    world.start(leader)
    world.controller.elect(leader)
    world.step()
    produce(world, b"other")
    world.calm()
    assert [value for _, value in world.committed] == [b"other"]
    assert epochs_on_disk(world, 0) == epochs_on_disk(world, 1)
    assert "replica parted from its leader" in reached


def test_the_retry_of_a_batch_that_was_cut_is_written_again() -> None:
    """What a follower knows of producers goes with the batches that it cuts."""
    world = settled(is_fsync=False)
    leader = world.controller.leader
    isolate(world, leader)
    old = world.leader()
    assert old.produce(b"once", producer=5, sequence=0)
    world.step()
    other = next(number for number in world.controller.isr if number != leader)
    world.controller.elect(other)
    world.step()
    assert node(world, other).produce(b"new")
    world.cut.clear()
    world.calm()
    world.controller.elect(leader)
    world.step()
    assert node(world, leader).produce(b"once", producer=5, sequence=0)
    world.calm()
    assert [value for _, value in world.committed] == [b"new", b"once"]


def test_a_lost_tail_of_the_stream_comes_with_the_next_beat(reached: list[str]) -> None:
    world = settled()
    leader = world.controller.leader
    world.step(200)
    produce(world, b"tail")
    world.leader().end_round()
    world.streams.clear()
    world.run(400)
    assert all(disk.end == 1 for disk in world.disks)
    assert world.acknowledged == {b"tail": 0}
    assert "beat shows a lost tail" in reached
    assert leader == world.controller.leader


def test_without_any_stream_followers_fetch_after_a_while(reached: list[str]) -> None:
    world = settled()
    for found in world.nodes:
        assert found is not None
        found.subscriptions = _Deaf()
    produce(world, b"unheard")
    world.run(1_000)
    assert world.acknowledged == {b"unheard": 0}
    assert "beats missing" in reached


class _Deaf(set[tuple[int, bytes]]):
    def __contains__(self, item: object) -> bool:
        return False


def test_a_slow_follower_leaves_after_the_lag_limit_and_comes_back(reached: list[str]) -> None:
    world = settled()
    slow = next(number for number in range(3) if number != world.controller.leader)
    world.sync_chance[slow] = 0.0
    produce(world, b"held up")
    began_ms = world.now_ms
    while b"held up" not in world.acknowledged:
        world.step()
        assert world.now_ms - began_ms < 2 * LAG_MS_MAX
    assert LAG_MS_MAX <= world.now_ms - began_ms <= LAG_MS_MAX + 300
    assert slow not in world.controller.isr
    produce(world, b"quick")
    world.run(4 * STEP_MS)
    assert b"quick" in world.acknowledged
    world.calm()
    assert set(world.controller.isr) == {0, 1, 2}
    assert reached.count("in-sync set shrinks") == 1


def test_a_steadily_busy_follower_stays_in_sync() -> None:
    world = settled()
    for number in range(160):
        produce(world, b"%d" % number)
        world.step()
        assert len(world.controller.isr) == 3


def test_a_follower_below_the_log_start_begins_anew_outside_the_in_sync_set(reached: list[str]) -> None:
    world = settled()
    gone = next(number for number in range(3) if number != world.controller.leader)
    world.crash(gone, loses_power=False)
    for number in range(8):
        assert world.leader().produce(b"%d" % number)
        world.run(4 * STEP_MS)
    for found in world.nodes:
        if found is not None and found.leader is not None:
            found.disk.move_start(5)
            found.leader.move_start(5)
    world.start(gone)
    world.step()
    assert gone not in world.controller.isr
    world.calm()
    assert world.disks[gone].log_start == 5
    assert "replica begins anew at the log start" in reached
    assert {disk.log_start for disk in world.disks} == {5}


def test_a_log_start_inside_of_a_batch_is_no_obstacle() -> None:
    world = settled()
    gone = next(number for number in range(3) if number != world.controller.leader)
    world.crash(gone, loses_power=False)
    leader = world.leader()
    assert leader.leader is not None
    for _ in range(3):
        data = built(b"four", count=4)
        stamped = leader.leader.append(*_parsed(data), -1, b"four", world.now_ms)
        assert stamped is not None
        leader.appends.append(stamped)
        world.run(4 * STEP_MS)
    leader.disk.move_start(6)
    leader.leader.move_start(6)
    world.start(gone)
    world.calm()
    assert world.disks[gone].log_start == 6
    assert world.disks[gone].batches[0].header.base_offset == 4


def _parsed(data: bytes) -> tuple[batch.BatchHeader, bytes]:
    return batch.parse_header(data), data


def test_a_replica_whose_files_are_corrupt_heals_from_its_leader(reached: list[str]) -> None:
    world = settled()
    produce(world, b"a", b"b")
    world.run(500)
    hurt = next(number for number in range(3) if number != world.controller.leader)
    world.crash(hurt, loses_power=False)
    world.disks[hurt].error = "a CRC does not match"
    world.start(hurt)
    world.calm()
    assert world.disks[hurt].end == 2
    assert "corrupt replica begins anew" in reached


def test_a_deposed_leader_that_is_cut_off_acknowledges_nothing() -> None:
    world = settled()
    old_number = world.controller.leader
    old = world.leader()
    isolate(world, old_number)
    world.controller.fence(old_number)
    for number in range(60):
        old.produce(b"nobody hears %d" % number)
        old.end_round()
        world.now_ms += STEP_MS
    assert not world.acknowledged
    world.calm()
    assert not world.committed


def test_a_refused_member_counts_until_a_newer_partition_epoch_voids_its_proposal(reached: list[str]) -> None:
    """A copy of the refused proposal may still arrive and be taken; without the member's consent nothing may be committed before."""
    world = settled()
    late = next(number for number in range(3) if number != world.controller.leader)
    world.controller.fence(late)
    world.step()
    machine = world.leader().leader
    assert machine is not None
    assert late not in machine.leadership.isr
    epoch = machine.leadership.partition_epoch
    assert machine.in_sync.propose((0, 1, 2), world.now_ms) == (0, 1, 2)
    world.leader().leading.on_refused(PARTITION, epoch, world.now_ms)
    assert not machine.in_sync.is_open
    assert set(machine.in_sync.counted) == {0, 1, 2}
    isolate(world, late)
    produce(world, b"waits")
    world.run(300)
    assert not world.acknowledged
    world.run(1_000)
    assert world.acknowledged == {b"waits": 0}
    assert machine.leadership.partition_epoch > epoch


def test_a_settled_leader_knows_that_all_its_log_is_committed() -> None:
    world = settled()
    produce(world, b"a")
    world.run(500)
    other = next(number for number in world.controller.isr if number != world.controller.leader)
    world.loss = 1.0
    world.controller.elect(other)
    world.step()
    machine = node(world, other).leader
    assert machine is not None
    assert machine.epoch_start == 1
    assert machine.is_settled == (machine.high_watermark >= 1)
    world.calm()
    assert machine.is_settled
