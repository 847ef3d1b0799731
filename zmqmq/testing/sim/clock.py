"""The clocks of a simulated machine: skewed, drifting, and, for the wall clock, jumping."""

from __future__ import annotations

from typing import Final

from zmqmq.testing.sim.kernel import World

EPOCH_US: Final = 1_700_000_000_000_000
"""The wall clock of a machine without skew, at the start of a run."""
_PPM: Final = 1_000_000


class SimClock:
    """Implements ``ports.Clock``. ``drift_ppm``: how much faster than the world it goes, in parts of a million; ``skew_us``: by how
    much its wall clock is wrong. The monotonic clock has some start of its own, as that of a machine has."""

    def __init__(self, world: World, *, skew_us: int = 0, drift_ppm: int = 0, start_us: int = 0) -> None:
        self._world = world
        self._skew_us = skew_us
        self._rate_ppm = _PPM + drift_ppm
        self._start_us = start_us
        self._since_us = 0
        """When it began to go at this rate, and what it had counted by then."""
        self._steady_us = 0

    def jump(self, by_us: int) -> None:
        """Somebody sets the wall clock."""
        self._skew_us += by_us

    def correct(self) -> None:
        """The wall clock is right again, and neither clock drifts any more. The monotonic one goes on from where it was."""
        elapsed_us = self._elapsed_us()
        self._steady_us, self._since_us, self._rate_ppm = elapsed_us, self._world.now_us, _PPM
        self._skew_us = self._world.now_us - elapsed_us

    def wall_ns(self) -> int:
        return (EPOCH_US + self._elapsed_us() + self._skew_us) * 1000

    def wall_ms(self) -> int:
        return (EPOCH_US + self._elapsed_us() + self._skew_us) // 1000

    def monotonic_us(self) -> int:
        return self._start_us + self._elapsed_us()

    def monotonic_ms(self) -> int:
        return self.monotonic_us() // 1000

    def world_us(self, monotonic_ms: int) -> int:
        """When this clock will show that time: the first microsecond of the world at or behind it."""
        return self._since_us - (-(monotonic_ms * 1000 - self._start_us - self._steady_us) * _PPM // self._rate_ppm)

    def _elapsed_us(self) -> int:
        return self._steady_us + (self._world.now_us - self._since_us) * self._rate_ppm // _PPM
