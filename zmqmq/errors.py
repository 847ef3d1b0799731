"""Every error that zmqmq raises or sends.

Each class has a wire ``code`` (never reused, never changed) and says whether the same call may succeed
when it is tried again (``retriable``). The docstring says when the error is raised and what to do.
The message of an instance says what happened and where; ``hint`` says what to do next.

For errors of a produce, ``outcome`` tells the truth about the record: ``"not_written"`` (it is in no
log and never will be) or ``"unknown"`` (it was sent, and no answer came: it may be in the log).
"""

from __future__ import annotations

import builtins
import copy
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Outcome = Literal["not_written", "unknown"]


class ZmqmqError(Exception):
    """Base of all errors of zmqmq."""

    code: ClassVar[int] = 1
    retriable: ClassVar[bool] = False

    def __init__(self, message: str = "", *, hint: str = "", outcome: Outcome | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        self.outcome = outcome
        if hint:
            self.add_note(hint)  # tracebacks show it

    def again(self) -> Self:
        """The same error, to be raised to somebody else: an exception keeps the frames of who raised it, and all that they held."""
        made = copy.copy(self)
        made.__cause__ = self.__cause__
        return made

    def details(self) -> dict[str, Any]:
        """The attributes that travel with the error; msgpack types only."""
        return {}

    def set_details(self, details: Mapping[str, Any]) -> None:
        """Restore what ``details`` gave on the other side. Unknown names, and values of another type, are ignored."""


class RetriableError(ZmqmqError):
    """The same call may succeed later, with nothing changed by the caller."""

    code = 2
    retriable = True


class FatalError(ZmqmqError):
    """The same call will fail again until something is changed."""

    code = 3


class TimeoutError(RetriableError, builtins.TimeoutError):
    """The deadline passed first. Raise the timeout, or look at the broker (``zmqmq ping``)."""

    code = 10


class BrokerUnavailable(RetriableError):
    """No broker answered at the given addresses. Start one (``zmqmq serve``) or correct the address."""

    code = 11


class NotLeader(RetriableError):
    """The broker does not lead the partition (any more). The client finds the leader by itself. ``leader`` and ``endpoint`` say who
    does, as far as the broker knows; ``leader`` is -1 when nobody does."""

    code = 12

    def __init__(self, message: str = "", *, leader: int = -1, endpoint: str = "", hint: str = "", outcome: Outcome | None = None) -> None:
        super().__init__(message, hint=hint, outcome=outcome)
        self.leader = leader
        self.endpoint = endpoint

    def details(self) -> dict[str, Any]:
        return {"leader": self.leader, "endpoint": self.endpoint}

    def set_details(self, details: Mapping[str, Any]) -> None:
        self.leader = _number(details, "leader", -1)
        self.endpoint = str(details.get("endpoint", ""))


class NotEnoughReplicas(RetriableError):
    """Fewer in-sync replicas than ``min_insync_replicas``. Bring brokers back."""

    code = 13


class DiskFull(RetriableError):
    """The broker's disk, or its configured limit, is full. Readers go on. Free space or shorten retention."""

    code = 14


class Throttled(RetriableError):
    """Too many bytes are in flight. Wait ``retry_after_ms`` and send again."""

    code = 15

    def __init__(self, message: str = "", *, retry_after_ms: int = 0, hint: str = "", outcome: Outcome | None = None) -> None:
        super().__init__(message, hint=hint, outcome=outcome)
        self.retry_after_ms = retry_after_ms

    def details(self) -> dict[str, Any]:
        return {"retry_after_ms": self.retry_after_ms}

    def set_details(self, details: Mapping[str, Any]) -> None:
        self.retry_after_ms = _number(details, "retry_after_ms", 0)


class OutcomeUnknown(RetriableError):
    """A record was sent and no answer came: it may be in the log. Read the topic before sending it again."""

    code = 16


class LogOffline(RetriableError):
    """The broker stopped writing because its disk failed a write or a sync. Look at its log, then restart it."""

    code = 17


class UnknownTopic(FatalError):
    """No such topic or partition. ``similar`` lists names that are near."""

    code = 30

    def __init__(self, message: str = "", *, similar: Sequence[str] = (), hint: str = "", outcome: Outcome | None = None) -> None:
        super().__init__(message, hint=hint, outcome=outcome)
        self.similar = tuple(similar)

    def details(self) -> dict[str, Any]:
        return {"similar": list(self.similar)}

    def set_details(self, details: Mapping[str, Any]) -> None:
        names = details.get("similar")
        self.similar = tuple(str(name) for name in names) if isinstance(names, list | tuple) else ()


class TopicExists(FatalError):
    """A topic of that name exists. Choose another name, or create with ``exist_ok=True``."""

    code = 31


class Fenced(FatalError):
    """A newer owner of the same identity exists; this one has to stop."""

    code = 32


class AuthError(FatalError):
    """Not allowed. Check the key pair and the permissions."""

    code = 33


class InvalidConfig(FatalError):
    """A setting, name or argument is out of its rules. The message names field, value and rule."""

    code = 34


class UnsupportedVersion(FatalError):
    """The two sides share no version of a protocol or format. Upgrade the older side."""

    code = 35


class DeliveryFailed(FatalError):
    """Some records of a ``flush`` or ``close`` were not delivered. ``failures`` lists them, each with its outcome."""

    code = 36

    def __init__(self, message: str = "", *, failures: Sequence[Any] = (), hint: str = "", outcome: Outcome | None = None) -> None:
        super().__init__(message, hint=hint, outcome=outcome)
        self.failures = tuple(failures)


class DeserializationError(FatalError):
    """A value or key does not decode. ``message`` is the raw message; correct the serde or skip the record."""

    code = 37

    def __init__(self, text: str = "", *, message: Any = None, hint: str = "", outcome: Outcome | None = None) -> None:
        super().__init__(text, hint=hint, outcome=outcome)
        self.message = message


class CommitFailed(FatalError):
    """The group did not take the offsets, because the member no longer owns the partition."""

    code = 38


class BufferFull(FatalError):
    """The producer's buffer stayed full for ``max_block``. Slow down, or raise ``buffer_bytes`` or ``max_block``."""

    code = 39


class ClosedError(FatalError):
    """The client, producer or reader is closed, or was inherited over ``fork()``. Make a new one."""

    code = 40


class CorruptLog(FatalError):
    """A file on disk is not what was written. ``file`` and ``position`` say where. Restore it from a backup or a replica."""

    code = 41

    def __init__(self, message: str = "", *, file: str = "", position: int = -1, hint: str = "", outcome: Outcome | None = None) -> None:
        super().__init__(message, hint=hint, outcome=outcome)
        self.file = file
        self.position = position

    def details(self) -> dict[str, Any]:
        return {"file": self.file, "position": self.position}

    def set_details(self, details: Mapping[str, Any]) -> None:
        self.file = str(details.get("file", ""))
        self.position = _number(details, "position", -1)


class MessageTooLarge(FatalError):
    """A record or batch is over its limit. Make it smaller, or raise ``message_bytes_max`` of the topic."""

    code = 42


class ProtocolError(FatalError):
    """A message on the wire breaks the protocol."""

    code = 43


class LocalProtocolError(ProtocolError):
    """This side was about to break the protocol: a bug here, or an argument that slipped through."""

    code = 44


class RemoteProtocolError(ProtocolError):
    """The other side broke the protocol, or it is not zmqmq at all."""

    code = 45


class DataDirLocked(FatalError):
    """Another process has the data directory open. Stop it, or use another directory."""

    code = 46


class OffsetOutOfRange(FatalError):
    """The offset asked for lies outside the log. ``log_start`` and ``log_end`` say what there is."""

    code = 47

    def __init__(
        self, message: str = "", *, log_start: int = -1, log_end: int = -1, hint: str = "", outcome: Outcome | None = None
    ) -> None:
        super().__init__(message, hint=hint, outcome=outcome)
        self.log_start = log_start
        self.log_end = log_end

    def details(self) -> dict[str, Any]:
        return {"log_start": self.log_start, "log_end": self.log_end}

    def set_details(self, details: Mapping[str, Any]) -> None:
        self.log_start = _number(details, "log_start", -1)
        self.log_end = _number(details, "log_end", -1)


class DataLost(OffsetOutOfRange):
    """Records between the reader's position and ``log_start`` were removed by retention before they were read."""

    code = 48


class LogTruncated(OffsetOutOfRange):
    """Records that the reader has seen are no longer in the log. ``log_end`` is where the histories part."""

    code = 49


class InvalidRecord(FatalError):
    """A batch or record is malformed: bad checksum, bad counts, undecodable payload."""

    code = 50


class AddressInUse(FatalError):
    """The address is taken by another program. Stop it, or listen on another port (0 takes any free one)."""

    code = 51


class DuplicateSequence(FatalError):
    """The batch was written before, but too long ago to name its offset. Counts as delivered."""

    code = 52


class OutOfOrderSequence(RetriableError):
    """A batch arrived before its predecessor. The client sends both again, in order."""

    code = 53


class UnknownProducer(FatalError):
    """The broker does not know the producer id any more; batches that were never sent get a new one."""

    code = 54


class InvalidHistory(FatalError):
    """A recorded history breaks the rules of its format. The message names the line or the operation; correct what recorded it."""

    code = 55


def _number(details: Mapping[str, Any], name: str, default: int) -> int:
    value = details.get(name, default)
    return value if isinstance(value, int) else default


def _subclasses(cls: type[ZmqmqError]) -> list[type[ZmqmqError]]:
    return [cls, *(found for child in cls.__subclasses__() for found in _subclasses(child))]


BY_CODE: dict[int, type[ZmqmqError]] = {cls.code: cls for cls in _subclasses(ZmqmqError)}


def from_wire(code: int, message: str, hint: str, details: Mapping[str, Any]) -> ZmqmqError:
    """The error that a peer sent. A code from the future becomes a plain ``ZmqmqError`` that names it."""
    cls = BY_CODE.get(code)
    if cls is None:
        return ZmqmqError(f"{message} (error code {code}, unknown to this version)", hint=hint)
    error = cls(message, hint=hint)
    error.set_details(details)
    outcome = details.get("outcome")
    if outcome in ("not_written", "unknown"):
        error.outcome = outcome
    return error
