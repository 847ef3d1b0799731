"""Files and directories of the simulated disk: what is promised, what is kept, and what a power cut makes of it.

A file has two versions: ``content`` is what processes see, ``durable`` what the disk holds. Between them are the
``unsynced`` changes in their order, and the *dirty* pages. A sync writes dirty pages back whole. One that fails marks
them clean all the same, as Linux does: some of them reached the disk, the others are *lost*, which means that they are
seen until memory is dropped or the power goes, and no later sync writes them unless somebody dirties them again.

A directory's changes of names are atomic, one by one, and reach the disk in order. A sync of it that fails leaves them
pending: a file system's journal does not forget.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from msgspec import Struct

from zmqmq.testing.sim.disk_pages import PAGE_BYTES, Pages, page_range

if TYPE_CHECKING:
    import random

Loss: TypeAlias = Literal["all", "prefix", "pages", "nothing"]
"""Of what is unsynced at a power cut: gone; kept up to some change; any subset of pages kept; nothing is gone."""
LOSSES: Final[tuple[Loss, ...]] = ("all", "prefix", "pages", "nothing")

SECTOR_BYTES: Final = 512
TORN_GRAINS: Final = (1, SECTOR_BYTES, PAGE_BYTES)
"""Where the write that the power cut met may be torn: multiples of one of these."""


class Write(Struct, frozen=True):
    position: int
    data: bytes


class Resize(Struct, frozen=True):
    size: int


Change: TypeAlias = Write | Resize


class FileNode:
    """A file, whatever its names. Compared by identity."""

    __slots__ = ("content", "dirty", "durable", "lost", "unsynced")

    def __init__(self, content: bytes = b"") -> None:
        self.durable = Pages(content)
        self.content = self.durable.copy()
        self.unsynced: list[Change] = []
        self.dirty: dict[int, None] = {}
        self.lost: dict[int, None] = {}

    def write(self, data: bytes, position: int) -> None:
        self.content.write(data, position)
        self.unsynced.append(Write(position, data))
        for page in page_range(position, len(data)):
            self.dirty[page] = None

    def resize(self, size: int) -> None:
        if size < self.content.size:
            if size % PAGE_BYTES:
                self.dirty[size // PAGE_BYTES] = None  # its rest became zeros
            self.lost = {page: None for page in self.lost if page * PAGE_BYTES < size}
        self.content.resize(size)
        self.unsynced.append(Resize(size))

    def sync(self) -> None:
        if self.unsynced:
            self._sync_sizes()
            for page in self.dirty:
                self.durable.take(page, self.content)
                self.lost.pop(page, None)
            self._clean()

    def fail_sync(self, random: random.Random) -> None:
        """Some dirty pages reach the disk and all become clean. The sizes do, or stay pending."""
        sizes = self._pending_sizes()
        if random.random() < 0.5:
            self._sync_sizes()
            sizes = []
        for page in self.dirty:
            if random.random() < 0.5:
                self.durable.take(page, self.content)
            if self.durable.table.get(page) != self.content.table.get(page):
                self.lost[page] = None
            else:
                self.lost.pop(page, None)
        self._clean()
        self.unsynced.extend(sizes)

    def _pending_sizes(self) -> list[Resize]:
        sizes, size = [], self.durable.size
        for change in self.unsynced:
            end = change.size if isinstance(change, Resize) else max(size, change.position + len(change.data))
            if end != size:
                sizes.append(Resize(end))
            size = end
        return sizes

    def drop_memory(self) -> None:
        """Clean pages leave the page cache; who reads them next gets what is on the disk."""
        for page in [page for page in self.lost if page not in self.dirty]:
            self.content.take(page, self.durable)
        self.lost = {page: None for page in self.lost if page in self.dirty}

    def crash(self, loss: Loss, random: random.Random, *, may_tear: bool) -> None:
        if not self.unsynced and not self.lost:
            return
        if loss == "nothing":
            self.sync()
        elif loss == "prefix":
            self._keep_prefix(random, may_tear=may_tear)
        elif loss == "pages":
            self._keep_pages(random, grain=random.choice((SECTOR_BYTES, PAGE_BYTES)) if may_tear else PAGE_BYTES)
        self.content = self.durable.copy()
        self.lost = {}
        self._clean()

    def _clean(self) -> None:
        self.unsynced = []
        self.dirty = {}

    def _sync_sizes(self) -> None:
        for change in self.unsynced:
            if isinstance(change, Resize):
                self.durable.resize(change.size)
            elif change.data:
                self.durable.size = max(self.durable.size, change.position + len(change.data))

    def _keep_prefix(self, random: random.Random, *, may_tear: bool) -> None:
        count = random.randrange(0, len(self.unsynced) + 1)
        for change in self.unsynced[:count]:
            self._keep(change)
        torn = self.unsynced[count] if count < len(self.unsynced) else None
        if may_tear and isinstance(torn, Write):
            self._tear(torn, random)

    def _keep(self, change: Change) -> None:
        if isinstance(change, Resize):
            self.durable.resize(change.size)
        else:
            self.durable.write(change.data, change.position)

    def _tear(self, torn: Write, random: random.Random) -> None:
        """A write that was under way: up to a multiple of a grain of the file, or any of its sectors."""
        end = torn.position + len(torn.data)
        if random.random() < 0.5:
            grain = random.choice(TORN_GRAINS)
            cut = random.randrange(torn.position, end + 1) // grain * grain
            self.durable.write(torn.data[: max(0, cut - torn.position)], torn.position)
            return
        for start in range(torn.position // SECTOR_BYTES * SECTOR_BYTES, end, SECTOR_BYTES):
            first = max(start, torn.position)
            if random.random() < 0.5:
                self.durable.write(torn.data[first - torn.position : start + SECTOR_BYTES - torn.position], first)

    def _keep_pages(self, random: random.Random, *, grain: int) -> None:
        if random.random() < 0.5:  # the new sizes made it, or they did not
            self._sync_sizes()
        for page in self.dirty:
            for start in range(page * PAGE_BYTES, (page + 1) * PAGE_BYTES, grain):
                if random.random() < 0.5 and start < self.content.size:
                    self.durable.write(self.content.read(grain, start), start)


Names: TypeAlias = "dict[str, FileNode | DirectoryNode]"
Renaming: TypeAlias = Callable[[Names], None]


class DirectoryNode:
    """Names, with what happened to them since the last sync."""

    __slots__ = ("durable", "names", "unsynced")

    def __init__(self) -> None:
        self.durable: Names = {}
        self.names: Names = {}
        self.unsynced: list[Renaming] = []

    def put(self, name: str, node: Node) -> None:
        self._apply(lambda names: names.__setitem__(name, node))

    def remove(self, name: str) -> None:
        self._apply(lambda names: names.__delitem__(name))

    def rename(self, old: str, new: str) -> None:
        self._apply(lambda names: names.__setitem__(new, names.pop(old)))

    def _apply(self, change: Renaming) -> None:
        change(self.names)
        self.unsynced.append(change)

    def sync(self) -> None:
        self._keep(len(self.unsynced))

    def fail_sync(self, random: random.Random) -> None:
        """Some of the changes reached the disk; the others stay pending."""
        self._keep(random.randrange(0, len(self.unsynced) + 1))

    def crash(self, loss: Loss, random: random.Random) -> None:
        if loss == "nothing":
            self.sync()
        elif loss != "all":
            self._keep(random.randrange(0, len(self.unsynced) + 1))
        self.names = dict(self.durable)
        self.unsynced = []

    def _keep(self, count: int) -> None:
        for change in self.unsynced[:count]:
            change(self.durable)
        del self.unsynced[:count]


Node: TypeAlias = FileNode | DirectoryNode
