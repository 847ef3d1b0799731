"""Real places for a data directory: an ext4 in a file whose power can be cut, and a small tmpfs. Both need root.

Use them as context managers: what was mounted is unmounted however the block ends, Ctrl-C included.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tools import CALL_SECONDS_MAX, run

SHUTDOWN: Final = 0x8004587D
"""EXT4_IOC_SHUTDOWN."""
LOG_FLUSHED: Final = 1
"""The file system's own journal still reaches the disk: names and sizes without the data that nobody synced."""
LOG_LOST: Final = 2
"""Nothing that was not synced reaches the disk."""
UNMOUNT_SECONDS_MAX: Final = 10.0
_BUSY_PAUSE_SECONDS: Final = 0.002
_STEP_BYTES_MAX: Final = 1 << 22
_STEP_BYTES_MIN: Final = 4096


class Mounted:
    """A mount point ``path`` below ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "mounted"

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True)
        self.mount()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if os.path.ismount(self.path):
            run("umount", "--lazy", self.path)

    def mount(self) -> None:
        raise NotImplementedError

    def unmount(self) -> None:
        """Waits for who still has files open; the killed let go of them only now."""
        deadline = time.monotonic() + UNMOUNT_SECONDS_MAX
        while True:
            found = subprocess.run(["umount", self.path], capture_output=True, text=True, timeout=CALL_SECONDS_MAX, check=False)
            if found.returncode == 0:
                return
            if "busy" not in found.stderr or time.monotonic() > deadline:
                raise OSError(errno.EBUSY, found.stderr.strip(), str(self.path))
            time.sleep(_BUSY_PAUSE_SECONDS)


class Ext4(Mounted):
    """An ext4 on a loop device. ``cut``: from now on every call fails; ``mount_again``: what a restarted machine would find."""

    def __init__(self, directory: Path, *, megabytes: int = 256, options: str = "") -> None:
        super().__init__(directory)
        self._image = directory / "ext4.img"
        self._megabytes = megabytes
        self._options = ",".join(["loop", *([options] if options else [])])
        self.cuts = 0

    def __enter__(self) -> Self:
        with self._image.open("wb") as file:
            file.truncate(self._megabytes << 20)
        run("mkfs.ext4", "-q", "-F", self._image)
        return super().__enter__()

    def mount(self) -> None:
        run("mount", "-t", "ext4", "-o", self._options, self._image, self.path)

    def cut(self, mode: int) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", mode))
        finally:
            os.close(fd)
        self.cuts += 1

    def mount_again(self) -> None:
        self.unmount()
        self.mount()


class SmallDisk(Mounted):
    """A tmpfs that is full at ``size_bytes``."""

    def __init__(self, directory: Path, size_bytes: int) -> None:
        super().__init__(directory)
        self._size_bytes = size_bytes

    def mount(self) -> None:
        run("mount", "-t", "tmpfs", "-o", f"size={self._size_bytes}", "tmpfs", self.path)

    def fill(self) -> Path:
        """A file that takes all that is free."""
        path = self.path / "ballast"
        at, step = 0, _STEP_BYTES_MAX
        with path.open("wb") as file:
            while step >= _STEP_BYTES_MIN:
                try:
                    os.posix_fallocate(file.fileno(), at, step)
                    at += step
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    step //= 2
        return path
