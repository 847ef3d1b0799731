"""The simulated disk and the real one keep the same contract."""

from __future__ import annotations

import random

import pytest

from zmqmq.store.disk import RealDisk
from zmqmq.testing.sim.disk import SimDisk


@pytest.fixture(params=["real", "simulated"])
def place(request, tmp_path):
    """A disk and a directory on it."""
    if request.param == "real":
        return RealDisk(), str(tmp_path / "a" / "b")
    return SimDisk(random.Random(1)), "a/b"


def test_files_hold_what_was_written(place) -> None:
    disk, root = place
    disk.mkdir(root)
    disk.mkdir(root)
    file = disk.open(f"{root}/f", create=True)
    assert file.pwritev([b"ab", memoryview(b"cd")], 3) == 4
    assert file.pread(100, 0) == b"\0\0\0abcd"
    assert file.pread(2, 100) == b""
    file.truncate(4)
    assert (file.size(), file.pread(9, 0)) == (4, b"\0\0\0a")
    file.allocate(4, 10)
    assert file.size() == 14
    file.allocate(0, 2)
    assert file.size() == 14
    file.fdatasync()
    file.close()
    file.close()
    again = disk.open(f"{root}/f", write=False)
    assert again.size() == 14
    again.close()


def test_names_are_made_moved_and_removed(place) -> None:
    disk, root = place
    disk.mkdir(root)
    for name in ("b", "a"):
        disk.open(f"{root}/{name}", create=True).close()
    assert disk.listdir(root) == ["a", "b"]
    disk.rename(f"{root}/a", f"{root}/b")
    assert disk.listdir(root) == ["b"]
    disk.sync_directory(root)
    with pytest.raises(OSError, match="not empty"):
        disk.rmdir(root)
    disk.unlink(f"{root}/b")
    disk.rmdir(root)
    assert not disk.exists(root)


def test_what_is_missing_or_of_another_kind_is_said_in_the_same_words(place) -> None:
    disk, root = place
    disk.mkdir(root)
    for action in (disk.open, disk.unlink, disk.listdir, disk.sync_directory, disk.rmdir):
        with pytest.raises(FileNotFoundError):
            action(f"{root}/missing")
    with pytest.raises(FileNotFoundError):
        disk.rename(f"{root}/missing", f"{root}/x")
    with pytest.raises(IsADirectoryError):
        disk.open(root)
    disk.open(f"{root}/f", create=True).close()
    with pytest.raises(NotADirectoryError):
        disk.listdir(f"{root}/f")


def test_an_open_file_outlives_its_name(place) -> None:
    disk, root = place
    disk.mkdir(root)
    file = disk.open(f"{root}/f", create=True)
    disk.unlink(f"{root}/f")
    assert file.pwritev([b"x"], 0) == 1
    assert file.pread(1, 0) == b"x"
    file.close()


def test_a_lock_is_exclusive_until_it_is_closed(place) -> None:
    disk, root = place
    disk.mkdir(root)
    lock = disk.lock(f"{root}/lock")
    with pytest.raises(BlockingIOError):
        disk.lock(f"{root}/lock")
    lock.close()
    lock.close()
    disk.lock(f"{root}/lock").close()
    assert disk.free_bytes(root) > 0


def test_a_lock_whose_file_was_removed_or_replaced_is_held_no_more(place) -> None:
    disk, root = place
    disk.mkdir(root)
    lock = disk.lock(f"{root}/lock")
    assert lock.is_held()
    disk.unlink(f"{root}/lock")
    assert not lock.is_held()
    successor = disk.lock(f"{root}/lock")
    assert successor.is_held()
    assert not lock.is_held()
    lock.close()
    assert successor.is_held()
    disk.unlink(f"{root}/lock")
    disk.rmdir(root)
    assert not successor.is_held()
    successor.close()
