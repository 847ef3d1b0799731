"""The metadata log of one broker: a quorum of one, in the quorum's log format.

An entry is a batch in METADATA_PARTITION's log, one record of the batch per metadata record; the batch's
leader epoch is the term; the index of a record is its offset. Every open begins a new term. Pure: the shell
performs the effects and says what became of them, as for every partition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from zmqmq import batch
from zmqmq.batch import Record, StampedBatch
from zmqmq.errors import CorruptLog, Fenced, InvalidConfig, ZmqmqError
from zmqmq.metadata.log import APPEND_BYTES_MAX, REPLAYED, Committed, Leader, LogEvent, Lost, Passed, Refused, Unknown
from zmqmq.metadata.records import MetadataRecord, decode, encode
from zmqmq.model import METADATA_PARTITION
from zmqmq.ports import Buffer
from zmqmq.replication.insync import Leadership
from zmqmq.replication.leader import PartitionLeader
from zmqmq.topic_config import TopicConfig
from zmqmq.units import UNLIMITED
from zmqmq.wire.replies import ProduceResult
from zmqmq.wire.requests import ACKS_ALL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from zmqmq.facts import LogState

    class ReadLog(Protocol):
        """Whole batches of the metadata partition from ``offset`` on, below ``end``."""

        def __call__(self, offset: int, end: int) -> bytes: ...


METADATA_CONFIG: Final = TopicConfig(retention_ms=UNLIMITED, segment_bytes=64 << 20)


class _Proposal(NamedTuple):
    proposal_id: int
    records: tuple[MetadataRecord, ...]


class LocalLog:
    """Implements MetadataLog, and is driven like a partition: ``take_batches``, ``on_written``, ``on_synced`` …"""

    def __init__(self, node_id: int, state: LogState, read: ReadLog) -> None:
        if state.error:
            raise CorruptLog(f"the metadata log is out of service: {state.error}", hint="restore the data directory from a backup")
        self.epoch = state.epochs[-1].epoch + 1 if state.epochs else 1
        self._leader = PartitionLeader(METADATA_PARTITION, node_id, Leadership(self.epoch, (node_id,)), METADATA_CONFIG, state)
        self.wall_ms = 0
        self._read = read
        self._start = state.log_start
        self._batches: list[StampedBatch] = []
        self._events: list[LogEvent] = []

    def __repr__(self) -> str:
        return f"LocalLog(epoch={self.epoch}, committed={self._leader.high_watermark}, next={self._leader.next_offset})"

    @property
    def committed_end(self) -> int:
        return self._leader.high_watermark

    def start(self) -> None:
        """Hand out what the log holds, then lead."""
        records = tuple(record for entry in self.read(self._start) for record in entry.records)
        if records:
            self._events.append(Committed(REPLAYED, self._start, records))
        self._events.append(Leader(self.epoch, self._leader.next_offset))

    def append(self, epoch: int, expected_index: int, proposal_id: int, records: tuple[MetadataRecord, ...]) -> None:
        error = self._refusal(epoch, expected_index)
        if error is None:
            try:
                self._append(_Proposal(proposal_id, records))
            except ZmqmqError as raised:
                error = raised
        if error is not None:
            self._events.append(Refused(proposal_id, error))

    def read(self, start: int) -> Iterator[Committed]:
        offset = start
        while offset < self.committed_end:
            data = self._read(offset, self.committed_end)
            if not data:
                raise CorruptLog(f"the metadata log ends at index {offset}, {self.committed_end} is expected")
            for entry in _entries(data):
                if entry.index >= offset:
                    yield entry
                    offset = entry.index + len(entry.records)

    def barrier(self, token: int) -> None:
        self._events.append(Passed(token))

    def take_events(self) -> list[LogEvent]:
        for ticket, outcome in self._leader.take_receipts():
            self._events.append(_event(ticket, outcome))
        events, self._events = self._events, []
        return events

    def take_batches(self) -> tuple[StampedBatch, ...]:
        batches, self._batches = tuple(self._batches), []
        return batches

    def on_written(self) -> None:
        self._leader.on_written()

    def on_append_failed(self, error: ZmqmqError) -> None:
        """Refused if the error's outcome is ``not_written``, else Unknown."""
        self._leader.on_append_failed(error)

    def on_synced(self, end: int) -> None:
        self._leader.on_synced(end)

    def on_offline(self, error: ZmqmqError) -> None:
        """Nothing is written any more; what waited for the disk may be there or not."""
        self._leader.fail_waiting(error)
        self._events.append(Lost(str(error)))

    def _refusal(self, epoch: int, expected_index: int) -> ZmqmqError | None:
        if epoch != self.epoch:
            return Fenced(f"epoch {epoch} does not lead the metadata log, {self.epoch} does")
        if expected_index != self._leader.next_offset:
            return Fenced(f"index {expected_index} is not the next of the metadata log, {self._leader.next_offset} is")
        return None

    def _append(self, proposal: _Proposal) -> None:
        data = _build(proposal.records, self.wall_ms)
        stamped = self._leader.append(batch.parse_header(data), data, ACKS_ALL, proposal, self.wall_ms)
        if stamped is not None:
            self._batches.append(stamped)


def _event(proposal: _Proposal, outcome: ProduceResult | ZmqmqError) -> LogEvent:
    if isinstance(outcome, ProduceResult):
        return Committed(proposal.proposal_id, outcome.base_offset, proposal.records)
    if outcome.outcome == "not_written":
        return Refused(proposal.proposal_id, outcome)
    return Unknown(proposal.proposal_id, outcome)


def _build(records: tuple[MetadataRecord, ...], wall_ms: int) -> bytes:
    encoded = batch.encode_records([Record(None, encode(record), 0) for record in records])
    if len(encoded) > APPEND_BYTES_MAX:
        raise InvalidConfig(
            f"the change takes {len(encoded)} bytes in the metadata log, the limit is {APPEND_BYTES_MAX}",
            hint="ask for fewer partitions at once",
        )
    return batch.build(encoded, record_count=len(records), base_timestamp_ms=wall_ms, max_timestamp_ms=wall_ms)


def _entries(data: Buffer) -> Iterator[Committed]:
    position = 0
    while position < len(data):
        header = batch.parse_header(data, position)
        batch.check_body(header, data, position)
        found = batch.records(header, data, position)
        yield Committed(REPLAYED, header.base_offset, tuple(decode(record.value if record else None) for record in found))
        position += header.length
