"""The answer to a stats request: what monitor, metrics and lag read. Counters count from the start of the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from zmqmq import __version__
from zmqmq.broker.dispatch import Now
from zmqmq.broker.partitions import Logs, Partitions
from zmqmq.errors import ZmqmqError
from zmqmq.model import PartitionId
from zmqmq.wire.replies import PartitionStats, StatsReply, Summary

if TYPE_CHECKING:
    from zmqmq.metadata.image import TopicImage
    from zmqmq.wire.requests import GetStats


REPLIES_DROPPED: Final = "RepliesDropped"
"""Counted among the errors: replies to peers that were gone, or that did not read theirs."""


class Gauges(Struct, frozen=True):
    """What the shell measures."""

    fetch: Summary = Summary()
    sync: Summary = Summary()
    disk_free_bytes: int = -1
    journal_bytes: int = 0
    checkpoints: int = 0
    cpu_ms: int = 0
    rss_bytes: int = 0
    replies_dropped: int = 0


def stats_reply(
    request: GetStats,
    now: Now,
    partitions: Partitions,
    logs: Logs,
    gauges: Gauges,
    *,
    node_id: int,
    cluster_id: str,
    uptime_ms: int,
    connections: int,
    requests: dict[str, int],
    errors: dict[str, int],
    produce: Summary,
) -> StatsReply:
    leaders = list(partitions)
    return StatsReply(
        request.correlation_id,
        node_id=node_id,
        cluster_id=cluster_id,
        software=f"zmqmq/{__version__}",
        uptime_ms=uptime_ms,
        time_ms=now.wall_ms,
        topics=len(partitions.image.topics),
        partitions_led=sum(p.leader == node_id for topic in partitions.image.topics.values() for p in topic.partitions),
        connections=connections,
        requests=requests,
        errors={**errors, REPLIES_DROPPED: gauges.replies_dropped} if gauges.replies_dropped else errors,
        messages_in=sum(leader.messages_in for leader in leaders),
        bytes_in=sum(leader.bytes_in for leader in leaders),
        messages_out=sum(leader.messages_out for leader in leaders),
        bytes_out=sum(leader.bytes_out for leader in leaders),
        produce=produce,
        fetch=gauges.fetch,
        sync=gauges.sync,
        disk_free_bytes=gauges.disk_free_bytes,
        journal_bytes=gauges.journal_bytes,
        checkpoints=gauges.checkpoints,
        cpu_ms=gauges.cpu_ms,
        rss_bytes=gauges.rss_bytes,
        offline=partitions.offline,
        partitions=_rows(partitions, logs) if request.partitions else [],
    )


def _rows(partitions: Partitions, logs: Logs) -> list[PartitionStats]:
    return [_row(partitions, logs, topic, number) for topic in partitions.image.topics.values() for number in range(len(topic.partitions))]


def _row(partitions: Partitions, logs: Logs, topic: TopicImage, number: int) -> PartitionStats:
    partition = PartitionId(topic.topic_id, number)
    image = topic.partitions[number]
    leader = partitions.opened(partition)
    try:
        state = logs.state(partition)
    except ZmqmqError as raised:
        return PartitionStats(
            topic.name, number, -1, -1, -1, 0, image.leader, image.leader_epoch, list(image.isr), list(image.replicas), error=str(raised)
        )
    return PartitionStats(
        topic=topic.name,
        partition=number,
        log_start=state.log_start if leader is None else leader.log_start,
        high_watermark=state.synced_end if leader is None else leader.high_watermark,
        log_end=state.log_end if leader is None else leader.log_end,
        size_bytes=state.size_bytes,
        leader=image.leader,
        leader_epoch=image.leader_epoch,
        isr=list(image.isr),
        replicas=list(image.replicas),
        last_append_ms=state.last_append_ms,
        messages_in=0 if leader is None else leader.messages_in,
        bytes_in=0 if leader is None else leader.bytes_in,
        messages_out=0 if leader is None else leader.messages_out,
        bytes_out=0 if leader is None else leader.bytes_out,
        error=state.error,
    )
