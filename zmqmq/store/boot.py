"""Whether what was written but not synced can be missing: the machine's boot id, kept beside the data.

The page cache outlives a process but not the machine's memory. A directory that was last open in the present boot, or that was closed
cleanly, holds all that was ever written to it, unless something was missing before and nobody was told yet: that stays noted until
``note_told``. The boot id itself needs no sync: after a power cut it is gone, or names an older boot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zmqmq.store.files import disk_error, read_file, replace_file
from zmqmq.store.layout import join

if TYPE_CHECKING:
    from zmqmq.ports import Disk

BOOT: Final = "boot"
_LOST: Final = b"lost"
_BYTES_MAX: Final = 256


def is_intact(disk: Disk, root: str, boot_id: str, *, was_clean: bool, is_fresh: bool) -> bool:
    """Whether nothing can be missing that was ever written. An empty ``boot_id`` is not known. Raises DiskFull, LogOffline."""
    path = join(root, BOOT)
    try:
        noted = read_file(disk, path, _BYTES_MAX) if disk.exists(path) else b""
        has_all = is_fresh or (noted != _LOST and (was_clean or (bool(boot_id) and noted == boot_id.encode())))
        if not has_all and noted != _LOST:
            replace_file(disk, path, _LOST)
    except OSError as error:
        raise disk_error(error, f"writing {path}") from error
    return has_all


def note_told(disk: Disk, root: str, boot_id: str) -> None:
    """Who relies on this directory knows what may be missing: from now on it is whole. Raises DiskFull, LogOffline."""
    try:
        replace_file(disk, join(root, BOOT), boot_id.encode())
    except OSError as error:
        raise disk_error(error, f"writing {join(root, BOOT)}") from error
