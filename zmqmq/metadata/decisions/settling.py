"""The one rule by which a partition follows its brokers: who is in sync, who may be elected, who leads, what has moved.

Every decision about brokers changes what is known of them and then *settles* the partitions that they keep; settling
again changes nothing. Laws, for the partition before and after:

- The in-sync set never becomes empty, and whoever leads is a living member of it.
- A new leader was in the in-sync set before, or eligible; else the choice is flagged as unclean.
- A member is eligible only while the in-sync set is below ``min_insync_replicas``: then nothing is committed, so who
  left holds all that was (KIP-966).
- ``leader_epoch`` rises with each change of leader, ``partition_epoch`` with every change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from zmqmq.metadata.image import NO_LEADER, BrokerImage, ClusterImage, PartitionImage
from zmqmq.metadata.records import PartitionChanged
from zmqmq.model import PartitionId

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping

    from zmqmq.metadata.image import TopicImage
    from zmqmq.topic_config import TopicConfig


class Settled(NamedTuple):
    """``partition`` is the one before, the same object, when nothing changes."""

    partition: PartitionImage
    is_unclean: bool


class _Choice(NamedTuple):
    isr: tuple[int, ...]
    leader: int
    eligible: tuple[int, ...]
    is_unclean: bool = False


def settle(
    before: PartitionImage,
    brokers: Mapping[int, BrokerImage],
    settings: TopicConfig,
    wished: PartitionImage | None = None,
    lost: Container[int] = (),
) -> Settled:
    """The partition as these brokers can keep it.

    ``wished``: replicas, in-sync set, adding and removing as somebody asked for them. ``lost``: brokers that came back
    without the end of their log, which no one may count on.
    """
    now = before if wished is None else wished
    choice = _choose(before, now, brokers, settings, lost)
    replicas, adding, removing = now.replicas, now.adding, now.removing
    if (adding or removing) and _has_moved(choice, now, settings):
        replicas, adding, removing = tuple(n for n in replicas if n not in removing), (), ()
        moved = PartitionImage(before.leader, 0, 0, replicas, tuple(n for n in choice.isr if n in replicas), choice.eligible)
        choice = _choose(before, moved, brokers, settings, lost)._replace(is_unclean=choice.is_unclean)
    after = PartitionImage(
        choice.leader, before.leader_epoch, before.partition_epoch, replicas, choice.isr, choice.eligible, adding, removing
    )
    if after == before:
        return Settled(before, is_unclean=False)
    return Settled(
        msgspec.structs.replace(
            after,
            leader_epoch=before.leader_epoch + (choice.leader != before.leader),
            partition_epoch=before.partition_epoch + 1,
        ),
        choice.is_unclean,
    )


def _choose(
    before: PartitionImage,
    now: PartitionImage,
    brokers: Mapping[int, BrokerImage],
    settings: TopicConfig,
    lost: Container[int],
) -> _Choice:
    holders = [n for n in now.replicas if (n in before.isr or n in before.eligible) and n not in lost]
    trusted = [n for n in now.replicas if n in now.isr and n not in lost]
    isr = _best(trusted, brokers)
    if isr:
        leader = before.leader if before.leader in isr else isr[0]
        return _Choice(tuple(isr), leader, _eligible(holders, isr, settings))
    heirs = _best([n for n in holders if n not in trusted], brokers)
    if heirs:
        return _Choice((heirs[0],), heirs[0], _eligible(holders, heirs[:1], settings))
    alive = _best(now.replicas, brokers) if settings.unclean_election else []
    if alive:
        return _Choice((alive[0],), alive[0], (), is_unclean=bool(holders) or alive[0] not in now.isr)
    waited_for = trusted or holders[:1] or [n for n in now.replicas if n in now.isr]
    revived = _best(waited_for, brokers)
    return _Choice(tuple(waited_for), revived[0] if revived else NO_LEADER, _eligible(holders, waited_for, settings))


def _best(nodes: Iterable[int], brokers: Mapping[int, BrokerImage]) -> list[int]:
    """Those that may lead: who runs and is to stay, or else who runs."""
    running = [n for n in nodes if n in brokers and not brokers[n].is_fenced]
    staying = [n for n in running if not brokers[n].is_draining]
    return staying or running


def _eligible(holders: list[int], isr: list[int], settings: TopicConfig) -> tuple[int, ...]:
    return () if len(isr) >= settings.min_insync_replicas else tuple(n for n in holders if n not in isr)


def _has_moved(choice: _Choice, now: PartitionImage, settings: TopicConfig) -> bool:
    staying = [n for n in choice.isr if n not in now.removing]
    enough = min(settings.min_insync_replicas, len(now.replicas) - len(now.removing))
    return choice.leader != NO_LEADER and len(staying) >= enough and all(n in choice.isr for n in now.adding)


class Changes:
    """Partitions settled one after the other, as records."""

    def __init__(self, brokers: Mapping[int, BrokerImage]) -> None:
        self.records: list[PartitionChanged] = []
        self.unclean: list[PartitionId] = []
        self._brokers = brokers

    def settle(self, topic: TopicImage, number: int, wished: PartitionImage | None = None, lost: Container[int] = ()) -> PartitionImage:
        before = topic.partitions[number]
        after, is_unclean = settle(before, self._brokers, topic.settings, wished, lost)
        if is_unclean:
            self.unclean.append(PartitionId(topic.topic_id, number))
        if after is not before:
            self.records.append(changed(PartitionId(topic.topic_id, number), after))
        return after

    def settle_all(
        self,
        image: ClusterImage,
        concerns: Callable[[PartitionImage], bool],
        lost: Callable[[TopicImage], Container[int]] = lambda _topic: (),
    ) -> None:
        """Every partition that ``concerns`` accepts."""
        for topic in image.topics.values():
            missing = lost(topic)
            for number, partition in enumerate(topic.partitions):
                if concerns(partition):
                    self.settle(topic, number, lost=missing)


def changed(partition: PartitionId, image: PartitionImage) -> PartitionChanged:
    return PartitionChanged(
        partition.topic_id, partition.partition, image.leader, image.leader_epoch, image.partition_epoch,
        image.replicas, image.isr, image.eligible, image.adding, image.removing,
    )  # fmt: skip
