"""Produce: checks what came, gives it to the leaders, answers when every batch of the request has its receipt.

Promise: a batch that is answered without an error has reached what ``acks`` asked for; one with an error that
says ``not_written`` is in no log. Invariant: bytes in flight of a connection and in total stay within their
bounds, but for one request each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zmqmq import batch
from zmqmq.batch import CONTROL, NO_PRODUCER, NO_SEQUENCE, SEQUENCE_MODULUS, TRANSACTIONAL, BatchHeader
from zmqmq.broker.connections import Connection
from zmqmq.broker.dispatch import Dispatch, Now
from zmqmq.broker.limits import RETRY_AFTER_MS, BrokerLimits
from zmqmq.broker.partitions import Partitions
from zmqmq.broker.summary import SummaryCounter
from zmqmq.errors import (
    InvalidRecord,
    LogOffline,
    MessageTooLarge,
    NotLeader,
    RemoteProtocolError,
    Throttled,
    UnknownProducer,
    ZmqmqError,
)
from zmqmq.ports import Buffer
from zmqmq.wire.framing import fault
from zmqmq.wire.replies import ProduceReply, ProduceResult
from zmqmq.wire.requests import ACKS_ALL, Produce, ProduceEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmqmq.replication.leader import Receipt
    from zmqmq.topic_config import TopicConfig

_ACKS: Final = frozenset({0, 1, ACKS_ALL})
_RECORD_BYTES_MIN: Final = 4
"""An array of three elements, each of one byte."""
_RECORD_OVERHEAD_BYTES: Final = 64
"""Around key, value and headers of one record."""


class _Pending:
    """A request whose batches are on their way."""

    __slots__ = ("acks", "connection", "correlation_id", "remaining", "results", "size_bytes", "started_us")

    def __init__(self, connection: Connection, request: Produce, size_bytes: int, started_us: int) -> None:
        self.connection = connection
        self.correlation_id = request.correlation_id
        self.acks = request.acks
        self.remaining = len(request.entries)
        self.results: list[ProduceResult | None] = [None] * self.remaining
        self.size_bytes = size_bytes
        self.started_us = started_us


class ProduceDesk:
    """See the module."""

    def __init__(self, limits: BrokerLimits, partitions: Partitions, dispatch: Dispatch) -> None:
        self.in_flight_bytes = 0
        self.latency = SummaryCounter()
        self._limits = limits
        self._partitions = partitions
        self._dispatch = dispatch

    def produce(self, connection: Connection, request: Produce, payload: Sequence[Buffer], now: Now) -> None:
        """Raises when the whole request is refused."""
        if len(payload) != len(request.entries) or request.acks not in _ACKS or not payload:
            raise RemoteProtocolError(f"Produce has {len(request.entries)} entries, {len(payload)} batches and acks {request.acks}")
        if len(payload) > self._limits.entries_max:
            raise RemoteProtocolError(f"Produce has {len(payload)} entries, the limit is {self._limits.entries_max}")
        self._partitions.check_writable()
        pending = _Pending(connection, request, sum(map(len, payload)), now.us)
        self._admit(pending)
        for index, entry in enumerate(request.entries):
            self._produce_one(pending, index, entry, payload[index], now.wall_ms)
        if not pending.remaining:
            self._finish(pending, now)

    def on_receipts(self, receipts: list[Receipt], now: Now) -> None:
        for (pending, index), outcome in receipts:
            if isinstance(outcome, ProduceResult):
                pending.results[index] = outcome
            else:
                self._fail(pending, index, outcome)
            pending.remaining -= 1
            if not pending.remaining:
                self._finish(pending, now)

    def _admit(self, pending: _Pending) -> None:
        """A connection with nothing in flight may always send one request, whatever its size."""
        connection = pending.connection
        size = pending.size_bytes
        if connection.in_flight_bytes and connection.in_flight_bytes + size > self._limits.in_flight_bytes_max:
            raise Throttled(
                f"the connection has {connection.in_flight_bytes} bytes in flight, {size} more are over its limit of "
                f"{self._limits.in_flight_bytes_max}",
                retry_after_ms=RETRY_AFTER_MS, outcome="not_written",
            )  # fmt: skip
        if self.in_flight_bytes and self.in_flight_bytes + size > self._limits.in_flight_bytes_total_max:
            raise Throttled(
                f"the broker has {self.in_flight_bytes} bytes in flight, its limit is {self._limits.in_flight_bytes_total_max}",
                retry_after_ms=RETRY_AFTER_MS, outcome="not_written",
            )  # fmt: skip
        connection.in_flight_bytes += size
        self.in_flight_bytes += size

    def _produce_one(self, pending: _Pending, index: int, entry: ProduceEntry, data: Buffer, wall_ms: int) -> None:
        try:
            leader = self._partitions.find(entry.topic_id, entry.partition)
            header = checked_batch(data, leader.config)
            self._check_place(entry, header)
            stamped = leader.append(header, data, pending.acks, (pending, index), wall_ms)
        except ZmqmqError as error:
            self._fail(pending, index, error)
            pending.remaining -= 1
        else:
            if stamped is None:
                self._partitions.touch(leader)
            else:
                self._partitions.write(leader, stamped)

    def _check_place(self, entry: ProduceEntry, header: BatchHeader) -> None:
        image = self._partitions.image
        if entry.table_version and entry.table_version != image.topics[entry.topic_id].table_version:
            raise NotLeader("the slot table has changed, the key may belong to another partition", outcome="not_written")
        if header.producer_id >= image.producer_ids_end and self._partitions.replicas is not None:
            raise Throttled("this broker has not heard of the producer id yet", retry_after_ms=RETRY_AFTER_MS, outcome="not_written")
        if header.producer_id >= image.producer_ids_end:
            raise UnknownProducer(f"producer id {header.producer_id} was never given out by this cluster", outcome="not_written")

    def _fail(self, pending: _Pending, index: int, error: ZmqmqError) -> None:
        self._dispatch.count(error)
        pending.results[index] = ProduceResult(-1, -1, -1, 0, 0, fault(error))

    def _finish(self, pending: _Pending, now: Now) -> None:
        pending.connection.in_flight_bytes -= pending.size_bytes
        self.in_flight_bytes -= pending.size_bytes
        self.latency.add(now.us - pending.started_us)
        if pending.acks:
            results = [result for result in pending.results if result is not None]
            assert len(results) == len(pending.results)
            self._dispatch.reply(pending.connection.source, ProduceReply(pending.correlation_id, results))
        self._check()

    def _check(self) -> None:
        assert self.in_flight_bytes >= 0


def checked_batch(data: Buffer, settings: TopicConfig) -> BatchHeader:
    """The header of a batch from a producer, with everything checked that needs no decompression. Raises InvalidRecord."""
    header = batch.parse_header(data)
    if header.length != len(data):
        raise InvalidRecord(f"batch says {header.length} bytes, its frame has {len(data)}")
    batch.check_body(header, data)
    if header.attributes & (CONTROL | TRANSACTIONAL):
        raise InvalidRecord("control and transactional batches are not accepted from a producer")
    if header.record_count * _RECORD_BYTES_MIN > header.uncompressed_bytes:
        raise InvalidRecord(f"batch says {header.record_count} records in {header.uncompressed_bytes} bytes")
    if header.uncompressed_bytes > header.record_count * (settings.message_bytes_max + _RECORD_OVERHEAD_BYTES):
        raise MessageTooLarge(
            f"a record of the batch is over message_bytes_max, {settings.message_bytes_max} bytes", outcome="not_written",
            hint="make it smaller, or raise message_bytes_max of the topic",
        )  # fmt: skip
    _check_producer(header)
    return header


def _check_producer(header: BatchHeader) -> None:
    if header.producer_id == NO_PRODUCER:
        is_valid = header.base_sequence == NO_SEQUENCE
    else:
        is_valid = header.producer_id >= 0 and 0 <= header.base_sequence < SEQUENCE_MODULUS
    if not is_valid:
        raise InvalidRecord(f"batch has producer id {header.producer_id} and sequence {header.base_sequence}")


def offline_error(reason: str) -> LogOffline:
    return LogOffline(
        f"the broker's disk failed before the answer: {reason}", outcome="unknown", hint="look at its disk and its log, then restart it"
    )
