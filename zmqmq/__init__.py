"""zmqmq: a durable message log that comes with ``pip install``.

``open(path)`` runs the real broker inside this process; ``Client(address)`` talks to one that runs elsewhere, and so does
``AsyncClient(address)`` from an event loop.
Names are loaded when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zmqmq import errors
    from zmqmq.client.aio.client import AsyncClient
    from zmqmq.client.aio.handles import AsyncBatchHandle, AsyncHandle
    from zmqmq.client.aio.producer import AsyncProducer
    from zmqmq.client.aio.reader import AsyncReader
    from zmqmq.client.base import ClientStats
    from zmqmq.client.handles import BatchHandle, Failure, Handle
    from zmqmq.client.message import Message
    from zmqmq.client.operations import Offsets, Pong, Topic
    from zmqmq.client.producer import Producer
    from zmqmq.client.reader import Reader, stop_on_signals
    from zmqmq.client.serde import Serde, json, msgpack, raw, text
    from zmqmq.client.sync import Client
    from zmqmq.embedded import Embedded, open
    from zmqmq.errors import TimeoutError, ZmqmqError
    from zmqmq.model import Delivery, Offset

__version__ = "0.1.0"

__all__ = [
    "AsyncBatchHandle",
    "AsyncClient",
    "AsyncHandle",
    "AsyncProducer",
    "AsyncReader",
    "BatchHandle",
    "Client",
    "ClientStats",
    "Delivery",
    "Embedded",
    "Failure",
    "Handle",
    "Message",
    "Offset",
    "Offsets",
    "Pong",
    "Producer",
    "Reader",
    "Serde",
    "TimeoutError",
    "Topic",
    "ZmqmqError",
    "errors",
    "json",
    "msgpack",
    "open",
    "raw",
    "stop_on_signals",
    "text",
]

_HOMES = {
    "AsyncBatchHandle": "zmqmq.client.aio.handles",
    "AsyncClient": "zmqmq.client.aio.client",
    "AsyncHandle": "zmqmq.client.aio.handles",
    "AsyncProducer": "zmqmq.client.aio.producer",
    "AsyncReader": "zmqmq.client.aio.reader",
    "Client": "zmqmq.client.sync",
    "ClientStats": "zmqmq.client.base",
    "BatchHandle": "zmqmq.client.handles",
    "Failure": "zmqmq.client.handles",
    "Handle": "zmqmq.client.handles",
    "Producer": "zmqmq.client.producer",
    "Reader": "zmqmq.client.reader",
    "stop_on_signals": "zmqmq.client.reader",
    "Offsets": "zmqmq.client.operations",
    "Pong": "zmqmq.client.operations",
    "Topic": "zmqmq.client.operations",
    "Message": "zmqmq.client.message",
    "Serde": "zmqmq.client.serde",
    "json": "zmqmq.client.serde",
    "msgpack": "zmqmq.client.serde",
    "raw": "zmqmq.client.serde",
    "text": "zmqmq.client.serde",
    "Embedded": "zmqmq.embedded",
    "open": "zmqmq.embedded",
    "TimeoutError": "zmqmq.errors",
    "ZmqmqError": "zmqmq.errors",
    "Delivery": "zmqmq.model",
    "Offset": "zmqmq.model",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'zmqmq' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
