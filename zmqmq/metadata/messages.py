"""What brokers and the active controller tell each other: one-way messages that may be lost, late or doubled.

Whoever needs an answer asks again by time; every handler is idempotent. Tags 20 to 39, never reused; new fields
go at the end and have defaults.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from msgspec import Struct

from zmqmq.wire.replies import Fault

HEARTBEAT_MS: Final = 100
"""Between two heartbeats of a broker."""
LEASE_MS: Final = 500
"""A broker leads for so long after it sent a heartbeat that the controller answered."""
FENCE_MS: Final = 600
"""A broker that was silent for so long is fenced; more than LEASE_MS, so that it stopped leading before."""


class RegisterBroker(Struct, frozen=True, array_like=True, tag=20):
    """Broker to controller, repeated until answered. ``incarnation`` is random, one per start of the process.
    ``is_intact``: the memory of the machine outlived the last process, or it stopped cleanly. ``settings`` must be alike in a cluster."""

    node_id: int
    directory_id: str
    incarnation: bytes
    endpoint: str
    control: str
    replication: str
    stream: str
    rack: str
    software: str
    is_intact: bool
    settings: str


class BrokerAccepted(Struct, frozen=True, array_like=True, tag=21):
    """The registration is committed."""

    node_id: int
    incarnation: bytes
    broker_epoch: int


class BrokerRefused(Struct, frozen=True, array_like=True, tag=22):
    """Why not; a retriable fault means that the broker should go on asking."""

    node_id: int
    incarnation: bytes
    fault: Fault


class Heartbeat(Struct, frozen=True, array_like=True, tag=23):
    """Broker to controller, every HEARTBEAT_MS. ``applied_index``: the next index that it will apply. ``wants_stop``: let it go.
    ``offline``: why it can write nothing any more, empty when all is well. ``sent_ms`` is its own clock's."""

    node_id: int
    broker_epoch: int
    sent_ms: int
    applied_index: int
    wants_stop: bool = False
    offline: str = ""


class HeartbeatReply(Struct, frozen=True, array_like=True, tag=24):
    """Renews the lease up to ``sent_ms`` + LEASE_MS unless ``is_fenced``. ``may_stop``: nobody will miss it."""

    node_id: int
    broker_epoch: int
    sent_ms: int
    controller_epoch: int
    is_fenced: bool
    may_stop: bool


class PartitionProposal(Struct, frozen=True, array_like=True):
    """A leader asks for this in-sync set, as (node id, broker epoch), if both epochs are still what it knows."""

    topic_id: bytes
    partition: int
    leader_epoch: int
    partition_epoch: int
    isr: list[tuple[int, int]]


class AlterPartitions(Struct, frozen=True, array_like=True, tag=25):
    """Leader to controller, repeated until the image shows the change or it is refused."""

    node_id: int
    broker_epoch: int
    changes: list[PartitionProposal]


class PartitionRefusal(Struct, frozen=True, array_like=True):
    """``partition_epoch`` is that of the proposal."""

    topic_id: bytes
    partition: int
    partition_epoch: int
    fault: Fault


class PartitionsRefused(Struct, frozen=True, array_like=True, tag=26):
    """Controller to leader: these will not be committed."""

    node_id: int
    refusals: list[PartitionRefusal]


class Forward(Struct, frozen=True, array_like=True, tag=27):
    """A client's request that the controller must decide; ``number`` is the sender's."""

    node_id: int
    number: int
    frames: list[bytes]


class Forwarded(Struct, frozen=True, array_like=True, tag=28):
    """The reply to ``number``, for the client."""

    node_id: int
    number: int
    frames: list[bytes]
    index: int = 0
    """Say it to the client when this index is applied: it may look at once for what it asked for."""


ControlMessage: TypeAlias = (
    RegisterBroker | BrokerAccepted | BrokerRefused | Heartbeat | HeartbeatReply | AlterPartitions | PartitionsRefused | Forward | Forwarded
)
