"""A file's bytes as a table of pages. What nobody wrote takes no room, and a copy shares every page.

Promise: it reads as a plain ``bytearray`` would. Pages are immutable bytes of ``PAGE_BYTES``; a missing one is zeros, and
none holds anything but zeros behind the size. So what a truncation cut never comes back when the file grows again.
"""

from __future__ import annotations

from typing import Final

PAGE_BYTES: Final = 4096
_ZEROS: Final = bytes(PAGE_BYTES)


class Pages:
    """One version of a file: what a process sees, or what the disk holds."""

    __slots__ = ("size", "table")

    def __init__(self, content: bytes = b"") -> None:
        self.size = 0
        self.table: dict[int, bytes] = {}
        if content:
            self.write(content, 0)

    def copy(self) -> Pages:
        other = Pages()
        other.size = self.size
        other.table = self.table.copy()
        return other

    def read(self, size: int, position: int) -> bytes:
        end = min(position + size, self.size)
        if position >= end:
            return b""
        first, at = divmod(position, PAGE_BYTES)
        last = (end - 1) // PAGE_BYTES
        page = self.table.get(first, _ZEROS)
        if first == last:
            return page[at : at + end - position]
        parts = [page[at:]]
        parts.extend([self.table.get(number, _ZEROS) for number in range(first + 1, last)])
        parts.append(self.table.get(last, _ZEROS)[: end - last * PAGE_BYTES])
        return b"".join(parts)

    def write(self, data: bytes, position: int) -> None:
        """Put the bytes there; a gap before them becomes zeros."""
        end = position + len(data)
        if not data:
            return
        table, done = self.table, 0
        number, at = divmod(position, PAGE_BYTES)
        while done < len(data):
            piece = data[done : done + PAGE_BYTES - at]
            if len(piece) < PAGE_BYTES:
                page = table.get(number, _ZEROS)
                piece = b"".join((page[:at], piece, page[at + len(piece) :]))
            table[number] = piece
            done += PAGE_BYTES - at
            number, at = number + 1, 0
        self.size = max(self.size, end)

    def resize(self, size: int) -> None:
        if size < self.size:
            kept, at = divmod(size, PAGE_BYTES)
            for number in [number for number in self.table if number > kept or (number == kept and not at)]:
                del self.table[number]
            if at and kept in self.table:
                self.table[kept] = self.table[kept][:at].ljust(PAGE_BYTES, b"\0")
        self.size = size

    def take(self, number: int, source: Pages) -> None:
        """Make one page what it is in ``source``, as far as this size goes."""
        here = self.size - number * PAGE_BYTES
        page = source.table.get(number)
        if here <= 0 or page is None:
            self.table.pop(number, None)
        else:
            self.table[number] = page if here >= PAGE_BYTES else page[:here].ljust(PAGE_BYTES, b"\0")

    def flip(self, bit: int) -> None:
        """Turn one bit over, counted from the file's first."""
        position = bit // 8
        assert position < self.size
        self.write(bytes([self.read(1, position)[0] ^ (1 << bit % 8)]), position)

    def __bytes__(self) -> bytes:
        return self.read(self.size, 0)

    def __repr__(self) -> str:
        return f"<Pages {self.size} bytes, {len(self.table)} pages>"


def page_range(position: int, size: int) -> range:
    """The pages that ``size`` bytes at ``position`` touch."""
    return range(position // PAGE_BYTES, (position + size + PAGE_BYTES - 1) // PAGE_BYTES) if size else range(0)
