"""What ``zmqmq bench`` measures with: payloads, pacing, percentiles. Pure but for the pacer's clock."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

POOL: Final = 1024
"""Different payloads that take turns."""
NUMBER_DIGITS: Final = 12
_PREFIX: Final = b'{"n":"'
VALUE_BYTES_MIN: Final = len(_PREFIX) + NUMBER_DIGITS + len(b'"}')
_WORDS: Final = ("order", "paid", "shipped", "returned", "ann", "bob", "cid", "dora", "berlin", "porto", "oslo", "lyon")


class Percentiles(NamedTuple):
    """Latencies in milliseconds."""

    p50: float
    p99: float
    p999: float
    max: float


def percentiles(seconds: Sequence[float]) -> Percentiles | None:
    """Nearest rank; None of nothing."""
    if not seconds:
        return None
    ranked = sorted(seconds)
    return Percentiles(*(ranked[min(len(ranked) - 1, int(len(ranked) * share))] * 1000 for share in (0.5, 0.99, 0.999, 1.0)))


def payloads(size: int, seed: int = 1) -> list[bytes]:
    """JSON objects of exactly ``size`` bytes, as compressible as JSON of a service is. Each has room for its number."""
    chance = random.Random(seed)
    return [_payload(size, chance) for _ in range(POOL)]


def _payload(size: int, chance: random.Random) -> bytes:
    head = _PREFIX + b"0" * NUMBER_DIGITS + b'"'
    fields: list[bytes] = []
    room = size - len(head) - len(b"}")
    while True:
        field = f',"{chance.choice(_WORDS)}_{len(fields)}":"{chance.choice(_WORDS)} {chance.randrange(10**6)}"'.encode()
        if len(field) > room - len(b',"pad":""'):
            break
        fields.append(field)
        room -= len(field)
    pad = b',"pad":"' + b"." * (room - len(b',"pad":""')) + b'"' if room >= len(b',"pad":""') else b" " * max(0, room)
    return head + b"".join(fields) + pad + b"}"


def numbered(payload: bytes, number: int) -> bytes:
    """The payload with its number written into it."""
    return b"%b%0*d%b" % (_PREFIX, NUMBER_DIGITS, number, payload[len(_PREFIX) + NUMBER_DIGITS :])


def number_of(value: bytes) -> int:
    return int(value[len(_PREFIX) : len(_PREFIX) + NUMBER_DIGITS])


def keys(count: int) -> list[bytes | None]:
    """Keys that take turns; one None for no keys at all."""
    return [b"key-%d" % i for i in range(count)] or [None]


class Pacer:
    """An open loop: message i is due at ``start + i / rate``, however late its predecessors were."""

    def __init__(self, rate: float, start: float | None = None) -> None:
        self.rate = rate
        self.start = time.monotonic() if start is None else start

    def due(self, index: int) -> float:
        return self.start + index / self.rate

    def wait(self, index: int) -> float:
        """Sleep until message ``index`` is due, never less; the time it was due."""
        due = self.due(index)
        ahead = due - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        return due


def human_rate(per_second: float) -> str:
    """1.82M, 84.2k, 950."""
    for factor, unit in ((1e6, "M"), (1e3, "k")):
        if per_second >= factor:
            return f"{per_second / factor:.3g}{unit}"
    return f"{per_second:.0f}"
