"""Every truncation and every flipped bit of every kind of file: the correct prefix, a rebuilt index, or a named error."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

import pytest
from store_world import CONFIG, ROOT, bytes_of, checkpoint, open_store, partition, read_all, stamped, sync

from zmqmq.effects import Append
from zmqmq.errors import CorruptLog, InvalidRecord, UnsupportedVersion
from zmqmq.model import PartitionId
from zmqmq.store.store import StoreOptions
from zmqmq.store.verify import verify_directory
from zmqmq.testing.sim.disk import SimDisk

WHERE = partition(0)
SEGMENT = f"/{ROOT}/logs/{WHERE.topic_id.hex()}/0/{0:020d}.log"
JOURNAL = f"/{ROOT}/journal/0.journal"
NAMED = (CorruptLog, UnsupportedVersion)
SMALL = StoreOptions(journal_bytes_max=1 << 16, journal_allocate_bytes=512, disk_reserve_bytes=0)


@cache
def directory(*, is_clean: bool) -> tuple[dict[str, bytes], tuple[bytes, ...]]:
    """Files of a store with six batches, and the batches; unclean: the last four are only in the journal."""
    disk = SimDisk(random.Random(1))
    store = open_store(disk, options=SMALL)
    store.create(WHERE, CONFIG)
    batches = [stamped(WHERE, number, bytes([number]) * 20, time_ms=number) for number in range(6)]
    for number, each in enumerate(batches):
        assert store.append([Append(WHERE, (each,))]) == {}
        sync(store)
        if number == 1 and not is_clean:
            checkpoint(store)
    if is_clean:
        store.close()
    disk.crash("nothing")
    return disk.files(), tuple(bytes_of(each) for each in batches)


def damaged(content: bytes, *, truncations: bool = True) -> Iterator[tuple[str, bytes]]:
    """Every way to flip one bit or to cut the end."""
    for bit in range(len(content) * 8):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit}", bytes(changed)
    if truncations:
        for size in range(len(content)):
            yield f"cut at {size}", content[:size]


def outcome(files: dict[str, bytes]) -> list[bytes] | None:
    """What a reader gets, or None for a named error. Any other exception is a failure."""
    disk = SimDisk.of(files, random.Random(1))
    try:
        store = open_store(disk, options=SMALL)
        store.create(WHERE, CONFIG)
        return read_all(store, WHERE, bytes_max=1 << 20)
    except NAMED:
        return None


def in_use(content: bytes) -> bytes:
    """Without the preallocated zeros."""
    return content.rstrip(b"\0")


@pytest.mark.parametrize("name", ["identity", "checkpoint"])
def test_a_damaged_small_file_is_a_named_error_and_names_itself(name: str) -> None:
    files, _ = directory(is_clean=True)
    path = f"/{ROOT}/{name}"
    for what, content in damaged(files[path]):
        disk = SimDisk.of({**files, path: content}, random.Random(1))
        try:
            open_store(disk, options=SMALL)
        except NAMED as error:
            if name in str(error):
                continue
        pytest.fail(f"{name}: {what} was not noticed")


def test_a_missing_file_is_a_named_error() -> None:
    files, _ = directory(is_clean=True)
    for path in (f"/{ROOT}/identity", f"/{ROOT}/checkpoint", JOURNAL, f"/{ROOT}/journal/1.journal"):
        rest = {each: content for each, content in files.items() if each != path}
        with pytest.raises(CorruptLog, match="missing"):
            open_store(SimDisk.of(rest, random.Random(1)), options=SMALL)
    assert outcome({each: content for each, content in files.items() if each != SEGMENT}) is None


def test_a_damaged_segment_never_gives_a_wrong_record() -> None:
    files, batches = directory(is_clean=True)
    for what, content in damaged(files[SEGMENT]):
        try:
            found = outcome({**files, SEGMENT: content})
        except InvalidRecord:  # noticed by the reader, who checks what the store leaves to it
            continue
        assert found is None, f"{what} was not noticed"
    assert outcome(files) == list(batches)


def test_verification_finds_every_damage_of_a_segment() -> None:
    files, _ = directory(is_clean=True)
    assert verify_directory(SimDisk.of(files, random.Random(1)), ROOT).is_ok
    for what, content in damaged(files[SEGMENT]):
        found = verify_directory(SimDisk.of({**files, SEGMENT: content}, random.Random(1)), ROOT)
        assert not found.is_ok, f"{what} was not noticed"
        assert found.findings[0].file.endswith(".log")


def test_a_damaged_journal_gives_a_prefix_or_a_named_error() -> None:
    files, batches = directory(is_clean=False)
    live = next(path for path in files if path.endswith(".journal") and b"\4" * 20 in files[path])
    content = in_use(files[live])
    refused = 0
    for what, changed in damaged(content):
        found = outcome({**files, live: changed})
        refused += found is None
        assert found is None or found == list(batches[: len(found)]), f"{what} gave a wrong record"
    assert outcome(files) == list(batches)
    assert refused > len(content) * 8 // 2


def test_the_checkpointed_part_survives_any_damage_of_the_journal() -> None:
    files, _ = directory(is_clean=False)
    live = next(path for path in files if path.endswith(".journal") and b"\4" * 20 in files[path])
    for size in range(len(in_use(files[live]))):
        found = outcome({**files, live: files[live][:size]})
        assert found is None or len(found) >= 2


def test_a_damaged_index_is_made_anew() -> None:
    disk = SimDisk(random.Random(1))
    store = open_store(disk)
    store.create(WHERE, CONFIG)
    offset = 0
    while store.state(WHERE).size_bytes < 5 << 16:
        each = stamped(WHERE, offset, bytes(16_000), time_ms=offset)
        store.create(WHERE, type(CONFIG)(segment_bytes=1 << 20))
        assert store.append([Append(WHERE, (each,))]) == {}
        offset += 1
        checkpoint(store)
    store.close()
    files = disk.files()
    path = SEGMENT.removesuffix(".log") + ".index"
    assert len(files[path]) >= 4 * 20
    for what, content in damaged(files[path]):
        fresh = SimDisk.of({**files, path: content}, random.Random(1))
        store = open_store(fresh)
        for wanted in (offset - 1, offset // 2):
            found = store.find_time(WHERE, wanted, offset)
            assert found == (wanted, wanted), what
            assert store.read(WHERE, wanted, offset, 1)[8:16] == wanted.to_bytes(8, "little"), what
        if store.state(WHERE).error:
            raise AssertionError(what)


def test_a_payload_that_holds_a_journal_does_not_pass_for_one() -> None:
    files, _ = directory(is_clean=False)
    forged = in_use(next(content for path, content in files.items() if path.endswith(".journal") and b"\4" * 20 in content))
    disk = SimDisk(random.Random(3))
    store = open_store(disk)
    store.create(WHERE, CONFIG)
    each = stamped(WHERE, 0, forged)
    assert store.append([Append(WHERE, (each,))]) == {}
    sync(store)
    torn = stamped(WHERE, 1, forged)
    assert store.append([Append(WHERE, (torn,))]) == {}
    content = bytearray(disk.files()[JOURNAL])
    content[content.rindex(b"ZQJE", 0, content.rindex(b"ZQ\x01")) - 1] ^= 1
    disk.crash("nothing")
    disk.put(JOURNAL, bytes(content))
    found = open_store(disk)
    assert found.state(WHERE).log_end in {1, 2}


def test_a_torn_tail_is_cut_kept_aside_and_reported() -> None:
    files, batches = directory(is_clean=False)
    live = next(path for path in files if path.endswith(".journal") and b"\5" * 20 in files[path])
    content = bytearray(files[live])
    content[content.rindex(b"\5" * 20)] ^= 1
    disk = SimDisk.of({**files, live: bytes(content)}, random.Random(1))
    store = open_store(disk, options=SMALL)
    store.create(WHERE, CONFIG)
    assert read_all(store, WHERE) == list(batches[:5])
    assert "torn-1" in store.report.torn
    assert b"\5" * 19 in disk.files()["/" + store.report.torn]


def test_a_synced_entry_that_cannot_be_read_is_refused_with_its_place() -> None:
    files, _ = directory(is_clean=False)
    live = next(path for path in files if path.endswith(".journal") and b"\3" * 20 in files[path])
    content = bytearray(files[live])
    at = content.rindex(b"\3" * 20)
    content[at] ^= 1
    with pytest.raises(CorruptLog, match="was synced") as caught:
        open_store(SimDisk.of({**files, live: bytes(content)}, random.Random(1)), options=SMALL)
    assert caught.value.file == live.removeprefix("/")
    assert caught.value.position < at


def test_a_segment_shorter_than_its_checkpoint_puts_only_its_partition_out_of_service() -> None:
    files, batches = directory(is_clean=False)
    other = PartitionId(b"o" * 16, 0)
    disk = SimDisk.of({**files, SEGMENT: files[SEGMENT][:100]}, random.Random(1))
    store = open_store(disk, options=SMALL)
    assert [each for each, _ in store.report.out_of_service] == [WHERE]
    with pytest.raises(CorruptLog):
        store.read(WHERE, 0, 6, 1000)
    store.create(other, CONFIG)
    assert store.append([Append(other, (stamped(other, 0, b"x"),))]) == {}
    assert WHERE in store.append([Append(WHERE, (stamped(WHERE, 6, b"x"),))])
    rescued = [content for path, content in disk.files().items() if path.endswith(".rescue")]
    assert rescued == [b"".join(batches[2:])]
    store.close()
    assert open_store(disk, options=SMALL).state(WHERE).error
