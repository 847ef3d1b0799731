"""Conversations with brokers, written once for threads and for tasks.

A conversation is a generator: it yields what it needs (an answer, a pause, something done on the engine's side), gets it back,
and returns its result. ``asking.Asker`` runs it in a thread, ``aio.driver.LoopDriver`` in a task; errors are raised inside.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from typing import Any, TypeAlias, TypeVar

from msgspec import Struct

from zmqmq.client.core import ANY_BROKER, ClientCore
from zmqmq.client.session import Answer, Build
from zmqmq.errors import RemoteProtocolError, ZmqmqError
from zmqmq.wire.framing import raised
from zmqmq.wire.replies import MetadataReply, TopicInfo
from zmqmq.wire.requests import GetMetadata, Request

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Ask(Struct, frozen=True):
    """A question to a broker, for a reply of type ``kind``. ``timeout`` None: the client's."""

    kind: type[Any]
    build: Build
    what: str
    timeout: float | None = None
    node: int = ANY_BROKER
    is_safe: bool = True

    def begin(self, core: ClientCore, seconds: float, now_ms: int, answer: Callable[[Any], None]) -> None:
        """On the engine's side. ``answer`` is called once, with the reply or the error."""

        def answered(reply: Answer) -> None:
            answer(reply if isinstance(reply, (self.kind, ZmqmqError)) else _misfit(reply))

        deadline_ms = now_ms + int(seconds * 1000)
        core.ask(self.build, answered, deadline_ms=deadline_ms, what=self.what, now_ms=now_ms, node=self.node, is_safe=self.is_safe)


class Pause(Struct, frozen=True):
    seconds: float


class InCore(Struct, frozen=True):
    """``function(core)`` on the engine's side; its value."""

    function: Callable[[ClientCore], Any]


class Elapsed(Struct, frozen=True):
    """Seconds of the monotonic clock."""


class DefaultTimeout(Struct, frozen=True):
    """The client's own, in seconds."""


Step: TypeAlias = Ask | Pause | InCore | Elapsed | DefaultTimeout
Steps: TypeAlias = Generator[Step, Any, T]


def shown_as(operation: Callable[..., Steps[Any]], method: F) -> F:
    """The method carries out the operation: it has its name, docstring and arguments."""
    functools.update_wrapper(method, operation)
    shown = inspect.signature(operation)
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY), *shown.parameters.values()]
    result = str(shown.return_annotation).removeprefix("Steps[").removesuffix("]")
    method.__signature__ = shown.replace(parameters=parameters, return_annotation=result)  # type: ignore[attr-defined]  # functions take any
    return method


def ask(kind: type[T], build: Build, what: str, *, timeout: float | None = None, node: int = ANY_BROKER, is_safe: bool = True) -> Steps[T]:
    found: T = yield Ask(kind, build, what, timeout, node, is_safe)
    return found


def in_core(function: Callable[[ClientCore], T]) -> Steps[T]:
    found: T = yield InCore(function)
    return found


def monotonic() -> Steps[float]:
    """Seconds since some start."""
    found: float = yield Elapsed()
    return found


def default_timeout() -> Steps[float]:
    found: float = yield DefaultTimeout()
    return found


def pause(seconds: float) -> Steps[None]:
    yield Pause(seconds)


def metadata(topics: list[str] | None, *, internal: bool = False, timeout: float | None = None) -> Steps[MetadataReply]:
    def build(correlation_id: int, timeout_ms: int) -> Request:
        return GetMetadata(correlation_id, timeout_ms, topics=topics, internal=internal)

    reply = yield from ask(MetadataReply, build, "GetMetadata", timeout=timeout)
    for topic in reply.topics if topics is not None else ():
        if topic.error is not None:
            raise raised(topic.error)
    return reply


def find_topic(name: str, timeout: float | None = None) -> Steps[tuple[TopicInfo, MetadataReply]]:
    """One topic. Raises UnknownTopic."""
    reply = yield from metadata([name], timeout=timeout)
    found = next((topic for topic in reply.topics if topic.name == name), None)
    if found is None:
        raise RemoteProtocolError(f"the broker's answer does not mention topic {name!r}")
    return found, reply


def _misfit(reply: object) -> ZmqmqError:
    return RemoteProtocolError(f"the broker answered with {type(reply).__name__}, which does not fit the question")
