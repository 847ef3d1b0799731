"""What operators ask the controller for, as decisions. Pure.

Law: a request that asks for what is so already decides nothing and is no error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from zmqmq.metadata.decisions import membership, partitions
from zmqmq.metadata.decisions.decision import Decision
from zmqmq.wire.requests import DrainBroker, MoveLeaders, Reassign, RemoveBroker

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zmqmq.metadata.image import ClusterImage
    from zmqmq.metadata.records import MetadataRecord
    from zmqmq.model import PartitionId

OperatorRequest: TypeAlias = MoveLeaders | Reassign | DrainBroker | RemoveBroker


def operate(request: OperatorRequest, image: ClusterImage) -> Decision:
    """``image``: with all that is on its way."""
    match request:
        case MoveLeaders():
            return _move_leaders(request, image)
        case Reassign(cancel=True):
            return _cancel(request, image)
        case Reassign():
            return partitions.reassign({(entry.topic, entry.partition): entry.replicas for entry in request.entries}, image)
        case DrainBroker():
            return membership.drain(request.node_id, image)
        case RemoveBroker():
            return membership.remove(request.node_id, image)


def _move_leaders(request: MoveLeaders, image: ClusterImage) -> Decision:
    """Each partition once: what is named wins over balance."""
    moves = {(entry.topic, entry.partition): entry.node_id for entry in request.entries}
    named = partitions.move_leaders(moves, image)
    if named.error is not None or not request.balance:
        return named
    places = {(topic.topic_id, number) for name, number in moves if (topic := image.topic(name)) is not None}
    balanced = partitions.prefer_leaders(image, image.partition_count).records
    return Decision((*named.records, *_elsewhere(balanced, places)))


def _elsewhere(records: Iterable[MetadataRecord], places: set[tuple[bytes, int]]) -> Iterable[MetadataRecord]:
    return (record for record in records if (getattr(record, "topic_id", b""), getattr(record, "partition", -1)) not in places)


def _cancel(request: Reassign, image: ClusterImage) -> Decision:
    places = {(entry.topic, entry.partition): None for entry in request.entries}
    if not request.entries:
        places = {(move.topic, move.partition): None for move in partitions.moving(image)}
    records: list[MetadataRecord] = []
    unclean: list[PartitionId] = []
    for name, number in places:
        decision = partitions.cancel_reassign(name, number, image)
        if decision.error is not None:
            return decision
        records.extend(decision.records)
        unclean.extend(decision.unclean)
    return Decision(tuple(records), unclean=tuple(unclean))
