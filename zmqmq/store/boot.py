"""Whether what was written but not synced can be missing: the machine's boot id, kept beside the data.

The page cache outlives a process but not the machine's memory. A directory that was last open in the present boot, or that was closed
cleanly, holds all that was ever written to it. The note itself needs no sync: after a power cut it is gone or names an older boot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zmqmq.store.files import disk_error, read_file, replace_file
from zmqmq.store.layout import join

if TYPE_CHECKING:
    from zmqmq.ports import Disk

BOOT: Final = "boot"
_BYTES_MAX: Final = 256


def note_boot(disk: Disk, root: str, boot_id: str) -> bool:
    """Note the present boot. True if the directory was last open in it. Raises DiskFull, LogOffline."""
    path = join(root, BOOT)
    try:
        before = read_file(disk, path, _BYTES_MAX) if disk.exists(path) else b""
        if before == boot_id.encode() and boot_id:
            return True
        replace_file(disk, path, boot_id.encode())
    except OSError as error:
        raise disk_error(error, f"writing {path}") from error
    return False
