"""Network namespaces: each broker has one, joined by a cable (veth) to the machine where the clients are. Needs root.

Partitions are rules of nft inside of the broker's namespace where nft is installed; without it, routes and the cable itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias

from tools import run

Direction: TypeAlias = Literal["in", "out", "both"]
HOOKS: Final[dict[Direction, tuple[str, ...]]] = {"in": ("input",), "out": ("output",), "both": ("input", "output")}
TABLE: Final = "zmqmq"
SUBNETS: Final = 250
"""Of 198.18.0.0/15, which is set aside for tests of networks."""


class Host:
    """A namespace with an address, and what can be done to its cable. ``number`` tells hosts of one network apart."""

    def __init__(self, number: int) -> None:
        self.name = f"zq{os.getpid()}-{number}"
        self.cable = f"zq{os.getpid() % 100_000}v{number}"
        subnet = f"198.18.{(os.getpid() + number) % SUBNETS}"
        self.address = f"{subnet}.2"
        self._outside = f"{subnet}.1"

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(Exception):  # it may not have been made
            run("ip", "link", "delete", self.cable)
        with contextlib.suppress(Exception):
            run("ip", "netns", "delete", self.name)

    @property
    def prefix(self) -> tuple[str, ...]:
        """What a command that shall run inside begins with."""
        return ("ip", "netns", "exec", self.name)

    def inside(self, *command: str) -> str:
        return run(*self.prefix, *command)

    def drop(self, direction: Direction) -> None:
        """Packets vanish. ``in``: those to the broker; ``out``: its answers."""
        if shutil.which("nft") is None:
            assert direction == "both", "one-way partitions need nft"
            self.inside("ip", "link", "set", "inner", "down")
            return
        self.inside("nft", "add", "table", "inet", TABLE)
        for hook in HOOKS[direction]:
            self.inside("nft", "add", "chain", "inet", TABLE, hook, "{", "type", "filter", "hook", hook, "priority", "0", ";", "}")
            self.inside("nft", "add", "rule", "inet", TABLE, hook, "drop")

    def reject(self) -> None:
        """Connections are reset by what looks like the broker's machine."""
        self.inside("nft", "add", "table", "inet", TABLE)
        self.inside("nft", "add", "chain", "inet", TABLE, "input", "{", "type", "filter", "hook", "input", "priority", "0", ";", "}")
        self.inside("nft", "add", "rule", "inet", TABLE, "input", "meta", "l4proto", "tcp", "reject", "with", "tcp", "reset")

    def heal(self) -> None:
        if shutil.which("nft") is None:
            self.inside("ip", "link", "set", "inner", "up")
        else:
            with contextlib.suppress(Exception):  # nothing was dropped
                self.inside("nft", "delete", "table", "inet", TABLE)

    def unplug(self) -> None:
        run("ip", "link", "set", self.cable, "down")

    def plug(self) -> None:
        run("ip", "link", "set", self.cable, "up")

    def slow(self, bits: str) -> None:
        """No more than so many bits a second leave the broker."""
        self.inside("tc", "qdisc", "add", "dev", "inner", "root", "tbf", "rate", bits, "burst", "8kb", "latency", "200ms")

    def fast(self) -> None:
        self.inside("tc", "qdisc", "delete", "dev", "inner", "root")

    def _make(self) -> None:
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self.cable, "type", "veth", "peer", "name", "inner", "netns", self.name)
        run("ip", "address", "add", f"{self._outside}/30", "dev", self.cable)
        run("ip", "link", "set", self.cable, "up")
        self.inside("ip", "address", "add", f"{self.address}/30", "dev", "inner")
        self.inside("ip", "link", "set", "inner", "up")
        self.inside("ip", "link", "set", "lo", "up")
