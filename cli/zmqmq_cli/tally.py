"""What became of the messages that ``produce`` sent: counts that add up, receipts, one error for all that failed."""

from __future__ import annotations

import copy
import datetime as dt
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from zmqmq.errors import BufferFull, ZmqmqError
from zmqmq_cli.formats import Renderer
from zmqmq_cli.input_formats import Given
from zmqmq_cli.settings import Settings

if TYPE_CHECKING:
    from zmqmq import Delivery, Producer
    from zmqmq.client.accumulator import Batch
    from zmqmq.client.handles import Handle

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
HAND_OVER_S: Final = 0.25
"""``max_block`` of the producer: how long Ctrl-C waits at most while a message is handed over."""
OUTSTANDING_MAX: Final = 200_000
"""Messages without a receipt; they compress well, so the producer's buffer alone would hold many more."""
LOOK_S: Final = 0.1
FULL_SECONDS_MAX: Final = 30.0
"""How long the producer's buffer may stay full before sending stops."""

_OF_A_BATCH: Final = re.compile(r"^\d+ records to \S+ were not delivered( in time)?: ")
"""How an error of one batch begins; here it is said of all."""


class Receipt:
    """A message with its place, for ``-o``. At acks=0 nobody knows the offset: -1."""

    def __init__(self, given: Given, delivery: Delivery) -> None:
        self.topic = delivery.topic
        self.partition = delivery.partition
        self.offset = -1 if delivery.offset is None else delivery.offset
        self.timestamp_ms = int(delivery.timestamp.timestamp() * 1000)
        self.leader_epoch = delivery.leader_epoch
        self.key = given.key
        self.value = given.value
        self.headers = given.headers or {}


class Tally:
    """Counts what became of each message. Receipts arrive in the client's thread; everything else is the caller's.

    Invariant: acked + failed + unknown <= sent; equal once the producer is closed. Ctrl-C never falls between the handing
    over of a message and its being counted.
    """

    def __init__(self, settings: Settings, render: Renderer | None) -> None:
        self.settings = settings
        self.render = render
        self.sent = 0
        self.acked = 0
        self.failed = 0
        """In no log, and never will be."""
        self.unknown = 0
        """On their way when the answer stayed away: they may have been written."""
        self.error: ZmqmqError | None = None
        self._other_errors = 0
        self._started = time.perf_counter()
        self._lock = threading.Lock()
        self._has_decided = threading.Event()
        self._under_way: dict[Batch, list[tuple[Given, Handle]]] = {}
        self._is_handing_over = False
        self.is_interrupted = False
        """Ctrl-C came; nothing more is sent."""

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within the block Ctrl-C waits until the message that is being handed over is counted."""
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
            yield
            return

        def interrupt(_number: int, _frame: FrameType | None) -> None:
            is_first, self.is_interrupted = not self.is_interrupted, True
            if not (self._is_handing_over and is_first):
                raise KeyboardInterrupt

        signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def send(self, out: Producer[bytes], given: Given) -> None:
        """Hand one message over and count what becomes of it."""
        self._is_handing_over = True
        try:
            self._hand_over(out, given)
        finally:
            self._is_handing_over = False
        if self.is_interrupted:
            raise KeyboardInterrupt

    def _has_room(self) -> bool:
        """Whether to go on, after waiting. Each message is kept until its receipt is printed: who reads the receipts slowly holds
        the sending back. Every message is decided by its delivery timeout, so this ends unless standard output stands still."""
        while self.sent - self.acked - self.failed - self.unknown >= OUTSTANDING_MAX and not self.is_interrupted:
            self._has_decided.wait(LOOK_S)
            self._has_decided.clear()
        return not self.is_interrupted

    def _hand_over(self, out: Producer[bytes], given: Given) -> None:
        if not self._has_room():
            return
        when = None if given.timestamp_ms is None else _EPOCH + dt.timedelta(milliseconds=given.timestamp_ms)
        full_since: float | None = None
        while True:
            try:
                handle = out.send(given.value, key=given.key, headers=given.headers, partition=given.partition, timestamp=when)
                break
            except BufferFull as error:
                if self.is_interrupted:
                    return  # it was not sent, and is not counted
                full_since = full_since or time.monotonic()
                if time.monotonic() - full_since >= FULL_SECONDS_MAX:
                    self._count_refused()
                    raise BufferFull(
                        f"the buffer for {out.topic} stayed full for {FULL_SECONDS_MAX:g} s",
                        hint="look at the broker with 'zmqmq ping', or send slower with --rate",
                        outcome="not_written",
                    ) from error
            except ZmqmqError:
                self._count_refused()
                raise
        self.sent += 1
        with self._lock:
            waiting = self._under_way.get(handle.batch)
            if waiting is not None:
                waiting.append((given, handle))
                return
            self._under_way[handle.batch] = [(given, handle)]
        handle.add_done_callback(self._on_decided)

    def _count_refused(self) -> None:
        self.sent += 1
        with self._lock:
            self.failed += 1

    def stopped_by(self, error: ZmqmqError) -> None:
        """Nothing more is sent; the first error is the one that is shown."""
        with self._lock:
            self._note_error(error, 1)

    @property
    def outstanding(self) -> int:
        with self._lock:
            return self.sent - self.acked - self.failed - self.unknown

    def _on_decided(self, handle: Handle) -> None:
        """The messages of a batch share its fate, so one of them reports for all that are known by now; one that is handed
        over at this very moment reports for itself."""
        with self._lock:
            decided = self._under_way.pop(handle.batch)
            self._has_decided.set()
            outcome = handle.batch.outcome
            if isinstance(outcome, ZmqmqError):
                if outcome.outcome == "unknown":
                    self.unknown += len(decided)
                else:
                    self.failed += len(decided)
                self._note_error(outcome, len(decided))
                return
            self.acked += len(decided)
        if self.render is not None:
            self._print(self.render, decided)

    def _note_error(self, error: ZmqmqError, count: int) -> None:
        self.error = self.error or error
        if type(error) is not type(self.error):
            self._other_errors += count

    def _print(self, render: Renderer, decided: list[tuple[Given, Handle]]) -> None:
        """A reader of the receipts that goes away does not stop the sending."""
        try:
            self.settings.output.data(b"".join([render(Receipt(given, handle.result(0))) for given, handle in decided]))
            self.settings.output.flush()
        except BrokenPipeError:
            self.render = None

    def failure(self) -> ZmqmqError | None:
        """The first error, saying how many messages are concerned and what is not known of them."""
        lost = self.failed + self.unknown
        if self.error is None or not lost:
            return self.error
        what = "the message was" if self.sent == 1 else f"{lost:,} of {self.sent:,} messages {'was' if lost == 1 else 'were'}"
        doubt = f" ({self.unknown:,} of them may have been written all the same)" if self.unknown and self.sent > 1 else ""
        if self.unknown and self.sent == 1:
            doubt = " (it may have been written all the same)"
        others = f" (and other reasons for {self._other_errors:,})" if self._other_errors else ""
        found = copy.copy(self.error)
        found.args = (f"{what} not delivered{doubt}: {_OF_A_BATCH.sub('', str(self.error))}{others}",)
        return found

    def report(self, topic: str, acks: str) -> None:
        """The counts: a line of talk, or data when a program asked for it."""
        seconds = time.perf_counter() - self._started
        output = self.settings.output
        if output.format not in {"text", "wide"}:
            output.one(self._row(topic, acks, seconds), "")
            return
        done = f"{self.acked:,} acked" if acks != "0" else f"{self.acked:,} sent unacknowledged"
        unknown = self.sent - self.acked - self.failed
        parts = [f"{self.sent:,} {'message' if self.sent == 1 else 'messages'}", done, f"{self.failed:,} failed"]
        parts += [f"{unknown:,} unknown"] if unknown else []
        output.note(", ".join([*parts, _span(seconds)]))

    def _row(self, topic: str, acks: str, seconds: float) -> dict[str, Any]:
        return {
            "topic": topic,
            "messages": self.sent,
            "acked": self.acked if acks != "0" else 0,
            "unacknowledged": self.acked if acks == "0" else 0,
            "failed": self.failed,
            "unknown": self.sent - self.acked - self.failed,
            "seconds": round(seconds, 6),
        }


def _span(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
