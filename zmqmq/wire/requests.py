"""What a client asks a broker.

Each request is one struct, encoded as a msgpack array that begins with its number. Numbers are never
reused; new fields go at the end and have defaults. ``timeout_ms`` is how long the asker will wait, counted
from the arrival: after it nobody reads the answer.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

PROTOCOL_VERSION = 1
ACKS_ALL = -1

LIST_START = 0
LIST_END = 1
LIST_TIME = 2


class _Request(Struct, frozen=True, array_like=True, gc=False):
    correlation_id: int
    timeout_ms: int


class Hello(_Request, frozen=True, array_like=True, gc=False, tag=1):
    """First on every connection. A non-empty ``cluster_id`` must be the broker's."""

    version_min: int = PROTOCOL_VERSION
    version_max: int = PROTOCOL_VERSION
    client_id: str = ""
    software: str = ""
    cluster_id: str = ""


class GetMetadata(_Request, frozen=True, array_like=True, gc=False, tag=2):
    """Brokers and topics; all topics when ``topics`` is nil."""

    topics: list[str] | None = None
    internal: bool = False


class ProduceEntry(Struct, frozen=True, array_like=True, gc=False):
    """Where one batch goes. ``table_version`` is that of the slot table which chose the partition; 0: none did."""

    topic_id: bytes
    partition: int
    table_version: int = 0


class Produce(_Request, frozen=True, array_like=True, gc=False, tag=3):
    """One payload frame, one batch, per entry, in the same order. ``acks``: 0, 1, or -1 for all."""

    acks: int = ACKS_ALL
    entries: list[ProduceEntry] = []


class FetchEntry(Struct, frozen=True, array_like=True, gc=False):
    """From where to read one partition. ``last_epoch`` is the leader epoch of the record before ``offset``, -1 if
    not known: with it the broker notices that the reader's history is not its own."""

    topic_id: bytes
    partition: int
    offset: int
    last_epoch: int = -1
    bytes_max: int = 1 << 20


class Fetch(_Request, frozen=True, array_like=True, gc=False, tag=4):
    """Whole batches from many partitions. Answered when ``bytes_min`` are there, or after ``wait_ms_max``, or at once
    on an error. At least one batch is sent if there is one, whatever the limits."""

    wait_ms_max: int = 500
    bytes_min: int = 1
    bytes_max: int = 4 << 20
    entries: list[FetchEntry] = []


class OffsetQuery(Struct, frozen=True, array_like=True, gc=False):
    """``kind``: 0 log start, 1 high watermark, 2 the first offset appended at ``time_ms`` or later."""

    topic_id: bytes
    partition: int
    kind: int
    time_ms: int = 0


class ListOffsets(_Request, frozen=True, array_like=True, gc=False, tag=5):
    queries: list[OffsetQuery] = []


class CreateTopic(_Request, frozen=True, array_like=True, gc=False, tag=6):
    """``partitions`` and ``replication_factor`` of 0 take the cluster's defaults."""

    name: str = ""
    partitions: int = 0
    replication_factor: int = 0
    config: dict[str, str] = {}


class DeleteTopic(_Request, frozen=True, array_like=True, gc=False, tag=7):
    name: str = ""


class AlterTopic(_Request, frozen=True, array_like=True, gc=False, tag=8):
    """Settings to set and settings to put back to their defaults."""

    name: str = ""
    set: dict[str, str] = {}
    unset: list[str] = []


class DeleteEntry(Struct, frozen=True, array_like=True, gc=False):
    """Records before ``before_offset`` go; -1 stands for the high watermark."""

    topic_id: bytes
    partition: int
    before_offset: int


class DeleteRecords(_Request, frozen=True, array_like=True, gc=False, tag=9):
    entries: list[DeleteEntry] = []


class GetStats(_Request, frozen=True, array_like=True, gc=False, tag=10):
    """``partitions``: include a row for each partition."""

    partitions: bool = True


class InitProducer(_Request, frozen=True, array_like=True, gc=False, tag=11):
    """A producer id that nobody has had; or, with an id, a new epoch for it."""

    producer_id: int = -1
    producer_epoch: int = 0


class Ping(_Request, frozen=True, array_like=True, gc=False, tag=12):
    pass


class GetCluster(_Request, frozen=True, array_like=True, gc=False, tag=13):
    """The state of the cluster, as the broker that is asked knows it."""


class LeaderMove(Struct, frozen=True, array_like=True, gc=False):
    topic: str
    partition: int
    node_id: int


class MoveLeaders(_Request, frozen=True, array_like=True, gc=False, tag=14):
    """Other leaders, each of them in sync. ``balance``: beside that, every partition back to its first replica that can have it."""

    entries: list[LeaderMove] = []
    balance: bool = False


class ReplicaMove(Struct, frozen=True, array_like=True, gc=False):
    """Where the replicas shall be, the preferred leader first. Empty when a move is cancelled."""

    topic: str
    partition: int
    replicas: list[int] = []


class Reassign(_Request, frozen=True, array_like=True, gc=False, tag=15):
    """Begin to move replicas. ``cancel``: go back instead; all moves that are under way, when no entries are given."""

    entries: list[ReplicaMove] = []
    cancel: bool = False


class DrainBroker(_Request, frozen=True, array_like=True, gc=False, tag=16):
    """Move what the broker leads away, and let it lead nothing until it registers again."""

    node_id: int = -1


class RemoveBroker(_Request, frozen=True, array_like=True, gc=False, tag=17):
    """Forget a broker that is not running and keeps no replicas."""

    node_id: int = -1


class GetEvents(_Request, frozen=True, array_like=True, gc=False, tag=18):
    """What changed after the event ``after_number`` (-1: all that is still known); all ``kinds`` when it is empty. Answered at once
    when there is something, else after ``wait_ms_max``."""

    after_number: int = -1
    kinds: list[str] = []
    wait_ms_max: int = 0


Request: TypeAlias = (
    Hello
    | GetMetadata
    | Produce
    | Fetch
    | ListOffsets
    | CreateTopic
    | DeleteTopic
    | AlterTopic
    | DeleteRecords
    | GetStats
    | InitProducer
    | Ping
    | GetCluster
    | MoveLeaders
    | Reassign
    | DrainBroker
    | RemoveBroker
    | GetEvents
)
