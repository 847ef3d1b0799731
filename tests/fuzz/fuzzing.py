"""The loop around one decoder, and what it may say.

An input is *refused* when one of the target's documented errors comes out (exactly that type: UnicodeDecodeError is a ValueError
and still a bug), *taken* when its ``check`` returns, and anything else is a failure: another exception, a broken assertion of the
check, more than SECONDS_MAX for one block, more than MEMORY_BYTES_MAX of memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from mutating import BINARY, Mutator, Trees

CORPUS: Final = Path(__file__).parent / "corpus"
BLOCK: Final = 2_000
"""Executions between two looks at the clock."""
SECONDS_MAX: Final = 60.0
"""Of one block."""
MEMORY_BYTES_MAX: Final = 512 << 20
"""Address space that a run may take beyond what it began with; a decoder that believes a length runs into it."""
FAILURES_MAX: Final = 5
LEARN_BYTES_MAX: Final = 512
"""Longer ones would only slow down what is made from them."""
_DIGITS: Final = {ord(digit): None for digit in "0123456789"}


class Target(NamedTuple):
    """A decoder. ``check`` decodes, encodes the value again, and compares; it raises one of ``refusals``, or returns."""

    name: str
    check: Callable[[bytes], None]
    refusals: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]
    tokens: tuple[bytes, ...] = BINARY
    fix: Callable[[bytearray, random.Random], None] | None = None
    trees: Trees | None = None
    reason_characters: int = 80
    """What is compared of an error's text; nothing behind a quote is, where a piece of the input may stand."""


class Failure(msgspec.Struct, frozen=True):
    """``data`` is made as small as cutting pieces off makes it."""

    what: str
    data: bytes

    def __str__(self) -> str:
        return f"{self.what} from {self.data[:200]!r}{'…' if len(self.data) > 200 else ''}"


class Result(msgspec.Struct):
    """What a run did. ``reasons``: distinct ones to refuse, numbers apart."""

    target: str
    executions: int = 0
    taken: int = 0
    reasons: int = 0
    seconds: float = 0.0
    failures: list[Failure] = []

    def __str__(self) -> str:
        speed = self.executions / self.seconds if self.seconds else 0.0
        share = 100 * self.taken / max(1, self.executions)
        return (
            f"{self.target:16} {self.executions:>11,} executions {speed:>9,.0f}/s {share:5.1f} % taken {self.reasons:>4} reasons to refuse"
            f" {len(self.failures)} failures"
        )


class Slow(BaseException):
    """A block takes too long."""


def fuzz(target: Target, executions: int, seed: int, progress: Callable[[Result], None] = lambda _: None) -> Result:
    """Stops early at FAILURES_MAX different failures."""
    mutator = Mutator(random.Random(f"{target.name} {seed}"), target.seeds, tokens=target.tokens, fix=target.fix, trees=target.trees)
    result = Result(target.name, failures=[])
    reasons: set[str] = set()
    seen: set[str] = set()
    started = time.monotonic()
    with _bounded():
        while result.executions < executions and len(result.failures) < FAILURES_MAX:
            _block(target, mutator, result, reasons, seen, min(BLOCK, executions - result.executions))
            result.reasons, result.seconds = len(reasons), time.monotonic() - started
            progress(result)
    return result


def _block(target: Target, mutator: Mutator, result: Result, reasons: set[str], seen: set[str], count: int) -> None:
    check, refusals, following = target.check, target.refusals, mutator.next
    data = b""
    signal.setitimer(signal.ITIMER_REAL, SECONDS_MAX)
    try:
        for _ in range(count):
            data = following()
            try:
                check(data)
                result.taken += 1
            except Exception as error:  # noqa: BLE001 - the question is which exceptions come
                if type(error) in refusals:
                    reason = str(error).partition("'")[0][: target.reason_characters].translate(_DIGITS)
                    if reason not in reasons and len(data) <= LEARN_BYTES_MAX:
                        reasons.add(reason)
                        mutator.learn(data)
                elif (what := _what(error)) not in seen:
                    seen.add(what)
                    result.failures.append(Failure(what, shrunk(target, data, what)))
    except Slow:
        result.failures.append(Failure(f"no end within {SECONDS_MAX:g} s", data))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    result.executions += count


def outcome(target: Target, data: bytes) -> str:
    """Empty: taken or refused as documented; else what went wrong."""
    try:
        target.check(data)
    except Exception as error:  # noqa: BLE001 - as above
        return "" if type(error) in target.refusals else _what(error)
    return ""


def shrunk(target: Target, data: bytes, what: str) -> bytes:
    """A smaller input that fails in the same way."""
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data):
            smaller = data[:at] + data[at + size :]
            if outcome(target, smaller) == what:
                data = smaller
            else:
                at += size
        size //= 2
    return data


def _what(error: Exception) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "zmqmq" in frame.filename or "targets" in frame.filename]
    where = f"{Path(frames[-1].filename).name}, {frames[-1].name}" if frames else "?"
    return f"{type(error).__name__} ({str(error)[:80].translate(_DIGITS)}) in {where}"


def keep(target: str, failure: Failure) -> Path:
    """Put the input where every test run replays it from now on."""
    directory = CORPUS / target
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{hashlib.sha256(failure.data).hexdigest()[:12]}.bin"
    path.write_bytes(failure.data)
    return path


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise Slow

    before = signal.signal(signal.SIGALRM, ring)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES_MAX, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, before)
