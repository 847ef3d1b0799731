"""Many followed and led partitions at once: bounds, fairness, deadlines, and no work for what is idle."""

from __future__ import annotations

import msgspec
import pytest
from replica_world import built

from zmqmq import batch
from zmqmq.batch import StampedBatch, stamp, stamp_seed
from zmqmq.errors import DiskFull, RemoteProtocolError
from zmqmq.facts import EpochStart, LogState
from zmqmq.model import PartitionId
from zmqmq.replication.follower import HELD_MESSAGES_MAX, PartitionFollower, Reset, Truncate
from zmqmq.replication.following import BEAT_MISSING_MS, FETCH_MS_MAX, RETRY_MS, SWEEP_PARTITIONS_PER_MS, Following
from zmqmq.replication.insync import LAG_MS_MAX, Growth, InSyncSet, Leadership
from zmqmq.replication.leader import PartitionLeader
from zmqmq.replication.leading import BEAT_MS, Leading
from zmqmq.replication.messages import (
    REPLICA_ENTRIES_MAX,
    Beat,
    BeatEntry,
    ReplicaBatches,
    ReplicaFetch,
    ReplicaFetchEntry,
    ReplicaReport,
    ReplicaResult,
    ReportEntry,
    StreamHeader,
    beat_frames,
    beat_key,
    decode_stream,
    stream_frames,
    stream_key,
)  # fmt: skip
from zmqmq.topic_config import TopicConfig
from zmqmq.wire.framing import fault

TOPIC = b"t" * 16
ME, LEADER = 1, 0


def name(number: int) -> PartitionId:
    return PartitionId(TOPIC, number)


def state(end: int = 0, *, start: int = 0, epochs: tuple[EpochStart, ...] = (), error: str = "") -> LogState:
    return LogState(start, end, end, epochs, {}, 0, -1, error)


class EmptyLogs:
    def state(self, partition: PartitionId) -> LogState:
        return state()


def stamped(base: int, *, epoch: int = 1, partition: int = 0, size: int = 10) -> StampedBatch:
    data = built(b"v" * size)
    return stamp(batch.parse_header(data), data, seed=stamp_seed(name(partition)), base_offset=base, leader_epoch=epoch, append_time_ms=1)


def raw(*batches: StampedBatch) -> bytes:
    return b"".join(bytes(buffer) for one in batches for buffer in one.buffers)


def following(count: int, *, rate: int = 0) -> Following:
    made = Following(ME, EmptyLogs(), catch_up_bytes_per_s=rate)
    made.set_broker_epoch(9)
    for number in range(count):
        made.follow(name(number), LEADER, 1, 0, is_fsync=True, may_be_elected=True)
    return made


def fetches(made: Following, now_ms: int) -> list[ReplicaFetch]:
    return [message for _, message in made.take_messages(now_ms) if isinstance(message, ReplicaFetch)]


def reports(made: Following, now_ms: int) -> list[ReplicaReport]:
    return [message for _, message in made.take_messages(now_ms) if isinstance(message, ReplicaReport)]


def answered(fetch: ReplicaFetch, end: int = 0, payload: tuple[bytes, ...] = ()) -> tuple[ReplicaBatches, tuple[bytes, ...]]:
    results = [
        ReplicaResult(entry.topic_id, entry.partition, entry.leader_epoch, 0, 0, end, frames=int(bool(payload))) for entry in fetch.entries
    ]
    return ReplicaBatches(LEADER, 1, fetch.number, results), payload


def validated(end: int = 0, epochs: tuple[EpochStart, ...] = ()) -> PartitionFollower:
    made = PartitionFollower(name(0), LEADER, 1, state(end, epochs=epochs))
    assert made.on_fetched(made.fetch_entry(), ReplicaResult(*name(0), 1, 0, 0, end), b"")
    return made


def test_one_fetch_is_under_way_and_asks_for_a_bounded_number_of_partitions() -> None:
    made = following(REPLICA_ENTRIES_MAX + 10)
    (first,) = fetches(made, 0)
    assert len(first.entries) == REPLICA_ENTRIES_MAX
    assert fetches(made, 1) == []
    made.on_fetched(*answered(first), 2)
    (second,) = fetches(made, 2)
    assert [entry.partition for entry in second.entries] == list(range(REPLICA_ENTRIES_MAX, REPLICA_ENTRIES_MAX + 10))


def test_a_fetch_without_an_answer_is_sent_again_under_another_number_and_a_late_answer_is_dropped() -> None:
    made = following(3)
    (first,) = fetches(made, 0)
    assert made.next_deadline_ms() == FETCH_MS_MAX
    made.on_beat(Beat(LEADER, []), FETCH_MS_MAX - 1)
    (second,) = fetches(made, FETCH_MS_MAX)
    assert second.number > first.number
    assert second.entries == first.entries
    made.on_fetched(*answered(first), FETCH_MS_MAX + 1)
    assert not any(follower.is_validated for follower in made)
    made.on_fetched(*answered(second), FETCH_MS_MAX + 1)
    assert all(follower.is_validated for follower in made)


def test_numbers_never_come_again_in_a_later_broker_epoch() -> None:
    made = following(1)
    (first,) = fetches(made, 0)
    later = Following(ME, EmptyLogs())
    later.set_broker_epoch(10)
    later.follow(name(0), LEADER, 1, 0, is_fsync=True, may_be_elected=True)
    (second,) = fetches(later, 0)
    assert second.number != first.number


def test_partitions_without_room_in_an_answer_are_asked_for_again_before_the_others() -> None:
    made = following(3)
    (first,) = fetches(made, 0)
    message, _ = answered(first, end=5)
    made.on_fetched(msgspec.structs.replace(message, results=message.results[:1]), (), 1)
    (second,) = fetches(made, 1)
    assert [entry.partition for entry in second.entries] == [1, 2, 0]


def test_an_answer_that_does_not_help_is_not_asked_for_again_at_once() -> None:
    made = following(1)
    (first,) = fetches(made, 0)
    message, _ = answered(first)
    refused = msgspec.structs.replace(message.results[0], fault=fault(DiskFull("full")))
    made.on_fetched(msgspec.structs.replace(message, results=[refused]), (), 1)
    assert fetches(made, 1) == []
    assert made.next_deadline_ms() == 1 + RETRY_MS
    assert len(fetches(made, 1 + RETRY_MS)) == 1


def test_an_answer_whose_frames_do_not_fit_is_counted_and_dropped() -> None:
    made = following(1)
    (first,) = fetches(made, 0)
    message, _ = answered(first)
    made.on_fetched(message, (b"surplus",), 1)
    assert made.refused_count == 1


def test_reports_of_a_round_go_in_one_message_per_leader() -> None:
    made = following(50)
    (first,) = fetches(made, 0)
    made.on_fetched(*answered(first), 1)
    (report,) = reports(made, 1)
    assert len(report.entries) == 50
    assert reports(made, 2) == []


def test_idle_partitions_cost_nothing_in_a_round_or_a_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    made = following(10_000)
    for now_ms in range(10):
        for fetch in fetches(made, now_ms):
            made.on_fetched(*answered(fetch), now_ms)
    made.take_messages(10)
    touched: list[PartitionId] = []
    note = Following._note
    monkeypatch.setattr(Following, "_note", lambda self, follower: (touched.append(follower.partition), note(self, follower)))
    for now_ms in range(11, 300):
        made.on_beat(Beat(LEADER, []), now_ms)
        assert made.take_messages(now_ms) == []
        assert made.take_work().appends == []
    assert touched == []


def test_a_leader_whose_beats_are_missing_is_asked_for_everything_now_and_then() -> None:
    made = following(2_000)
    for now_ms in range(3):
        for fetch in fetches(made, now_ms):
            made.on_fetched(*answered(fetch), now_ms)
    due_ms = BEAT_MISSING_MS + 2_000 // SWEEP_PARTITIONS_PER_MS
    assert fetches(made, due_ms - 1) == []
    (sweep,) = fetches(made, due_ms)
    assert len(sweep.entries) == REPLICA_ENTRIES_MAX


def test_catching_up_keeps_to_its_rate_and_the_others_do_not_wait() -> None:
    made = following(2, rate=1_000)
    (first,) = fetches(made, 0)
    message, _ = answered(first)
    far = msgspec.structs.replace(message.results[0], log_end=1_000, frames=1)
    made.on_fetched(msgspec.structs.replace(message, results=[far, message.results[1]]), (raw(stamped(0, size=50)),), 1)
    made.take_work()
    made.on_written(name(0))
    (second,) = fetches(made, 1)
    assert [entry.partition for entry in second.entries] == [0]
    far = msgspec.structs.replace(far, log_end=1_000)
    made.on_fetched(ReplicaBatches(LEADER, 1, second.number, [far]), (raw(stamped(1, size=3_000)),), 2)
    made.on_beat(Beat(LEADER, [BeatEntry(*name(1), 1, 5, 1, 0)]), 3)
    (third,) = fetches(made, 3)
    assert [entry.partition for entry in third.entries] == [1]
    made.on_fetched(*answered(third), 4)
    assert fetches(made, 5) == []
    deadline_ms = made.next_deadline_ms()
    assert deadline_ms is not None
    for now_ms in range(6, 4_000, 100):
        made.on_beat(Beat(LEADER, []), now_ms)
        found = fetches(made, now_ms)
        if found:
            break
    assert 1_500 < now_ms < 3_500
    assert [entry.partition for entry in found[0].entries] == [0]


def test_subscriptions_follow_the_leader() -> None:
    made = following(1)
    assert made.take_subscriptions() == [(LEADER, beat_key(ME), True), (LEADER, stream_key(name(0)), True)]
    made.follow(name(0), 2, 2, 5, is_fsync=True, may_be_elected=True)
    assert made.take_subscriptions() == [
        (LEADER, stream_key(name(0)), False), (LEADER, beat_key(ME), False), (2, beat_key(ME), True), (2, stream_key(name(0)), True),
    ]  # fmt: skip
    assert made.unfollow(name(0)) == 0
    assert len(made) == 0
    assert made.next_deadline_ms() is None


def test_what_comes_before_the_gap_is_closed_is_kept_within_bounds_and_taken_up_again() -> None:
    follower = validated()
    batches = [stamped(offset) for offset in range(HELD_MESSAGES_MAX + 10)]
    for offset in range(1, len(batches)):
        follower.on_stream(StreamHeader(LEADER, 1, offset, 1, 0), raw(batches[offset]))
    assert follower.wants_fetch
    assert follower.take_effects() == []
    follower.on_fetched(follower.fetch_entry(), ReplicaResult(*name(0), 1, 0, 0, 1, frames=1), raw(batches[0]))
    assert follower.next_offset == HELD_MESSAGES_MAX + 1
    assert not follower.wants_fetch
    assert follower.held_bytes == 0


def test_a_message_of_which_a_part_is_here_gives_the_rest() -> None:
    follower = validated()
    follower.on_stream(StreamHeader(LEADER, 1, 0, -1, 0), raw(stamped(0)))
    follower.on_stream(StreamHeader(LEADER, 1, 0, -1, 0), raw(stamped(0), stamped(1)))
    follower.on_stream(StreamHeader(LEADER, 1, 0, -1, 0), raw(stamped(0), stamped(1)))
    appended = [one.header.base_offset for effect in follower.take_effects() for one in effect.batches]  # type: ignore[union-attr]
    assert appended == [0, 1]


@pytest.mark.parametrize("position", [5, 20, 50, 100])
def test_damaged_batches_are_refused_named_and_fetched_again(position: int) -> None:
    follower = validated()
    data = bytearray(raw(stamped(0)))
    data[position] ^= 1
    follower.on_stream(StreamHeader(LEADER, 1, 0, -1, 0), bytes(data))
    assert follower.take_effects() == []
    assert follower.wants_fetch
    assert "refused" in follower.problem


def test_batches_of_another_partition_are_refused() -> None:
    follower = validated()
    follower.on_stream(StreamHeader(LEADER, 1, 0, -1, 0), raw(stamped(0, partition=3)))
    assert follower.take_effects() == []


def test_only_a_follower_that_was_compared_reports() -> None:
    follower = PartitionFollower(name(0), LEADER, 1, state(5, epochs=(EpochStart(0, 0),)))
    follower.on_synced(5)
    follower.on_beat(BeatEntry(*name(0), 1, 5, 0, 5))
    follower.on_stream(StreamHeader(LEADER, 1, 5, 0, 5), raw(stamped(5)))
    assert not follower.wants_report
    assert follower.high_watermark == 0
    follower.on_fetched(follower.fetch_entry(), ReplicaResult(*name(0), 1, 4, 0, 5), b"")
    assert follower.wants_report
    assert follower.high_watermark == 5
    assert follower.next_offset == 6


def test_a_follower_cuts_to_the_smaller_of_both_ends_and_compares_again() -> None:
    follower = PartitionFollower(name(0), LEADER, 7, state(30, epochs=(EpochStart(1, 0), EpochStart(3, 10), EpochStart(6, 20))))
    follower.on_fetched(follower.fetch_entry(), ReplicaResult(*name(0), 7, 0, 0, 40, parting_epoch=4, parting_end=25), b"")
    assert follower.take_effects() == [Truncate(name(0), 20)]
    assert follower.is_cutting
    follower.on_stream(StreamHeader(LEADER, 7, 30, 6, 0), raw(stamped(30, epoch=7)))
    assert follower.take_effects() == []
    follower.on_truncated(18)
    assert follower.fetch_entry() == ReplicaFetchEntry(*name(0), 7, 18, 3)
    assert follower.wants_fetch
    assert not follower.is_validated


def test_a_failed_append_is_taken_back_whole() -> None:
    follower = validated(5, (EpochStart(0, 0),))
    before = follower.fetch_entry()
    follower.on_stream(StreamHeader(LEADER, 1, 5, 0, 0), raw(stamped(5), stamped(6)))
    assert follower.next_offset == 7
    follower.on_append_failed()
    assert follower.fetch_entry() == before
    assert follower.wants_fetch


def test_a_corrupt_log_is_thrown_away_only_when_its_broker_is_not_in_sync_any_more() -> None:
    class Corrupt:
        def state(self, partition: PartitionId) -> LogState:
            return state(5, error="bad CRC")

    made = Following(ME, Corrupt())
    made.set_broker_epoch(9)
    made.follow(name(0), LEADER, 1, 0, is_fsync=True, may_be_elected=True)
    made.on_stream(name(0), StreamHeader(LEADER, 1, 5, 0, 0), raw(stamped(5)), 0)
    assert made.take_messages(1_000) == []
    assert made.take_work().resets == []
    made.follow(name(0), LEADER, 1, 5, is_fsync=True, may_be_elected=False)
    assert made.take_work().resets == [Reset(name(0), 0)]
    made.on_reset(name(0), 0)
    (fetch,) = fetches(made, 1_010)
    assert fetch.entries == [ReplicaFetchEntry(*name(0), 1, 0, -1)]


def test_what_is_written_after_a_change_of_leader_is_not_reported_before_it_is_compared() -> None:
    follower = validated()
    follower.on_stream(StreamHeader(LEADER, 1, 0, -1, 0), raw(stamped(0)))
    follower.on_leader(2, 2)
    follower.on_written()
    follower.on_synced(1)
    assert not follower.wants_report


def test_stream_messages_survive_their_way_and_anything_else_is_refused() -> None:
    header = StreamHeader(LEADER, 1, 5, 0, 3)
    assert decode_stream(stream_frames(name(4), header, b"x")) == (name(4), header, b"x")
    beat = Beat(LEADER, [BeatEntry(*name(1), 1, 2, 1, 2)])
    assert decode_stream(beat_frames(ME, beat)) == beat
    for frames in ([], [b"x"], [b"\x01" * 21], [b"\x02" * 21, b"\xff"], [b"\x01" * 21, b"\x01", b""], [b"\x01" * 20, b"", b""]):
        with pytest.raises(RemoteProtocolError):
            decode_stream(frames)


def leading(count: int, *, replicas: tuple[int, ...] = (0, 1), end: int = 0) -> tuple[Leading, list[PartitionLeader]]:
    made = Leading(LEADER)
    made.set_brokers({0: 5, 1: 9, 2: 11})
    leaders = [
        PartitionLeader(name(number), LEADER, Leadership(1, replicas, 3, replicas), TopicConfig(), state(end)) for number in range(count)
    ]
    for leader in leaders:
        made.lead(leader, 0)
    return made, leaders


def beats(made: Leading, now_ms: int) -> dict[int, Beat]:
    found = [(frames[0], decode_stream(frames)) for frames in made.take_published(now_ms)]
    return {int.from_bytes(key[1:5], "big"): beat for key, beat in found if isinstance(beat, Beat)}


def caught_up(leader: PartitionLeader) -> ReportEntry:
    return ReportEntry(*leader.partition, leader.leadership.epoch, leader.log_end, leader.log_end, leader.high_watermark, leader.log_start)


def test_beats_list_only_what_differs_and_come_in_their_time() -> None:
    made, leaders = leading(3)
    assert len(beats(made, 0)[1].entries) == 3
    assert beats(made, BEAT_MS - 1) == {}
    made.on_report(ReplicaReport(1, 9, [caught_up(leader) for leader in leaders[:2]], 1), 50)
    assert [entry.partition for entry in beats(made, BEAT_MS)[1].entries] == [2]
    made.on_report(ReplicaReport(1, 9, [caught_up(leaders[2])], 2), 150)
    assert beats(made, 2 * BEAT_MS)[1].entries == []


def test_a_beat_lists_a_bounded_number_of_partitions_and_comes_to_all_in_turn() -> None:
    made, _ = leading(2 * REPLICA_ENTRIES_MAX)
    first = beats(made, 0)[1].entries
    second = beats(made, BEAT_MS)[1].entries
    assert len({entry.partition for entry in first + second}) == 2 * REPLICA_ENTRIES_MAX


def test_reports_that_were_overtaken_or_come_from_an_earlier_life_are_dropped() -> None:
    made, (leader,) = leading(1)
    entry = ReportEntry(*leader.partition, 1, 0, 0, 0)
    made.on_report(ReplicaReport(1, 9, [entry], 5), 0)
    made.on_report(ReplicaReport(1, 9, [entry], 4), 0)
    made.on_report(ReplicaReport(1, 8, [entry], 6), 0)
    assert made.dropped_reports == 2
    made.set_brokers({0: 5, 1: 12})
    assert leader.followers == {}
    made.on_report(ReplicaReport(1, 12, [entry], 0), 0)
    assert leader.followers[1].broker_epoch == 12


def test_a_silent_follower_leaves_and_the_proposal_is_said_again_until_the_image_shows_it() -> None:
    made, (leader,) = leading(1, end=4)
    assert made.take_proposals(LAG_MS_MAX - 1) == []
    found = [(now_ms, made.take_proposals(now_ms)) for now_ms in range(LAG_MS_MAX, LAG_MS_MAX + 1_200, 50)]
    proposals = [proposal for _, proposals in found for proposal in proposals]
    assert 2 <= len(proposals) <= 3
    assert proposals[0].isr == ((0, 5),)
    assert (proposals[0].leader_epoch, proposals[0].partition_epoch) == (1, 3)
    assert made.on_leadership(leader.partition, Leadership(1, (0,), 4, (0, 1)), 3_000)
    assert leader.high_watermark == 4
    assert all(made.take_proposals(now_ms) == [] for now_ms in range(3_000, 9_000, 50))


def test_who_is_fenced_or_of_an_earlier_life_is_not_proposed() -> None:
    made, (leader,) = leading(1, replicas=(0,))
    made.on_leadership(leader.partition, Leadership(1, (0,), 4, (0, 1)), 0)
    made.on_report(ReplicaReport(1, 9, [ReportEntry(*leader.partition, 1, 0, 0, 0)], 1), 0)
    made.set_brokers({0: 5})
    assert made.take_proposals(10) == []
    made.set_brokers({0: 5, 1: 9})
    (proposal,) = made.take_proposals(20)
    assert dict(proposal.isr) == {0: 5, 1: 9}


def test_waiting_receipts_outlive_a_change_of_the_in_sync_set() -> None:
    made, (leader,) = leading(1)
    data = built(b"v")
    placed = leader.append(batch.parse_header(data), data, -1, "ticket", 5)
    assert placed is not None
    leader.on_written()
    made.on_written(leader.partition, [placed], 5)
    leader.on_synced(1)
    assert leader.take_receipts() == []
    assert made.on_leadership(leader.partition, Leadership(1, (0,), 4, (0, 1)), 10)
    ((ticket, result),) = leader.take_receipts()
    assert ticket == "ticket"
    assert result.replicas == 1  # type: ignore[union-attr]


def test_published_batches_name_what_comes_before_them_and_stay_below_a_size() -> None:
    made, (leader,) = leading(1)
    placed = []
    for _ in range(3):
        data = built(b"v" * 600_000)
        one = leader.append(batch.parse_header(data), data, -1, "", 5)
        assert one is not None
        placed.append(one)
    leader.on_written()
    made.take_published(0)
    made.on_written(leader.partition, placed, 5)
    found = [decode_stream(frames) for frames in made.take_published(5)]
    headers = [one[1] for one in found if not isinstance(one, Beat)]
    assert [(header.previous_end, header.previous_epoch) for header in headers] == [(0, -1), (1, 1), (2, 1)]


def test_a_fetch_of_too_many_partitions_is_refused() -> None:
    made, _ = leading(1)
    with pytest.raises(RemoteProtocolError):
        made.answer(ReplicaFetch(1, 9, 1, 1, [ReplicaFetchEntry(*name(0), 1, 0, -1)] * (REPLICA_ENTRIES_MAX + 1)))


def test_a_read_that_fails_is_its_partitions_fault_alone() -> None:
    made, leaders = leading(2, end=5)

    def read(partition: PartitionId, offset: int, end: int, bytes_max: int) -> bytes:
        if partition == leaders[0].partition:
            raise DiskFull("no")
        return b"batches"

    plan = made.answer(ReplicaFetch(1, 9, 1, 1 << 20, [ReplicaFetchEntry(*name(number), 1, 0, -1) for number in range(2)]))
    message, payload = plan.filled(LEADER, read)
    assert [(result.frames, result.fault is None) for result in message.results] == [(0, False), (1, True)]
    assert payload == [b"batches"]


def test_the_growth_of_a_log_tells_what_a_follower_may_miss() -> None:
    growth = Growth()
    growth.note(0, 0)
    growth.note(950, 5)
    growth.note(990, 6)
    growth.note(2_000, 9)
    assert growth.due_end(LAG_MS_MAX + 900) == 0
    assert growth.due_end(LAG_MS_MAX + 1_000) == 6
    assert growth.overdue_ms(5) == LAG_MS_MAX + 1_000
    assert growth.overdue_ms(9) is None


def test_an_expansion_counts_from_its_proposal_and_a_shrink_from_its_commit() -> None:
    in_sync = InSyncSet(Leadership(1, (0, 1), 3, (0, 1, 2)))
    assert in_sync.propose((0, 2), 0) == (0, 2)
    assert set(in_sync.counted) == {0, 1, 2}
    assert in_sync.propose((0,), 1) is None
    in_sync.commit(Leadership(1, (0, 2), 4, (0, 1, 2)))
    assert in_sync.counted == (0, 2)


def test_words_of_another_epoch_of_a_stranger_or_about_a_longer_log_do_not_count() -> None:
    _, (leader,) = leading(1, end=5)
    told = ReportEntry(*leader.partition, 1, 5, 5, 0)
    assert not leader.on_report(1, msgspec.structs.replace(told, leader_epoch=0), 9)
    assert not leader.on_report(1, msgspec.structs.replace(told, leader_epoch=2), 9)
    assert not leader.on_report(2, told, 11)
    assert not leader.on_report(1, msgspec.structs.replace(told, end=6, synced_end=6), 9)
    assert leader.followers == {}
    assert leader.on_report(1, told, 9)
    assert leader.high_watermark == 5


def test_proposed_members_do_not_make_up_the_minimum() -> None:
    config = TopicConfig(min_insync_replicas=2)
    leader = PartitionLeader(name(0), LEADER, Leadership(1, (0,), 3, (0, 1)), config, state(5))
    leader.on_report(1, ReportEntry(*leader.partition, 1, 5, 5, 0), 9)
    assert leader.isr_change(10) == (0, 1)
    leader.on_synced(5)
    assert leader.high_watermark == 0
    assert leader.set_leadership(Leadership(1, (0, 1), 4, (0, 1)))
    assert leader.high_watermark == 5


def test_a_member_that_lost_what_was_committed_leaves_at_once() -> None:
    made, (leader,) = leading(1, end=5)
    made.on_report(ReplicaReport(1, 9, [ReportEntry(*leader.partition, 1, 5, 5, 0)], 1), 0)
    assert leader.high_watermark == 5
    made.on_report(ReplicaReport(1, 9, [ReportEntry(*leader.partition, 1, 2, 2, 0)], 2), 10)
    (proposal,) = made.take_proposals(10)
    assert dict(proposal.isr) == {0: 5}
