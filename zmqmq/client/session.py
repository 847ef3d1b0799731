"""One connection to one broker: greeting, correlation, deadlines, reconnection.

States: IDLE (no socket; may open again after ``retry_at_ms``) -> CONNECTING -> GREETING -> READY, and from
each of them back to IDLE when the connection ends. Every request gets exactly one answer, in every case:
a reply, TimeoutError at its deadline, or BrokerUnavailable when the connection ended first.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

from msgspec import Struct

from zmqmq.errors import BrokerUnavailable, RemoteProtocolError, TimeoutError, UnsupportedVersion, ZmqmqError
from zmqmq.marks import reached
from zmqmq.ports import Buffer, Random
from zmqmq.wire import framing
from zmqmq.wire.replies import ErrorReply, HelloReply, Limits, Reply
from zmqmq.wire.requests import Hello, Request

CONNECT_MS_MAX: Final = 1_500
HELLO_MS_MAX: Final = 3_000
BACKOFF_MS_MIN: Final = 50
BACKOFF_MS_MAX: Final = 2_000
REQUESTS_IN_FLIGHT_MAX: Final = 32
"""Fewer than ZeroMQ queues per connection, so that a request is not held up behind a full queue."""

Answer: TypeAlias = Reply | ZmqmqError
"""What a broker said, ErrorReply too; or, as an exception, why there is no answer."""
Done: TypeAlias = Callable[[Answer, Sequence[Buffer], int], None]
"""Called once with the reply or the error, the payload frames, and now."""
Build: TypeAlias = Callable[[int, int], Request]
"""Makes the request from correlation id and timeout_ms."""


class Connect(Struct, frozen=True):
    address: str


class Disconnect(Struct, frozen=True):
    address: str


class Transmit(Struct, frozen=True):
    address: str
    frames: list[Buffer]


Effect: TypeAlias = Connect | Disconnect | Transmit


class Emit(Protocol):
    def __call__(self, effect: Effect, /) -> None: ...


class State(enum.Enum):
    IDLE = "idle"
    CONNECTING = "connecting"
    GREETING = "greeting"
    READY = "ready"


class _Pending(Struct):
    done: Done
    bytes: int
    what: str
    sent_ms: int


class Session:
    """Driven by ``ClientCore``; says what it wants through ``emit``."""

    def __init__(self, address: str, *, client_id: str, software: str, emit: Emit, random: Random) -> None:
        self.address = address
        self.state = State.IDLE
        self.node_id: int | None = None
        self.cluster_id = ""
        self.limits = Limits()
        self.failure: ZmqmqError | None = None
        """Why the last attempt ended; None while all is well."""
        self.retry_at_ms = 0
        self.is_wanted = False
        """Somebody asked for a connection too early, and waits for ``retry_at_ms``."""
        self.is_congested = False
        self.in_flight_bytes = 0
        self.requests_sent = 0
        self._client_id = client_id
        self._software = software
        self._emit = emit
        self._random = random
        self._failures = 0
        self._deadline_ms = 0
        self._correlation_id = 0
        self._pending: dict[int, _Pending] = {}
        self._deadlines: list[tuple[int, int]] = []

    def __repr__(self) -> str:
        return f"Session({self.address} {self.state.value} pending={len(self._pending)})"

    @property
    def is_ready(self) -> bool:
        return self.state is State.READY

    @property
    def has_room(self) -> bool:
        """One more request may be sent. Always true when nothing is in flight."""
        if self.state is not State.READY or self.is_congested:
            return False
        return len(self._pending) < REQUESTS_IN_FLIGHT_MAX and self.in_flight_bytes < self.limits.in_flight_bytes_max

    def maybe_open(self, now_ms: int) -> None:
        """Begin to connect, unless that is under way or too early."""
        self.is_wanted = self.state is State.IDLE and now_ms < self.retry_at_ms
        if self.state is State.IDLE and not self.is_wanted:
            self.state = State.CONNECTING
            self._deadline_ms = now_ms + CONNECT_MS_MAX
            self._emit(Connect(self.address))

    def request(self, build: Build, payload: Sequence[Buffer], deadline_ms: int, done: Done, now_ms: int) -> int:
        """Send it on a connection that is ready. Its number, for ``abandon``."""
        assert self.state is State.READY
        return self._send(build, payload, deadline_ms, done, now_ms)

    def abandon(self, number: int, error: ZmqmqError, now_ms: int) -> None:
        """Wait no longer for this answer; it is ``error`` then. Nothing happens if it has come."""
        pending = self._forget(number)
        if pending is not None:
            pending.done(error, (), now_ms)

    def waits_since_ms(self) -> int | None:
        """When the oldest request without an answer was sent."""
        return next(iter(self._pending.values())).sent_ms if self._pending else None

    def post(self, build: Build, payload: Sequence[Buffer]) -> None:
        """Send a request that has no answer."""
        assert self.state is State.READY
        self._emit(Transmit(self.address, framing.encode(build(self._next_id(), 0), payload)))

    def on_connected(self, now_ms: int) -> None:
        if self.state is not State.CONNECTING:
            return
        self.state = State.GREETING
        self._deadline_ms = now_ms + HELLO_MS_MAX

        def hello(correlation_id: int, timeout_ms: int) -> Request:
            return Hello(correlation_id, timeout_ms, client_id=self._client_id, software=self._software)

        self._send(hello, (), self._deadline_ms, self._on_hello, now_ms)

    def on_lost(self, reason: str, now_ms: int) -> None:
        """The socket is gone, or never connected."""
        if self.state is State.IDLE:
            return
        if self._pending:
            reached("connection lost under way")
        step = {State.CONNECTING: "connect", State.GREETING: "greet"}.get(self.state, "wait for an answer")
        self._end(BrokerUnavailable(f"{self.address}: {reason} ({step})"), now_ms)

    def on_message(self, frames: Sequence[Buffer], now_ms: int) -> None:
        if self.state is not State.READY and self.state is not State.GREETING:
            return
        try:
            reply, payload = framing.decode_reply(frames)
        except (RemoteProtocolError, UnsupportedVersion) as error:
            self._drop(type(error)(f"{self.address}: {error}", hint=error.hint or "is this the address of a zmqmq broker?"), now_ms)
            return
        pending = self._forget(reply.correlation_id)
        if pending is None and isinstance(reply, ErrorReply) and reply.correlation_id == 0:
            self._drop(framing.raised(reply.fault), now_ms)  # it could not read a request of ours, and cannot say which
        elif pending is not None:
            pending.done(reply, payload, now_ms)

    def on_tick(self, now_ms: int) -> None:
        if self.is_wanted and now_ms >= self.retry_at_ms:
            self.is_wanted = False  # who still wants it asks again in this turn
        if self.state is State.CONNECTING and now_ms >= self._deadline_ms:
            self._drop(BrokerUnavailable(f"{self.address}: no connection within {CONNECT_MS_MAX / 1000:g} s (connect)"), now_ms)
        while self._deadlines and self._deadlines[0][0] <= now_ms:
            pending = self._forget(heapq.heappop(self._deadlines)[1])
            if pending is not None:
                reached("request timed out")
                pending.done(TimeoutError(f"{self.address} did not answer {pending.what} in time"), (), now_ms)

    def next_deadline_ms(self) -> int | None:
        while self._deadlines and self._deadlines[0][1] not in self._pending:
            heapq.heappop(self._deadlines)
        if self.state is State.READY:
            return self._deadlines[0][0] if self._deadlines else None
        times = [self._deadlines[0][0]] if self._deadlines else []
        if self.state is State.CONNECTING:
            times.append(self._deadline_ms)
        if self.is_wanted:
            times.append(self.retry_at_ms)
        return min(times, default=None)

    def close(self, error: ZmqmqError, now_ms: int) -> None:
        """The client ends: every pending request is answered with ``error``."""
        if self.state is not State.IDLE:
            self._emit(Disconnect(self.address))
            self._end(error, now_ms)

    def _on_hello(self, answer: Answer, _payload: Sequence[Buffer], now_ms: int) -> None:
        if isinstance(answer, ErrorReply):
            answer = framing.raised(answer.fault)
        if isinstance(answer, HelloReply):
            self.state = State.READY
            self.node_id = answer.node_id
            self.cluster_id = answer.cluster_id
            self.limits = answer.limits
            self.failure = None
            self._failures = 0
        elif isinstance(answer, TimeoutError):
            self._drop(BrokerUnavailable(f"{self.address}: no answer within {HELLO_MS_MAX / 1000:g} s (greet)"), now_ms)
        elif isinstance(answer, ZmqmqError) and self.state is State.GREETING:
            self._drop(answer, now_ms)
        elif self.state is State.GREETING:
            self._drop(RemoteProtocolError(f"{self.address}: answered the greeting with {type(answer).__name__}"), now_ms)

    def _send(self, build: Build, payload: Sequence[Buffer], deadline_ms: int, done: Done, now_ms: int) -> int:
        correlation_id = self._next_id()
        request = build(correlation_id, max(1, deadline_ms - now_ms))
        size = sum(map(len, payload))
        self._pending[correlation_id] = _Pending(done, size, type(request).__name__, now_ms)
        self.in_flight_bytes += size
        self.requests_sent += 1
        heapq.heappush(self._deadlines, (deadline_ms, correlation_id))
        self._emit(Transmit(self.address, framing.encode(request, payload)))
        return correlation_id

    def _next_id(self) -> int:
        self._correlation_id += 1
        return self._correlation_id

    def _forget(self, correlation_id: int) -> _Pending | None:
        pending = self._pending.pop(correlation_id, None)
        if pending is not None:
            self.in_flight_bytes -= pending.bytes
        return pending

    def _drop(self, error: ZmqmqError, now_ms: int) -> None:
        self._emit(Disconnect(self.address))
        self._end(error, now_ms)

    def _end(self, error: ZmqmqError, now_ms: int) -> None:
        self.state = State.IDLE
        self.failure = error
        self.is_congested = False
        self._failures += 1
        backoff = min(BACKOFF_MS_MAX, BACKOFF_MS_MIN << min(self._failures - 1, 10))
        self.retry_at_ms = now_ms + backoff // 2 + int(backoff * self._random.random() / 2)
        pending, self._pending = self._pending, {}
        self._deadlines.clear()
        self.in_flight_bytes = 0
        for waiting in pending.values():
            waiting.done(error, (), now_ms)
