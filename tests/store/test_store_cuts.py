"""What a caller of truncate, reset, save and adopt_cluster sees, one promise at a time."""

from __future__ import annotations

import errno
import random

import pytest
from store_world import CONFIG, bytes_of, checkpoint, open_store, partition, read_all, stamped, sync

from zmqmq.batch import StampedBatch, stamped_batches
from zmqmq.effects import Append
from zmqmq.errors import CorruptLog, DiskFull, InvalidRecord, LogOffline, Throttled, UnknownTopic
from zmqmq.facts import EpochStart
from zmqmq.store import undo
from zmqmq.store.backup import backup_directory
from zmqmq.store.formats import INDEX_ENTRY_BYTES
from zmqmq.store.index import INDEX_INTERVAL_BYTES
from zmqmq.store.layout import index_path, segment_path
from zmqmq.store.store import SAVED_BYTES_MAX, Store, StoreOptions
from zmqmq.store.verify import verify_directory
from zmqmq.testing.sim.disk import Fault, SimDisk
from zmqmq.topic_config import TopicConfig

HERE, THERE = partition(0), partition(1)
LARGE = TopicConfig(segment_bytes=1 << 20, retention_ms=-1)
ROOMY = StoreOptions(disk_reserve_bytes=0)


@pytest.fixture
def disk() -> SimDisk:
    return SimDisk(random.Random(1))


@pytest.fixture
def store(disk: SimDisk) -> Store:
    return made(disk)


def made(disk: SimDisk, config: TopicConfig = CONFIG) -> Store:
    store = open_store(disk, options=ROOMY)
    for where in (HERE, THERE):
        store.create(where, config)
    return store


def fill(store: Store, *, count: int = 6, start: int = 0, epoch: int = 1, size: int = 10, time_ms: int = 0) -> list[StampedBatch]:
    """Batches of two records."""
    batches = [
        stamped(
            HERE, start + 2 * number, bytes(size), count=2, epoch=epoch, producer=7, sequence=start + 2 * number, time_ms=time_ms + number
        )
        for number in range(count)
    ]
    assert store.append([Append(HERE, tuple(batches))]) == {}
    return batches


def test_a_log_ends_at_the_batch_boundary_at_or_below_and_goes_on_there(disk: SimDisk, store: Store) -> None:
    fill(store)
    assert store.truncate({HERE: 7}) == {HERE: 6}
    state = store.state(HERE)
    assert (state.log_end, state.synced_end) == (6, 6)
    assert [batch.end_offset for batch in state.producers[7].batches] == [2, 4, 6]
    more = fill(store, start=6, epoch=2)
    disk.crash("all")
    again = made(disk)
    assert again.state(HERE).log_end == 6
    assert again.state(HERE).epochs == (EpochStart(1, 0),)
    assert again.append([Append(HERE, tuple(more))]) == {}
    assert again.state(HERE).epochs == (EpochStart(1, 0), EpochStart(2, 6))


def test_an_end_at_or_behind_the_logs_changes_nothing(store: Store) -> None:
    fill(store)
    assert store.truncate({HERE: 12, THERE: 5}) == {HERE: 12, THERE: 0}
    assert store.state(HERE).synced_end == 0


def test_what_cannot_be_truncated_is_said_and_the_others_are(store: Store) -> None:
    fill(store)
    results = store.truncate({HERE: 4, partition(9): 1})
    assert results[HERE] == 4
    assert isinstance(results[partition(9)], UnknownTopic)


def test_a_sync_under_way_reports_nothing_of_a_log_that_was_cut_meanwhile(store: Store) -> None:
    fill(store)
    job = store.begin_sync()
    assert job is not None
    store.truncate({HERE: 2})
    fill(store, start=2, epoch=2)
    job.run()
    assert store.end_sync(job) == []
    assert store.state(HERE).synced_end == 2
    assert sync(store) == {HERE: 14}


def test_a_truncation_whose_sync_fails_is_not_done_and_nothing_is_written_any_more(disk: SimDisk, store: Store) -> None:
    fill(store)
    disk.faults = [Fault("fdatasync", path="journal", error=errno.EIO)]
    failure = store.truncate({HERE: 2})[HERE]
    assert isinstance(failure, LogOffline)
    assert failure.outcome == "unknown"
    assert store.offline
    assert store.state(HERE).log_end == 12


def test_a_truncation_that_the_journal_refuses_changes_nothing(disk: SimDisk, store: Store) -> None:
    batches = fill(store)
    disk.faults = [Fault("pwritev", path="journal", error=errno.ENOSPC)]
    assert isinstance(store.truncate({HERE: 2})[HERE], DiskFull)
    disk.faults = []
    assert read_all(store, HERE) == [bytes_of(each) for each in batches]


def test_files_that_cannot_be_cut_at_once_are_cut_before_the_next_write(disk: SimDisk, store: Store) -> None:
    batches = fill(store, size=900)
    sync(store)
    disk.faults = [Fault("truncate", path=".log", error=errno.ENOSPC)]
    assert store.truncate({HERE: 2}) == {HERE: 2}
    assert read_all(store, HERE) == [bytes_of(batches[0])]
    disk.faults = []
    more = fill(store, start=2, epoch=2, count=1)
    sync(store)
    disk.crash("all")
    assert read_all(made(disk), HERE) == [bytes_of(batches[0]), bytes_of(more[0])]


@pytest.mark.parametrize("is_damaged", [False, True])
@pytest.mark.parametrize("is_sealed", [False, True])
def test_lookups_after_a_truncation_agree_with_a_list(disk: SimDisk, is_sealed: bool, is_damaged: bool) -> None:
    store = made(disk, LARGE)
    batches = fill(store, count=60 if is_sealed else 40, size=INDEX_INTERVAL_BYTES // 3)
    sync(store)
    checkpoint(store)
    if is_damaged:
        path = index_path(segment_path(f"data/logs/{HERE.topic_id.hex()}/0", 0))
        for entry in range(len(disk.files()["/" + path]) // INDEX_ENTRY_BYTES):
            disk.flip(path, entry * INDEX_ENTRY_BYTES * 8 + 3)
    kept = [*batches[:10]]
    assert store.truncate({HERE: 21}) == {HERE: 20}
    kept += fill(store, start=20, epoch=2, count=40, size=INDEX_INTERVAL_BYTES // 2, time_ms=100)
    assert read_all(store, HERE) == [bytes_of(each) for each in kept]
    for each in kept:
        found = store.find_time(HERE, each.header.append_time_ms, 1 << 40)
        assert found is not None
        assert found.offset == each.header.base_offset
        assert store.read(HERE, each.header.base_offset + 1, 1 << 40, 1)[: len(bytes_of(each))] == bytes_of(each)
    sync(store)
    checkpoint(store)
    assert verify_directory(disk, "data").is_ok


def test_a_reader_that_stopped_behind_the_new_end_goes_on_in_what_was_written_since(store: Store) -> None:
    fill(store)
    store.read(HERE, 0, 4, 1 << 20)
    store.truncate({HERE: 2})
    more = fill(store, start=2, epoch=2, size=50)
    assert store.read(HERE, 4, 6, 1) == bytes_of(more[1])


def test_a_time_behind_the_new_end_is_not_found(store: Store) -> None:
    fill(store)
    store.truncate({HERE: 4})
    assert store.state(HERE).last_append_ms == 1
    assert store.find_time(HERE, 2, 100) is None


def test_a_reset_log_is_empty_begins_there_and_keeps_what_was_saved(disk: SimDisk, store: Store) -> None:
    fill(store)
    store.save(HERE, b"vote")
    store.reset(HERE, 1000)
    state = store.state(HERE)
    assert (state.log_start, state.log_end, state.synced_end, state.epochs, state.producers) == (1000, 1000, 1000, (), {})
    more = fill(store, start=1000, epoch=4)
    sync(store)
    disk.crash("all")
    again = made(disk)
    assert read_all(again, HERE) == [bytes_of(each) for each in more]
    assert again.saved(HERE) == b"vote"


def test_a_log_that_begins_anew_where_a_segment_waits_for_removal_keeps_what_it_writes_there(disk: SimDisk, store: Store) -> None:
    fill(store, count=12, size=900)
    checkpoint(store)
    store.move_log_start(HERE, 20)
    store.reset(HERE, 0)
    more = fill(store, epoch=2)
    checkpoint(store)
    disk.kill()
    assert read_all(made(disk), HERE) == [bytes_of(each) for each in more]


def test_a_log_cannot_begin_anew_where_a_running_checkpoint_removes_segments(store: Store) -> None:
    fill(store, count=12, size=900)
    checkpoint(store)
    store.move_log_start(HERE, 20)
    job = store.begin_checkpoint()
    assert job is not None
    with pytest.raises(Throttled):
        store.reset(HERE, 0)
    assert isinstance(store.truncate({HERE: 1})[HERE], Throttled)
    job.run()
    store.end_checkpoint(job)
    store.reset(HERE, 0)
    assert store.state(HERE).log_end == 0


def test_a_log_that_begins_behind_its_new_end_is_empty_there(disk: SimDisk, store: Store) -> None:
    fill(store)
    store.move_log_start(HERE, 5)
    assert store.truncate({HERE: 5}) == {HERE: 4}
    assert store.state(HERE).log_start == 4
    fill(store, start=4)
    assert store.truncate({HERE: 1}) == {HERE: 1}
    disk.crash("all")
    state = made(disk).state(HERE)
    assert (state.log_start, state.log_end) == (1, 1)


def test_a_reset_heals_a_partition_that_is_out_of_service(disk: SimDisk, store: Store) -> None:
    fill(store, size=400)
    store.close()
    path = segment_path(f"/data/logs/{HERE.topic_id.hex()}/0", 0)
    disk.put(path, disk.files()[path][:50])
    store = made(disk)
    with pytest.raises(CorruptLog):
        store.read(HERE, 0, 12, 1)
    assert isinstance(store.truncate({HERE: 2})[HERE], CorruptLog)
    store.reset(HERE, 3)
    assert not store.state(HERE).error
    more = fill(store, start=3)
    sync(store)
    disk.crash("all")
    assert read_all(made(disk), HERE) == [bytes_of(each) for each in more]


def test_data_below_a_truncation_that_is_missing_is_damage_and_not_a_shorter_log(disk: SimDisk, store: Store) -> None:
    fill(store, count=4, size=400)
    sync(store)
    checkpoint(store)
    store.truncate({HERE: 6})
    disk.crash("all")
    path = segment_path(f"/data/logs/{HERE.topic_id.hex()}/0", 0)
    disk.put(path, disk.files()[path][:700])
    assert not verify_directory(disk, "data").is_ok
    again = made(disk)
    assert "damaged" in again.state(HERE).error
    assert not again.state(THERE).error


def test_saved_bytes_are_durable_with_the_sync_that_reports_their_partition(disk: SimDisk, store: Store) -> None:
    assert store.saved(HERE) == b""
    store.save(HERE, b"one")
    assert sync(store) == {HERE: 0}
    store.save(HERE, b"two")
    assert store.saved(HERE) == b"two"
    disk.crash("all")
    again = made(disk)
    assert again.saved(HERE) == b"one"
    again.save(HERE, bytes(SAVED_BYTES_MAX))
    checkpoint(again)
    disk.crash("all")
    assert made(disk).saved(HERE) == bytes(SAVED_BYTES_MAX)


def test_a_directory_belongs_to_its_new_cluster_whatever_happens(disk: SimDisk, store: Store) -> None:
    before = store.identity
    store.adopt_cluster("other")
    disk.crash("all")
    after = open_store(disk).identity
    assert (after.cluster_id, after.node_id, after.directory_id) == ("other", before.node_id, before.directory_id)


def test_a_cluster_that_cannot_be_written_is_not_adopted(disk: SimDisk, store: Store) -> None:
    disk.faults = [Fault("fdatasync", path="identity", error=errno.EIO)]
    before = store.identity
    with pytest.raises(LogOffline):
        store.adopt_cluster("other")
    assert store.identity == before
    assert store.offline


def test_a_backup_of_a_truncated_directory_opens_to_the_same_log(disk: SimDisk, store: Store) -> None:
    batches = fill(store, count=30, size=400)
    sync(store)
    checkpoint(store)
    store.truncate({HERE: 20})
    store.save(THERE, b"kept")
    more = fill(store, start=20, epoch=2, count=2)
    backup_directory(disk, "data", "copy")
    copy = open_store(disk, root="copy")
    copy.create(HERE, CONFIG)
    assert read_all(copy, HERE) == [bytes_of(each) for each in (*batches[:10], *more)]
    assert copy.saved(THERE) == b"kept"


def test_producers_behind_the_memory_of_their_batches_lose_what_was_cut_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    monkeypatch.setattr(undo, "UNDO_BATCHES_MAX", 3)
    fill(store, count=10)
    store.truncate({HERE: 14})
    assert [batch.end_offset for batch in store.state(HERE).producers[7].batches] == [6, 8, 10, 12, 14]
    store.truncate({HERE: 8})
    assert [batch.end_offset for batch in store.state(HERE).producers[7].batches] == [6, 8]
    store.truncate({HERE: 2})
    assert store.state(HERE).producers == {}


def test_contiguous_bytes_become_checked_batches() -> None:
    batches = [stamped(HERE, 0, b"a", count=2), stamped(HERE, 2, b"b")]
    data = b"".join(map(bytes_of, batches))
    assert [(each.header, bytes_of(each)) for each in stamped_batches(data, HERE)] == [(each.header, bytes_of(each)) for each in batches]
    assert stamped_batches(b"", HERE) == ()


@pytest.mark.parametrize("place", [*range(0, 96, 5), 96, 100])
def test_a_flipped_bit_in_a_leaders_batch_is_refused(place: int) -> None:
    data = bytearray(b"".join(map(bytes_of, [stamped(HERE, 0, b"aaaaaa"), stamped(HERE, 1, b"b")])))
    data[place] ^= 1
    with pytest.raises(InvalidRecord):
        stamped_batches(data, HERE)


def test_a_leaders_batches_that_are_cut_misplaced_or_not_contiguous_are_refused() -> None:
    first, third = bytes_of(stamped(HERE, 0, b"a")), bytes_of(stamped(HERE, 2, b"c"))
    for data, where in ((first[:-1], HERE), (first + third[:50], HERE), (first, THERE), (first + third, HERE)):
        with pytest.raises(InvalidRecord):
            stamped_batches(data, where)
