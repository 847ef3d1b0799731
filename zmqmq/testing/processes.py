"""Brokers in processes of their own, on this machine: planned, started, watched, ended. Behind ``zmqmq dev`` and ``zmqmq_cluster``.

Each has a directory with ``broker.toml``, ``broker.log`` and ``data``. Nothing here waits without a deadline; a process that ends
by itself is told with the end of its log.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from zmqmq.errors import AddressInUse, TimeoutError, ZmqmqError

HOST: Final = "127.0.0.1"
START_SECONDS_MAX: Final = 30.0
END_SECONDS_MAX: Final = 15.0
LOOK_S: Final = 0.02
"""Between two looks at something that has no other way to tell."""
STARTED: Final = ("ready", "started")
"""How the line begins by which a broker says that clients may connect."""
LOG_TAIL_BYTES: Final = 4_096
_DRAWS_MAX: Final = 100


class NodePlan(NamedTuple):
    """Where one broker will be. ``control`` is empty for a broker of its own."""

    node_id: int
    directory: Path
    url: str
    http: str = ""
    control: str = ""

    @property
    def config_file(self) -> Path:
        return self.directory / "broker.toml"

    def write_config(self, plans: Sequence[NodePlan]) -> Path:
        """The file that makes it a broker of these."""
        self.directory.mkdir(parents=True, exist_ok=True)
        values: dict[str, object] = {
            "node_id": self.node_id,
            "data": str(self.directory / "data"),
            "listen": [self.url],
            "http": self.http,
        }
        if self.control:
            values["peers"] = [f"{plan.node_id}@{plan.control}" for plan in plans]
        self.config_file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()), encoding="utf-8")
        return self.config_file


class BrokerProcess:
    """One broker, over any number of lives. ``command`` starts it; what it says goes to its log."""

    def __init__(self, plan: NodePlan, command: Sequence[str], *, takes_orders: bool = False) -> None:
        """``takes_orders``: its standard input is a pipe, and it ends when that does."""
        self.plan = plan
        self.log = plan.directory / "broker.log"
        self._command = list(command)
        self._stdin = subprocess.PIPE if takes_orders else subprocess.DEVNULL
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def __repr__(self) -> str:
        return f"BrokerProcess({self.plan.node_id} {self.plan.url} pid={self.pid} {'runs' if self.is_running else 'ended'})"

    @property
    def pid(self) -> int:
        """0 before its first life."""
        return 0 if self._process is None else self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs, or when it never did. Negative: the signal that ended it."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Returns at once; ``wait_started`` waits. Its group is its own, so that Ctrl-C reaches only who started it."""
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(self._command, stdin=self._stdin, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def wait_started(self, deadline: float) -> None:
        """Until clients may connect. Raises TimeoutError, or ZmqmqError with what it said when it ended."""
        self.wait_said(STARTED, deadline)

    def wait_said(self, beginnings: tuple[str, ...], deadline: float) -> None:
        """Until a line of its log, of this life, begins so."""
        while not any(line.startswith(beginnings) for line in self.said().splitlines()):
            if not self.is_running:
                raise self.ended_error()
            if time.monotonic() > deadline:
                raise TimeoutError(f"node {self.plan.node_id} did not start in time", hint=f"look at {self.log}")
            time.sleep(LOOK_S)

    def said(self) -> str:
        """What it said in this life."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def ended_error(self) -> ZmqmqError:
        """For a process that ended by itself."""
        lines = self.said()[-LOG_TAIL_BYTES:].splitlines()
        why = next((line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")), lines[-1] if lines else "")
        return ZmqmqError(f"node {self.plan.node_id} ended with code {self.exit_code}: {why}", hint=f"look at {self.log}")

    def order(self, line: str) -> None:
        """A line to its standard input."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            self._process.wait(END_SECONDS_MAX)
            raise self.ended_error() from error

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def ask_to_end(self) -> None:
        """Cleanly; ``wait_ended`` waits. Also when it was stopped by SIGSTOP."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)

    def wait_ended(self, seconds: float = END_SECONDS_MAX) -> int:
        """Its exit code; it is killed when it does not end in time."""
        if self._process is None:
            return 0
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait(END_SECONDS_MAX)
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it went without reading everything
                self._process.stdin.close()
        return code

    def kill(self) -> None:
        """As a power cut of the process: nothing of it runs any more."""
        self.signal(signal.SIGKILL)
        self.wait_ended()


def serve_command(plan: NodePlan) -> list[str]:
    """``zmqmq serve`` by this very Python."""
    return [sys.executable, "-m", "zmqmq_cli", "serve", "--config", str(plan.config_file)]


def end_all(processes: Sequence[BrokerProcess], seconds: float = END_SECONDS_MAX) -> None:
    """All at once, cleanly; those that do not end in time are killed."""
    for process in processes:
        process.ask_to_end()
    deadline = time.monotonic() + seconds
    for process in processes:
        process.wait_ended(max(0.1, deadline - time.monotonic()))


def check_free(port: int, what: str) -> None:
    """Raises AddressInUse."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise AddressInUse(
                f"port {port} of {HOST}, for {what}, is taken: {error.strerror}",
                hint="choose another first port with --port, or 0 for any; a dev cluster in the background ends by  zmqmq dev stop",
            ) from error


def free_ports(count: int, taken: Sequence[int] = ()) -> list[int]:
    """Ports of the loopback that are free now, all different, none of ``taken``."""
    found: list[int] = []
    with contextlib.ExitStack() as probes:
        for _ in range(count + _DRAWS_MAX):
            if len(found) == count:
                return found
            probe = probes.enter_context(socket.socket())
            probe.bind((HOST, 0))
            port = probe.getsockname()[1]
            if port not in taken:
                found.append(port)
    raise AddressInUse(f"no {count} free ports on {HOST}", hint="end programs that listen")


def wait_until(condition: Callable[[], bool], deadline: float, say: Callable[[], str]) -> None:
    """Raises TimeoutError with what ``say`` tells then."""
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(say(), hint="look at the logs of the brokers")
        time.sleep(LOOK_S)


def is_alive(pid: int, mention: str) -> bool:
    """A process of that number runs, and its command line mentions this: the number may be somebody else's by now."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return mention in _command_line(pid)


def _command_line(pid: int) -> str:
    """Empty when it ended, waited for or not."""
    file = Path(f"/proc/{pid}/cmdline")
    if file.parent.parent.joinpath("self").exists():
        try:
            return file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    return subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False).stdout
