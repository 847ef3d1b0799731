"""Every bound of a broker, with its unit. What a client has to know of them travels in the handshake."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from zmqmq.metadata.controller import ClusterLimits
from zmqmq.model import BATCH_BYTES_MAX, FRAME_BYTES_MAX, PARTITIONS_MAX
from zmqmq.wire.replies import Limits

RETRY_AFTER_MS: Final = 50
"""How long a throttled client is asked to wait."""
CONNECTION_IDLE_MS: Final = 60_000
"""A connection silent for so long makes room for a new one when there are too many."""


class BrokerLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """Legal values stand beside each; ``config`` checks them."""

    connections_max: int = 10_000  # 1 to 1,000,000
    in_flight_bytes_max: int = 16 << 20  # of one connection; 4 MiB to 1 GiB: at least one batch fits
    in_flight_bytes_total_max: int = 256 << 20  # of all connections; not below in_flight_bytes_max
    entries_max: int = 4096  # partitions in one request; 1 to 65,536
    fetch_wait_ms_max: int = 30_000  # 1 to 3,600,000
    fetches_waiting_max: int = 100_000  # of all connections; 1 to 1,000,000
    connection_fetches_waiting_max: int = 256  # 1 to 65,536
    entries_waiting_max: int = 200_000  # partitions in waiting fetches of all connections; 1 to 10,000,000; some 300 bytes each
    connection_entries_waiting_max: int = 20_000  # of one connection; not below entries_max
    topics_max: int = 20_000  # 1 to 1,000,000
    partitions_max: int = 100_000  # 1 to 1,000,000
    topic_partitions_max: int = PARTITIONS_MAX  # 1 to 1,024

    def told(self) -> Limits:
        """As the handshake tells them."""
        return Limits(
            batch_bytes_max=BATCH_BYTES_MAX,
            frame_bytes_max=FRAME_BYTES_MAX,
            in_flight_bytes_max=self.in_flight_bytes_max,
            fetch_wait_ms_max=self.fetch_wait_ms_max,
            entries_max=self.entries_max,
        )

    def cluster(self) -> ClusterLimits:
        return ClusterLimits(self.topics_max, self.partitions_max, self.topic_partitions_max)
