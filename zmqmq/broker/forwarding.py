"""Clients' requests that only the active controller can decide: sent on to it, and its answers back.

Pure. Promise: each request that came from a client is answered once, at its deadline at the latest. One is sent again while its controller
stays the same, and the controller carries it out once (``Served``); when the controller changes, what was sent to the old one is unknown,
unless asking twice does no harm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from zmqmq.errors import BrokerUnavailable, OutcomeUnknown, Throttled, ZmqmqError
from zmqmq.marks import reached
from zmqmq.metadata.messages import Forward, Forwarded
from zmqmq.wire import framing
from zmqmq.wire.requests import InitProducer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmqmq.ports import Buffer
    from zmqmq.wire.requests import Request

REPEAT_MS: Final = 300
FORWARDS_MAX: Final = 1_000
"""Of this broker's clients, under way."""
FORWARD_MS_MAX: Final = 30_000
SERVED_MAX: Final = 4_096
"""Answers that a controller remembers, for requests that come again."""
_SOURCE: Final = b"\xfffwd"


class _Waiting(Struct):
    source: bytes
    correlation_id: int
    frames: list[bytes]
    deadline_ms: int
    is_safe: bool
    sent_to: int | None = None
    repeat_ms: int = 0
    answer: Forwarded | None = None


class Answer(Struct, frozen=True):
    """For a client: frames, or why there are none."""

    source: bytes
    correlation_id: int
    frames: tuple[Buffer, ...] = ()
    error: ZmqmqError | None = None


class Forwarding:
    """The side of the client's broker."""

    def __init__(self, node_id: int, first_number: int) -> None:
        """``first_number`` is random: numbers of an earlier life of this broker must not be taken for ours."""
        self.node_id = node_id
        self._number = first_number
        self._waiting: dict[int, _Waiting] = {}
        self._controller: int | None = None

    def forward(self, source: bytes, request: Request, frames: Sequence[Buffer], now_ms: int) -> None:
        """Raises Throttled."""
        if len(self._waiting) >= FORWARDS_MAX:
            raise Throttled(f"{FORWARDS_MAX} requests are on their way to the controller", retry_after_ms=REPEAT_MS)
        self._number += 1
        deadline_ms = now_ms + min(max(request.timeout_ms, 1), FORWARD_MS_MAX)
        copied = [bytes(frame) for frame in frames]
        self._waiting[self._number] = _Waiting(source, request.correlation_id, copied, deadline_ms, isinstance(request, InitProducer))

    def on_answer(self, message: Forwarded) -> None:
        waiting = self._waiting.get(message.number)
        if waiting is not None and message.node_id == self.node_id:
            waiting.answer = message

    def on_gone(self, source: bytes) -> None:
        for number in [number for number, waiting in self._waiting.items() if waiting.source == source]:
            del self._waiting[number]

    def take_answers(self, controller: int | None, applied_index: int, now_ms: int) -> list[Answer]:
        answers = []
        for number, waiting in list(self._waiting.items()):
            found = self._answer(waiting, controller, applied_index, now_ms)
            if found is not None:
                del self._waiting[number]
                answers.append(found)
        return answers

    def take_messages(self, controller: int | None, now_ms: int) -> list[Forward]:
        """For the controller."""
        self._controller = controller
        messages = []
        for number, waiting in self._waiting.items():
            if controller is None or waiting.answer is not None or (waiting.sent_to == controller and now_ms < waiting.repeat_ms):
                continue
            waiting.sent_to, waiting.repeat_ms = controller, now_ms + REPEAT_MS
            messages.append(Forward(self.node_id, number, waiting.frames))
        return messages

    def next_deadline_ms(self) -> int | None:
        return min((self._due_ms(waiting) for waiting in self._waiting.values()), default=None)

    def _due_ms(self, waiting: _Waiting) -> int:
        if self._controller is None or waiting.answer is not None:
            return waiting.deadline_ms
        return min(waiting.repeat_ms, waiting.deadline_ms)

    def _answer(self, waiting: _Waiting, controller: int | None, applied_index: int, now_ms: int) -> Answer | None:
        done = waiting.answer
        if done is not None and (applied_index >= done.index or now_ms >= waiting.deadline_ms):
            return Answer(waiting.source, waiting.correlation_id, tuple(done.frames))
        has_moved = waiting.sent_to is not None and controller != waiting.sent_to and not waiting.is_safe and done is None
        if has_moved:
            reached("forwarded request unknown")
            text = "the controller changed before it answered"
            error: ZmqmqError = OutcomeUnknown(text, hint="look whether it was done before you ask again", outcome="unknown")
            return Answer(waiting.source, waiting.correlation_id, error=error)
        if now_ms < waiting.deadline_ms:
            return None
        if waiting.sent_to is None:
            error = BrokerUnavailable(
                "the cluster has no controller now", hint="are a majority of its voters running? zmqmq cluster health"
            )
        else:
            error = OutcomeUnknown("the controller did not answer in time", hint="look whether it was done before you ask again")
        return Answer(waiting.source, waiting.correlation_id, error=error)


class Served:
    """The controller's side: what was forwarded to it, and the answers."""

    def __init__(self) -> None:
        self._served: dict[tuple[int, int], list[bytes] | None] = {}

    def begin(self, message: Forward) -> bytes | list[bytes] | None:
        """A source for a request that is new, to be answered to; the answer's frames for one that was answered; None for one under way."""
        key = (message.node_id, message.number)
        if key in self._served:
            return self._served[key]
        while len(self._served) >= SERVED_MAX:
            del self._served[next(iter(self._served))]
        self._served[key] = None
        return _SOURCE + message.node_id.to_bytes(4, "big") + message.number.to_bytes(8, "big")

    def finish(self, source: bytes, frames: Sequence[Buffer], index: int) -> Forwarded:
        node_id = int.from_bytes(source[4:8], "big")
        number = int.from_bytes(source[8:16], "big")
        copied = [bytes(frame) for frame in frames]
        if (node_id, number) in self._served:
            self._served[node_id, number] = copied
        return Forwarded(node_id, number, copied, index)

    def clear(self) -> None:
        """This broker does not decide any more."""
        self._served.clear()


def is_forwarded(source: bytes) -> bool:
    """Whether a request came over another broker. No transport gives out such names."""
    return source.startswith(_SOURCE)


def error_frames(correlation_id: int, error: ZmqmqError) -> list[Buffer]:
    return framing.encode(framing.error_reply(correlation_id, error))
