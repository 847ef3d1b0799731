"""The simulated disk loses, tears and fails as a real one may, and the same way each time."""

from __future__ import annotations

import errno
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqmq.testing.sim.disk import LOSSES, DiskFaults, Fault, PowerCut, SimDisk
from zmqmq.testing.sim.disk_faults import RATES, FaultSwarm
from zmqmq.testing.sim.disk_pages import PAGE_BYTES, Pages

CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 3 * PAGE_BYTES), st.integers(0, 2 * PAGE_BYTES)),
        st.tuples(st.just("resize"), st.integers(0, 5 * PAGE_BYTES), st.just(0)),
    ),
    max_size=12,
)


def a_file(content: bytes = b"", **given):
    """A disk, and an open file on it that is durable with this content."""
    disk = SimDisk(random.Random(7), **given)
    disk.put("f", content)
    return disk, disk.open("f")


def content(disk: SimDisk) -> bytes:
    return disk.files()["/f"]


@given(changes=CHANGES, position=st.integers(0, 5 * PAGE_BYTES), size=st.integers(0, 5 * PAGE_BYTES))
def test_pages_read_as_plain_bytes_would(changes, position: int, size: int) -> None:
    pages, twin = Pages(), bytearray()
    for number, (kind, at, length) in enumerate(changes):
        if kind == "write" and length:
            data = bytes([number + 1]) * length
            pages.write(data, at)
            twin.extend(bytes(max(0, at - len(twin))))
            twin[at : at + length] = data
        elif kind == "resize":
            pages.resize(at)
            del twin[at:]
            twin.extend(bytes(at - len(twin)))
    assert bytes(pages) == bytes(twin)
    assert pages.read(size, position) == twin[position : position + size]


@given(changes=CHANGES, loss=st.sampled_from(LOSSES), seed=st.integers(0, 1 << 30))
def test_a_power_cut_keeps_what_was_synced_and_mixes_in_only_what_was_written(changes, loss: str, seed: int) -> None:
    disk = SimDisk(random.Random(seed))
    disk.put("f", b"\xff" * PAGE_BYTES)
    file = disk.open("f")
    versions = [content(disk)]
    for number, (kind, at, length) in enumerate(changes):
        if kind == "write":
            file.pwritev([bytes([number + 1]) * length], at)
        else:
            file.truncate(at)
        versions.append(content(disk))
    disk.crash(loss)
    found = content(disk)
    if loss == "all":
        assert found == versions[0]
    elif loss == "nothing":
        assert found == versions[-1]
    else:
        for position in range(0, len(found), 97):
            assert found[position] in {0, *(version[position] for version in versions if position < len(version))}


def test_a_killed_process_loses_its_files_and_locks_and_nothing_else() -> None:
    disk, file = a_file(b"old")
    file.pwritev([b"new"], 0)
    lock = disk.lock("lock")
    disk.kill()
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.pread(1, 0)
    assert not lock.is_held()
    successor = disk.lock("lock")
    lock.close()
    assert successor.is_held()
    assert (content(disk), disk.open_count) == (b"new", 0)
    disk.crash("all")
    assert disk.files() == {"/f": b"old"}


def test_a_failed_sync_marks_clean_what_it_lost_and_the_next_one_says_all_is_well() -> None:
    fates = set()
    for seed in range(40):
        disk = SimDisk(random.Random(seed))
        disk.put("f", b"old!" * PAGE_BYTES)
        file = disk.open("f")
        file.pwritev([b"new!" * PAGE_BYTES], 0)
        disk.faults = [Fault("fdatasync")]
        with pytest.raises(OSError, match="Input/output"):
            file.fdatasync()
        file.fdatasync()
        assert content(disk) == b"new!" * PAGE_BYTES
        disk.kill()
        assert content(disk) == b"new!" * PAGE_BYTES
        if seed % 2:
            disk.drop_memory()
        else:
            disk.crash("nothing")
        found = content(disk)
        fates.add(tuple(found[page * PAGE_BYTES : page * PAGE_BYTES + 4] for page in range(4)))
    assert {b"old!", b"new!"} == {page for fate in fates for page in fate}
    assert len(fates) > 8


def test_who_writes_a_lost_page_again_saves_all_of_it() -> None:
    for seed in range(20):
        disk = SimDisk(random.Random(seed))
        disk.put("f", b"old!" * 1024)
        file = disk.open("f")
        file.pwritev([b"new!"], 0)
        disk.faults = [Fault("fdatasync")]
        with pytest.raises(OSError, match="Input/output"):
            file.fdatasync()
        file.pwritev([b"more"], 4)
        file.fdatasync()
        disk.crash("all")
        assert content(disk) == b"new!more" + b"old!" * 1022


@pytest.mark.parametrize("call", ["create", "rename", "unlink"])
def test_a_name_is_as_old_as_the_last_sync_of_its_directory(call: str) -> None:
    found = set()
    for seed in range(20):
        disk = SimDisk(random.Random(seed))
        disk.put("d/a", b"a")
        if call == "create":
            disk.open("d/b", create=True).close()
        elif call == "rename":
            disk.rename("d/a", "d/b")
        else:
            disk.unlink("d/a")
        assert disk.listdir("d") == {"create": ["a", "b"], "rename": ["b"], "unlink": []}[call]
        disk.crash("prefix" if seed else "all")
        found.add(tuple(disk.listdir("d")))
    assert found == {("a",), {"create": ("a", "b"), "rename": ("b",), "unlink": ()}[call]}


def test_changes_of_names_reach_the_disk_in_order() -> None:
    for seed in range(40):
        disk = SimDisk(random.Random(seed))
        for name in "abcd":
            disk.open(name, create=True).close()
        disk.faults = [Fault("sync_directory")]
        with pytest.raises(OSError, match="Input/output"):
            disk.sync_directory("/")
        disk.crash()
        assert "".join(disk.listdir("/")) in {"", "a", "ab", "abc", "abcd"}


@pytest.mark.parametrize("is_torn", [True, False])
def test_a_write_is_torn_only_where_the_swarm_says_so(is_torn: bool) -> None:
    found = set()
    for seed in range(60):
        disk = SimDisk(random.Random(seed), faults=DiskFaults(torn=float(is_torn)))
        disk.put("f", bytes(PAGE_BYTES))
        file = disk.open("f")
        file.pwritev([b"x" * PAGE_BYTES], 0)
        disk.crash("prefix")
        data = content(disk)
        found.add(tuple(data[at] for at in range(0, PAGE_BYTES, 512)))
    assert (len(found) > 5) == is_torn
    assert is_torn or len(found) == 2


def test_a_fuse_ends_the_process_inside_a_call() -> None:
    lengths = set()
    for seed in range(20):
        disk = SimDisk(random.Random(seed))
        disk.put("f", b"")
        file = disk.open("f")
        disk.fuse = 1
        file.size()
        with pytest.raises(PowerCut):
            file.pwritev([b"x" * 100], 0)
        with pytest.raises(PowerCut):
            disk.exists("f")
        disk.kill()
        lengths.add(len(content(disk)))
    assert len(lengths) > 5


def test_a_full_disk_takes_what_fits_and_recovers_when_it_grows() -> None:
    disk, file = a_file(b"x" * 100, capacity_bytes=150)
    assert file.pwritev([b"y" * 100], 90) == 60
    with pytest.raises(OSError, match="No space"):
        file.pwritev([b"z"], 150)
    with pytest.raises(OSError, match="No space"):
        file.allocate(0, 200)
    assert file.pwritev([b"over"], 10) == 4
    assert disk.free_bytes("/") == 0
    disk.capacity_bytes = 1000
    assert file.pwritev([b"z"], 150) == 1


def test_a_bit_flips_on_the_disk_and_in_memory() -> None:
    disk, file = a_file(bytes(10))
    disk.flip("f", 13)
    assert file.pread(2, 0) == b"\0\x20"
    disk.crash("all")
    assert content(disk)[1] == 0x20
    assert disk.flip_random(lambda path: path == "/g") is None
    path, bit = disk.flip_random(lambda path: path == "/f")
    assert path == "/f"
    assert content(disk) != b"\0\x20" + bytes(8)
    disk.flip(path, bit)
    assert content(disk) == b"\0\x20" + bytes(8)


def use(disk: SimDisk, calls: int = 300) -> list[str]:
    """A little of everything; what came of each call."""
    seen = []
    choice = random.Random(5)
    disk.put("f", bytes(100))
    file = disk.open("f")
    actions = [
        lambda: file.pread(10, 0),
        lambda: file.pwritev([choice.randbytes(50)], choice.randrange(0, 5000)),
        file.fdatasync,
        lambda: file.allocate(0, 100),
        disk.sync_delay_us,
        lambda: disk.sync_directory("/"),
    ]
    for _ in range(calls):
        try:
            seen.append(str(choice.choice(actions)()))
        except OSError as error:
            seen.append(errno.errorcode[error.errno])
    return seen


EVERYTHING = DiskFaults(**dict.fromkeys(RATES, 0.2))


def test_every_class_strikes_and_is_counted_told_and_switched_off() -> None:
    told = []
    disk = SimDisk(random.Random(1), faults=EVERYTHING, on_fault=lambda name, detail: told.append((name, detail)))
    seen = use(disk)
    while disk.maybe_flip() is None:
        pass
    while not disk.swarm.struck["torn"]:
        disk.crash()
    assert all(disk.swarm.struck.values())
    assert disk.swarm.struck == {name: [each for each, _ in told].count(name) for name in RATES}
    assert ("eio_sync", "fdatasync f") in told
    assert {"EIO", "ENOSPC"} < set(seen)
    disk.swarm.is_active = False
    assert not {"EIO", "ENOSPC"} & set(use(disk))


def test_a_fault_that_is_not_allowed_moves_no_other() -> None:
    asked: list[tuple[str, int]] = []

    def outcome(forbidden: tuple[str, int] | None) -> list[str]:
        def decide(name: str, index: int) -> bool:
            asked.append((name, index))
            return (name, index) != forbidden

        disk = SimDisk(random.Random(3), faults=DiskFaults(eio_read=0.1, eio_sync=0.1, enospc=0.1, sync_slow=0.1), decide=decide)
        return use(disk)

    before = outcome(None)
    for each in tuple(asked):  # it grows
        after = outcome(each)
        assert sum(one != other for one, other in zip(before, after, strict=True)) == 1


def test_a_class_that_is_off_moves_no_other() -> None:
    faults = DiskFaults(eio_read=0.1, enospc=0.1)
    before, after = use(SimDisk(random.Random(3), faults=faults)), use(SimDisk(random.Random(3), faults=faults.without("eio_read")))
    changed = [(one, other) for one, other in zip(before, after, strict=True) if one != other]
    assert changed
    assert {one for one, _ in changed} == {"EIO"}


@given(seed=st.integers(0, 1 << 30))
def test_a_swarm_draws_its_classes_and_their_rates(seed: int) -> None:
    faults = DiskFaults.draw(random.Random(seed))
    assert faults == DiskFaults.draw(random.Random(seed))
    for name, (least, greatest) in RATES.items():
        assert getattr(faults, name) == 0 or least <= getattr(faults, name) <= greatest * 1.001
    assert faults.without(*faults.classes).classes == ()
    assert not FaultSwarm(random.Random(1), faults.without(*RATES)).roll("eio_read", "pread", "f")


SCRIPT = """
import random, zlib
from zmqmq.testing.sim.disk import DiskFaults, SimDisk
told = []
faults = DiskFaults(eio_sync=0.3, short_write=0.3, torn=0.3, flip=0.3)
disk = SimDisk(random.Random(9), faults=faults, on_fault=lambda *fault: told.append(fault))
for number in range(200):
    try:
        disk.mkdir(f"d{number % 7}")
        file = disk.open(f"d{number % 7}/{number % 13}", create=True)
        file.pwritev([bytes([number]) * 3000], number * 100)
        file.fdatasync() if number % 3 else disk.sync_directory(f"d{number % 7}")
    except OSError as error:
        told.append(error.errno)
    disk.maybe_flip()
    if number % 20 == 19:
        disk.crash()
print(zlib.crc32(repr((told, disk.files())).encode()))
"""


def test_hash_seeds_change_nothing() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True, timeout=30
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(found) == 1
    assert found != {""}
