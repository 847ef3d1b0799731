"""Which files bits may turn over in: those that nobody will write again, whatever ends the broker.

A newer segment beside it does not make one of them. Of what the journal still holds, recovery writes everything again behind the
checkpoint's end, and rolls where it sees fit: the file that holds this end may grow, shrink, or swallow the segments behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmqmq.model import METADATA_PARTITION
from zmqmq.store.layout import CHECKPOINT, join, partition_directory, segment_base
from zmqmq.store.manifest import decode_manifest
from zmqmq.testing.sim.disk_nodes import FileNode

if TYPE_CHECKING:
    from zmqmq.testing.sim.broker import SimBroker


def sealed_segments(broker: SimBroker) -> list[tuple[str, FileNode]]:
    """Segments of topics that lie before the one where the checkpoint says that their log ends."""
    ends = _active_bases(broker)
    found = []
    for path, node in broker.disk.tree.files():
        directory, _, name = path.rpartition("/")
        base = segment_base(name)
        if base is not None and base < ends.get(directory, 0) and min(node.content.size, node.durable.size):
            found.append((path, node))
    return found


def _active_bases(broker: SimBroker) -> dict[str, int]:
    """By directory. Of the checkpoint that a power cut would leave: any later one only speaks of more."""
    root = broker.config.data
    names = broker.disk.tree.directory(root).durable
    checkpoint = names.get(CHECKPOINT)
    if not isinstance(checkpoint, FileNode):
        return {}
    _, entries = decode_manifest(bytes(checkpoint.durable), join(root, CHECKPOINT))
    return {
        partition_directory(root, entry.partition_id): entry.base for entry, _ in entries if entry.topic_id != METADATA_PARTITION.topic_id
    }
