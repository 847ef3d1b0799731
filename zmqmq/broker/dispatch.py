"""What the broker's machines share: the time of a round, the effects they ask for, what they count."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from zmqmq.effects import Effect, Send, Sync
from zmqmq.errors import ZmqmqError
from zmqmq.wire.framing import error_reply

if TYPE_CHECKING:
    from zmqmq.wire.replies import Reply


class Now(NamedTuple):
    """Wall clock for what people read, monotonic clock for waiting and measuring."""

    wall_ms: int
    us: int

    @property
    def ms(self) -> int:
        return self.us // 1000


class Dispatch:
    """Effects in order, and counters."""

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        self.errors: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.wants_sync = False

    def reply(self, target: bytes, reply: Reply) -> None:
        self.effects.append(Send(target, reply))

    def refuse(self, target: bytes, correlation_id: int, error: ZmqmqError) -> None:
        self.count(error)
        self.effects.append(Send(target, error_reply(correlation_id, error)))

    def count(self, error: ZmqmqError) -> ZmqmqError:
        self.errors[type(error).__name__] += 1
        return error

    def take(self) -> list[Effect]:
        effects, self.effects = self.effects, []
        if self.wants_sync:
            self.wants_sync = False
            effects.append(Sync())
        return effects
