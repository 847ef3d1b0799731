"""Whether there is room for more: the store's own limit, and the reserve on the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zmqmq.errors import DiskFull

if TYPE_CHECKING:
    from zmqmq.ports import Clock, Disk

CHECK_MS: Final = 1000
COPIES: Final = 2
"""What is written goes to the journal and to a segment."""
_HINT: Final = "free space, or shorten the retention of topics"


class Room:
    """Asks the disk every ``CHECK_MS``, and before what was written since could have taken the rest above the reserve.

    The journal grows in steps; it may take one more of them out of the reserve.
    """

    def __init__(self, disk: Disk, root: str, clock: Clock, *, bytes_max: int, reserve_bytes: int) -> None:
        self._disk = disk
        self._root = root
        self._clock = clock
        self._bytes_max = bytes_max
        self._reserve_bytes = reserve_bytes
        self._checked_ms = clock.monotonic_ms() - CHECK_MS
        self._left_bytes = 0
        """Above the reserve when the disk was asked, without what was written since."""
        self._is_free = True

    def refusal(self, size: int, used_bytes: int) -> DiskFull | None:
        """Why ``size`` bytes may not be added to ``used_bytes``. Raises OSError, above all when the directory is gone."""
        if 0 <= self._bytes_max < used_bytes + size:
            return DiskFull(f"the store's limit of {self._bytes_max} bytes is reached", hint=_HINT, outcome="not_written")
        now = self._clock.monotonic_ms()
        if now - self._checked_ms >= CHECK_MS or (self._is_free and self._left_bytes < COPIES * size):
            self._checked_ms = now
            self._left_bytes = self._disk.free_bytes(self._root) - self._reserve_bytes
            self._is_free = self._left_bytes >= 0
        if self._is_free:
            return None
        return DiskFull(f"less than the reserve of {self._reserve_bytes} bytes is free on the disk", hint=_HINT, outcome="not_written")

    def wrote(self, size: int) -> None:
        self._left_bytes -= COPIES * size
