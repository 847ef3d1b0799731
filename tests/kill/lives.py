"""The runner's side of the broker: lives that it starts and ends through the zygote."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
from fuse import Fuse

HERE = Path(__file__).parent
EVENT_SECONDS_MAX = 60.0
_OVER = ""


class World:
    """Where the broker's lives are spent. This one is the machine as it is; others cut its power or its network."""

    prefix: tuple[str, ...] = ()
    """What the command of the zygote begins with."""

    keeps_unsynced = True
    """Else what nobody waited for may be undone when a life ends: a removal, the tail by which retention counted a size."""

    def before_kill(self) -> None:
        """A life is about to be killed from outside."""

    def after_end(self) -> None:
        """A life has ended, however."""


class Lives:
    """One life at a time. ``events`` are the zygote's lines; every wait has a deadline."""

    def __init__(self, data: Path, arguments: list[str], errors: Path, plant: str = "", world: World | None = None) -> None:
        self._data = data
        self._arguments = arguments
        self._world = world or World()
        self._pid = 0
        self._events: queue.SimpleQueue[str] = queue.SimpleQueue()
        command = [*self._world.prefix, sys.executable, str(HERE / "zygote.py"), *(["--plant", plant] if plant else [])]
        with errors.open("a") as stderr:
            self._zygote = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(self, fuse: Fuse | None = None) -> bool:
        """Begin a life; whether it became ready. If not, it has ended."""
        assert not self._pid
        assert self._zygote.stdin is not None
        order = {"arguments": self._arguments, "data": str(self._data), "fuse": fuse}
        self._zygote.stdin.write(msgspec.json.encode(order) + b"\n")
        self._zygote.stdin.flush()
        self.burned = ""
        self.status: int | None = None
        self._pid = int(self._until("started").split()[1])
        if self._until("ready", "ended").startswith("ended"):
            self._end()
            return False
        return True

    def live_for(self, seconds: float) -> bool:
        """Wait; False if the life ended by itself."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                if self._take(left).startswith("ended"):
                    self._end()
                    return False
            except queue.Empty:
                break
        return True

    def end(self, how: signal.Signals = signal.SIGKILL) -> int:
        """Signal the life and wait for its end; how it ended: minus the signal, or its exit code."""
        if self._pid:
            if how == signal.SIGKILL:
                self._world.before_kill()
            os.kill(self._pid, how)
            self._until("ended")
            self._end()
        assert self.status is not None
        return self.status

    @property
    def is_alive(self) -> bool:
        return bool(self._pid)

    def signal(self, how: signal.Signals) -> None:
        """One that does not end the life."""
        os.kill(self._pid, how)

    def close(self) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
        assert self._zygote.stdin is not None
        self._zygote.stdin.close()
        self._zygote.wait(EVENT_SECONDS_MAX)
        self._reader.join(EVENT_SECONDS_MAX)
        assert self._zygote.stdout is not None
        self._zygote.stdout.close()

    def _end(self) -> None:
        self._pid = 0
        self._world.after_end()

    def _until(self, *kinds: str) -> str:
        deadline = time.monotonic() + EVENT_SECONDS_MAX
        while True:
            try:
                event = self._take(max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"the broker said none of {kinds} within {EVENT_SECONDS_MAX:g} s") from None
            if event.split(" ")[0] in kinds:
                return event

    def _take(self, seconds: float) -> str:
        event = self._events.get(timeout=seconds)
        if event == _OVER:
            raise AssertionError("the zygote ended; look at its stderr")
        if event.startswith("burned"):
            self.burned = event.removeprefix("burned ")
        elif event.startswith("ended"):
            self.status = int(event.split()[1])
        return event

    def _read(self) -> None:
        assert self._zygote.stdout is not None
        for line in self._zygote.stdout:
            self._events.put(line.decode().rstrip("\n") or " ")
        self._events.put(_OVER)
