"""What goes wrong on the simulated disk, and who decides it.

``Fault`` is exact, for tests of one moment: this call, on that path, fails so. ``DiskFaults`` is for swarms: a rate for
each class of faults, drawn anew for each seed, some of them off. ``FaultSwarm`` rolls the dice.

Promise: each call takes the same numbers from the stream of chance, whatever rates there are, whatever strikes and
whatever ``decide`` says. So switching off a class, or a single fault, moves no other fault before the run itself takes
another way.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct, structs

from zmqmq.testing.sim.chance import draw_rates

if TYPE_CHECKING:
    from zmqmq.ports import Random

Decide: TypeAlias = Callable[[str, int], bool]
"""(class, how manieth fault of that class this would be, from 0) -> whether it may strike."""
OnFault: TypeAlias = Callable[[str, str], None]
"""(class, detail) of a fault that struck."""

SLOW_SYNC_US_MAX: Final = 1_000_000
RATES: Final[dict[str, tuple[float, float]]] = {
    "eio_read": (1e-5, 1e-3),
    "eio_write": (1e-5, 1e-3),
    "eio_sync": (1e-3, 5e-2),
    "enospc": (1e-4, 1e-2),
    "short_write": (1e-3, 1e-1),
    "torn": (0.1, 1.0),
    "sync_slow": (1e-3, 1e-1),
    "flip": (0.01, 0.3),
}
"""The least and the greatest rate of a class that is on."""

CLASSES_OF_CALL: Final[dict[str, tuple[str, ...]]] = {
    "pread": ("eio_read",),
    "pwritev": ("eio_write", "enospc", "short_write"),
    "allocate": ("enospc",),
    "create": ("enospc",),
    "fdatasync": ("eio_sync",),
    "sync_directory": ("eio_sync",),
}
ERRNO_OF_CLASS: Final = {"eio_read": errno.EIO, "eio_write": errno.EIO, "eio_sync": errno.EIO, "enospc": errno.ENOSPC}


class Fault(Struct):
    """The ``nth`` call (1 is the next) named ``call`` on a path that contains ``path`` fails with ``error``,
    or, with ``short`` set, writes only so many bytes. It happens ``times`` times, -1: from then on."""

    call: str
    error: int = errno.EIO
    path: str = ""
    nth: int = 1
    times: int = 1
    short: int = -1

    def strikes(self, call: str, path: str) -> bool:
        if call != self.call or self.path not in path or self.times == 0:
            return False
        self.nth -= 1
        if self.nth > 0:
            return False
        self.nth = 1
        self.times -= 1
        return True


class DiskFaults(Struct, frozen=True):
    """The rate of each class of faults, 0 to 1; 0 is off."""

    eio_read: float = 0.0
    """Per ``pread``: EIO."""
    eio_write: float = 0.0
    """Per ``pwritev``: EIO, and nothing is written."""
    eio_sync: float = 0.0
    """Per ``fdatasync`` and ``sync_directory``: EIO, and what was dirty is lost or not, see ``disk_nodes``."""
    enospc: float = 0.0
    """Per call that takes room: ENOSPC, though there would be some."""
    short_write: float = 0.0
    """Per ``pwritev``: it writes a part and says so."""
    torn: float = 0.0
    """Per power cut: writes under way are torn."""
    sync_slow: float = 0.0
    """Per question ``sync_delay_us``."""
    flip: float = 0.0
    """Per question ``maybe_flip``."""
    sync_slow_us: int = SLOW_SYNC_US_MAX
    """The longest delay of a slow sync."""

    @classmethod
    def draw(cls, random: Random) -> DiskFaults:
        """Of one disk, by chance."""
        rates = draw_rates(random, RATES)
        return cls(**rates, sync_slow_us=random.randrange(1_000, SLOW_SYNC_US_MAX))

    def without(self, *classes: str) -> DiskFaults:
        """The same with some classes off: how a shrinking run takes them away one by one."""
        return structs.replace(self, **dict.fromkeys(classes, 0.0))

    @property
    def classes(self) -> tuple[str, ...]:
        """Those that are on."""
        return tuple(name for name in RATES if getattr(self, name))


TORN_ONLY: Final = DiskFaults(torn=1.0)
"""A disk without faults whose power cuts are as bad as they may be."""


class FaultSwarm:
    """Rolls the dice for one disk. ``is_active`` is taken back for the time in which a cluster has to heal."""

    def __init__(
        self, random: Random, faults: DiskFaults = TORN_ONLY, *, decide: Decide | None = None, on_fault: OnFault | None = None
    ) -> None:
        self.is_active = True
        self.struck: dict[str, int] = dict.fromkeys(RATES, 0)
        """Faults by class so far."""
        self._random = random
        self._decide = decide
        self._on_fault = on_fault
        self._asked: dict[str, int] = dict.fromkeys(RATES, 0)
        self._rates: dict[str, float] = {name: getattr(faults, name) for name in RATES}
        self.faults = faults

    def roll(self, name: str, call: str, path: str = "") -> float | None:
        """None: no fault of this class. Else a number from 0 up to 1 that says how it strikes."""
        drawn = self._random.random()
        rate = self._rates[name]
        if drawn >= rate or not self.is_active:
            return None
        index = self._asked[name]
        self._asked[name] = index + 1
        if self._decide is not None and not self._decide(name, index):
            return None
        self.struck[name] += 1
        if self._on_fault is not None:
            self._on_fault(name, f"{call} {path}".rstrip())
        return drawn / rate

    def roll_call(self, call: str, path: str, size: int) -> tuple[str, float] | None:
        """Roll for every class that a call may meet, also behind the first that strikes; that one is returned."""
        found: tuple[str, float] | None = None
        for name in CLASSES_OF_CALL.get(call, ()):
            if found is not None or (name == "short_write" and size < 2):
                self._random.random()
            elif (how := self.roll(name, call, path)) is not None:
                found = name, how
        return found

    def __repr__(self) -> str:
        return f"<FaultSwarm {'' if self.is_active else 'off '}struck={ {name: count for name, count in self.struck.items() if count} }>"
