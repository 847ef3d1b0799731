"""What this process took from the machine."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from zmqmq.broker.loop import Usage


def process_usage() -> Usage:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Usage(int((usage.ru_utime + usage.ru_stime) * 1000), _rss_bytes(usage.ru_maxrss))


def _rss_bytes(peak_kib: int) -> int:
    """Resident memory now; its peak where there is no /proc."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak_kib * 1024


def boot_id() -> str:
    """The same as long as the machine is not restarted; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
