"""Evidence that a process is dead: its address refuses connections.

Silence tells nothing: a process that is stopped, slow or cut off is silent too. But when a process ends, its system closes what it
had open and from then on refuses who asks for it, at once. A listening socket may be closed a moment after the connections, and one
more connection then still gets in; so it is asked again for a while. Belongs to one thread, never blocks and never looks up a name.
"""

from __future__ import annotations

import errno
import ipaddress
import selectors
import socket
from typing import Final

from msgspec import Struct

ASK_S_MAX: Final = 1.0
"""For so long after a connection ended."""
ASK_AGAIN_S: Final = 0.005
ASK_AGAIN_S_MAX: Final = 0.04
"""The pause between two tries, which doubles."""
_UNDER_WAY: Final = frozenset({errno.EINPROGRESS, errno.EALREADY})
_REFUSED: Final = frozenset({errno.ECONNREFUSED, errno.ENOENT})
"""ENOENT: the file of an ipc address is gone."""
_IPC: Final = "ipc://"
_TCP: Final = "tcp://"


class Place(Struct, frozen=True):
    """Where to connect to. ``name`` is as the system wants it."""

    family: socket.AddressFamily
    name: tuple[str, int] | str


def place_of(address: str) -> Place | None:
    """None: it is not numeric, and to look its name up could take long."""
    if address.startswith(_IPC):
        path = address.removeprefix(_IPC)
        return Place(socket.AF_UNIX, "\0" + path[1:] if path.startswith("@") else path)
    host, _, port = address.removeprefix(_TCP).rpartition(":")
    return _numeric(host.strip("[]"), int(port)) if address.startswith(_TCP) and port.isdecimal() else None


def place_of_peer(fd: int, address: str) -> Place | None:
    """Who is at the other end of a connection that belongs to ZeroMQ, if that can be who has ``address``."""
    try:
        shared = socket.socket(fileno=fd)
    except OSError:
        return None
    try:
        name = shared.getpeername()
    except OSError:
        return None
    finally:
        shared.detach()
    if not isinstance(name, tuple) or not address.endswith(f":{name[1]}"):
        return None  # another connection has got the number meanwhile
    return _numeric(name[0], name[1])


class Inquiry:
    """One try after the other to connect to ``place``, until it refuses or the time is over."""

    def __init__(self, place: Place, selector: selectors.DefaultSelector, now_s: float) -> None:
        """``selector`` hears of an answer."""
        self._place = place
        self._selector = selector
        self._until_s = now_s + ASK_S_MAX
        self._next_s = now_s
        self._pause_s = ASK_AGAIN_S
        self._socket: socket.socket | None = None

    def next_s(self) -> float:
        """When to look again, at the latest."""
        return self._until_s if self._socket is not None else min(self._next_s, self._until_s)

    def look(self, now_s: float) -> bool | None:
        """True: refused. False: it was not, and the time is over. None: look again."""
        if self._socket is None and now_s >= self._next_s:
            self._begin()
        if self._socket is not None:
            code = self._socket.connect_ex(self._place.name)  # the first begins, the others tell what became of it
            if code not in _UNDER_WAY:
                self.close()
                self._next_s = now_s + self._pause_s
                self._pause_s = min(2 * self._pause_s, ASK_AGAIN_S_MAX)
            if code in _REFUSED:
                return True
        if now_s < self._until_s:
            return None
        self.close()
        return False

    def close(self) -> None:
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def _begin(self) -> None:
        try:
            made = socket.socket(self._place.family, socket.SOCK_STREAM)
        except OSError:  # no descriptor is free; one may be at the next try
            return
        made.settimeout(0)
        self._selector.register(made, selectors.EVENT_WRITE)
        self._socket = made


def _numeric(host: str, port: int) -> Place | None:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    return Place(socket.AF_INET if version == 4 else socket.AF_INET6, (host, port))
