"""The leader's laws: what a receipt promises is true when it leaves, and nothing is taken back once it left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqmq import batch
from zmqmq.batch import Record
from zmqmq.errors import DataLost, DiskFull, DuplicateSequence, LogOffline, LogTruncated, NotEnoughReplicas, OffsetOutOfRange
from zmqmq.facts import EpochStart, LogState
from zmqmq.model import PartitionId
from zmqmq.replication.leader import PLENTY_BYTES, Leadership, PartitionLeader, Progress
from zmqmq.topic_config import TopicConfig
from zmqmq.wire.replies import ProduceResult

PARTITION = PartitionId(b"t" * 16, 0)
FSYNC = TopicConfig()
REPLICATED = TopicConfig(durability="replicated")


def make(
    config: TopicConfig = FSYNC,
    *,
    end: int = 0,
    start: int = 0,
    epoch: int = 3,
    isr: tuple[int, ...] = (0,),
    epochs: tuple[EpochStart, ...] = (),
) -> PartitionLeader:
    state = LogState(start, end, end, epochs, {}, 0, -1)
    return PartitionLeader(PARTITION, 0, Leadership(epoch, isr), config, state)


def built(count: int = 1, *, producer: int = -1, sequence: int = -1, epoch: int = 0) -> bytes:
    encoded = batch.encode_records([Record(None, b"v", 0)] * count)
    return batch.build(
        encoded, record_count=count, base_timestamp_ms=0, max_timestamp_ms=0,
        producer_id=producer, producer_epoch=epoch, base_sequence=sequence,
    )  # fmt: skip


def append(leader: PartitionLeader, ticket: str, data: bytes | None = None, *, acks: int = -1, wall_ms: int = 100):
    data = data or built()
    return leader.append(batch.parse_header(data), data, acks, ticket, wall_ms)


def test_under_fsync_acks_all_is_answered_by_the_sync_and_says_so() -> None:
    leader = make()
    append(leader, "a", built(3))
    leader.on_written()
    assert leader.take_receipts() == []
    assert leader.high_watermark == 0
    assert leader.on_synced(3)
    assert leader.take_receipts() == [("a", ProduceResult(0, 3, 100, 1, 1))]
    assert leader.high_watermark == 3


def test_under_replicated_acks_all_is_answered_by_the_write_and_does_not_claim_a_sync() -> None:
    leader = make(REPLICATED)
    append(leader, "a")
    assert leader.on_written()
    assert leader.take_receipts() == [("a", ProduceResult(0, 3, 100, 1, 0))]


def test_acks_1_waits_for_the_leaders_own_disk_under_fsync_only() -> None:
    for config, after_write in ((FSYNC, 0), (REPLICATED, 1)):
        leader = make(config, isr=(0, 1))
        append(leader, "a", acks=1)
        leader.on_written()
        assert len(leader.take_receipts()) == after_write
        leader.on_synced(1)
        assert len(leader.take_receipts()) == 1 - after_write


def test_acks_all_waits_for_the_slowest_in_sync_replica() -> None:
    leader = make(isr=(0, 1, 2))
    append(leader, "a")
    leader.on_written()
    leader.on_synced(1)
    leader.followers = {1: Progress(1, 1), 2: Progress(1, 0)}
    leader.on_synced(1)
    assert leader.take_receipts() == []
    leader.followers[2].synced_end = 1
    assert leader.on_synced(1)
    assert leader.take_receipts() == [("a", ProduceResult(0, 3, 100, 3, 3))]


def test_too_few_in_sync_replicas_refuse_the_write() -> None:
    with pytest.raises(NotEnoughReplicas):
        append(make(TopicConfig(min_insync_replicas=2)), "a")


def test_a_failed_append_gives_the_same_offsets_out_again_and_forgets_the_sequence() -> None:
    leader = make()
    append(leader, "kept", built(2, producer=7, sequence=0))
    leader.on_written()
    append(leader, "lost", built(2, producer=7, sequence=2), wall_ms=500)
    append(leader, "lost too", built(2, producer=8, sequence=0), wall_ms=600)
    leader.on_append_failed(DiskFull("full", outcome="not_written"))
    assert [(ticket, type(error)) for ticket, error in leader.take_receipts()] == [("lost", DiskFull), ("lost too", DiskFull)]
    assert leader.next_offset == leader.log_end == 2
    assert leader.last_append_ms == 100
    assert 8 not in leader.producers.entries
    stamped = append(leader, "again", built(2, producer=7, sequence=2))
    assert stamped.header.base_offset == 2
    leader.on_written()
    leader.on_synced(4)
    assert [ticket for ticket, _ in leader.take_receipts()] == ["kept", "again"]


def test_a_duplicate_is_answered_when_its_original_is_safe_and_with_its_place() -> None:
    leader = make()
    data = built(2, producer=7, sequence=0)
    append(leader, "first", data)
    assert append(leader, "same round", data) is None
    leader.on_written()
    assert append(leader, "again", data) is None
    assert leader.take_receipts() == []
    leader.on_synced(2)
    result = ProduceResult(0, 3, 100, 1, 1)
    assert leader.take_receipts() == [("first", result), ("same round", result), ("again", result)]
    assert leader.next_offset == 2


def test_a_duplicate_too_old_to_place_is_a_named_answer_once_it_is_safe() -> None:
    leader = make()
    for sequence in range(7):
        append(leader, f"{sequence}", built(1, producer=7, sequence=sequence))
    leader.on_written()
    assert append(leader, "old", built(1, producer=7, sequence=0)) is None
    leader.on_synced(1)
    assert [ticket for ticket, _ in leader.take_receipts()] == ["0"]
    leader.on_synced(7)
    receipts = dict(leader.take_receipts())
    assert isinstance(receipts["old"], DuplicateSequence)


def test_append_time_never_goes_back() -> None:
    leader = make()
    assert append(leader, "a", wall_ms=100).header.append_time_ms == 100
    assert append(leader, "b", wall_ms=50).header.append_time_ms == 100


def test_when_the_disk_fails_for_good_every_waiter_hears_it() -> None:
    leader = make()
    append(leader, "a")
    leader.on_written()
    leader.fail_waiting(LogOffline("gone", outcome="unknown"))
    assert [type(error) for _, error in leader.take_receipts()] == [LogOffline]


def test_a_reader_before_the_start_has_lost_data_and_one_beyond_the_end_is_out_of_range() -> None:
    leader = make(start=5, end=10)
    with pytest.raises(DataLost) as lost:
        leader.check_position(4, -1)
    assert (lost.value.log_start, lost.value.log_end) == (5, 10)
    leader.check_position(10, -1)
    with pytest.raises(OffsetOutOfRange):
        leader.check_position(11, -1)


@pytest.mark.parametrize(
    ("offset", "last_epoch", "parted"),
    [(10, 1, None), (11, 1, 10), (15, 3, None), (15, 1, 10), (20, 3, None), (21, 3, 20), (15, 2, 10), (20, 9, 20), (7, 9, 7)],
)
def test_a_reader_whose_history_parted_from_ours_is_told_where(offset: int, last_epoch: int, parted: int | None) -> None:
    leader = make(end=20, epoch=5, epochs=(EpochStart(1, 0), EpochStart(3, 10)))
    if parted is None:
        leader.check_position(offset, last_epoch)
    else:
        with pytest.raises(LogTruncated) as truncated:
            leader.check_position(offset, last_epoch)
        assert truncated.value.log_end == parted


def test_the_first_batch_of_a_leadership_begins_its_epoch() -> None:
    leader = make(end=20, epoch=5, epochs=(EpochStart(1, 0),))
    append(leader, "a")
    leader.on_written()
    assert leader.epochs == [EpochStart(1, 0), EpochStart(5, 20)]
    assert leader.end_of_epoch(4) == (1, 20)
    assert leader.end_of_epoch(0) == (-1, 0)


def test_a_waiting_reader_learns_how_many_bytes_there_are() -> None:
    leader = make(REPLICATED, end=5)
    sizes = [append(leader, "x", built(n)).header.length for n in (1, 2)]
    leader.on_written()
    assert leader.bytes_from(8) == 0
    assert leader.bytes_from(6) == sizes[1]
    assert leader.bytes_from(5) == sum(sizes)
    assert leader.bytes_from(0) == PLENTY_BYTES


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from([-1, 0, 1]), st.integers(1, 4)),
        st.just(("written",)),
        st.just(("failed",)),
        st.tuples(st.just("synced"), st.floats(0, 1)),
    ),
    max_size=40,
)


@given(STEPS, st.sampled_from([FSYNC, REPLICATED]))
def test_whatever_happens_receipts_are_true_and_come_once(steps: list[tuple], config: TopicConfig) -> None:
    """A twin keeps the log as a plain list: what is written stays, what failed goes, and says which receipts are due."""
    leader = make(config)
    written, synced, tentative, open_tickets, answered = 0, 0, [], {}, {}
    for number, step in enumerate(steps):
        watermark = leader.high_watermark
        if step[0] == "append":
            stamped = append(leader, number, built(step[2]), acks=step[1])
            tentative.append((number, stamped.header.base_offset, stamped.header.end_offset))
            open_tickets[number] = (step[1], stamped.header.base_offset, stamped.header.end_offset)
        elif step[0] == "written":
            written = leader.next_offset
            leader.on_written()
            tentative = []
        elif step[0] == "failed":
            leader.on_append_failed(DiskFull("full"))
            failed = {number for number, _, _ in tentative}
            tentative = []
            receipts = leader.take_receipts()
            assert {ticket for ticket, error in receipts if isinstance(error, DiskFull)} == failed
            answered.update(receipts)
        else:
            synced = max(synced, int(written * step[1]))
            leader.on_synced(synced)
        for ticket, result in leader.take_receipts():
            assert ticket not in answered
            answered[ticket] = result
            acks, base, end = open_tickets[ticket]
            assert result.base_offset == base
            assert (result.replicas, result.synced) == (int(written >= end), int(synced >= end))
            needed = written if acks == 0 or config is REPLICATED else synced
            assert end <= needed
        assert leader.high_watermark >= watermark
        assert leader.high_watermark == max(watermark, synced if config is FSYNC else written)
    leader.on_written()
    leader.on_synced(leader.log_end)
    answered.update(leader.take_receipts())
    assert set(answered) == set(open_tickets)
