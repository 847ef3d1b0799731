"""Decisions about the cluster: a request and an image in, records or a named error out. Nothing changes here.

``Controller`` adds the overlay: decisions see the committed image plus the records that are on their way
into the log; everybody else sees the committed image only. When an append fails, the overlay is dropped.
"""

from __future__ import annotations

import difflib
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from zmqmq.errors import InvalidConfig, LocalProtocolError, Throttled, TopicExists, UnknownTopic, ZmqmqError
from zmqmq.metadata.decisions.decision import Decision
from zmqmq.metadata.decisions.internal import REPLICATION_DEFAULT_MAX, majority
from zmqmq.metadata.decisions.placement import place
from zmqmq.metadata.decisions.settling import Changes, settle
from zmqmq.metadata.image import ClusterImage, PartitionImage, apply
from zmqmq.metadata.records import (
    Assignment,
    BrokerRegistered,
    MetadataRecord,
    ProducerIdsAllocated,
    TopicAltered,
    TopicCreated,
    TopicDeleted,
)
from zmqmq.model import METADATA_PARTITION, PARTITIONS_MAX, check_topic_name
from zmqmq.topic_config import TopicConfig, describe_config, parse_config
from zmqmq.wire.requests import AlterTopic, CreateTopic, DeleteTopic

if TYPE_CHECKING:
    from zmqmq.ports import Random

__all__ = ["PRODUCER_ID_BLOCK", "ClusterLimits", "Controller", "Decision", "unknown_topic"]

TOPIC_ID_BYTES: Final = 16
PRODUCER_ID_BLOCK: Final = 1_000
"""Producer ids reserved by one record; those of a block that were not given out are lost when the broker ends."""
_SIMILAR_MAX: Final = 3
_SIMILAR_CANDIDATES_MAX: Final = 100
"""Names compared; a comparison of long ones takes 0.1 ms, and the loop waits for it."""
_NAMES_LOOKED_AT_MAX: Final = 10_000
_NAME_SHOWN_MAX: Final = 249
"""Characters of a name that are said again; a longer one names no topic."""


class ClusterLimits(Struct, frozen=True):
    """Bounds of what can be created."""

    topics_max: int = 20_000
    partitions_max: int = 100_000
    topic_partitions_max: int = PARTITIONS_MAX


def unknown_topic(name: str, image: ClusterImage) -> UnknownTopic:
    """With the names that are near; looks at a bounded number of them."""
    if len(name) > _NAME_SHOWN_MAX:
        return UnknownTopic(f"topic {name[:_NAME_SHOWN_MAX]!r}… does not exist", hint=f"names have at most {_NAME_SHOWN_MAX} characters")
    names = islice(image.names, _NAMES_LOOKED_AT_MAX)
    near = islice((other for other in names if abs(len(other) - len(name)) <= 2), _SIMILAR_CANDIDATES_MAX)
    similar = difflib.get_close_matches(name, near, n=_SIMILAR_MAX)
    return UnknownTopic(f"topic {name!r} does not exist", similar=similar, hint=f"create it with: zmqmq topic create {name}")


def create_topic(request: CreateTopic, image: ClusterImage, topic_id: bytes, limits: ClusterLimits) -> Decision:
    try:
        name = check_topic_name(request.name)
        if name in image.names:
            return Decision(error=TopicExists(f"topic {name!r} exists", hint="choose another name, or create with exist_ok=True"))
        partition_count = _partition_count(request.partitions, image, limits)
        replica_count = _replica_count(request.replication_factor, image)
        config = _safe_config(request.config, replica_count)
        settings = parse_config(config)
        _check_settings(settings, replica_count)
    except ZmqmqError as error:
        return Decision(error=error)
    partitions = _place(image, partition_count, replica_count, settings)
    return Decision((TopicCreated(topic_id, name, partitions, config),), topic_id)


def alter_topic(request: AlterTopic, image: ClusterImage) -> Decision:
    topic = image.topic(request.name)
    if topic is None:
        return Decision(error=unknown_topic(request.name, image))
    config = {name: text for name, text in topic.config.items() if name not in request.unset} | request.set
    try:
        defaults = describe_config(TopicConfig())
        parse_config({name: defaults.get(name, "") for name in request.unset})
        config = _safe_config(config, max(len(partition.replicas) for partition in topic.partitions))
        settings = parse_config(config)
        _check_settings(settings, max(len(partition.replicas) for partition in topic.partitions))
    except ZmqmqError as error:
        return Decision(error=error)
    if config == topic.config:
        return Decision(topic_id=topic.topic_id)
    # With a lower minimum the in-sync set commits without those who left it, so they must not stay eligible.
    changes = Changes(image.brokers)
    altered = msgspec.structs.replace(topic, config=config, settings=settings)
    for number in range(len(topic.partitions)):
        changes.settle(altered, number)
    return Decision((TopicAltered(topic.topic_id, config), *changes.records), topic.topic_id, unclean=tuple(changes.unclean))


def delete_topic(request: DeleteTopic, image: ClusterImage) -> Decision:
    topic = image.topic(request.name)
    if topic is None:
        return Decision(error=unknown_topic(request.name, image))
    return Decision((TopicDeleted(topic.topic_id),), topic.topic_id)


def _partition_count(asked: int, image: ClusterImage, limits: ClusterLimits) -> int:
    count = asked or 1
    if not 1 <= count <= limits.topic_partitions_max:
        raise InvalidConfig(f"partitions must be 1 to {limits.topic_partitions_max}, got {asked}")
    if len(image.topics) >= limits.topics_max:
        raise InvalidConfig(f"the cluster has {len(image.topics)} topics, the limit is {limits.topics_max}", hint="delete topics")
    if image.partition_count + count > limits.partitions_max:
        raise InvalidConfig(
            f"the cluster has {image.partition_count} partitions, {count} more are over the limit of {limits.partitions_max}",
            hint="delete topics, or ask for fewer partitions",
        )
    return count


def _replica_count(asked: int, image: ClusterImage) -> int:
    brokers = sum(not broker.is_draining for broker in image.brokers.values())
    count = asked or min(REPLICATION_DEFAULT_MAX, brokers)
    if not 1 <= count <= brokers:
        raise InvalidConfig(f"replication factor must be 1 to {brokers}, the number of brokers, got {asked}")
    return count


def _safe_config(config: dict[str, str], replica_count: int) -> dict[str, str]:
    """What was asked for; a topic of several replicas needs a majority of them for a write unless another number was."""
    if replica_count == 1 or "min_insync_replicas" in config:
        return config
    return config | {"min_insync_replicas": str(majority(replica_count))}


def _place(image: ClusterImage, partition_count: int, replica_count: int, settings: TopicConfig) -> list[Assignment]:
    """On brokers that run; where those are too few, on fenced ones too, which take part when they are back."""
    running = {node: broker.rack for node, broker in image.brokers.items() if broker.is_active}
    staying = {node: broker.rack for node, broker in image.brokers.items() if not broker.is_draining}
    placed = place(running if len(running) >= replica_count else staying, partition_count, replica_count, image.partition_count)
    if len(running) >= replica_count:
        return placed
    images = (PartitionImage(each.leader, 0, 0, each.replicas, each.isr, ()) for each in placed)
    settled = (settle(each, image.brokers, settings).partition for each in images)
    return [Assignment(each.replicas, each.isr, each.leader, each.eligible) for each in settled]


def _check_settings(settings: TopicConfig, replica_count: int) -> None:
    if settings.min_insync_replicas > replica_count:
        raise InvalidConfig(f"min_insync_replicas must be 1 to {replica_count}, the number of replicas, got {settings.min_insync_replicas}")


class Controller:
    """The committed image, the overlay, and what comes out of deciding on both.

    Invariant: ``pending`` equals ``committed`` with the records of the open proposals applied, in their order.
    """

    def __init__(self, limits: ClusterLimits, random: Random) -> None:
        self.committed = ClusterImage()
        self.pending = self.committed
        self._open: dict[int, tuple[tuple[MetadataRecord, ...], ClusterImage]] = {}
        """Records of each open proposal, and ``pending`` with them."""
        self._proposal_id = 0
        self._limits = limits
        self._random = random

    def fresh_proposal_id(self) -> int:
        """A number that no other proposal of this process has."""
        self._proposal_id += 1
        return self._proposal_id

    def decide(self, request: CreateTopic | AlterTopic | DeleteTopic) -> Decision:
        match request:
            case CreateTopic():
                return create_topic(request, self.pending, self._fresh_topic_id(), self._limits)
            case AlterTopic():
                return alter_topic(request, self.pending)
            case DeleteTopic():
                return delete_topic(request, self.pending)
        raise LocalProtocolError(f"no decision for {type(request).__name__}")

    def register(self, node_id: int, directory_id: str, endpoint: str) -> Decision:
        return Decision((BrokerRegistered(node_id, directory_id, endpoint),))

    def allocate_producer_ids(self, node_id: int) -> Decision:
        broker = self.pending.brokers.get(node_id)
        if broker is None:
            return Decision(error=Throttled("the broker is not registered yet", retry_after_ms=100))
        end = self.pending.producer_ids_end + PRODUCER_ID_BLOCK
        return Decision((ProducerIdsAllocated(node_id, broker.broker_epoch, end),))

    def on_proposed(self, proposal_id: int, records: tuple[MetadataRecord, ...]) -> None:
        self.pending = apply(self.pending, records)
        self._open[proposal_id] = (records, self.pending)

    def resolve(self, proposal_id: int, records: tuple[MetadataRecord, ...]) -> int:
        """The proposal that a committed entry is. The log may have given up waiting for it, and hands it out as anybody's."""
        first = next(iter(self._open), proposal_id)
        return first if proposal_id not in self._open and self._open and self._open[first][0] == records else proposal_id

    def on_committed(self, proposal_id: int, records: tuple[MetadataRecord, ...]) -> ClusterImage:
        """The next committed image. Replayed records come this way too, without having been proposed."""
        is_next = next(iter(self._open), None) == proposal_id
        _, after = self._open.pop(proposal_id, (records, self.pending))
        if is_next and after.index == self.committed.index + len(records):
            self.committed = after
        else:
            self.committed = apply(self.committed, records)
            self._rebase()
        self._check()
        return self.committed

    def advance_to(self, index: int) -> None:
        """The indexes before this one are taken: by entries that the log wrote for itself, which hold no records."""
        if index > self.committed.index:
            self.committed = msgspec.structs.replace(self.committed, index=index)
            self._rebase()

    def on_refused(self, proposal_id: int) -> None:
        """The proposal is in no log, nor are those after it, whose indexes counted on it: decisions must not see them any more."""
        opened = list(self._open)
        for doomed in opened[opened.index(proposal_id) :] if proposal_id in self._open else ():
            del self._open[doomed]
        self._rebase()
        self._check()

    def on_lost(self) -> None:
        """Somebody else decides now: nothing that was proposed here counts until it is committed."""
        self._open.clear()
        self._rebase()
        self._check()

    def _rebase(self) -> None:
        self.pending = self.committed
        for proposal_id, (records, _) in self._open.items():
            self.pending = apply(self.pending, records)
            self._open[proposal_id] = (records, self.pending)

    def _fresh_topic_id(self) -> bytes:
        while True:
            topic_id = self._random.randbytes(TOPIC_ID_BYTES)
            if topic_id not in self.pending.topics and topic_id != METADATA_PARTITION.topic_id:
                return topic_id

    def _check(self) -> None:
        assert self.committed.index <= self.pending.index
        assert self._open or self.pending is self.committed
