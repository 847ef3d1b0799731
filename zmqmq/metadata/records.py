"""The records of the cluster metadata log. ``docs/spec/metadata.md`` has the tables.

A record's value is one byte of version and a msgpack array that begins with the record's type. Types are
never reused; new fields go at the end and have defaults; a new type waits for a feature level that every
broker has. The structs below are a format on disk: they must not change otherwise.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from zmqmq import __version__
from zmqmq.errors import InvalidRecord, UnsupportedVersion
from zmqmq.ports import Buffer

RECORD_VERSION: Final = 1


class BrokerRegistered(Struct, frozen=True, array_like=True, tag=1):
    """A broker opened. Its broker epoch is the index of this record; every partition that it leads gets a new leader
    epoch, so that no (offset, epoch) is ever used for two different records. It is neither fenced nor draining.

    ``endpoint`` is where clients connect; ``replication``, ``stream`` and ``control`` where brokers do. ``settings``
    must be alike in a cluster; ``incarnation`` is random, and new with each start of the process.
    """

    node_id: int
    directory_id: str
    endpoint: str
    rack: str = ""
    software: str = __version__
    replication: str = ""
    stream: str = ""
    control: str = ""
    settings: str = ""
    incarnation: bytes = b""


class Assignment(Struct, frozen=True, array_like=True):
    """Where a new partition lives. ``eligible``: members that may be elected although they left the in-sync set."""

    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    leader: int
    eligible: tuple[int, ...] = ()


class TopicCreated(Struct, frozen=True, array_like=True, tag=2):
    """``config`` holds only what was set; ``slot_table`` is empty while the initial table is used."""

    topic_id: bytes
    name: str
    partitions: list[Assignment]
    config: dict[str, str] = {}
    table_version: int = 1
    slot_table: bytes = b""


class TopicAltered(Struct, frozen=True, array_like=True, tag=3):
    """``config`` replaces the topic's."""

    topic_id: bytes
    config: dict[str, str]


class TopicDeleted(Struct, frozen=True, array_like=True, tag=4):
    topic_id: bytes


class PartitionChanged(Struct, frozen=True, array_like=True, tag=5):
    """The partition's whole state, compare-and-set on the epochs before it was decided. While replicas move,
    ``adding`` and ``removing`` name those of ``replicas`` that come and go."""

    topic_id: bytes
    partition: int
    leader: int
    leader_epoch: int
    partition_epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    eligible: tuple[int, ...] = ()
    adding: tuple[int, ...] = ()
    removing: tuple[int, ...] = ()


class ProducerIdsAllocated(Struct, frozen=True, array_like=True, tag=6):
    """Producer ids below ``end`` are given out, the last block of them to this broker."""

    node_id: int
    broker_epoch: int
    end: int


class FeatureLevelSet(Struct, frozen=True, array_like=True, tag=7):
    name: str
    level: int


class BrokerChanged(Struct, frozen=True, array_like=True, tag=8):
    """Of the registration ``broker_epoch``, else it says nothing. Fenced: it may not lead or be in sync. Draining: it
    leads and is in sync only where nobody else can."""

    node_id: int
    broker_epoch: int
    is_fenced: bool
    is_draining: bool


class BrokerRemoved(Struct, frozen=True, array_like=True, tag=9):
    """The broker left for good; its node id may be used by another data directory."""

    node_id: int


MetadataRecord: TypeAlias = (
    BrokerRegistered
    | TopicCreated
    | TopicAltered
    | TopicDeleted
    | PartitionChanged
    | ProducerIdsAllocated
    | FeatureLevelSet
    | BrokerChanged
    | BrokerRemoved
)

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(MetadataRecord).decode
_VERSION_BYTE: Final = bytes([RECORD_VERSION])


def encode(record: MetadataRecord) -> bytes:
    return _VERSION_BYTE + _encode(record)


def decode(value: Buffer | None) -> MetadataRecord:
    """Raises UnsupportedVersion for a record from the future, InvalidRecord for anything else that does not decode."""
    if not value:
        raise InvalidRecord("metadata record is empty")
    if value[0] != RECORD_VERSION:
        raise UnsupportedVersion(
            f"metadata record has version {value[0]}, this program knows {RECORD_VERSION}",
            hint="the data directory was written by a newer zmqmq; upgrade this one",
        )
    try:
        record: MetadataRecord = _decode(memoryview(value)[1:])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidRecord(f"metadata record does not decode: {error}", hint="it may come from a newer zmqmq") from error
    return record
