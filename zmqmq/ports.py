"""What the product needs from the world, as narrow interfaces: time, chance, files, messages.

Shells get the real ones (``store.disk``, ``transport``); the simulator puts its own underneath.
Every call of ``Disk`` and ``File`` is one system call: it may raise ``OSError``, and a write may be
short. Nothing here retries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Buffer: TypeAlias = bytes | bytearray | memoryview


class Clock(Protocol):
    """Two clocks: one for people, one for waiting."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970 UTC. May jump either way."""

    def wall_ns(self) -> int:
        """The same in nanoseconds."""

    def monotonic_ms(self) -> int:
        """Milliseconds since some start. Never goes back."""

    def monotonic_us(self) -> int:
        """The same in microseconds."""


class Random(Protocol):
    """A source of chance; ``random.Random`` fits."""

    def random(self) -> float: ...

    def randbytes(self, n: int, /) -> bytes: ...

    def randrange(self, start: int, stop: int, /) -> int: ...


class File(Protocol):
    """An open file. Owned by who opened it; calls from one thread at a time, but for ``fdatasync``,
    which may run in another thread while the owner reads and writes."""

    def pread(self, size: int, position: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end of the file (or by a signal)."""

    def pwritev(self, buffers: Sequence[Buffer], position: int) -> int:
        """Write the buffers one after the other; the number of bytes written, possibly short."""

    def fdatasync(self) -> None:
        """Data, and the size needed to read it, are on disk when this returns. After an error: unknown for good."""

    def truncate(self, size: int) -> None: ...

    def allocate(self, position: int, size: int) -> None:
        """Reserve space, extending the file with zeros."""

    def size(self) -> int: ...

    def close(self) -> None: ...


class Lock(Protocol):
    """An exclusive lock on a file, released by ``close`` or by the end of the process. It excludes nobody any more
    once its file was removed or replaced."""

    def is_held(self) -> bool:
        """Whether the file at the lock's path still is the one that is locked. From any thread."""

    def close(self) -> None: ...


class Disk(Protocol):
    """A file system. Paths are ``/``-separated strings. Names made, renamed or removed are on disk only
    after ``sync_directory`` of the directory returned."""

    def open(self, path: str, *, create: bool = False, write: bool = True) -> File:
        """Open for reading, and writing unless ``write`` is false. ``FileNotFoundError`` unless ``create``."""

    def exists(self, path: str) -> bool: ...

    def listdir(self, path: str) -> list[str]:
        """Names in a directory, sorted."""

    def mkdir(self, path: str) -> None:
        """Make a directory and those above it; no error if it exists."""

    def rename(self, source: str, target: str) -> None:
        """Replaces ``target`` atomically."""

    def unlink(self, path: str) -> None: ...

    def rmdir(self, path: str) -> None: ...

    def sync_directory(self, path: str) -> None: ...

    def lock(self, path: str) -> Lock:
        """Take the lock or raise ``BlockingIOError`` at once. Creates the file."""

    def free_bytes(self, path: str) -> int: ...


class Transport(Protocol):
    """A broker's side of its connections. Only ``wait`` blocks."""

    dropped_count: int
    """Replies that found their peer gone, or its queue full."""

    def receive(self, count_max: int, bytes_max: int) -> list[tuple[bytes, list[Buffer]]]:
        """Up to so many messages that wait, and none after so many bytes: the peer's name and the frames."""

    def wait(self, timeout_ms: int) -> None:
        """Until there may be a message, a worker ended, somebody wants attention, or the time is over. Called when ``receive``
        gave nothing, with no other call in between."""

    def send(self, target: bytes, frames: Sequence[Buffer]) -> bool:
        """Hand frames over to the peer named by ``target``. False when it is gone or its queue is full. Frames must not change
        afterwards."""

    @property
    def has_queued(self) -> bool:
        """Something waits for its peer to take it: ``flush`` soon."""

    def flush(self) -> None:
        """Try the peers again that did not take their replies."""

    def take_gone(self) -> list[bytes]:
        """Peers that will read no answer any more, and of whom no message waits."""


class Mesh(Protocol):
    """One-way messages between brokers. Nothing is promised of a message: it may be lost, or come late, and in the simulator also
    twice or out of order. What is lost is lost at once: nothing is kept for a peer that is not connected. Nothing here blocks."""

    dropped_count: int
    """Messages that ``send`` did not take."""

    def set_peers(self, peers: Mapping[int, str]) -> None:
        """Node and address of every broker to send to from now on. Connections to others end; those that stay are kept."""

    def send(self, node: int, frames: Sequence[Buffer]) -> bool:
        """False: dropped, for there is no connection to the node, or too much that it has not taken, or a frame is too large.
        Frames must not change afterwards."""

    def receive(self, count_max: int, bytes_max: int) -> list[list[Buffer]]:
        """Up to so many messages that wait, from anybody, and none after so many bytes."""

    def take_refused(self) -> list[int]:
        """Peers whose connection ended and whose address then refused another: their process is dead. Each end is told once, soon
        after it, or never; it may have been started again since. A peer that is only slow, stopped or cut off is never among them."""


class Stream(Protocol):
    """What each broker publishes for those that follow it. Anything may be lost at any time and nobody is told; of one publisher and
    one key, what arrives is in order. Keys are of one length, for a subscription matches every key that begins with it."""

    dropped_count: int
    """Messages that ``publish`` refused; those that were lost on their way are not known."""

    def publish(self, key: bytes, frames: Sequence[Buffer]) -> bool:
        """To all who subscribed to the key. Never blocks. False: too large for a stream, and dropped for all."""

    def follow(self, publishers: Mapping[int, str]) -> None:
        """Node and address of every broker to listen to from now on."""

    def subscribe(self, node: int, key: bytes) -> None:
        """Take this key of the node, whenever it is followed, until ``unsubscribe``. What was published before is not sent again."""

    def unsubscribe(self, node: int, key: bytes) -> None:
        """What is on its way may still come."""

    def receive(self, count_max: int, bytes_max: int) -> list[list[Buffer]]:
        """As of a mesh; the first frame is the key."""
