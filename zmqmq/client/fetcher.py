"""Reads partitions in order: resolves where to begin and to stop, asks the leaders, hands over whole batches.

One fetcher serves one reader. Per partition: RESOLVING (offsets for start and stop are being asked for) -> READING ->
DONE (``position`` reached ``stop``), or FAILED, until ``seek``. The next request leaves as soon as a reply is cut into
batches, before anybody decodes them; ``buffer_bytes`` bounds what waits undecoded.

Invariant: chunks of a partition are handed over in order, without a gap: each begins at or before the position where the
one before it ended, and a batch's leader epoch goes into the next request, so that the broker notices a changed history.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from msgspec import Struct

from zmqmq.batch import BatchHeader, parse_header
from zmqmq.client.routing import NO_LEADER, Hint
from zmqmq.errors import BrokerUnavailable, NotLeader, OffsetOutOfRange, RemoteProtocolError, RetriableError, TimeoutError, ZmqmqError
from zmqmq.marks import reached
from zmqmq.model import Offset
from zmqmq.ports import Buffer
from zmqmq.wire.framing import raised
from zmqmq.wire.replies import ErrorReply, FetchReply, FetchResult, ListOffsetsReply, OffsetResult, Reply
from zmqmq.wire.requests import LIST_END, LIST_START, LIST_TIME, FetchEntry, OffsetQuery

FETCH_BYTES_MAX: Final = 4 << 20
PARTITION_BYTES_MAX: Final = 1 << 20
BUFFER_BYTES_MAX: Final = 8 << 20
"""Undecoded batches that may wait for the reader; passed by one reply per broker at most."""
WAIT_MS: Final = 500
ANSWER_MS: Final = 5_000
"""Time for an answer beyond the long poll."""
RETRY_MS_MIN: Final = 20
RETRY_MS_MAX: Final = 1_000
PATIENCE_MS: Final = 30_000
"""A partition that could not be read for so long is reported to the reader, which may go on waiting."""
_EPOCH_UNKNOWN: Final = -1


class State(enum.Enum):
    RESOLVING = "resolving"
    READING = "reading"
    DONE = "done"
    FAILED = "failed"


class Chunk(Struct, frozen=True):
    """A batch as it came, not yet checked or decoded, and the first offset that is wanted of it."""

    partition: int
    generation: int
    header: BatchHeader
    data: Buffer
    position: int
    wanted: int
    stop: int | None


class Failure(Struct, frozen=True):
    """A partition can not be read on; ``is_final``: not before ``seek``."""

    partition: int
    generation: int
    error: ZmqmqError
    is_final: bool


class Settled(Struct, frozen=True):
    """Where reading begins, now that it is known."""

    partition: int
    generation: int
    position: int


class Reached(Struct, frozen=True):
    """A partition was read up to its stop."""

    partition: int
    generation: int
    position: int


News: TypeAlias = Chunk | Failure | Settled | Reached


class FetchCall(Struct, frozen=True):
    """A fetch from the leader ``node``; the answer goes to ``on_fetch`` with this call."""

    node: int
    entries: tuple[FetchEntry, ...]
    generations: tuple[int, ...]
    wait_ms: int


class OffsetsCall(Struct, frozen=True):
    """Offsets from the leader ``node``; the answer goes to ``on_offsets`` with this call."""

    node: int
    queries: tuple[OffsetQuery, ...]
    generations: tuple[int, ...]


class _Partition:
    def __init__(self, number: int, start: Offset, stop: Offset | None) -> None:
        self.number = number
        self.start = start
        self.stop_at = stop
        self.generation = 0
        self.state = State.RESOLVING
        self.known: dict[tuple[int, int], int] = {}
        self.position = -1
        self.last_epoch = _EPOCH_UNKNOWN
        self.stop: int | None = None
        self.high_watermark = -1
        self.has_read = False
        self.is_asking = False
        self.is_kept_waiting = False
        """Nobody can be asked just now, and the reader shall hear of it when that lasts."""
        self.failures = 0
        self.failing_since_ms = 0
        self.retry_at_ms = 0


class Fetcher:
    """Driven by ``ClientCore``: ``poll`` gives calls, answers come in, ``take_news`` gives what the reader shall see."""

    def __init__(
        self,
        topic_id: bytes,
        starts: Mapping[int, Offset],
        stops: Mapping[int, Offset | None],
        *,
        leader: Callable[[int], int],
        buffer_bytes: int = BUFFER_BYTES_MAX,
    ) -> None:
        self.topic_id = topic_id
        self.buffer_bytes = buffer_bytes
        self.buffered_bytes = 0
        self.wants_metadata = False
        self.obstacle: ZmqmqError | None = None
        self._leader = leader
        self._partitions = {number: _Partition(number, start, stops.get(number)) for number, start in starts.items()}
        self._fetching: dict[int, FetchCall] = {}
        self._news: list[News] = []
        self._hints: list[Hint] = []
        self._turn = 0

    @property
    def is_done(self) -> bool:
        return all(partition.state is State.DONE for partition in self._partitions.values())

    def positions(self) -> dict[int, int]:
        """The next offset to ask for; -1 while it is being resolved."""
        return {number: partition.position for number, partition in self._partitions.items()}

    def high_watermarks(self) -> dict[int, int]:
        """As of the last answers; -1 before the first."""
        return {number: partition.high_watermark for number, partition in self._partitions.items()}

    def take_hints(self) -> list[Hint]:
        """Who leads, as brokers that do not lead have said."""
        hints, self._hints = self._hints, []
        return hints

    def take_news(self) -> list[News]:
        news, self._news = self._news, []
        return news

    def seek(self, number: int, start: Offset) -> int:
        """Begin anew; what is under way for the old generation will be dropped. The new generation."""
        partition = self._partitions[number]
        stop = partition.stop_at if partition.stop is None else Offset.exact(partition.stop)
        fresh = self._partitions[number] = _Partition(number, start, stop)
        fresh.generation = partition.generation + 1
        fresh.high_watermark = partition.high_watermark
        self._fetching.clear()  # what waits at the broker for the old place must not hold up the new one
        return fresh.generation

    def poll(self, now_ms: int, has_room: Callable[[int], bool]) -> Iterator[FetchCall | OffsetsCall]:
        """What to ask now, at most one fetch per broker at a time."""
        queries: dict[int, list[tuple[OffsetQuery, int]]] = {}
        reading: dict[int, list[_Partition]] = {}
        for partition in self._partitions.values():
            if partition.is_asking or partition.retry_at_ms > now_ms or partition.state is State.DONE or partition.state is State.FAILED:
                continue
            partition.retry_at_ms = 0  # it leaves at the next occasion, and is no reason any more to be turned
            partition.is_kept_waiting = False
            needed = self._needed(partition) if partition.state is State.RESOLVING else []
            if partition.state is State.RESOLVING and not needed and self._settle(partition) is State.DONE:
                continue
            node = self._leader(partition.number)
            if node == NO_LEADER:
                self.wants_metadata = True
                self._on_obstacle(partition, self.obstacle or BrokerUnavailable(f"partition {partition.number} has no leader"), now_ms)
            elif not has_room(node):
                partition.is_kept_waiting = True
                self._lose_patience(partition, self.obstacle or BrokerUnavailable(f"no connection to broker {node}"), now_ms)
            elif needed:
                partition.is_asking = True
                queries.setdefault(node, []).extend((query, partition.generation) for query in needed)
            else:
                reading.setdefault(node, []).append(partition)
        for node, asked in queries.items():
            yield OffsetsCall(node, tuple(query for query, _ in asked), tuple(generation for _, generation in asked))
        if self.buffered_bytes < self.buffer_bytes:
            for node, partitions in reading.items():
                if node not in self._fetching:
                    yield self._fetch_call(node, partitions)

    def next_deadline_ms(self) -> int | None:
        """A partition that is asked for, or waits for its turn or for room in the buffer, needs no turn to hear of it."""
        times = [
            partition.retry_at_ms or partition.failing_since_ms + PATIENCE_MS
            for partition in self._partitions.values()
            if (partition.retry_at_ms or partition.is_kept_waiting) and not partition.is_asking and partition.state is not State.FAILED
        ]
        return min(times, default=None)

    def on_offsets(self, call: OffsetsCall, answer: Reply | ZmqmqError, now_ms: int) -> None:
        results = _results(answer, ListOffsetsReply, len(call.queries))
        for i, (query, generation) in enumerate(zip(call.queries, call.generations, strict=True)):
            partition = self._partitions[query.partition]
            if partition.generation != generation:
                continue
            partition.is_asking = False
            result = results[i] if isinstance(results, list) else results
            if isinstance(result, ZmqmqError):
                self._on_error(partition, result, now_ms)
            elif isinstance(result, OffsetResult) and result.error is not None:
                self._on_error(partition, raised(result.error), now_ms)
            else:
                assert isinstance(result, OffsetResult)
                partition.known[query.kind, query.time_ms] = result.offset
                self._on_success(partition)

    def on_fetch(self, call: FetchCall, answer: Reply | ZmqmqError, payload: Sequence[Buffer], now_ms: int) -> None:
        """Cut a reply into batches. The connection's frames stay alive with the chunks that point into them."""
        if self._fetching.get(call.node) is call:
            del self._fetching[call.node]
        current: dict[int, _Partition] = {}
        for entry, generation in zip(call.entries, call.generations, strict=True):
            partition = self._partitions[entry.partition]
            if partition.generation == generation:
                partition.is_asking = False
                current[entry.partition] = partition
        results = _results(answer, FetchReply, None)
        if isinstance(results, ZmqmqError):
            for partition in current.values():
                self._on_error(partition, results, now_ms)
            return
        for partition in current.values():
            self._on_success(partition)
        at = 0
        for result in results:
            assert isinstance(result, FetchResult)
            frames = payload[at : at + result.frames]
            at += result.frames
            found = current.get(result.partition)
            if found is not None and result.topic_id == self.topic_id:
                self._on_result(found, result, frames, now_ms)

    def _fetch_call(self, node: int, partitions: list[_Partition]) -> FetchCall:
        """A different partition is the first of each request, so that a busy one does not starve the others."""
        self._turn += 1
        first = self._turn % len(partitions)
        partitions = partitions[first:] + partitions[:first]
        for partition in partitions:
            partition.is_asking = True
        entries = tuple(
            FetchEntry(self.topic_id, partition.number, partition.position, partition.last_epoch, PARTITION_BYTES_MAX)
            for partition in partitions
        )
        call = self._fetching[node] = FetchCall(node, entries, tuple(partition.generation for partition in partitions), WAIT_MS)
        return call

    def _on_result(self, partition: _Partition, result: FetchResult, frames: Sequence[Buffer], now_ms: int) -> None:
        if result.high_watermark >= 0:
            partition.high_watermark = result.high_watermark
        if result.error is not None:
            self._on_error(partition, raised(result.error), now_ms)
            return
        for frame in frames:
            position = 0
            while position < len(frame) and partition.state is State.READING:
                try:
                    header = parse_header(frame, position)
                    self._take(partition, header, frame, position)
                except ZmqmqError as error:
                    place = f"partition {partition.number}, the batch that should begin at or before offset {partition.position}"
                    self._on_error(partition, type(error)(f"{place}: {error}", hint="look at it on the broker: zmqmq log verify"), now_ms)
                    return
                position += header.length

    def _take(self, partition: _Partition, header: BatchHeader, frame: Buffer, position: int) -> None:
        wanted = partition.position
        if header.end_offset <= wanted:
            return
        if header.length > len(frame) - position:
            raise RemoteProtocolError(f"a fetch answer is cut inside the batch at {header.base_offset}")
        chunk = Chunk(partition.number, partition.generation, header, frame, position, wanted, partition.stop)
        partition.position = header.end_offset
        partition.last_epoch = header.leader_epoch
        partition.has_read = True
        self.buffered_bytes += header.length
        self._news.append(chunk)
        self._check_stop(partition)

    def _check_stop(self, partition: _Partition) -> None:
        if partition.stop is not None and partition.position >= partition.stop:
            partition.state = State.DONE
            self._news.append(Reached(partition.number, partition.generation, partition.stop))

    def _needed(self, partition: _Partition) -> list[OffsetQuery]:
        """The offsets that start and stop are made of and that nobody told yet."""
        wanted: dict[tuple[int, int], None] = {}
        for offset in (partition.start, partition.stop_at):
            if offset is not None:
                wanted.update(dict.fromkeys(_made_of(offset)))
        return [
            OffsetQuery(self.topic_id, partition.number, kind, time_ms)
            for kind, time_ms in wanted
            if (kind, time_ms) not in partition.known
        ]

    def _settle(self, partition: _Partition) -> State:
        """All offsets are known: begin to read, or find that there is nothing to read."""
        partition.position = _resolve(partition.start, partition.known)
        partition.stop = None if partition.stop_at is None else _resolve(partition.stop_at, partition.known)
        partition.state = State.READING
        self._news.append(Settled(partition.number, partition.generation, partition.position))
        self._check_stop(partition)
        return partition.state

    def _on_success(self, partition: _Partition) -> None:
        partition.failures = partition.retry_at_ms = partition.failing_since_ms = 0

    def _on_error(self, partition: _Partition, error: ZmqmqError, now_ms: int) -> None:
        if isinstance(error, OffsetOutOfRange) and partition.start == Offset.START and not partition.has_read:
            partition.known.clear()  # retention was faster than the first fetch: nothing of it was promised
            partition.state = State.RESOLVING
        elif isinstance(error, RetriableError):
            if isinstance(error, NotLeader):
                self._hints.append(Hint(partition.number, error.leader, error.endpoint))
            if isinstance(error, NotLeader | BrokerUnavailable | TimeoutError):
                self.wants_metadata = True
            self._on_obstacle(partition, error, now_ms)
        else:
            partition.state = State.FAILED
            self._news.append(Failure(partition.number, partition.generation, error, is_final=True))

    def _on_obstacle(self, partition: _Partition, error: ZmqmqError, now_ms: int) -> None:
        """Try again a little later."""
        reached("fetch retried")
        partition.retry_at_ms = now_ms + min(RETRY_MS_MAX, RETRY_MS_MIN << min(partition.failures, 10))
        partition.failures += 1
        self._lose_patience(partition, error, now_ms)

    def _lose_patience(self, partition: _Partition, error: ZmqmqError, now_ms: int) -> None:
        partition.failing_since_ms = partition.failing_since_ms or now_ms
        if now_ms - partition.failing_since_ms >= PATIENCE_MS:
            partition.failing_since_ms = now_ms
            self._news.append(Failure(partition.number, partition.generation, error, is_final=False))


def _made_of(offset: Offset) -> tuple[tuple[int, int], ...]:
    """The queries (kind, time) whose answers resolve the offset."""
    match offset.kind:
        case "start":
            return ((LIST_START, 0),)
        case "end":
            return ((LIST_END, 0),)
        case "last":
            return (LIST_START, 0), (LIST_END, 0)
        case "after_start":
            return ((LIST_START, 0),)
        case "time":
            return ((LIST_TIME, offset.value),)
        case "exact":
            return ()


def _resolve(offset: Offset, known: Mapping[tuple[int, int], int]) -> int:
    match offset.kind:
        case "start":
            return known[LIST_START, 0]
        case "end":
            return known[LIST_END, 0]
        case "last":
            return max(known[LIST_START, 0], known[LIST_END, 0] - offset.value)
        case "after_start":
            return known[LIST_START, 0] + offset.value
        case "time":
            return known[LIST_TIME, offset.value]
        case "exact":
            return offset.value


def _results(
    answer: Reply | ZmqmqError, kind: type[ListOffsetsReply | FetchReply], count: int | None
) -> list[OffsetResult] | list[FetchResult] | ZmqmqError:
    if isinstance(answer, ErrorReply):
        return raised(answer.fault)
    if isinstance(answer, ZmqmqError):
        return answer
    if isinstance(answer, ListOffsetsReply | FetchReply) and isinstance(answer, kind) and count in {None, len(answer.results)}:
        return answer.results
    return RemoteProtocolError("the broker's answer does not fit the request")
