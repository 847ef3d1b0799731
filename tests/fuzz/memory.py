"""A file, and a disk with one file, as far as reading needs them."""

from __future__ import annotations

from typing import Any


class MemoryFile:
    """As much of ``ports.File`` as reading needs."""

    def __init__(self, content: bytes | bytearray) -> None:
        self.content = content

    def pread(self, size: int, position: int) -> bytes:
        return bytes(self.content[position : position + size])

    def size(self) -> int:
        return len(self.content)

    def close(self) -> None:
        """Nothing is open."""


class OneFile:
    """As much of ``ports.Disk`` as reading one file needs, whatever its name."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def exists(self, path: str) -> bool:
        return True

    def open(self, path: str, *, create: bool = False, write: bool = True) -> Any:
        return MemoryFile(self._content)
