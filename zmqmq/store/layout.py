"""Where everything lies in a data directory. Names are part of the format: they must not change.

``lock``, ``identity``, ``checkpoint``, ``journal/<0|1>.journal``, and
``logs/<topic id in hex>/<partition>/<20-digit base offset>.log`` with ``.index`` beside it. A deleted
topic is ``logs/<topic id>.deleted`` until the next checkpoint.
"""

from __future__ import annotations

import re
from typing import Final

from zmqmq.model import PartitionId

LOCK: Final = "lock"
IDENTITY: Final = "identity"
CHECKPOINT: Final = "checkpoint"
JOURNAL: Final = "journal"
LOGS: Final = "logs"
ASIDE: Final = ".new"
"""Suffix of a file that is written aside before it replaces the one without."""
DELETED: Final = ".deleted"
RESCUE: Final = ".rescue"
"""Batches from the journal that could not go into their partition's damaged segment."""

LOG_SUFFIX: Final = ".log"
INDEX_SUFFIX: Final = ".index"
_SEGMENT: Final = re.compile(r"(\d{20})\.log")
_TOPIC: Final = re.compile(r"[0-9a-f]{32}")


def join(*parts: str) -> str:
    return "/".join(parts)


def journal_path(root: str, slot: int) -> str:
    return join(root, JOURNAL, f"{slot}.journal")


def topic_directory(root: str, topic_id: bytes) -> str:
    return join(root, LOGS, topic_id.hex())


def partition_directory(root: str, partition: PartitionId) -> str:
    return join(root, LOGS, partition.topic_id.hex(), str(partition.partition))


def segment_path(directory: str, base: int) -> str:
    return f"{directory}/{base:020d}{LOG_SUFFIX}"


def index_path(segment: str) -> str:
    return segment.removesuffix(LOG_SUFFIX) + INDEX_SUFFIX


def segment_base(name: str) -> int | None:
    """The base offset that a segment's file name tells, or None if it is no segment."""
    found = _SEGMENT.fullmatch(name)
    return int(found[1]) if found else None


def topic_of_directory(name: str) -> bytes | None:
    """The topic id of a directory in ``logs``, deleted or not, or None if it is something else."""
    bare = name.removesuffix(DELETED)
    return bytes.fromhex(bare) if _TOPIC.fullmatch(bare) else None


def parent(path: str) -> str:
    return path.rpartition("/")[0] or ("/" if path.startswith("/") else ".")
