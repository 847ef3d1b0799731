"""A network of several brokers: each in a namespace of its own, all on one bridge, where the clients are too. Needs root and nft.

Who cannot hear whom is decided inside of each broker's namespace, by address, so that every one-way cut can be made.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from network import HOOKS, SUBNETS, TABLE, Direction, Host
from tools import run

_FIRST_ADDRESS: Final = 2


class Switch:
    """The bridge with its hosts, numbered from 0."""

    def __init__(self, count: int) -> None:
        self.name = f"zq{os.getpid() % 100_000}b"
        self.subnet = f"198.18.{os.getpid() % SUBNETS}"
        self.clients = f"{self.subnet}.1"
        """Where whoever is not in a namespace comes from."""
        self.hosts = [SwitchedHost(number, self) for number in range(count)]
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            run("ip", "link", "add", self.name, "type", "bridge")
            stack.callback(run, "ip", "link", "delete", self.name)
            run("ip", "address", "add", f"{self.clients}/24", "dev", self.name)
            run("ip", "link", "set", self.name, "up")
            for host in self.hosts:
                stack.enter_context(host)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def others(self, number: int) -> list[str]:
        """Addresses of all brokers but one."""
        return [host.address for host in self.hosts if host.number != number]


class SwitchedHost(Host):
    """A host on a switch. ``drop_from`` tells its peers apart; what ``Host`` can do is done to all of them."""

    def __init__(self, number: int, switch: Switch) -> None:
        super().__init__(number)
        self.number = number
        self.address = f"{switch.subnet}.{_FIRST_ADDRESS + number}"
        self._switch = switch

    def drop_from(self, direction: Direction, peers: Sequence[str]) -> None:
        """``in``: what these addresses send vanishes; ``out``: what is sent to them; ``both``."""
        self.inside("nft", "add", "table", "inet", TABLE)
        for hook in HOOKS[direction]:
            self.inside("nft", "add", "chain", "inet", TABLE, hook, "{", "type", "filter", "hook", hook, "priority", "0", ";", "}")
            side = "saddr" if hook == "input" else "daddr"
            self.inside("nft", "add", "rule", "inet", TABLE, hook, "ip", side, "{", ", ".join(peers), "}", "drop")

    def _make(self) -> None:
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self.cable, "type", "veth", "peer", "name", "inner", "netns", self.name)
        run("ip", "link", "set", self.cable, "master", self._switch.name)
        run("ip", "link", "set", self.cable, "up")
        self.inside("ip", "address", "add", f"{self.address}/24", "dev", "inner")
        self.inside("ip", "link", "set", "inner", "up")
        self.inside("ip", "link", "set", "lo", "up")
