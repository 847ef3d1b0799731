"""A broker in a process of its own, which tests of the client kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

PROGRAM = """
import sys
from zmqmq.broker.config import BrokerConfig
from zmqmq.broker.server import Broker
broker = Broker(BrokerConfig(data=sys.argv[1], listen=(sys.argv[2],), http=""))
broker.open()
print(broker.endpoints[0], flush=True)
broker.run()
"""


class KillableBroker:
    """One data directory and, from the first start on, one port."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self.url = "tcp://127.0.0.1:0"
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(self._data), self.url], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url, "the broker did not start"

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._reap()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()

    def _reap(self) -> None:
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


def interrupt_when_asleep(pid: int) -> None:
    """Send SIGINT once the main thread waits in the kernel without having run for a moment."""
    deadline = time.monotonic() + 10
    before = ""
    while time.monotonic() < deadline:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        state = f"{stat[0]} {stat[11]} {Path(f'/proc/{pid}/task/{pid}/status').read_text().partition('voluntary_ctxt_switches')[2]}"
        if stat[0] == "S" and state == before:
            os.kill(pid, signal.SIGINT)
            return
        before = state
        threading.Event().wait(0.2)
    raise AssertionError("the process never slept")
