"""What leaders and operators ask for partitions: another in-sync set, other replicas, another leader."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from zmqmq.errors import BrokerUnavailable, Fenced, InvalidConfig, NotEnoughReplicas, NotLeader, UnknownTopic, ZmqmqError
from zmqmq.metadata.decisions.decision import Decision
from zmqmq.metadata.decisions.settling import Changes, changed
from zmqmq.metadata.image import NO_LEADER, ClusterImage, PartitionImage, TopicImage
from zmqmq.metadata.messages import PartitionProposal
from zmqmq.metadata.records import PartitionChanged
from zmqmq.model import PartitionId

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from zmqmq.metadata.image import BrokerImage


class Moving(msgspec.Struct, frozen=True):
    """Replicas on their way: ``left`` of ``adding`` are not in sync yet."""

    topic: str
    partition: int
    adding: tuple[int, ...]
    removing: tuple[int, ...]
    left: tuple[int, ...]


def alter_partition(node_id: int, broker_epoch: int, proposal: PartitionProposal, image: ClusterImage) -> Decision:
    """The in-sync set that the leader proposes, if leader epoch, partition epoch and each member's broker epoch are the image's.

    Whatever comes of it, the partition epoch rises."""
    try:
        topic, before = _asked(node_id, broker_epoch, proposal, image)
        for member, epoch in proposal.isr:
            _check_member(member, epoch, before, image.brokers)
        members = {member for member, _ in proposal.isr}
        if node_id not in members:
            raise InvalidConfig(f"broker {node_id} leads and must be in its own in-sync set")
    except ZmqmqError as error:
        return Decision(error=error)
    changes = Changes(image.brokers)
    wished = msgspec.structs.replace(before, isr=tuple(n for n in before.replicas if n in members))
    changes.settle(topic, proposal.partition, wished)
    if not changes.records:
        # The set as it is: the leader wants a new partition epoch, to void what it proposed before. Without an answer it waits for ever.
        renewed = msgspec.structs.replace(before, partition_epoch=before.partition_epoch + 1)
        changes.records.append(changed(PartitionId(topic.topic_id, proposal.partition), renewed))
    return Decision(tuple(changes.records), topic.topic_id, unclean=tuple(changes.unclean))


def prefer_leaders(image: ClusterImage, count_max: int) -> Decision:
    """Give at most ``count_max`` partitions back to their first replica, where that is in sync and active."""
    records: list[PartitionChanged] = []
    for topic in image.topics.values():
        for number, partition in enumerate(topic.partitions):
            if len(records) == count_max:
                return Decision(tuple(records))
            if _leads_elsewhere(partition, image):
                preferred = msgspec.structs.replace(
                    partition,
                    leader=partition.replicas[0],
                    leader_epoch=partition.leader_epoch + 1,
                    partition_epoch=partition.partition_epoch + 1,
                )
                records.append(changed(PartitionId(topic.topic_id, number), preferred))
    return Decision(tuple(records))


def move_leaders(moves: Mapping[tuple[str, int], int], image: ClusterImage) -> Decision:
    """Let these in-sync replicas of (topic, number) lead. They come first among the replicas, or balancing would undo it."""
    records: list[PartitionChanged] = []
    try:
        for (name, number), node_id in moves.items():
            topic = _topic(name, number, image)
            partition = topic.partitions[number]
            _check_heir(f"partition {number} of {name!r}", partition, node_id, image)
            replicas = (node_id, *(n for n in partition.replicas if n != node_id))
            if (partition.leader, partition.replicas) != (node_id, replicas):
                moved = msgspec.structs.replace(
                    partition,
                    leader=node_id,
                    leader_epoch=partition.leader_epoch + (partition.leader != node_id),
                    partition_epoch=partition.partition_epoch + 1,
                    replicas=replicas,
                )
                records.append(changed(PartitionId(topic.topic_id, number), moved))
    except ZmqmqError as error:
        return Decision(error=error)
    return Decision(tuple(records))


def reassign(plan: Mapping[tuple[str, int], Sequence[int]], image: ClusterImage) -> Decision:
    """Move partitions (topic, number) to these replicas, the first of which is preferred as leader.

    The old replicas stay until the new ones are in sync. A plan for a partition that moves already replaces its target.
    """
    changes = Changes(image.brokers)
    try:
        for (name, number), target in plan.items():
            topic = _topic(name, number, image)
            _check_target(topic, number, target, image)
            changes.settle(topic, number, _towards(topic.partitions[number], tuple(target)))
    except ZmqmqError as error:
        return Decision(error=error)
    return Decision(tuple(changes.records), unclean=tuple(changes.unclean))


def cancel_reassign(name: str, number: int, image: ClusterImage) -> Decision:
    """Back to the replicas that were there before."""
    try:
        partition = _topic(name, number, image).partitions[number]
    except ZmqmqError as error:
        return Decision(error=error)
    if not partition.adding and not partition.removing:
        return Decision()
    return reassign({(name, number): _kept(partition)}, image)


def moving(image: ClusterImage) -> Iterator[Moving]:
    """The reassignments that are not complete."""
    for topic in image.topics.values():
        for number, partition in enumerate(topic.partitions):
            if partition.adding or partition.removing:
                left = tuple(n for n in partition.adding if n not in partition.isr)
                yield Moving(topic.name, number, partition.adding, partition.removing, left)


def _asked(node_id: int, broker_epoch: int, proposal: PartitionProposal, image: ClusterImage) -> tuple[TopicImage, PartitionImage]:
    broker = image.brokers.get(node_id)
    if broker is None or broker.broker_epoch != broker_epoch or broker.is_fenced:
        raise Fenced(f"broker {node_id} of epoch {broker_epoch} may not change partitions", hint="it has to register again")
    topic = image.topics.get(proposal.topic_id)
    if topic is None or not 0 <= proposal.partition < len(topic.partitions):
        raise UnknownTopic(f"no partition {proposal.partition} of topic {proposal.topic_id.hex()}")
    partition = topic.partitions[proposal.partition]
    if partition.leader != node_id or partition.leader_epoch != proposal.leader_epoch:
        raise NotLeader(
            f"broker {partition.leader} leads under epoch {partition.leader_epoch}, not {node_id} under {proposal.leader_epoch}"
        )
    if partition.partition_epoch != proposal.partition_epoch:
        raise NotLeader(f"the partition has epoch {partition.partition_epoch}, {proposal.partition_epoch} is past")
    return topic, partition


def _check_member(member: int, epoch: int, partition: PartitionImage, brokers: Mapping[int, BrokerImage]) -> None:
    """Epochs keep a broker that restarted since from being counted for what its last life held."""
    broker = brokers.get(member)
    if member not in partition.replicas:
        raise InvalidConfig(f"broker {member} keeps no replica; the replicas are {list(partition.replicas)}")
    if broker is None or broker.is_fenced:
        raise BrokerUnavailable(f"broker {member} is fenced")
    if broker.broker_epoch != epoch:
        raise BrokerUnavailable(f"broker {member} registered again, its epoch is {broker.broker_epoch}, not {epoch}")
    if broker.is_draining and member not in partition.isr:
        raise BrokerUnavailable(f"broker {member} is draining")


def _leads_elsewhere(partition: PartitionImage, image: ClusterImage) -> bool:
    first = partition.replicas[0]
    if partition.leader in (first, NO_LEADER) or first not in partition.isr or first in partition.removing:
        return False
    broker = image.brokers.get(first)
    return broker is not None and broker.is_active


def _topic(name: str, number: int, image: ClusterImage) -> TopicImage:
    topic = image.topic(name)
    if topic is None:
        raise UnknownTopic(f"topic {name!r} does not exist")
    if not 0 <= number < len(topic.partitions):
        raise UnknownTopic(f"topic {name!r} has partitions 0 to {len(topic.partitions) - 1}, not {number}")
    return topic


def _check_target(topic: TopicImage, number: int, target: Sequence[int], image: ClusterImage) -> None:
    where = f"partition {number} of {topic.name!r}"
    if not target or len(set(target)) != len(target):
        raise InvalidConfig(f"{where}: replicas must be different brokers, at least one, got {list(target)}")
    if len(target) < topic.settings.min_insync_replicas:
        raise InvalidConfig(
            f"{where}: {len(target)} replicas are fewer than its min_insync_replicas of {topic.settings.min_insync_replicas}",
            hint="name more brokers, or lower min_insync_replicas first",
        )
    for node in target:
        broker = image.brokers.get(node)
        if broker is None:
            raise InvalidConfig(f"{where}: broker {node} is not registered")
        if not broker.is_active and node not in topic.partitions[number].replicas:
            raise InvalidConfig(f"{where}: broker {node} is {'fenced' if broker.is_fenced else 'draining'}", hint="name a running broker")


def _check_heir(where: str, partition: PartitionImage, node_id: int, image: ClusterImage) -> None:
    """Whether it may lead. What is only a matter of time is retriable."""
    broker = image.brokers.get(node_id)
    if node_id not in partition.replicas or node_id in partition.removing:
        raise InvalidConfig(
            f"{where}: broker {node_id} keeps no replica that stays; the replicas are {list(partition.replicas)}",
            hint="name one of them, or move a replica there first with: zmqmq cluster reassign",
        )
    if broker is None or not broker.is_active:
        state = "away" if broker is None else "fenced" if broker.is_fenced else "draining"
        raise InvalidConfig(f"{where}: broker {node_id} is {state}", hint="name a running broker; see: zmqmq cluster brokers")
    if node_id not in partition.isr:
        raise NotEnoughReplicas(f"{where}: broker {node_id} is not in sync", hint="wait until it is: zmqmq cluster health -e")


def _kept(partition: PartitionImage) -> tuple[int, ...]:
    return tuple(n for n in partition.replicas if n not in partition.adding)


def _towards(partition: PartitionImage, target: tuple[int, ...]) -> PartitionImage:
    removing = tuple(n for n in partition.replicas if n not in target)
    adding = tuple(n for n in target if n not in _kept(partition))
    return msgspec.structs.replace(partition, replicas=(*target, *removing), adding=adding, removing=removing)
