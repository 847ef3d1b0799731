"""What happened in a run, as lines for people and as one number that two equal runs share."""

from __future__ import annotations

import zlib
from typing import Final

from msgspec import Struct

from zmqmq.ports import Buffer
from zmqmq.testing.sim.kernel import US_PER_S, World

EVENTS_KEPT_MAX: Final = 100_000


class Event(Struct, frozen=True):
    at_us: int
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.at_us / US_PER_S:12.6f} s  {self.kind:<16} {self.detail}"


class Trace:
    """``tell`` for what a person wants to read, ``mix`` for all that must be equal when the seed is."""

    def __init__(self, world: World) -> None:
        self.events: list[Event] = []
        self.digest = 0
        self._world = world

    def tell(self, kind: str, detail: str = "") -> None:
        self.mix(f"{kind}\0{detail}".encode())
        if len(self.events) < EVENTS_KEPT_MAX:
            self.events.append(Event(self._world.now_us, kind, detail))

    def mix(self, data: Buffer) -> None:
        self.digest = zlib.crc32(data, zlib.crc32(self._world.now_us.to_bytes(8, "big"), self.digest))
