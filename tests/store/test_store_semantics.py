"""What the store's callers rely on, apart from power cuts: rounds, reads, time, retention, deletion, faults."""

from __future__ import annotations

import errno
import random
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_world import CONFIG, OPTIONS, ROOT, ManualClock, bytes_of, checkpoint, open_store, partition, read_all, stamped, sync

from zmqmq import batch
from zmqmq.effects import Append
from zmqmq.errors import DataDirLocked, DataLost, DiskFull, LogOffline, Throttled, UnknownTopic
from zmqmq.facts import StartMoved, Synced
from zmqmq.model import METADATA_PARTITION, Timestamps
from zmqmq.producer_state import PRODUCER_IDLE_MS
from zmqmq.replication.leader import Leadership, PartitionLeader
from zmqmq.store.disk import RealDisk
from zmqmq.store.store import Store, StoreOptions
from zmqmq.store.verify import rebuild_indexes, verify_directory
from zmqmq.testing.sim.disk import Fault, SimDisk
from zmqmq.topic_config import TopicConfig

WHERE = partition(0)
OTHER = partition(1)


@pytest.fixture
def disk() -> SimDisk:
    return SimDisk(random.Random(7))


@pytest.fixture
def store(disk: SimDisk) -> Store:
    store = open_store(disk)
    store.create(WHERE, CONFIG)
    store.create(OTHER, CONFIG)
    return store


def append(store: Store, number: int, *, where=WHERE, size: int = 300, time_ms: int | None = None) -> bytes:
    found = stamped(where, number, bytes([number % 256]) * size, time_ms=number if time_ms is None else time_ms)
    if store.checkpoint_due():
        checkpoint(store)
    assert store.append([Append(where, (found,))]) == {}
    return bytes_of(found)


def test_a_round_is_read_at_once_and_synced_later(store: Store) -> None:
    data = append(store, 0)
    assert store.read(WHERE, 0, 1, 1000) == data
    assert store.state(WHERE).synced_end == 0
    job = store.begin_sync()
    assert job is not None
    append(store, 1)
    job.run()
    assert store.end_sync(job) == [Synced(WHERE, 1)]
    assert (store.state(WHERE).synced_end, store.state(WHERE).log_end) == (1, 2)


def test_nothing_unsynced_gives_no_job(store: Store) -> None:
    assert store.begin_sync() is None


def test_a_read_is_whole_batches_and_never_passes_the_end(store: Store) -> None:
    batches = [stamped(WHERE, number * 3, b"x" * 50, count=3) for number in range(4)]
    store.append([Append(WHERE, tuple(batches))])
    one = len(bytes_of(batches[0]))
    assert store.read(WHERE, 4, 12, 1) == bytes_of(batches[1])
    assert store.read(WHERE, 0, 12, 2 * one + 50) == bytes_of(batches[0]) + bytes_of(batches[1])
    assert store.read(WHERE, 0, 8, 1000) == bytes_of(batches[0]) + bytes_of(batches[1])
    assert store.read(WHERE, 0, 2, 1000) == b""
    assert store.read(WHERE, 12, 12, 1000) == b""


def test_a_read_that_retention_overtook_says_that_data_is_lost(store: Store) -> None:
    append(store, 0)
    append(store, 1)
    store.move_log_start(WHERE, 1)
    with pytest.raises(DataLost) as caught:
        store.read(WHERE, 0, 2, 1000)
    assert (caught.value.log_start, caught.value.log_end) == (1, 2)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=25),
    gaps=st.lists(st.integers(0, 3), min_size=25, max_size=25),
    reopen=st.booleans(),
    wanted=st.integers(0, 80),
    start=st.integers(0, 25),
)
def test_lookups_agree_with_a_list(sizes: list[int], gaps: list[int], reopen: bool, wanted: int, start: int) -> None:
    disk = SimDisk(random.Random(1))
    store = open_store(disk, options=StoreOptions(disk_reserve_bytes=0))
    config = TopicConfig(segment_bytes=200_000)
    store.create(WHERE, config)
    now, offset, model = 0, 0, []
    for size, gap in zip(sizes, gaps, strict=False):
        now += gap
        found = stamped(WHERE, offset, bytes(size * 10), count=2, time_ms=now)
        store.append([Append(WHERE, (found,))])
        model.append((offset, now, bytes_of(found)))
        offset += 2
    sync(store)
    if reopen:
        disk.crash()
        store = open_store(disk, options=StoreOptions(disk_reserve_bytes=0))
        store.create(WHERE, config)
    for begin, _, data in model:
        assert store.read(WHERE, begin + 1, offset, 1) == data
    store.move_log_start(WHERE, min(start, offset))
    log_start = store.state(WHERE).log_start
    expected = next((Timestamps(max(begin, log_start), at) for begin, at, _ in model if at >= wanted and begin + 2 > log_start), None)
    assert store.find_time(WHERE, wanted, offset) == expected


def test_a_full_disk_fails_the_round_and_leaves_nothing_behind(disk: SimDisk, store: Store) -> None:
    first = append(store, 0)
    disk.capacity_bytes = disk.used_bytes() + 100
    failed = store.append([Append(WHERE, (stamped(WHERE, 1, bytes(900)),))])
    assert isinstance(failed[WHERE], DiskFull)
    assert failed[WHERE].outcome == "not_written"
    assert read_all(store, WHERE) == [first]
    disk.capacity_bytes += 100_000
    second = append(store, 1)
    sync(store)
    disk.crash("all")
    assert read_all(open_store(disk), WHERE) == [first, second]


def test_one_partition_fails_and_the_others_of_its_round_succeed(disk: SimDisk, store: Store) -> None:
    append(store, 0)
    disk.faults = [Fault("pwritev", path="/0/", error=errno.EIO)]
    failed = store.append([Append(WHERE, (stamped(WHERE, 1, b""),)), Append(OTHER, (stamped(OTHER, 0, b""),))])
    assert list(failed) == [WHERE]
    assert isinstance(failed[WHERE], LogOffline)
    assert store.state(OTHER).log_end == 1
    assert store.state(WHERE).log_end == 1
    assert len(read_all(store, WHERE)) == 1
    assert WHERE in store.append([Append(WHERE, (stamped(WHERE, 1, b""),))])


def test_a_partition_that_was_never_created_is_refused(store: Store) -> None:
    unknown = partition(9)
    failed = store.append([Append(unknown, (stamped(unknown, 0, b""),))])
    assert isinstance(failed[unknown], UnknownTopic)
    with pytest.raises(UnknownTopic):
        store.state(unknown)


@pytest.mark.parametrize("short", [0, 1, 30, 100])
def test_a_short_write_is_completed(disk: SimDisk, store: Store, short: int) -> None:
    disk.faults = [Fault("pwritev", short=max(1, short), nth=1), Fault("pwritev", short=max(1, short), nth=3)]
    data = append(store, 0)
    sync(store)
    disk.crash("all")
    assert read_all(open_store(disk), WHERE) == [data]


def test_a_failed_journal_write_takes_the_whole_round_back(disk: SimDisk, store: Store) -> None:
    append(store, 0)
    disk.faults = [Fault("pwritev", path="journal", error=errno.ENOSPC)]
    round_ = [Append(WHERE, (stamped(WHERE, 1, b""),)), Append(OTHER, (stamped(OTHER, 0, b""),))]
    assert {type(error) for error in store.append(round_).values()} == {DiskFull}
    assert (store.state(WHERE).log_end, store.state(OTHER).log_end) == (1, 0)
    assert store.append(round_) == {}
    assert store.offline == ""


def test_an_io_error_of_the_journal_takes_the_store_offline(disk: SimDisk, store: Store) -> None:
    append(store, 0)
    disk.faults = [Fault("pwritev", path="journal", error=errno.EIO)]
    failed = store.append([Append(WHERE, (stamped(WHERE, 1, b""),))])
    assert failed[WHERE].outcome == "unknown"
    assert store.offline
    assert isinstance(store.append([Append(OTHER, (stamped(OTHER, 0, b""),))])[OTHER], LogOffline)
    assert len(read_all(store, WHERE)) == 1


def test_a_failed_sync_is_never_tried_again(disk: SimDisk, store: Store) -> None:
    append(store, 0)
    disk.faults = [Fault("fdatasync", path="journal")]
    assert sync(store) == {}
    assert "sync" in store.offline
    assert store.state(WHERE).synced_end == 0
    assert store.begin_sync() is None
    assert store.begin_checkpoint() is None
    assert isinstance(store.append([Append(WHERE, (stamped(WHERE, 1, b""),))])[WHERE], LogOffline)
    assert len(read_all(store, WHERE)) == 1
    store.close()


def test_a_full_disk_during_a_checkpoint_is_forgiven(disk: SimDisk, store: Store) -> None:
    data = append(store, 0)
    sync(store)
    disk.faults = [Fault("pwritev", path="checkpoint", error=errno.ENOSPC)]
    checkpoint(store)
    assert store.offline == ""
    more = append(store, 1)
    sync(store)
    checkpoint(store)
    last = append(store, 2)
    sync(store)
    disk.crash("all")
    assert read_all(open_store(disk), WHERE) == [data, more, last]


def test_a_failed_sync_of_a_segment_in_a_checkpoint_takes_the_store_offline(disk: SimDisk, store: Store) -> None:
    data = append(store, 0)
    sync(store)
    disk.faults = [Fault("fdatasync", path=".log")]
    checkpoint(store)
    assert "checkpoint" in store.offline
    disk.crash("all")
    assert read_all(open_store(disk), WHERE) == [data]


def test_a_full_journal_throttles_until_a_checkpoint_is_done(store: Store) -> None:
    number, failed = 0, {}
    while not failed:
        failed = store.append([Append(WHERE, (stamped(WHERE, number, bytes(900)),))])
        number += not failed
    assert isinstance(failed[WHERE], Throttled)
    assert store.checkpoint_due()
    checkpoint(store)
    assert append(store, number)


def test_a_journal_that_filled_up_while_a_checkpoint_failed_is_freed_without_further_appends(disk: SimDisk, store: Store) -> None:
    append(store, 0)
    disk.faults = [Fault("pwritev", path="checkpoint", error=errno.ENOSPC)]
    checkpoint(store)
    number, failed = 1, {}
    while not failed:
        failed = store.append([Append(WHERE, (stamped(WHERE, number, bytes(900)),))])
        number += not failed
    checkpoint(store)  # it could not switch files: both were needed
    checkpoint(store)
    assert store.append([Append(WHERE, (stamped(WHERE, number, bytes(900)),))]) == {}


def test_a_full_journal_still_takes_the_metadata_log_within_a_bound(store: Store) -> None:
    store.create(METADATA_PARTITION, CONFIG)
    number, failed = 0, {}
    while not failed:
        failed = store.append([Append(WHERE, (stamped(WHERE, number, bytes(900)),))])
        number += not failed
    count = 0
    while not failed.get(METADATA_PARTITION):
        rounds = [
            Append(WHERE, (stamped(WHERE, number, b"x"),)),
            Append(METADATA_PARTITION, (stamped(METADATA_PARTITION, count, bytes(900)),)),
        ]
        failed = store.append(rounds)
        assert isinstance(failed[WHERE], Throttled)
        count += 1
    assert 10 < count < 30


def test_the_reserve_is_kept_for_the_metadata_log(disk: SimDisk) -> None:
    clock = ManualClock()
    store = open_store(disk, clock=clock, options=StoreOptions(journal_allocate_bytes=4096, disk_reserve_bytes=50_000))
    store.create(WHERE, CONFIG)
    store.create(METADATA_PARTITION, CONFIG)
    append(store, 0)
    disk.capacity_bytes = disk.used_bytes() + 40_000
    clock.now += 5_000
    assert isinstance(store.append([Append(WHERE, (stamped(WHERE, 1, b""),))])[WHERE], DiskFull)
    append(store, 0, where=METADATA_PARTITION)
    disk.capacity_bytes += 40_000
    clock.now += 5_000
    append(store, 1)


def test_the_limit_of_the_whole_store_refuses_with_its_figure(disk: SimDisk) -> None:
    options = StoreOptions(journal_allocate_bytes=4096, disk_reserve_bytes=0, disk_bytes_max=10_000)
    store = open_store(disk, options=options)
    store.create(WHERE, CONFIG)
    failed, number = {}, 0
    while not failed:
        failed = store.append([Append(WHERE, (stamped(WHERE, number, bytes(500)),))])
        number += 1
    assert "10000" in str(failed[WHERE])
    assert store.size_bytes() <= 10_000 + options.journal_allocate_bytes


def test_a_segment_rolls_before_it_outgrows_its_size(disk: SimDisk, store: Store) -> None:
    for number in range(30):
        append(store, number)
    sizes = [len(content) for path, content in disk.files().items() if path.endswith(".log")]
    assert len(sizes) > 2
    assert max(sizes) <= CONFIG.segment_bytes


def test_retention_by_size_removes_sealed_segments_below_the_watermark(disk: SimDisk, store: Store) -> None:
    for number in range(60):
        append(store, number)
    store.create(WHERE, TopicConfig(segment_bytes=4096, retention_bytes=8192))
    assert store.maintain(100, {WHERE: 0}) == []
    (moved,) = store.maintain(5_000, {WHERE: 60})
    assert moved == StartMoved(WHERE, store.state(WHERE).log_start)
    assert 8192 <= store.state(WHERE).size_bytes < 8192 + 4096
    assert store.maintain(10_000, {WHERE: 60}) == []
    files = len(disk.files())
    checkpoint(store)
    assert len(disk.files()) < files
    disk.crash("all")
    found = open_store(disk)
    assert found.state(WHERE).log_start == moved.log_start
    assert read_all(found, WHERE)


def test_retention_by_time_seals_and_removes_what_is_old(store: Store) -> None:
    store.create(WHERE, TopicConfig(segment_bytes=4096, segment_ms=100, retention_ms=10_000))
    for number in range(30):
        append(store, number, time_ms=number * 100)
    assert store.maintain(3_500, {WHERE: 30}) == []
    assert store.maintain(11_500, {WHERE: 30})
    assert 0 < store.state(WHERE).log_start < 30
    assert store.maintain(14_000, {WHERE: 30}) == [StartMoved(WHERE, 30)]
    assert store.state(WHERE).size_bytes == 0
    assert append(store, 30)


def test_a_log_start_that_finds_no_room_in_the_journal_changes_nothing(disk: SimDisk, store: Store) -> None:
    for number in range(30):
        append(store, number)
    sync(store)
    disk.faults = [Fault("pwritev", path="journal", error=errno.ENOSPC)]
    with pytest.raises(DiskFull):
        store.move_log_start(WHERE, 17)
    assert store.state(WHERE).log_start == 0
    store.move_log_start(WHERE, 17)
    assert store.state(WHERE).log_start == 17


def test_a_deletion_behind_retention_is_durable_by_itself(disk: SimDisk, store: Store) -> None:
    for number in range(60):
        append(store, number)
    sync(store)
    store.create(WHERE, TopicConfig(segment_bytes=4096, retention_bytes=8192))
    (moved,) = store.maintain(5_000, {WHERE: 60})
    store.move_log_start(WHERE, 1)
    sync(store)
    disk.crash("all")
    assert open_store(disk).state(WHERE).log_start == moved.log_start


def test_deleted_records_stay_deleted_over_a_power_cut(disk: SimDisk, store: Store) -> None:
    for number in range(30):
        append(store, number)
    store.move_log_start(WHERE, 17)
    sync(store)
    disk.crash("all")
    found = open_store(disk)
    assert found.state(WHERE).log_start == 17
    found.create(WHERE, CONFIG)
    found.move_log_start(WHERE, 30)
    assert found.state(WHERE).size_bytes == 0
    checkpoint(found)
    assert [path for path in disk.files() if "/0/" in path and path.endswith(".log") and disk.files()[path]] == []


def test_a_deleted_topic_is_gone_for_good(disk: SimDisk, store: Store) -> None:
    append(store, 0)
    sync(store)
    store.delete_topic(WHERE.topic_id)
    assert store.partitions() == []
    disk.crash("all")
    found = open_store(disk)
    assert found.partitions() == []
    assert not [path for path in disk.files() if "/logs/" in path]
    found.close()
    assert verify_directory(disk, ROOT).findings == []


def test_topics_that_the_metadata_does_not_know_are_removed(disk: SimDisk, store: Store) -> None:
    stray = partition(0, b"s" * 16)
    store.create(stray, CONFIG)
    append(store, 0)
    append(store, 0, where=stray)
    store.retain_only([WHERE.topic_id])
    assert store.partitions() == [WHERE, OTHER]
    checkpoint(store)
    assert not [path for path in disk.files() if stray.topic_id.hex() in path]


def test_producers_and_epochs_survive_a_power_cut_as_they_were(disk: SimDisk, store: Store) -> None:
    offset = 0
    for epoch in (1, 3):
        for _ in range(4):
            found = stamped(WHERE, offset, b"", epoch=epoch, producer=5, sequence=offset, time_ms=offset)
            assert store.append([Append(WHERE, (found,))]) == {}
            offset += 1
        if epoch == 1:
            checkpoint(store)
    sync(store)
    before = store.state(WHERE)
    assert [(each.epoch, each.offset) for each in before.epochs] == [(1, 0), (3, 4)]
    assert [each.base_sequence for each in before.producers[5].batches] == [3, 4, 5, 6, 7]
    disk.crash("all")
    assert open_store(disk).state(WHERE) == before


def test_the_store_forgets_the_producers_that_the_leader_forgets(disk: SimDisk, store: Store) -> None:
    """Leader and store before and after a restart are one and the same opinion."""
    config = TopicConfig(retention_ms=-1)
    leader = PartitionLeader(WHERE, 0, Leadership(1, (0,)), config, store.state(WHERE))
    for producer, time_ms in ((1, 0), (2, 5), (1, PRODUCER_IDLE_MS), (3, PRODUCER_IDLE_MS + 6)):
        sequence = 0 if producer not in leader.producers.entries else leader.producers.entries[producer].batches[-1].last_sequence + 1
        sent = stamped(WHERE, 0, b"x", producer=producer, sequence=sequence)
        placed = leader.append(sent.header, bytes_of(sent), -1, None, time_ms)
        assert placed is not None
        assert store.append([Append(WHERE, (placed,))]) == {}
        leader.on_written()
        if time_ms == 5:
            checkpoint(store)
    assert list(leader.producers.entries) == [1, 3]
    assert store.state(WHERE).producers == leader.producers.entries
    sync(store)
    disk.crash("all")
    assert open_store(disk).state(WHERE).producers == leader.producers.entries


def test_an_unchanged_partition_is_encoded_for_one_checkpoint_only(store: Store) -> None:
    append(store, 0)
    append(store, 0, where=OTHER)
    checkpoint(store)
    append(store, 1)
    job = store.begin_checkpoint()
    assert job is not None
    job.run()
    assert [entry.partition_id for entry, _ in job.encoded] == [WHERE]


def test_a_second_open_of_a_directory_is_refused(disk: SimDisk, store: Store) -> None:
    with pytest.raises(DataDirLocked):
        open_store(disk)
    store.close()
    open_store(disk).close()


def test_a_clean_close_leaves_nothing_to_replay(disk: SimDisk, store: Store) -> None:
    append(store, 0)
    store.close()
    assert disk.open_count == 0
    found = open_store(disk)
    assert (found.report.was_clean, found.report.replayed_batches) == (True, 0)
    assert found.identity == store.identity
    disk.crash()
    assert not open_store(disk).report.was_clean


def test_idle_partitions_hold_no_file_open(disk: SimDisk) -> None:
    store = open_store(disk)
    for number in range(50):
        where = partition(number)
        store.create(where, CONFIG)
        append(store, 0, where=where)
    assert disk.open_count <= OPTIONS.open_files_max + 2
    store.close()
    store = open_store(disk)
    assert len(store.partitions()) == 50
    assert disk.open_count == 2


def test_the_real_disk_does_what_the_simulated_one_does(tmp_path) -> None:
    root = str(tmp_path / "data")
    store = open_store(RealDisk(), root=root, options=StoreOptions(journal_bytes_max=16 << 10, journal_allocate_bytes=4096))
    store.create(WHERE, CONFIG)
    written = []
    for number in range(40):
        written.append(append(store, number))
        if store.checkpoint_due():
            checkpoint(store)
    with pytest.raises(DataDirLocked):
        open_store(RealDisk(), root=root)
    sync(store)
    assert read_all(store, WHERE) == written
    store.close()
    assert verify_directory(RealDisk(), root).is_ok
    assert rebuild_indexes(RealDisk(), root) > 2
    store = open_store(RealDisk(), root=root)
    assert read_all(store, WHERE) == written
    store.close()


def test_a_data_directory_that_was_taken_away_stops_the_store_and_does_not_come_back_empty(tmp_path) -> None:
    root = tmp_path / "data"
    clock = ManualClock()
    store = open_store(RealDisk(), root=str(root), clock=clock)
    store.create(WHERE, CONFIG)
    append(store, 0)
    shutil.rmtree(root)
    clock.now += 2_000
    assert isinstance(store.append([Append(WHERE, (stamped(WHERE, 1, b""),))])[WHERE], LogOffline)
    assert "gone" in store.offline
    store.close()
    assert not root.exists()


def test_a_file_stays_open_until_the_checkpoint_has_synced_it(disk: SimDisk) -> None:
    """Else the kernel may forget a write-back that failed."""
    where = [partition(number) for number in range(12)]
    store = open_store(disk)
    for each in where:
        store.create(each, CONFIG)
    outcomes = [store.append([Append(each, (stamped(each, 0, b"x"),))]) for each in where]
    refused = [failed[each] for each, failed in zip(where, outcomes, strict=True) if failed]
    assert [type(error) for error in refused] == [Throttled] * 4
    assert {error.outcome for error in refused} == {"not_written"}
    written = [path for path, data in disk.files().items() if path.endswith(".log") and data]
    assert sorted("/" + path for path in store._volume.files.pinned()) == written
    assert store.checkpoint_due()
    assert store.append([Append(where[0], (stamped(where[0], 1, b"y"),))]) == {}
    job = store.begin_checkpoint()
    assert job is not None
    job.run()
    assert store._volume.files.is_full
    assert store.append([Append(where[1], (stamped(where[1], 1, b"y"),))]) == {}
    store.end_checkpoint(job)
    assert len(store._volume.files.pinned()) == 1
    assert store.append([Append(where[-1], (stamped(where[-1], 0, b"z"),))]) == {}


def test_recovery_of_more_partitions_than_files_may_be_open_syncs_on_the_way(disk: SimDisk) -> None:
    where = [partition(number) for number in range(40)]
    store = open_store(disk, options=StoreOptions(journal_bytes_max=1 << 20, disk_reserve_bytes=0))
    for each in where:
        store.create(each, CONFIG)
    assert store.append([Append(each, (stamped(each, 0, b"x"),)) for each in where]) == {}
    sync(store)
    disk.crash("all")
    again = open_store(disk)
    assert disk.open_count <= OPTIONS.open_files_max + 2
    assert [again.state(each).log_end for each in where] == [1] * 40
    disk.crash("all")
    assert [open_store(disk).state(each).log_end for each in where[:1]] == [1]


def test_a_stale_store_acknowledges_nothing_and_leaves_its_successor_alone(tmp_path) -> None:
    disk, root = RealDisk(), str(tmp_path / "data")
    clock = ManualClock()
    stale = Store.open(disk, root, clock=clock, random=random.Random(1), options=OPTIONS)
    stale.create(WHERE, CONFIG)
    append(stale, 0)
    assert sync(stale) == {WHERE: 1}
    shutil.rmtree(root)
    successor = Store.open(disk, root, clock=clock, random=random.Random(2), options=OPTIONS)
    successor.create(OTHER, CONFIG)
    append(successor, 0, where=OTHER)
    append(stale, 1)
    assert sync(stale) == {}
    assert "removed or replaced" in stale.offline
    stale.close()
    successor.close()
    again = Store.open(disk, root, clock=clock, random=random.Random(3), options=OPTIONS)
    assert again.identity == successor.identity
    assert (again.partitions(), again.state(OTHER).log_end) == ([OTHER], 1)
    again.close()


def test_a_stale_store_that_was_idle_writes_no_checkpoint_over_its_successors(tmp_path) -> None:
    disk, root = RealDisk(), str(tmp_path / "data")
    stale = Store.open(disk, root, clock=ManualClock(), random=random.Random(1), options=OPTIONS)
    stale.create(WHERE, CONFIG)
    append(stale, 0)
    job = stale.begin_checkpoint()
    assert job is not None
    shutil.rmtree(root)
    Store.open(disk, root, clock=ManualClock(), random=random.Random(2), options=OPTIONS).close()
    with pytest.raises(FileNotFoundError, match="removed or replaced") as lost:
        job.run()
    stale.end_checkpoint(job, lost.value)
    assert stale.offline
    stale.close()
    again = Store.open(disk, root, clock=ManualClock(), random=random.Random(3), options=OPTIONS)
    assert (again.report.was_clean, again.partitions()) == (True, [])
    again.close()


def test_the_batch_that_is_read_is_the_batch_that_was_sent(store: Store) -> None:
    found = stamped(WHERE, 0, b"value", time_ms=3)
    store.append([Append(WHERE, (found,))])
    data = store.read(WHERE, 0, 1, 1 << 20)
    header = batch.parse_header(data)
    assert header == found.header
    assert batch.records(header, data)[0].value == b"value"
