"""A real broker in a process of its own, to be killed."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

START_SECONDS_MAX = 20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class BrokerProcess:
    """``zmqmq serve`` on one directory and one port, over any number of lives."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.url = f"tcp://127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[str] | None = None
        self._errors = data.parent / "serve.err"

    def start(self) -> None:
        command = [sys.executable, "-m", "zmqmq_cli", "serve", "--data", str(self.data), "--listen", self.url, "--http", "127.0.0.1:0"]
        with self._errors.open("a") as errors:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if re.match("ready", line):
                return
        raise AssertionError(f"the broker did not start: {self._errors.read_text()}")

    def kill(self) -> None:
        """As a power cut of the process: no handler runs."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """A clean stop; the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.send_signal(how)
        code = self._process.wait(START_SECONDS_MAX)
        self._process.stdout.close()
        self._process = None
        return code

    def close(self) -> None:
        if self._process is not None:
            self.kill()
