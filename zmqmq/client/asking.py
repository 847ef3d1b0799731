"""Questions of the application to the brokers, from any thread: one request and its reply, with a deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from zmqmq.client.core import ANY_BROKER, ClientCore
from zmqmq.client.io_thread import IoThread
from zmqmq.client.session import Answer, Build
from zmqmq.errors import RemoteProtocolError, ZmqmqError
from zmqmq.wire.framing import raised
from zmqmq.wire.replies import MetadataReply, TopicInfo
from zmqmq.wire.requests import GetMetadata, Request

T = TypeVar("T")
R = TypeVar("R")


class Asker:
    """Asks through a client's I/O thread."""

    def __init__(self, io: IoThread, timeout: float) -> None:
        self.io = io
        self.timeout = timeout

    def ask(
        self, kind: type[T], build: Build, what: str, *, timeout: float | None = None, node: int = ANY_BROKER, is_safe: bool = True
    ) -> T:
        """The reply, which must be a ``kind``; errors are raised."""
        seconds = self.timeout if timeout is None else timeout

        def in_io(now_ms: int, answer: Callable[[T | ZmqmqError], None]) -> None:
            def answered(reply: Answer) -> None:
                answer(reply if isinstance(reply, kind | ZmqmqError) else _misfit(reply))

            deadline_ms = now_ms + int(seconds * 1000)
            self.io.core.ask(build, answered, deadline_ms=deadline_ms, what=what, now_ms=now_ms, node=node, is_safe=is_safe)

        return self.io.ask(in_io, seconds)

    def metadata(self, topics: list[str] | None, *, internal: bool = False, timeout: float | None = None) -> MetadataReply:
        def build(correlation_id: int, timeout_ms: int) -> Request:
            return GetMetadata(correlation_id, timeout_ms, topics=topics, internal=internal)

        reply = self.ask(MetadataReply, build, "GetMetadata", timeout=timeout)
        for topic in reply.topics if topics is not None else ():
            if topic.error is not None:
                raise raised(topic.error)
        return reply

    def topic(self, name: str, timeout: float | None = None) -> tuple[TopicInfo, MetadataReply]:
        """One topic. Raises UnknownTopic."""
        reply = self.metadata([name], timeout=timeout)
        found = next((topic for topic in reply.topics if topic.name == name), None)
        if found is None:
            raise RemoteProtocolError(f"the broker's answer does not mention topic {name!r}")
        return found, reply

    def in_io(self, function: Callable[[ClientCore], R], timeout: float | None = None) -> R:
        """Run ``function(core)`` in the I/O thread; its value."""

        def run(_now_ms: int, answer: Callable[[list[R] | ZmqmqError], None]) -> None:
            try:
                answer([function(self.io.core)])
            except ZmqmqError as error:
                answer(error)

        return self.io.ask(run, self.timeout if timeout is None else timeout)[0]


def _misfit(reply: object) -> ZmqmqError:
    return RemoteProtocolError(f"the broker answered with {type(reply).__name__}, which does not fit the question")
