"""The cluster behind ``zmqmq dev``: where its brokers are, and a note of it in the user's folder, by which ``dev stop`` finds them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from zmqmq.errors import InvalidConfig, ZmqmqError
from zmqmq.testing.processes import (
    END_SECONDS_MAX,
    HOST,
    BrokerProcess,
    NodePlan,
    check_free,
    free_ports,
    is_alive,
    serve_command,
    wait_until,
)
from zmqmq_cli.contexts import Context, Contexts, folder

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTEXT: Final = "dev"
PORT_MAX: Final = 65_535


class Note(NamedTuple):
    """What is known of a dev cluster that was started. ``is_ephemeral``: its directory goes with it."""

    directory: str
    is_ephemeral: bool
    pids: tuple[int, ...]

    @property
    def running(self) -> list[int]:
        return [pid for pid in self.pids if is_alive(pid, self.directory)]


def note_file() -> Path:
    return folder() / "dev.json"


def read_note() -> Note | None:
    """None when no dev cluster was started, or it was stopped. A note that is damaged is one of nothing."""
    try:
        value: Any = json.loads(note_file().read_text(encoding="utf-8"))
        return Note(str(value["directory"]), bool(value["is_ephemeral"]), tuple(int(pid) for pid in value["pids"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_note(note: Note) -> None:
    file = note_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    made = file.with_name(f".{file.name}.{os.getpid()}")
    made.write_text(json.dumps(note._asdict()), encoding="utf-8")
    made.replace(file)


def stop(note: Note) -> int:
    """End its brokers: asked first, killed when they do not end. How many ran."""
    running = note.running
    for pid in running:
        os.kill(pid, signal.SIGTERM)
    try:
        wait_until(lambda: not note.running, time.monotonic() + END_SECONDS_MAX, lambda: "the brokers did not end")
    except ZmqmqError:
        for pid in note.running:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not note.running, time.monotonic() + END_SECONDS_MAX, lambda: "the brokers could not be killed")
    forget(note)
    return len(running)


def forget(note: Note, *, keeps_files: bool = False) -> None:
    """When its brokers ended: the directory if it was for once, the note, the context."""
    if note.is_ephemeral and not keeps_files:
        shutil.rmtree(note.directory, ignore_errors=True)
    if read_note() == note:
        note_file().unlink(missing_ok=True)
        contexts = Contexts()
        if CONTEXT in contexts.names():
            contexts.delete(CONTEXT)


def check_none_runs() -> None:
    """Raises InvalidConfig when a dev cluster runs; forgets one that ended in another way."""
    note = read_note()
    if note is None:
        return
    if note.running:
        pids = ", ".join(map(str, note.running))
        raise InvalidConfig(f"a dev cluster runs already, processes {pids} in {note.directory}", hint="end it with  zmqmq dev stop")
    forget(note)


class DevCluster:
    """``zmqmq serve`` n times."""

    def __init__(self, count: int, data: str | None, port: int) -> None:
        """``data`` None: a directory for once. ``port`` 0: any ports. Raises AddressInUse, InvalidConfig."""
        self.is_ephemeral = data is None
        plans = _plans(count, Path(data).absolute() if data is not None else Path(tempfile.mkdtemp(prefix="zmqmq-dev-")), port)
        self.directory = plans[0].directory.parent
        for plan in plans:
            plan.write_config(plans)
        self.processes = [BrokerProcess(plan, serve_command(plan)) for plan in plans]

    @property
    def plans(self) -> list[NodePlan]:
        return [process.plan for process in self.processes]

    @property
    def brokers(self) -> str:
        return ",".join(plan.url for plan in self.plans)

    @property
    def note(self) -> Note:
        return Note(str(self.directory), self.is_ephemeral, tuple(process.pid for process in self.processes))

    def start(self, deadline: float) -> None:
        """Until all clients may connect. Raises what kept one from it."""
        for process in self.processes:
            process.start()
        write_note(self.note)
        for process in self.processes:
            process.wait_started(deadline)

    def select(self) -> None:
        """Commands use it from now on."""
        contexts = Contexts()
        contexts.add(Context(CONTEXT, self.brokers))
        contexts.use(CONTEXT)


def _plans(count: int, directory: Path, port: int) -> list[NodePlan]:
    _check_directory(directory, count)
    if port and port + 2 * count - 1 > PORT_MAX:
        raise InvalidConfig(
            f"--port {port} leaves no room for {count} brokers of two ports each", hint=f"use one up to {PORT_MAX - 2 * count}"
        )
    ports = list(range(port, port + 2 * count)) if port else free_ports(2 * count)
    for index, each in enumerate(ports):
        check_free(each, f"node {index // 2}")
    controls = _controls(directory, count, ports)
    return [
        NodePlan(node, directory / f"node-{node}", f"tcp://{HOST}:{ports[2 * node]}", f"{HOST}:{ports[2 * node + 1]}", controls[node])
        for node in range(count)
    ]


def _controls(directory: Path, count: int, taken: Sequence[int]) -> list[str]:
    """Addresses for the brokers among themselves: those from before in a directory that was used, as long as they are free."""
    from zmqmq.broker.config import control_address, load_config

    if count == 1:
        return [""]
    files = [directory / f"node-{node}" / "broker.toml" for node in range(count)]
    if all(file.exists() for file in files):
        known = [control_address(load_config(str(file))) for file in files]
        if all(known):
            for node, address in enumerate(known):
                check_free(int(address.rpartition(":")[2]), f"node {node}")
            return known
    return [f"tcp://{HOST}:{port}" for port in free_ports(count, taken)]


def _check_directory(directory: Path, count: int) -> None:
    there = len(list(directory.glob("node-*/data")))
    if there and there != count:
        raise InvalidConfig(
            f"{directory} holds a cluster of {there} broker{'s' * (there > 1)}, not of {count}",
            hint=f"use -n {there}, or another directory",
        )
