"""``zmqmq.open(path)``: the real broker inside this process, and a client of it, as one object.

Same files, same promises, same code as ``zmqmq serve``: the directory can be served over TCP later. The
client reaches the broker over inproc; with ``listen`` other processes reach it too. After ``fork()`` the child
gets ClosedError from everything and leaves the parent's files and lock alone.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Final

import msgspec

from zmqmq.broker.config import BrokerConfig, check_config
from zmqmq.broker.server import Broker
from zmqmq.client.opening import TIMEOUT_S
from zmqmq.client.sync import Client
from zmqmq.transport.registry import SCHEME as INPROC

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmqmq.client.arguments import Seconds

_numbers: Final = itertools.count(1)


class Embedded(Client):
    """A Client whose broker lives and ends with it."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        listen: str | Sequence[str] | None = None,
        config: BrokerConfig | None = None,
        client_id: str = "",
        timeout: Seconds = TIMEOUT_S,
    ) -> None:
        """Opens (recovers) the directory, or makes it. Raises DataDirLocked, CorruptLog, AddressInUse, InvalidConfig …"""
        inproc = f"{INPROC}zmqmq-{next(_numbers)}"
        self.broker = Broker(_config(os.fspath(path), inproc, listen, config))
        self.broker.start()
        try:
            super().__init__(inproc, client_id=client_id, timeout=timeout)
        except BaseException:
            self.broker.close()
            raise

    @property
    def url(self) -> str:
        """Where another Client finds this broker: in any process if it listens, else in this one only."""
        endpoints = self.broker.endpoints
        return next((endpoint for endpoint in endpoints if not endpoint.startswith(INPROC)), endpoints[0])

    def __enter__(self) -> Embedded:
        return self

    def close(self, timeout: Seconds | None = None) -> None:
        """End the client as ``Client.close`` does, then the broker: everything is on disk afterwards."""
        try:
            super().close(timeout)
        finally:
            self.broker.close()


def open(
    path: str | os.PathLike[str],
    *,
    listen: str | Sequence[str] | None = None,
    config: BrokerConfig | None = None,
    client_id: str = "",
    timeout: Seconds = TIMEOUT_S,
) -> Embedded:
    """The broker of a directory, in this process: ``with zmqmq.open("data") as mq: mq.produce("orders", b"1")``.

    ``listen``: addresses for other processes, say ``tcp://127.0.0.1:0``. ``config``: everything else; without one the
    defaults, and no HTTP.
    """
    return Embedded(path, listen=listen, config=config, client_id=client_id, timeout=timeout)


def _config(path: str, inproc: str, listen: str | Sequence[str] | None, config: BrokerConfig | None) -> BrokerConfig:
    wanted = (listen,) if isinstance(listen, str) else tuple(listen or ())
    if config is None:
        config = BrokerConfig(http="", listen=())
    addresses = wanted or config.listen
    return check_config(msgspec.structs.replace(config, data=path, listen=(*addresses, inproc)))
