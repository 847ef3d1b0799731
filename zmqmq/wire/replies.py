"""What a broker answers. Same rules as ``requests``; the numbers are those of the requests.

A result that may fail for one partition alone carries ``error``, nil when all is well.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import Struct, field

from zmqmq.model import BATCH_BYTES_MAX, FRAME_BYTES_MAX, IN_FLIGHT_BATCHES_MAX


class Fault(Struct, frozen=True, array_like=True):
    """An error on its way: ``errors.from_wire`` makes an exception of it."""

    code: int
    message: str
    hint: str = ""
    details: dict[str, Any] = {}


class Limits(Struct, frozen=True, array_like=True):
    """What this broker accepts; a client stays below."""

    batch_bytes_max: int = BATCH_BYTES_MAX
    frame_bytes_max: int = FRAME_BYTES_MAX
    in_flight_bytes_max: int = 16 << 20
    in_flight_batches_max: int = IN_FLIGHT_BATCHES_MAX
    fetch_wait_ms_max: int = 30_000
    entries_max: int = 4096


class _Reply(Struct, frozen=True, array_like=True):
    correlation_id: int


class ErrorReply(_Reply, frozen=True, array_like=True, tag=0):
    """The whole request failed. ``correlation_id`` is 0 when the request could not be read that far."""

    fault: Fault


class HelloReply(_Reply, frozen=True, array_like=True, tag=1):
    version: int
    cluster_id: str
    node_id: int
    software: str
    limits: Limits = field(default_factory=Limits)


class BrokerInfo(Struct, frozen=True, array_like=True):
    """``endpoint`` is empty for an embedded broker that listens nowhere: its clients stay on the connection they have."""

    node_id: int
    endpoint: str
    rack: str = ""


class PartitionInfo(Struct, frozen=True, array_like=True):
    partition: int
    leader: int
    leader_epoch: int
    replicas: list[int]
    isr: list[int]
    error: Fault | None = None


class TopicInfo(Struct, frozen=True, array_like=True):
    """``slot_table`` is empty while the topic uses the initial table. ``config`` holds only what was set."""

    name: str
    topic_id: bytes
    partitions: list[PartitionInfo] = []
    table_version: int = 1
    slot_table: bytes = b""
    config: dict[str, str] = {}
    error: Fault | None = None


class MetadataReply(_Reply, frozen=True, array_like=True, tag=2):
    cluster_id: str
    controller: int
    brokers: list[BrokerInfo]
    topics: list[TopicInfo]


class ProduceResult(Struct, frozen=True, array_like=True, gc=False):
    """The receipt of one batch. ``synced`` <= ``replicas``: in-sync replicas known to hold it on disk, and to hold it."""

    base_offset: int
    leader_epoch: int
    append_time_ms: int
    replicas: int
    synced: int
    error: Fault | None = None


class ProduceReply(_Reply, frozen=True, array_like=True, tag=3):
    results: list[ProduceResult]


class FetchResult(Struct, frozen=True, array_like=True, gc=False):
    """``frames`` of the payload frames belong to this partition, in order; each holds one or more whole batches.
    The first batch may begin before the offset asked for: the reader drops those records."""

    topic_id: bytes
    partition: int
    high_watermark: int
    log_start: int
    leader_epoch: int
    frames: int = 0
    error: Fault | None = None


class FetchReply(_Reply, frozen=True, array_like=True, tag=4):
    """Only partitions that have something to say: batches, an error, or a changed watermark."""

    results: list[FetchResult]


class OffsetResult(Struct, frozen=True, array_like=True, gc=False):
    """``offset`` is the high watermark, and ``time_ms`` -1, when nothing was appended at the time or later."""

    topic_id: bytes
    partition: int
    offset: int
    time_ms: int = -1
    leader_epoch: int = -1
    error: Fault | None = None


class ListOffsetsReply(_Reply, frozen=True, array_like=True, tag=5):
    results: list[OffsetResult]


class TopicReply(_Reply, frozen=True, array_like=True, tag=6):
    """Of CreateTopic and AlterTopic: the topic as it is now."""

    topic: TopicInfo


class DoneReply(_Reply, frozen=True, array_like=True, tag=7):
    """Of DeleteTopic: committed."""


class DeleteResult(Struct, frozen=True, array_like=True, gc=False):
    topic_id: bytes
    partition: int
    log_start: int
    error: Fault | None = None


class DeleteRecordsReply(_Reply, frozen=True, array_like=True, tag=9):
    results: list[DeleteResult]


class Summary(Struct, frozen=True, array_like=True):
    """A distribution since the start of the broker, in microseconds; ``buckets[i]`` counts values below 2**i."""

    count: int = 0
    total_us: int = 0
    max_us: int = 0
    buckets: list[int] = []


class PartitionStats(Struct, frozen=True, array_like=True):
    topic: str
    partition: int
    log_start: int
    high_watermark: int
    log_end: int
    size_bytes: int
    leader: int
    leader_epoch: int
    isr: list[int]
    replicas: list[int]
    last_append_ms: int = -1
    messages_in: int = 0
    bytes_in: int = 0
    messages_out: int = 0
    bytes_out: int = 0
    error: str = ""


class StatsReply(_Reply, frozen=True, array_like=True, tag=10):
    """Counters count from the start of the broker."""

    node_id: int
    cluster_id: str
    software: str
    uptime_ms: int
    time_ms: int
    topics: int
    partitions_led: int
    connections: int
    requests: dict[str, int]
    errors: dict[str, int]
    messages_in: int
    bytes_in: int
    messages_out: int
    bytes_out: int
    produce: Summary
    fetch: Summary
    sync: Summary
    disk_free_bytes: int
    journal_bytes: int
    checkpoints: int
    cpu_ms: int
    rss_bytes: int
    offline: str = ""
    partitions: list[PartitionStats] = []


class InitProducerReply(_Reply, frozen=True, array_like=True, tag=11):
    producer_id: int
    producer_epoch: int


class PingReply(_Reply, frozen=True, array_like=True, tag=12):
    pass


class BrokerStatus(Struct, frozen=True, array_like=True):
    """A registered broker. ``in_sync`` of the ``replicas`` that it keeps are in sync; ``leaders`` of them it leads."""

    node_id: int
    endpoint: str
    control: str
    rack: str
    software: str
    broker_epoch: int
    is_fenced: bool
    is_draining: bool
    leaders: int
    replicas: int
    in_sync: int


class PartitionStatus(Struct, frozen=True, array_like=True):
    """Who keeps a partition; ``adding`` and ``removing`` are empty unless its replicas move."""

    topic: str
    partition: int
    leader: int
    leader_epoch: int
    replicas: list[int]
    isr: list[int]
    min_insync: int
    adding: list[int] = []
    removing: list[int] = []


class ClusterReply(_Reply, frozen=True, array_like=True, tag=13):
    """``node_id`` is the broker that answers, ``metadata_index`` how far it has come; ``controller`` is -1 when it knows of none.

    ``under_replicated``, ``under_min``, ``leaderless``, ``moving`` and ``not_preferred`` (led by another than the first replica) are
    numbers of partitions. ``troubled`` lists those of the first three kinds, ``reassigning`` those that move, the first ones each.
    """

    cluster_id: str
    node_id: int
    controller: int
    controller_epoch: int
    metadata_index: int
    voters: list[int]
    observers: list[int]
    brokers: list[BrokerStatus]
    topics: int
    partitions: int
    under_replicated: int
    under_min: int
    leaderless: int
    moving: int
    not_preferred: int
    troubled: list[PartitionStatus] = []
    reassigning: list[PartitionStatus] = []


class ChangedReply(_Reply, frozen=True, array_like=True, tag=14):
    """Of MoveLeaders, Reassign, DrainBroker and RemoveBroker: committed. So many partitions changed, the first ones as they are now."""

    count: int
    partitions: list[PartitionStatus] = []


class Event(Struct, frozen=True, array_like=True):
    """Something that changed in the cluster. ``number`` is the metadata index at which it was seen, so that numbers mean the same
    on every broker; several events may share one. ``topic`` is empty, ``partition`` and ``node_id`` are -1, where they say nothing."""

    number: int
    time_ms: int
    kind: str
    topic: str = ""
    partition: int = -1
    node_id: int = -1
    text: str = ""


class EventsReply(_Reply, frozen=True, array_like=True, tag=18):
    """In order. All events after ``known_after`` are still known; ask next for those after ``last_number``."""

    node_id: int
    known_after: int
    last_number: int
    events: list[Event] = []


Reply: TypeAlias = (
    ErrorReply
    | HelloReply
    | MetadataReply
    | ProduceReply
    | FetchReply
    | ListOffsetsReply
    | TopicReply
    | DoneReply
    | DeleteRecordsReply
    | StatsReply
    | InitProducerReply
    | PingReply
    | ClusterReply
    | ChangedReply
    | EventsReply
)
