"""Any sequence of calls gives the same answers and errors on the real disk and on the simulated one."""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from zmqmq.store.disk import RealDisk
from zmqmq.testing.sim.disk import SimDisk

NAMES = st.sampled_from("abc")
PATHS = st.one_of(NAMES, st.tuples(NAMES, NAMES).map("/".join), st.tuples(NAMES, NAMES, NAMES).map("/".join))
SIZES = st.one_of(st.integers(0, 20), st.integers(4000, 9000))
FILES_MAX = 6


class Twins(RuleBasedStateMachine):
    """Both disks do everything; what they return, or the number of their error, is compared."""

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.mkdtemp()
        self.real, self.simulated = RealDisk(), SimDisk(random.Random(1))
        self.simulated.mkdir("root")
        self.files: list[tuple[object, object]] = []
        self.locks: list[tuple[object, object]] = []

    def teardown(self) -> None:
        for pair in (*self.files, *self.locks):
            for each in pair:
                each.close()
        shutil.rmtree(self.root)

    def both(self, act):
        """Both answers, or None after the same error on both sides."""
        found = []
        for disk, root in ((self.real, self.root), (self.simulated, "root")):
            try:
                found.append(act(disk, root))
            except OSError as error:
                found.append(errno.errorcode[error.errno])
        if isinstance(found[0], str) or isinstance(found[1], str):
            assert found[0] == found[1]
            return None
        return found[0], found[1]

    def same(self, act) -> None:
        found = self.both(act)
        assert found is None or found[0] == found[1]

    @rule(path=PATHS, create=st.booleans(), write=st.booleans())
    def open(self, path: str, create: bool, write: bool) -> None:
        if not write and os.path.isdir(f"{self.root}/{path}"):
            return  # a real one opens a directory for reading; a ``File`` it is not
        pair = self.both(lambda disk, root: disk.open(f"{root}/{path}", create=create, write=write))
        if pair is not None:
            self.files.append(pair)
        if len(self.files) > FILES_MAX:
            for each in self.files.pop(0):
                each.close()

    def on_file(self, which: int, act) -> None:
        if self.files:
            pair = self.files[which % len(self.files)]
            self.same(lambda disk, _: act(pair[disk is self.simulated]))

    @rule(which=st.integers(0, 9), sizes=st.lists(SIZES, max_size=3), position=SIZES, fill=st.integers(1, 255))
    def pwritev(self, which: int, sizes: list[int], position: int, fill: int) -> None:
        self.on_file(which, lambda file: file.pwritev([bytes([fill]) * size for size in sizes], position))

    @rule(which=st.integers(0, 9), size=SIZES, position=SIZES)
    def pread(self, which: int, size: int, position: int) -> None:
        self.on_file(which, lambda file: file.pread(size, position))

    @rule(which=st.integers(0, 9), size=SIZES)
    def truncate(self, which: int, size: int) -> None:
        self.on_file(which, lambda file: file.truncate(size))

    @rule(which=st.integers(0, 9), position=SIZES, size=SIZES.filter(bool))
    def allocate(self, which: int, position: int, size: int) -> None:
        self.on_file(which, lambda file: file.allocate(position, size))

    @rule(which=st.integers(0, 9))
    def fdatasync(self, which: int) -> None:
        self.on_file(which, lambda file: file.fdatasync())

    @rule(which=st.integers(0, 9))
    def size_and_content(self, which: int) -> None:
        self.on_file(which, lambda file: (file.size(), file.pread(1 << 20, 0)))

    @rule(path=PATHS)
    def mkdir(self, path: str) -> None:
        self.same(lambda disk, root: disk.mkdir(f"{root}/{path}"))

    @rule(directory=st.one_of(st.just("."), NAMES), old=NAMES, new=NAMES)
    def rename(self, directory: str, old: str, new: str) -> None:
        self.same(lambda disk, root: disk.rename(f"{root}/{directory}/{old}", f"{root}/{directory}/{new}"))

    @rule(path=PATHS, call=st.sampled_from(["unlink", "rmdir", "sync_directory", "listdir", "exists"]))
    def name_call(self, path: str, call: str) -> None:
        self.same(lambda disk, root: getattr(disk, call)(f"{root}/{path}"))

    @rule(path=PATHS)
    def lock(self, path: str) -> None:
        pair = self.both(lambda disk, root: disk.lock(f"{root}/{path}"))
        if pair is not None:
            self.locks.append(pair)

    @rule()
    def unlock(self) -> None:
        if self.locks:
            for each in self.locks.pop(0):
                each.close()

    @invariant()
    def locks_agree(self) -> None:
        for real, simulated in self.locks:
            assert real.is_held() == simulated.is_held()

    @invariant()
    def names_agree(self) -> None:
        self.same(lambda disk, root: disk.listdir(root))


TestTwins = Twins.TestCase
TestTwins.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
