"""The sync reader: takes batches from the I/O thread, checks and decodes them in the caller's thread.

The I/O thread has the next batches on their way before these are decoded. A reader belongs to one thread; only ``stop``
may be called from any other, or from a signal handler.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from operator import length_hint
from types import FrameType
from typing import Any, Final, Generic, TypeVar

from zmqmq.batch import check_body, check_stamp, record_bytes, stamp_seed
from zmqmq.client.arguments import Place, Seconds, check_partitions, offset_of, seconds_of
from zmqmq.client.fetcher import Chunk, Failure, Fetcher, News, Reached, Settled
from zmqmq.client.io_thread import IoThread
from zmqmq.client.message import Message, MessageDecoder
from zmqmq.client.serde import Serde
from zmqmq.errors import ClosedError, InvalidRecord, TimeoutError, ZmqmqError
from zmqmq.model import PartitionId

V = TypeVar("V")

_WAIT_SLICE_S: Final = 1.0
"""A waiting reader looks this often whether the I/O thread still lives."""
_DROP_ALL: Final = 0


class Inbox:
    """News on their way from the I/O thread to a reader, and the pump that brings them."""

    def __init__(self, io: IoThread, fetcher: Fetcher) -> None:
        self.io = io
        self.fetcher = fetcher
        self.news: deque[News] = deque()
        self.taken_bytes = 0
        self.is_stalled = False
        self.is_woken = False
        self._counted_bytes = 0
        self._gate: threading.Lock | None = None

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
            self.open_gate()

    def next_ms(self) -> int | None:
        return None

    def end(self, _error: ZmqmqError) -> None:
        self.open_gate()

    def open_gate(self) -> None:
        """Wake the reader. From any thread or signal handler."""
        gate = self._gate
        if gate is not None:
            with contextlib.suppress(RuntimeError):  # another thread opened it just now
                gate.release()

    def wait(self, timeout: float) -> bool:
        """Until there is news, or ``open_gate``, or the timeout. In the reader's thread."""
        gate = self._gate = threading.Lock()
        gate.acquire()
        return bool(self.news) or self.is_woken or gate.acquire(timeout=timeout)

    def took(self, size: int) -> None:
        self.taken_bytes += size
        if self.is_stalled:
            self.io.poke()


class Reader(Generic[V]):
    """Reads partitions of one topic, in order within each. Made by ``Client.reader``; a context manager.

    Iterating waits for records; it ends on ``stop()``, when every partition reached its stop, or when no record came for
    ``timeout``.
    """

    def __init__(
        self,
        inbox: Inbox,
        topic: str,
        partitions: Iterable[int],
        value: Serde[V],
        key: Serde[Any] | None,
        *,
        timeout: float | None,
        patience: float,
        on_close: Callable[[], None],
    ) -> None:
        self.topic = topic
        self._inbox = inbox
        self._timeout = timeout
        self._patience = patience
        self._on_close = on_close
        self._value = value.decode
        self._key = None if key is None else key.decode
        self._decoders: dict[int, MessageDecoder] = {}
        self._positions: dict[int, int] = dict.fromkeys(partitions, -1)
        self._generations = dict.fromkeys(self._positions, 0)
        self._unfinished = set(self._positions)
        self._failed: dict[int, ZmqmqError] = {}
        self._messages: list[Message[V]] = []
        self._rest: Iterator[Message[V]] = iter(self._messages)
        self._partition = -1
        self._end = -1
        self._is_stopped = False
        self.closed: ZmqmqError | None = None

    def __repr__(self) -> str:
        state = "closed" if self.closed else "stopped" if self._is_stopped else "open"
        return f"Reader({self.topic} {state} partitions={sorted(self._positions)})"

    # -- reading ------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Message[V]]:
        return chain.from_iterable(self._iterators())

    def poll(self, timeout: Seconds = 0.0) -> Message[V] | None:
        """The next message, or None when there is none within ``timeout``."""
        found = next(self._rest, None)
        if found is None and self._pull(seconds_of("timeout", timeout)):
            found = next(self._rest, None)
        return found

    def batch(self, max_messages: int = 500, timeout: Seconds = 1.0) -> list[Message[V]]:
        """What is there, up to ``max_messages``; waits at most ``timeout`` for the first; an empty list when idle."""
        return self._batch(max_messages, seconds_of("timeout", timeout))

    def batches(self, max_messages: int = 500) -> Iterator[list[Message[V]]]:
        """Lists of up to ``max_messages``, never empty, until iteration would end: the fastest way to read."""
        while messages := self._batch(max_messages, self._timeout):
            yield messages

    def stop(self) -> None:
        """End the iteration before its next message. From any thread, or a signal handler; for good."""
        was_stopped, self._is_stopped = self._is_stopped, True
        self._inbox.is_woken = True
        left = list(self._rest)  # will not be handed out: ``position`` stays before them
        if left or not was_stopped:
            self._messages = left
        self._inbox.open_gate()

    def _batch(self, max_messages: int, timeout: float | None) -> list[Message[V]]:
        messages = list(islice(self._rest, max_messages))
        while len(messages) < max_messages and self._pull(0.0 if messages else timeout):
            messages += islice(self._rest, max_messages - len(messages))
        return messages

    def _iterators(self) -> Iterator[Iterator[Message[V]]]:
        if not self._is_stopped:
            yield self._rest
        while self._pull(self._timeout):
            yield self._rest

    def _pull(self, timeout: float | None) -> bool:
        """Make the next non-empty batch the current one. False: idle, stopped, or all stops reached."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._is_stopped:
            self._check()
            if not self._inbox.news:
                if not self._unfinished or not self._wait(deadline):
                    return False
                continue
            item = self._inbox.news.popleft()
            if isinstance(item, Chunk):
                self._inbox.took(item.header.length)
            if item.generation == self._generations[item.partition] and self._take(item):
                break
        if self._is_stopped and (left := list(self._rest)):
            self._messages = left  # the stop came while this batch was decoded
        return not self._is_stopped

    def _wait(self, deadline: float | None) -> bool:
        left = _WAIT_SLICE_S if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return False
        self._inbox.wait(min(left, _WAIT_SLICE_S))
        return True

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
            found = InvalidRecord(f"{place}: {error}", hint="ask for it again with seek(); on the broker: zmqmq log verify")
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
        check_stamp(header, data, stamp_seed(PartitionId(self._inbox.fetcher.topic_id, chunk.partition)), position)
        check_body(header, data, position)
        return decoder.messages(header, record_bytes(header, data, position), chunk.wanted)

    def _set_current(self, partition: int, messages: list[Message[Any]], end: int) -> None:
        """Only when the batch before it was handed out whole."""
        if self._partition >= 0:
            self._positions[self._partition] = self._end
        self._partition, self._end = partition, end
        self._messages = messages
        self._rest = iter(messages)

    def _check(self) -> None:
        if self.closed is not None:
            raise type(self.closed)(str(self.closed), hint=self.closed.hint)
        for error in self._failed.values():
            raise error
        if not self._inbox.io.is_alive:
            raise ClosedError("the client of this reader is closed")

    # -- positions ----------------------------------------------------------------------------------

    def position(self) -> dict[int, int]:
        """The next offset of each partition: what was handed out lies before it. Waits until the start is known."""
        deadline = time.monotonic() + self._patience
        while -1 in self._positions.values():
            news = self._inbox.news
            if news and isinstance(news[0], Settled):
                item = news.popleft()
                if item.generation == self._generations[item.partition]:
                    self._take(item)
            elif news:
                break
            elif not self._wait(deadline):
                raise TimeoutError(
                    f"the start of the partitions of {self.topic} is not known yet", hint="is the broker there? 'zmqmq ping'"
                )
            self._check()
        found = dict(self._positions)
        if self._partition >= 0:
            left = len(self._messages) if self._is_stopped else length_hint(self._rest)
            found[self._partition] = self._messages[-left].offset if left else self._end
        return found

    def high_watermarks(self) -> dict[int, int]:
        """The end of each partition as of its last answer; -1 before the first."""
        return self._inbox.fetcher.high_watermarks()

    def seek(self, place: Place | Mapping[int, Place], *, partition: int | None = None) -> None:
        """Go on from another place: of one partition, of those that a mapping names, or of all."""
        if isinstance(place, Mapping):
            places = {number: offset_of(wanted) for number, wanted in place.items()}
        else:
            places = dict.fromkeys(self._positions if partition is None else [partition], offset_of(place))
        check_partitions(places, sorted(self._positions), self.topic)
        self._check_open()

        def in_io(_now_ms: int, answer: Callable[[dict[int, int] | ZmqmqError], None]) -> None:
            answer({number: self._inbox.fetcher.seek(number, wanted) for number, wanted in places.items()})

        generations = self._inbox.io.ask(in_io, self._patience)
        if self._partition in places:
            deque(self._rest, _DROP_ALL)
            self._partition = -1
        for number in places:
            self._failed.pop(number, None)
            self._positions[number] = -1
            self._unfinished.add(number)
        self._generations.update(generations)

    def _check_open(self) -> None:
        if self.closed is not None:
            raise type(self.closed)(str(self.closed), hint=self.closed.hint)

    # -- ending -------------------------------------------------------------------------------------

    def close(self, timeout: Seconds | None = None) -> None:  # noqa: ARG002 - as all closes; this one waits for nothing
        """Ask for no more. Any later use raises ClosedError."""
        if self.closed is None:
            self.closed = ClosedError(f"the reader of {self.topic} is closed", hint="make a new one with client.reader()")
            self._inbox.open_gate()
            self._on_close()

    def __enter__(self) -> Reader[V]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def stop_on_signals(*readers: Reader[Any]) -> Iterator[None]:
    """Within the block SIGINT and SIGTERM end the readers' loops instead of the program. Main thread only."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for reader in readers:
            reader.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
