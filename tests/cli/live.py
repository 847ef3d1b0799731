"""What the live tests of the command share: a broker in a process of its own, and runs of the command."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

SECONDS_MAX = 20
COMMAND = [sys.executable, "-m", "zmqmq_cli"]


class ServeProcess:
    """``zmqmq serve`` with its banner read."""

    def __init__(self, data: Path, *options: str, listen: str = "tcp://127.0.0.1:0") -> None:
        command = [*COMMAND, "serve", "--data", str(data), "--listen", listen, "--http", "127.0.0.1:0", *options]
        self.data = data
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.banner = ""
        for line in self.process.stdout:
            self.banner += line
            if line.startswith("ready"):
                break
        found = re.search(r"clients  (\S+)     http  (\S+)", self.banner)
        assert found is not None, self.banner + self.end(signal.SIGKILL)[1]
        self.url, self.http = found.groups()

    def end(self, how: signal.Signals) -> tuple[int, str]:
        """The exit code and what was said on stderr."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        _, said = self.process.communicate(timeout=SECONDS_MAX)
        return self.process.returncode, said


class Command:
    """The real command in a process of its own."""

    def __init__(self, url: str) -> None:
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("ZMQMQ_")} | {"ZMQMQ_BROKERS": url}

    def __call__(self, *arguments: str, stdin: str | bytes | None = None) -> subprocess.CompletedProcess[str]:
        given: Any = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [*COMMAND, *arguments],
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            timeout=SECONDS_MAX,
            env=self.environment,
            check=False,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def shell(self, line: str) -> subprocess.CompletedProcess[str]:
        """A whole line, as typed; ``zmqmq`` is the command."""
        environment = self.environment | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, timeout=SECONDS_MAX, env=environment, check=False
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment)
