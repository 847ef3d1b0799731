"""Brings closed batches to the brokers: in order, once, and within their deadline.

One sender serves one producer. Per partition there is a *lane*: batches leave it from the front only, at most
``IN_FLIGHT_BATCHES_MAX`` of them are under way, each with the sequence it was given when it was first sent, and a retry
carries the same bytes.

What an unhappy answer means: while *any* batch of a lane is under way after a failure, nothing new leaves it; when
all have been answered (or lost with their connection) they go out again, in order. So a batch is never overtaken.

``maybe_written`` says whether an attempt remained without a clear answer. Such a batch can only be confirmed or end as
OutcomeUnknown; any other may be given a new sequence, under a new producer epoch, when the old row of sequences has a
hole that nothing will fill (``_Lane.is_broken``).

Invariants: batches of a lane are resolved in order of their sequences unless they fail; in_flight <= in_flight_max;
every batch is resolved once, at its deadline at the latest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from msgspec import Struct

from zmqmq.batch import NO_PRODUCER, NO_SEQUENCE, SEQUENCE_MODULUS
from zmqmq.client.accumulator import Batch, Outcome, Receipt
from zmqmq.client.routing import NO_LEADER, Hint
from zmqmq.errors import (
    BrokerUnavailable,
    DiskFull,
    DuplicateSequence,
    FatalError,
    Fenced,
    NotLeader,
    OutcomeUnknown,
    OutOfOrderSequence,
    Throttled,
    TimeoutError,
    UnknownProducer,
    ZmqmqError,
)
from zmqmq.marks import reached
from zmqmq.model import IN_FLIGHT_BATCHES_MAX
from zmqmq.ports import Buffer
from zmqmq.wire.framing import raised
from zmqmq.wire.replies import ErrorReply, ProduceReply, ProduceResult, Reply

RETRY_MS_MIN: Final = 20
RETRY_MS_MAX: Final = 1_000
REQUEST_MS_MAX: Final = 10_000
"""An attempt without an answer for so long is given up; the batch is sent again while its deadline lasts."""
REQUEST_BYTES_MAX: Final = 4 << 20
REQUEST_BATCHES_MAX: Final = 512

_REFUSED: Final = (OutOfOrderSequence, UnknownProducer, Throttled, DiskFull, FatalError)
"""Answers after which the attempt certainly wrote nothing. Any other may have left the record with the
leader, unless it says so itself."""


class Identity(Struct, frozen=True):
    producer_id: int
    epoch: int


class ProduceCall(Struct, frozen=True):
    """A request to the leader ``node``; the answer goes to ``on_answer`` with this call."""

    node: int
    batches: tuple[Batch, ...]
    frames: tuple[Buffer, ...]
    deadline_ms: int


class IdentityCall(Struct, frozen=True):
    """Ask any broker for a producer id, or for a new epoch of ``known``."""

    known: Identity | None


class _Lane:
    """The batches of one partition. The first ``sent`` have their sequences under ``identity``."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.batches: deque[Batch] = deque()
        self.in_flight = 0
        self.sent = 0
        self.identity: Identity | None = None
        self.next_sequence = 0
        self.is_failing = False
        self.is_broken = False
        self.failures = 0
        self.retry_at_ms = 0
        self.last_error: ZmqmqError | None = None

    def _check(self) -> None:
        assert 0 <= self.in_flight <= IN_FLIGHT_BATCHES_MAX
        assert self.in_flight <= self.sent <= len(self.batches)


class Sender:
    """Driven by ``ClientCore``: ``enqueue`` and answers come in, ``poll`` gives calls, ``take_resolved`` the outcomes."""

    def __init__(self, topic: str, *, acks: int, idempotent: bool, leader: Callable[[int], int]) -> None:
        self.topic = topic
        self.acks = acks
        self.is_idempotent = idempotent and acks != 0
        self.in_flight_max = 1 if acks != 0 and not idempotent else IN_FLIGHT_BATCHES_MAX
        """Without sequences, a batch that fails behind a second one would be written after it."""
        self.wants_metadata = False
        self.obstacle: ZmqmqError | None = None
        """Why nothing can be sent at the moment, for the message of a batch that never left."""
        self._leader = leader
        self._lanes: dict[int, _Lane] = {}
        self._identity: Identity | None = None
        self._identity_asked = False
        self._identity_error: ZmqmqError | None = None
        self._identity_retry_ms = 0
        self._resolved: list[Batch] = []
        self._hints: list[Hint] = []

    @property
    def is_idle(self) -> bool:
        return not any(lane.batches for lane in self._lanes.values())

    def enqueue(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            lane = self._lanes.get(batch.partition)
            if lane is None:
                lane = self._lanes[batch.partition] = _Lane(batch.partition)
            lane.batches.append(batch)

    def take_hints(self) -> list[Hint]:
        """Who leads, as brokers that do not lead have said."""
        hints, self._hints = self._hints, []
        return hints

    def take_resolved(self) -> list[Batch]:
        resolved, self._resolved = self._resolved, []
        return resolved

    def poll(self, now_ms: int, has_room: Callable[[int], bool]) -> Iterator[ProduceCall | IdentityCall]:
        """What to send now, one call at a time; each counts as sent when the next is asked for. ``has_room(node)`` says
        whether that broker's connection takes one more request."""
        by_node: dict[int, list[_Lane]] = {}
        needs_identity = False
        if self._identity_retry_ms <= now_ms:
            self._identity_retry_ms = 0
        for lane in self._lanes.values():
            if lane.batches:
                self._keep_time(lane, now_ms)
            if not lane.batches or lane.retry_at_ms or (lane.is_failing and lane.in_flight):
                continue
            lane.is_failing = False
            if not self._has_identity(lane):
                needs_identity = True
                continue
            if self._next_unsent(lane) is None:
                continue
            node = self._leader(lane.partition)
            if node == NO_LEADER:
                self.wants_metadata = True
            else:
                by_node.setdefault(node, []).append(lane)
        if needs_identity and not self._identity_asked and not self._identity_retry_ms:
            self._identity_asked = True
            yield IdentityCall(self._identity)
        for node, lanes in by_node.items():
            while has_room(node) and (call := self._call(node, lanes, now_ms)) is not None:
                yield call

    def on_identity(self, identity: Identity) -> None:
        self._identity = identity
        self._identity_asked = False
        self._identity_error = None

    def on_identity_failed(self, error: ZmqmqError, now_ms: int) -> None:
        """Asked again until the batches that wait for it reach their deadlines."""
        self._identity_asked = False
        self._identity_error = error
        self._identity_retry_ms = now_ms + RETRY_MS_MIN

    def on_answer(self, call: ProduceCall, answer: Reply | ZmqmqError, now_ms: int) -> None:
        """The reply to a call, or why there is none."""
        if isinstance(answer, ErrorReply):
            answer = raised(answer.fault)
        results: Sequence[ProduceResult | ZmqmqError]
        if isinstance(answer, ProduceReply) and len(answer.results) == len(call.batches):
            results = answer.results
        elif isinstance(answer, ZmqmqError):
            results = [answer] * len(call.batches)
        else:
            results = [OutcomeUnknown("the broker's answer does not fit the request")] * len(call.batches)
        for batch, result in zip(call.batches, results, strict=True):
            lane = self._lanes[batch.partition]
            if batch.in_flight:
                batch.in_flight = False
                lane.in_flight -= 1
            if batch.outcome is None:
                self._on_result(lane, batch, result, now_ms)
            lane._check()  # noqa: SLF001 - the lane is this machine's own

    def on_posted(self, call: ProduceCall) -> None:
        """acks=0: handed over, and that is all that will ever be known."""
        for batch in call.batches:
            lane = self._lanes[batch.partition]
            batch.in_flight = False
            lane.in_flight -= 1
            self._resolve(lane, batch, Receipt(None, batch.max_timestamp_ms, -1, 0, 0))

    def next_deadline_ms(self) -> int | None:
        """When ``poll`` has something to do although nothing happened."""
        soonest = self._identity_retry_ms if self._identity_retry_ms and not self._identity_asked else None
        for lane in self._lanes.values():
            if lane.batches:
                time_ms = lane.batches[0].deadline_ms
                if lane.retry_at_ms:
                    time_ms = min(time_ms, lane.retry_at_ms)
                if soonest is None or time_ms < soonest:
                    soonest = time_ms
        return soonest

    def fail_all(self, reason: str) -> None:
        """The producer closes: whatever is left ends now."""
        for lane in self._lanes.values():
            while lane.batches:
                self._give_up(lane, lane.batches[0], reason)

    def _on_result(self, lane: _Lane, batch: Batch, result: ProduceResult | ZmqmqError, now_ms: int) -> None:
        if isinstance(result, ProduceResult) and result.error is None:
            lane.failures = 0
            lane.last_error = None
            receipt = Receipt(result.base_offset, result.append_time_ms, result.leader_epoch, result.replicas, result.synced)
            self._resolve(lane, batch, receipt)
            return
        error = raised(result.error) if isinstance(result, ProduceResult) and result.error is not None else result
        assert isinstance(error, ZmqmqError)
        if isinstance(error, DuplicateSequence):
            self._resolve(lane, batch, Receipt(None, batch.max_timestamp_ms, -1, 0, 0))
            return
        lane.last_error = error
        if isinstance(error, NotLeader):
            self._hints.append(Hint(lane.partition, error.leader, error.endpoint))
        if not isinstance(error, _REFUSED) and error.outcome != "not_written":
            batch.maybe_written = True
        if isinstance(error, OutOfOrderSequence | UnknownProducer):
            self._on_hole(lane, batch, error, now_ms)
        elif isinstance(error, FatalError):
            self._fail(lane, batch, error)
        elif not self.is_idempotent and batch.maybe_written:
            self._fail(lane, batch, error)  # a second copy would be a duplicate
        else:
            self._retry_later(lane, error, now_ms)

    def _on_hole(self, lane: _Lane, batch: Batch, error: ZmqmqError, now_ms: int) -> None:
        """The broker misses a predecessor. If that is under way or before this batch in the lane, it will come; if not,
        the row of sequences ends here."""
        if lane.batches[0] is not batch or (lane.is_failing and isinstance(error, OutOfOrderSequence)):
            self._retry_later(lane, error, now_ms)
        elif batch.maybe_written:
            self._fail(lane, batch, error)
        else:
            lane.is_broken = True
            for later in lane.batches:  # could only have been written after this one, which was not
                later.maybe_written = False
            self._retry_later(lane, error, now_ms)

    def _retry_later(self, lane: _Lane, error: ZmqmqError, now_ms: int) -> None:
        if not lane.is_failing:
            reached("batch sent again")
            lane.is_failing = True
            lane.failures += 1
        pause = min(RETRY_MS_MAX, RETRY_MS_MIN << min(max(lane.failures - 1, 0), 10))
        if isinstance(error, Throttled):
            pause = max(pause, min(error.retry_after_ms, RETRY_MS_MAX))
        lane.retry_at_ms = max(lane.retry_at_ms, now_ms + pause)
        if isinstance(error, NotLeader | BrokerUnavailable):
            self.wants_metadata = True

    def _fail(self, lane: _Lane, batch: Batch, error: ZmqmqError) -> None:
        """End a batch without a receipt. Its sequence, if it had one, stays a hole in the row."""
        undecided = batch.maybe_written or batch.in_flight
        if undecided and not isinstance(error, Fenced):
            reached("batch ended as unknown")
            text = f"no clear answer for {batch.count} records to {batch.topic}-{batch.partition}: {error}"
            failure: ZmqmqError = OutcomeUnknown(text, hint="they may be in the log: read the topic before sending them again")
            failure.outcome = "unknown"
        else:
            failure = error
            failure.outcome = "unknown" if undecided else "not_written"
        leaves_hole = batch.sequence != NO_SEQUENCE
        self._resolve(lane, batch, failure)
        if leaves_hole:
            lane.is_broken = True
            lane.is_failing = lane.in_flight > 0

    def _resolve(self, lane: _Lane, batch: Batch, outcome: Outcome) -> None:
        position = 0 if lane.batches[0] is batch else lane.batches.index(batch)
        del lane.batches[position]
        if position < lane.sent:
            lane.sent -= 1
        if batch.in_flight:
            batch.in_flight = False
            lane.in_flight -= 1
        batch.outcome = outcome
        self._resolved.append(batch)

    def _keep_time(self, lane: _Lane, now_ms: int) -> None:
        """Give up what is late. A retry whose time has come leaves at the next occasion, and is no reason any more to be turned."""
        while lane.batches and lane.batches[0].deadline_ms <= now_ms:
            self._give_up(lane, lane.batches[0], "were not delivered in time")
        if lane.retry_at_ms <= now_ms:
            lane.retry_at_ms = 0

    def _give_up(self, lane: _Lane, batch: Batch, reason: str) -> None:
        cause = lane.last_error or self._identity_error or self.obstacle
        text = f"{batch.count} records to {batch.topic}-{batch.partition} {reason}"
        kind = BrokerUnavailable if isinstance(cause, BrokerUnavailable) else TimeoutError
        self._fail(lane, batch, kind(f"{text}: {cause}" if cause else text, hint=cause.hint if cause else ""))

    def _has_identity(self, lane: _Lane) -> bool:
        """The lane may send: it has an identity whose row of sequences is whole, or needs none."""
        if not self.is_idempotent:
            return True
        if lane.is_broken and lane.sent and any(batch.maybe_written or batch.in_flight for batch in lane.batches):
            return True  # those can only be confirmed under the old identity
        if lane.identity is None or lane.is_broken:
            if self._identity is None or self._identity == lane.identity:
                return False
            self._renumber(lane, self._identity)
        return True

    def _renumber(self, lane: _Lane, identity: Identity) -> None:
        if lane.identity is not None:
            reached("lane renumbered")
        lane.identity = identity
        lane.is_broken = False
        lane.next_sequence = 0
        lane.sent = 0
        for batch in lane.batches:
            batch.sequence, batch.sealed = NO_SEQUENCE, b""

    def _next_unsent(self, lane: _Lane) -> Batch | None:
        """The next batch that may leave the lane: those before it are under way, and it is packed."""
        if lane.in_flight >= self.in_flight_max:
            return None
        for batch in lane.batches:
            if not batch.in_flight:
                if lane.is_broken and batch.sequence == NO_SEQUENCE:
                    return None
                return None if batch.payload is None else batch
        return None

    def _call(self, node: int, lanes: list[_Lane], now_ms: int) -> ProduceCall | None:
        """One request with at most one batch of each lane."""
        batches: list[Batch] = []
        frames: list[Buffer] = []
        size = 0
        for lane in lanes:
            batch = self._next_unsent(lane)
            if batch is None:
                continue
            data = batch.sealed or self._seal(lane, batch)
            if batches and (size + len(data) > REQUEST_BYTES_MAX or len(batches) >= REQUEST_BATCHES_MAX):
                break
            batch.in_flight = True
            lane.in_flight += 1
            lane.retry_at_ms = 0
            batches.append(batch)
            frames.append(data)
            size += len(data)
        if not batches:
            return None
        deadline_ms = min(now_ms + REQUEST_MS_MAX, max(batch.deadline_ms for batch in batches))
        return ProduceCall(node, tuple(batches), tuple(frames), deadline_ms)

    def _seal(self, lane: _Lane, batch: Batch) -> bytes:
        lane.sent += 1
        if lane.identity is None:
            return batch.seal(NO_PRODUCER, 0, NO_SEQUENCE)
        data = batch.seal(lane.identity.producer_id, lane.identity.epoch, lane.next_sequence)
        lane.next_sequence = (lane.next_sequence + batch.count) % SEQUENCE_MODULUS
        return data
