"""The broker behind the ``zmqmq_broker`` fixture: real files, real sockets, one process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from zmqmq.broker.config import BrokerConfig
from zmqmq.broker.server import Broker
from zmqmq.client.sync import Client
from zmqmq.model import Offset
from zmqmq.transport.registry import SCHEME as INPROC

if TYPE_CHECKING:
    from pathlib import Path

    from zmqmq.client.message import Message


class TestBroker:
    """Ports are random at first and stay the same over ``restart``."""

    __test__: ClassVar[bool] = False  # not a class of tests

    def __init__(self, path: Path) -> None:
        self.path = path
        self._config = BrokerConfig(data=str(path), listen=("tcp://127.0.0.1:0", f"{INPROC}zmqmq-test-{id(self)}"), http="")
        self._broker = self._start()
        self._config = msgspec.structs.replace(self._config, listen=tuple(self._broker.endpoints))

    def __repr__(self) -> str:
        return f"TestBroker({self.url})"

    @property
    def url(self) -> str:
        """For clients in any process."""
        return self._config.listen[0]

    @property
    def inproc_url(self) -> str:
        """For clients in this process."""
        return self._config.listen[1]

    @property
    def broker(self) -> Broker:
        return self._broker

    def messages(self, topic: str) -> list[Message[Any]]:
        """Everything that a reader would see in the topic now."""
        with Client(self.inproc_url) as client, client.reader(topic, start=Offset.START, stop=Offset.END) as reader:
            return list(reader)

    def stop(self) -> None:
        """Cleanly; clients see the broker go."""
        self._broker.close()

    def restart(self) -> None:
        """Close, and open the same directory at the same addresses."""
        self._broker.close()
        self._broker = self._start()

    def close(self) -> None:
        self._broker.close()

    def _start(self) -> Broker:
        broker = Broker(self._config)
        broker.start()
        return broker
