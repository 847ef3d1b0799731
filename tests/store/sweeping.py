"""Files of about 4 KiB of every kind, each bit of which is flipped and each end cut, seen through a full open.

Run as ``sweep(kind, part, parts)`` in several processes; what it returns has to be empty. For every damage the store has to give what
was written, a prefix of it where the damaged end was never proved to be on disk, or an error with a name; never other data.
"""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import msgspec
from store_world import CONFIG, ROOT, ManualClock, bytes_of, partition, read_all, stamped, sync

from zmqmq.effects import Append
from zmqmq.errors import CorruptLog, InvalidRecord, UnsupportedVersion
from zmqmq.metadata.local import METADATA_CONFIG, LocalLog
from zmqmq.metadata.records import TopicAltered
from zmqmq.model import METADATA_PARTITION
from zmqmq.store import index as index_module
from zmqmq.store.formats import IDENTITY_MAGIC, INDEX_ENTRY_BYTES, open_sealed, seal_file
from zmqmq.store.identity import Identity
from zmqmq.store.store import Store, StoreOptions
from zmqmq.topic_config import TopicConfig

FILE_BYTES = 4096
WHERE = partition(0)
NAMED = (CorruptLog, UnsupportedVersion, InvalidRecord)
OPTIONS = StoreOptions(journal_bytes_max=1 << 16, journal_allocate_bytes=512, disk_reserve_bytes=0)
WRONG_MAX = 10
COPY_BYTES_MAX = 1 << 14
REBUILD_EVERY = 50
INDEXED = TopicConfig(segment_bytes=1 << 30, retention_ms=-1)


class _Node:
    __slots__ = ("content",)

    def __init__(self, content: bytes | bytearray) -> None:
        self.content = content


class LeanFile:
    """Implements ``ports.File``; copies the content when it is first written."""

    __slots__ = ("_node",)

    def __init__(self, node: _Node) -> None:
        self._node = node

    def pread(self, size: int, position: int) -> bytes:
        content = self._node.content
        if size > COPY_BYTES_MAX and type(content) is bytes:
            return memoryview(content)[position : position + size]  # type: ignore[return-value]  # as good as bytes for who reads it
        return bytes(content[position : position + size])

    def pwritev(self, buffers: Sequence[Any], position: int) -> int:
        data = b"".join(buffers)
        content = self._writable()
        if position > len(content):
            content.extend(bytes(position - len(content)))
        content[position : position + len(data)] = data
        return len(data)

    def truncate(self, size: int) -> None:
        content = self._writable()
        del content[size:]
        content.extend(bytes(size - len(content)))

    def allocate(self, position: int, size: int) -> None:
        content = self._writable()
        content.extend(bytes(max(0, position + size - len(content))))

    def fdatasync(self) -> None:
        """Nothing is lost here."""

    def size(self) -> int:
        return len(self._node.content)

    def close(self) -> None:
        """Nothing is open."""

    def _writable(self) -> bytearray:
        content = self._node.content
        if type(content) is not bytearray:
            content = self._node.content = bytearray(content)
        return content


class LeanDisk:
    """Implements ``ports.Disk`` over a dict, without crashes and faults: made in microseconds."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = {path: _Node(content) for path, content in files.items()}
        self._directories = set(_directories_of(tuple(files)))

    def files(self) -> dict[str, bytes]:
        return {path: bytes(node.content) for path, node in self._files.items()}

    def open(self, path: str, *, create: bool = False, write: bool = True) -> LeanFile:
        node = self._files.get(path)
        if node is None:
            if not create:
                raise FileNotFoundError(2, "no such file", path)
            node = self._files[path] = _Node(b"")
        return LeanFile(node)

    def exists(self, path: str) -> bool:
        return path in self._files or path in self._directories

    def listdir(self, path: str) -> list[str]:
        if path not in self._directories:
            raise FileNotFoundError(2, "no such directory", path)
        below = [name[len(path) + 1 :] for name in (*self._files, *self._directories) if name.startswith(path + "/")]
        return sorted({name.partition("/")[0] for name in below})

    def mkdir(self, path: str) -> None:
        while path:
            self._directories.add(path)
            path = path.rpartition("/")[0]

    def rename(self, source: str, target: str) -> None:
        self._files[target] = self._files.pop(source)

    def unlink(self, path: str) -> None:
        del self._files[path]

    def rmdir(self, path: str) -> None:
        self._directories.remove(path)

    def sync_directory(self, path: str) -> None:
        """Nothing is lost here."""

    def lock(self, path: str) -> Any:
        return _LeanLock()

    def free_bytes(self, path: str) -> int:
        return 1 << 40


@cache
def _directories_of(paths: tuple[str, ...]) -> frozenset[str]:
    return frozenset(path[:at] for path in paths for at in range(len(path)) if path[at] == "/")


class _LeanLock:
    def is_held(self) -> bool:
        return True

    def close(self) -> None:
        """Nobody else is there."""


class Kind(NamedTuple):
    """A directory, the file in it that is damaged, and what may be seen then: ``judge`` says what is wrong, or nothing."""

    files: dict[str, bytes]
    path: str
    judge: Callable[[dict[str, bytes], int], str]


def open_lean(files: dict[str, bytes]) -> Store:
    return Store.open(LeanDisk(files), ROOT, clock=ManualClock(), random=random.Random(1), options=OPTIONS)


def filled(*, is_clean: bool) -> tuple[dict[str, bytes], list[bytes]]:
    """A directory with batches of just FILE_BYTES in the segment, or, not closed, in the journal."""
    disk = LeanDisk({})
    store = Store.open(disk, ROOT, clock=ManualClock(), random=random.Random(1), options=OPTIONS)
    store.create(WHERE, CONFIG)
    front = len(bytes_of(stamped(WHERE, 0, b"x"))) - 1
    sizes = [300, 20, 700, 1, 900, 200, 40, 500]
    extra = 80 if not is_clean else 0  # what the journal puts around each
    sizes.append(FILE_BYTES - sum(sizes) - (len(sizes) + 1) * (front + extra) - 40)
    batches = [stamped(WHERE, number, bytes([number + 1]) * size, time_ms=number) for number, size in enumerate(sizes)]
    for each in batches:
        assert store.append([Append(WHERE, (each,))]) == {}
        sync(store)
    if is_clean:
        store.close()
    return disk.files(), [bytes_of(each) for each in batches]


def read_back(files: dict[str, bytes]) -> list[bytes] | None:
    """None: an error with a name."""
    try:
        store = open_lean(files)
        store.create(WHERE, CONFIG)
        return read_all(store, WHERE, bytes_max=1 << 20)
    except NAMED:
        return None


def segment() -> Kind:
    files, batches = filled(is_clean=True)
    assert read_back(files) == batches
    path = next(path for path in files if path.endswith(".log"))
    return Kind(files, path, lambda files, _: "" if read_back(files) is None else "was not noticed")


def journal() -> Kind:
    """All entries but the last are proved to be on disk by the one behind; a cut takes the proof too."""
    files, batches = filled(is_clean=False)
    assert read_back(files) == batches
    path = next(path for path, content in files.items() if path.endswith(".journal") and b"\x02" * 20 in content)
    size = len(files[path])

    def judge(files: dict[str, bytes], at: int) -> str:
        found = read_back(files)
        if found is None or found == batches:
            return ""
        is_cut = len(files[path]) < size
        return "" if found == batches[: len(found)] and (is_cut or len(found) == len(batches) - 1) else f"gave {len(found)} batches"

    return Kind(files, path, judge)


def sealed(name: str, files: dict[str, bytes]) -> Kind:
    def judge(files: dict[str, bytes], _: int) -> str:
        try:
            open_lean(files)
        except NAMED as error:
            return "" if name in str(error) else f"was told as {error}"
        return "was not noticed"

    open_lean(files)
    return Kind(files, next(path for path in files if path.endswith(name)), judge)


def checkpoint() -> Kind:
    disk = LeanDisk({})
    store = Store.open(disk, ROOT, clock=ManualClock(), random=random.Random(1), options=OPTIONS)
    number = 0
    while len(disk.files().get(f"{ROOT}/checkpoint", b"")) < FILE_BYTES - 80:
        where = partition(number)
        store.create(where, CONFIG)
        assert store.append([Append(where, (stamped(where, 0, b"x", producer=number, sequence=0),))]) == {}
        sync(store)
        job = store.begin_checkpoint()
        assert job is not None
        job.run()
        store.end_checkpoint(job)
        number += 1
    store.close()
    return sealed("checkpoint", disk.files())


def identity() -> Kind:
    files, _ = filled(is_clean=True)
    path = f"{ROOT}/identity"
    found = msgspec.json.decode(open_sealed(IDENTITY_MAGIC, files[path], path), type=Identity)
    longer = msgspec.structs.replace(found, cluster_id="c" * (FILE_BYTES - len(files[path])))
    return sealed("identity", {**files, path: seal_file(IDENTITY_MAGIC, msgspec.json.encode(longer))})


def index() -> Kind:
    """A sealed segment as long as 4 KiB of index say, mostly of holes that no lookup visits."""
    batches = [
        stamped(WHERE, number, bytes(index_module.INDEX_INTERVAL_BYTES), time_ms=number * 10)
        for number in range(FILE_BYTES // INDEX_ENTRY_BYTES + 1)
    ]
    disk = LeanDisk({})
    store = Store.open(disk, ROOT, clock=ManualClock(), random=random.Random(1), options=StoreOptions(disk_reserve_bytes=0))
    store.create(WHERE, INDEXED)
    for each in batches:
        assert store.append([Append(WHERE, (each,))]) == {}
        sync(store)
    store.close()
    files = {path: b"" if path.endswith(".journal") else content for path, content in disk.files().items()}  # the checkpoint has it all
    path = next(path for path in files if path.endswith(".index"))
    assert FILE_BYTES - 2 * INDEX_ENTRY_BYTES <= len(files[path]) <= FILE_BYTES
    count = len(files[path]) // INDEX_ENTRY_BYTES

    def judge(files: dict[str, bytes], at: int) -> str:
        store = open_lean(files)
        wanted = min(count, at // INDEX_ENTRY_BYTES) + 1
        for number in (wanted, wanted - 1):
            if store.find_time(WHERE, number * 10, len(batches)) != (number, number * 10):
                return f"time {number * 10} was found elsewhere"
            if struct.unpack_from("<Q", store.read(WHERE, number, len(batches), 1), 8)[0] != number:
                return f"offset {number} was found elsewhere"
        return store.state(WHERE).error

    assert not judge(files, 0)
    return Kind(files, path, judge)


@contextlib.contextmanager
def remembered_rebuilds() -> Iterator[None]:
    """What an index is rebuilt from is never damaged in its sweep, so every REBUILD_EVERY-th rebuild stands for all."""
    make, found, calls = index_module.make, [], 0

    def make_or_remember(*arguments: Any, **more: Any) -> list[Any]:
        nonlocal calls, found
        calls += 1
        if calls % REBUILD_EVERY == 1:
            found = make(*arguments, **more)
        return list(found)

    index_module.make = make_or_remember
    try:
        yield
    finally:
        index_module.make = make


def metadata_log() -> Kind:
    disk = LeanDisk({})
    store = Store.open(disk, ROOT, clock=ManualClock(), random=random.Random(1), options=OPTIONS)
    store.create(METADATA_PARTITION, METADATA_CONFIG)
    log = LocalLog(1, store.state(METADATA_PARTITION), lambda offset, end: store.read(METADATA_PARTITION, offset, end, 1 << 20))
    log.start()
    log.take_events()
    number = 0
    while store.state(METADATA_PARTITION).size_bytes < FILE_BYTES - 200:
        log.append(log.epoch, number, number, (TopicAltered(bytes([number]) * 16, {"retention_ms": str(number)}),))
        assert store.append([Append(METADATA_PARTITION, log.take_batches())]) == {}
        for end in sync(store).values():
            log.on_written()
            log.on_synced(end)
        number += 1
    store.close()
    files = disk.files()

    def records(files: dict[str, bytes]) -> list[Any] | None:
        try:
            store = open_lean(files)
            store.create(METADATA_PARTITION, METADATA_CONFIG)
            log = LocalLog(1, store.state(METADATA_PARTITION), lambda offset, end: store.read(METADATA_PARTITION, offset, end, 1 << 20))
            log.start()
            return list(log.take_events()[0].records)  # type: ignore[union-attr]
        except NAMED:
            return None

    assert len(records(files) or ()) == number
    path = next(path for path in files if path.endswith(".log"))
    return Kind(files, path, lambda files, _: "" if records(files) is None else "was not noticed")


KINDS: dict[str, Callable[[], Kind]] = {make.__name__: make for make in (segment, journal, checkpoint, identity, index, metadata_log)}


@cache
def made(kind: str) -> Kind:
    return KINDS[kind]()


def damages(content: bytes, part: int, parts: int) -> Iterator[tuple[int, str, bytes]]:
    """Every flipped bit and every cut, of the bytes ``part`` modulo ``parts``: where, what, and the content."""
    for at in range(part, len(content), parts):
        for bit in range(8):
            yield at, f"bit {bit} of byte {at}", content[:at] + bytes((content[at] ^ 1 << bit,)) + content[at + 1 :]
        yield at, f"cut at {at}", content[:at]


def sweep(kind: str, part: int, parts: int) -> tuple[int, list[str]]:
    """How many damages were tried, and what was wrong."""
    files, path, judge = made(kind)
    tried, wrong = 0, []
    with remembered_rebuilds() if kind == "index" else contextlib.nullcontext():
        for at, what, content in damages(files[path], part, parts):
            tried += 1
            verdict = judge({**files, path: content}, at)
            if verdict:
                wrong.append(f"{kind}: {what} {verdict}")
                if len(wrong) >= WRONG_MAX:
                    break
    return tried, wrong
