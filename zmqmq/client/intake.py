"""What a reader does with the news of its fetcher, whether a thread or a task waits for them.

``Inbox`` is the pump that brings news from the engine; ``Intake`` checks and decodes batches on the reader's side and knows
where the reader is. Neither waits: ``Intake.advance`` says what there is.

Invariant: a record that was not handed out lies at or behind ``Intake.position``, whatever happened in between.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from operator import length_hint
from typing import Any, Final, Generic, TypeVar

from zmqmq.batch import check_body, check_stamp, record_bytes, stamp_seed
from zmqmq.client.arguments import Place, check_partitions, places_of, whole_of
from zmqmq.client.engine import Io
from zmqmq.client.fetcher import Chunk, Failure, Fetcher, News, Reached, Settled
from zmqmq.client.message import Message, MessageDecoder
from zmqmq.client.serde import Serde
from zmqmq.client.watching import Watched
from zmqmq.errors import ClosedError, InvalidRecord, TimeoutError, ZmqmqError
from zmqmq.model import Offset, PartitionId

V = TypeVar("V")

_DROP_ALL: Final = 0


class Inbox(Watched):
    """News on their way to a reader, and the pump that brings them."""

    __slots__ = ("_counted_bytes", "fetcher", "io", "is_stalled", "is_woken", "news", "taken_bytes")

    def __init__(self, io: Io, fetcher: Fetcher) -> None:
        super().__init__()
        self.io = io
        self.fetcher = fetcher
        self.news: deque[News] = deque()
        self.taken_bytes = 0
        self.is_stalled = False
        self.is_woken = False
        """The reader shall not wait any more, whatever there is."""
        self._counted_bytes = 0

    @property
    def is_ready(self) -> bool:
        return bool(self.news) or self.is_woken

    def before(self, _now_ms: int) -> None:
        taken = self.taken_bytes
        self.fetcher.buffered_bytes -= taken - self._counted_bytes
        self._counted_bytes = taken
        self.is_stalled = self.fetcher.buffered_bytes >= self.fetcher.buffer_bytes

    def after(self) -> None:
        news = self.fetcher.take_news()
        self.is_stalled = self.fetcher.buffered_bytes >= self.fetcher.buffer_bytes
        if news:
            self.news.extend(news)
            self.notify()

    def next_ms(self) -> int | None:
        return None

    def end(self, _error: ZmqmqError) -> None:
        self.is_woken = True
        self.notify()

    def took(self, size: int) -> None:
        self.taken_bytes += size
        if self.is_stalled:
            self.io.poke()


class Step(enum.Enum):
    MESSAGES = enum.auto()
    """``rest`` gives the next ones."""
    NOTHING = enum.auto()
    """Wait for the inbox."""
    END = enum.auto()
    """Stopped, or every partition reached its stop."""


class Intake(Generic[V]):
    """Belongs to one reader. ``rest`` iterates over what is left of the current batch."""

    def __init__(self, inbox: Inbox, topic: str, partitions: Iterable[int], value: Serde[V], key: Serde[Any] | None) -> None:
        self.inbox = inbox
        self.topic = topic
        self.messages: list[Message[V]] = []
        self.rest: Iterator[Message[V]] = iter(self.messages)
        self.is_stopped = False
        self.closed: ZmqmqError | None = None
        self._value = value.decode
        self._key = None if key is None else key.decode
        self._decoders: dict[int, MessageDecoder] = {}
        self._positions: dict[int, int] = dict.fromkeys(partitions, -1)
        self._generations = dict.fromkeys(self._positions, 0)
        self._unfinished = set(self._positions)
        self._failed: dict[int, ZmqmqError] = {}
        self._deferred: ZmqmqError | None = None
        self._partition = -1
        self._end = -1

    @property
    def partitions(self) -> list[int]:
        return sorted(self._positions)

    @property
    def state(self) -> str:
        return "closed" if self.closed else "stopped" if self.is_stopped else "open"

    def advance(self) -> Step:
        """Make the next batch that has messages the current one, when ``rest`` is at its end. Raises what is wrong."""
        step = Step.NOTHING
        while step is Step.NOTHING and not self.is_stopped:
            self.check()
            if not self.inbox.news:
                return Step.NOTHING if self._unfinished else Step.END
            item = self.inbox.news.popleft()
            if isinstance(item, Chunk):
                self.inbox.took(item.header.length)
            if item.generation == self._generations[item.partition] and self._take(item):
                step = Step.MESSAGES
        if self.is_stopped:
            if left := list(self.rest):
                self.messages = left  # the stop came while this batch was decoded
            return Step.END
        return step

    def take(self, max_messages: int) -> list[Message[V]]:
        """What is there, without waiting. An error that comes behind messages is raised by the next call."""
        messages = list(islice(self.rest, max_messages))
        while len(messages) < max_messages:
            try:
                if self.advance() is not Step.MESSAGES:
                    break
            except ZmqmqError as error:
                if not messages:
                    raise
                self._deferred = error
                break
            messages += islice(self.rest, max_messages - len(messages))
        return messages

    def stop(self) -> None:
        """Hand out no more, for good. From any thread, or a signal handler; wakes nobody."""
        was_stopped, self.is_stopped = self.is_stopped, True
        self.inbox.is_woken = True
        left = list(self.rest)  # will not be handed out: ``position`` stays before them
        if left or not was_stopped:
            self.messages = left

    def check(self) -> None:
        self.check_open()
        if self._deferred is not None:
            error, self._deferred = self._deferred, None
            raise error
        for error in self._failed.values():
            raise error

    def check_open(self) -> None:
        if self.closed is not None:
            raise type(self.closed)(str(self.closed), hint=self.closed.hint)
        if not self.inbox.io.is_alive:
            raise ClosedError("the client of this reader is closed")

    def close(self) -> None:
        self.closed = ClosedError(f"the reader of {self.topic} is closed", hint="make a new one with client.reader()")
        self.inbox.is_woken = True

    def settle(self) -> bool:
        """Whether the start of every partition is known now."""
        news = self.inbox.news
        while -1 in self._positions.values() and news and isinstance(news[0], Settled):
            item = news.popleft()
            if item.generation == self._generations[item.partition]:
                self._take(item)
        is_settled = -1 not in self._positions.values()
        if not is_settled:
            self.check()
        return bool(news) or is_settled

    def position(self) -> dict[int, int]:
        """The next offset of each partition: what was handed out lies before it."""
        found = dict(self._positions)
        if self._partition >= 0:
            left = len(self.messages) if self.is_stopped else length_hint(self.rest)
            found[self._partition] = self.messages[-left].offset if left else self._end
        return found

    def unsettled_error(self) -> TimeoutError:
        return TimeoutError(f"the start of the partitions of {self.topic} is not known yet", hint="is the broker there? 'zmqmq ping'")

    def places(self, place: Place | Mapping[int, Place], partition: int | None) -> dict[int, Offset]:
        """What ``seek`` was asked for."""
        places = places_of("place", place)
        if isinstance(places, Offset):
            places = dict.fromkeys(self._positions if partition is None else [whole_of("partition", partition)], places)
        check_partitions(places, self.partitions, self.topic)
        return places

    def seek_in_fetcher(self, places: Mapping[int, Offset]) -> dict[int, int]:
        """On the engine's side: the new generations, for ``on_seek``."""
        return {number: self.inbox.fetcher.seek(number, wanted) for number, wanted in places.items()}

    def on_seek(self, generations: Mapping[int, int]) -> None:
        if self._partition in generations:
            deque(self.rest, _DROP_ALL)
            self._partition = -1
        for number in generations:
            self._failed.pop(number, None)
            self._positions[number] = -1
            self._unfinished.add(number)
        self._deferred = None
        self._generations.update(generations)

    def _take(self, item: News) -> bool:
        """Whether there are messages now."""
        if isinstance(item, Settled):
            self._positions[item.partition] = item.position
        elif isinstance(item, Reached):
            self._unfinished.discard(item.partition)
        elif isinstance(item, Failure):
            if item.is_final:
                self._failed[item.partition] = item.error
            raise item.error
        else:
            return self._decode(item)
        return False

    def _decode(self, chunk: Chunk) -> bool:
        header = chunk.header
        self._set_current(chunk.partition, [], header.end_offset)
        if header.is_control:
            return False
        try:
            messages = self._messages_of(chunk)
        except InvalidRecord as error:
            place = f"{self.topic}-{chunk.partition}@{header.base_offset}"
            found = InvalidRecord(
                f"{place}: {error}",
                hint=f"go on behind it with seek({header.end_offset}, partition={chunk.partition}); on the broker: zmqmq log verify",
            )
            self._failed[chunk.partition] = found
            self._end = chunk.wanted
            raise found from error
        end = header.end_offset
        if chunk.stop is not None and chunk.stop < end:
            messages = [message for message in messages if message.offset < chunk.stop]
            end = chunk.stop
        self._set_current(chunk.partition, messages, end)
        return bool(messages)

    def _messages_of(self, chunk: Chunk) -> list[Message[Any]]:
        decoder = self._decoders.get(chunk.partition)
        if decoder is None:
            decoder = self._decoders[chunk.partition] = MessageDecoder(self.topic, chunk.partition, self._value, self._key)
        header, data, position = chunk.header, chunk.data, chunk.position
        check_stamp(header, data, stamp_seed(PartitionId(self.inbox.fetcher.topic_id, chunk.partition)), position)
        check_body(header, data, position)
        return decoder.messages(header, record_bytes(header, data, position), chunk.wanted)

    def _set_current(self, partition: int, messages: list[Message[Any]], end: int) -> None:
        """Only when the batch before it was handed out whole."""
        if self._partition >= 0:
            self._positions[self._partition] = self._end
        self._partition, self._end = partition, end
        self.messages = messages
        self.rest = iter(messages)
