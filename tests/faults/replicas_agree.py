"""Whether the data directories of stopped brokers hold the same logs: no store is wrong by itself, and none differs from another."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from zmqmq import batch
from zmqmq.clock import SystemClock
from zmqmq.errors import ZmqmqError
from zmqmq.model import METADATA_PARTITION, PartitionId
from zmqmq.store.disk import RealDisk
from zmqmq.store.store import Store, StoreOptions
from zmqmq.store.verify import verify_directory

READ_BYTES: Final = 1 << 20


def disagreements(directories: Sequence[Path]) -> Iterator[str]:
    """One line for each. Opens the directories, which nobody else may have open."""
    for node, directory in enumerate(directories):
        for finding in verify_directory(RealDisk(), str(directory)).findings:
            yield f"node {node}: {finding.severity} in {finding.file} at {finding.position}: {finding.what}"
    logs: dict[PartitionId, list[tuple[int, int, str]]] = {}
    for node, directory in enumerate(directories):
        store = Store.open(RealDisk(), str(directory), clock=SystemClock(), random=random.Random(node), options=StoreOptions())
        try:
            for partition in store.partitions():
                if partition.topic_id != METADATA_PARTITION.topic_id:  # the last entries of a voter that stopped may be its own
                    logs.setdefault(partition, []).append((node, *_summary(store, partition)))
        except ZmqmqError as error:
            yield f"node {node}: {type(error).__name__}: {error}"
        finally:
            store.close()
    for partition, found in logs.items():
        if len({(end, digest) for _, end, digest in found}) > 1:
            yield f"the replicas of {partition} differ: {found}"


def _summary(store: Store, partition: PartitionId) -> tuple[int, str]:
    """Where it ends, and a hash of all that makes a batch what it is."""
    state = store.state(partition)
    digest, offset = hashlib.sha256(), state.log_start
    while offset < state.log_end:
        data = memoryview(store.read(partition, offset, state.log_end, READ_BYTES))
        while data:
            header = batch.parse_header(data)
            digest.update(repr((header.base_offset, header.end_offset, header.leader_epoch)).encode())
            digest.update(data[: header.length])
            data, offset = data[header.length :], header.end_offset
    return state.log_end, digest.hexdigest()[:16]
