"""Who serves ``inproc://name`` in this process, and in which ZeroMQ context.

An inproc endpoint exists only inside one context, so that a client of an embedded broker has to borrow the
broker's. A context is ended by whoever lets go of it last: ending it earlier would wait for sockets that
another thread still owns. All functions may be called from any thread.
"""

from __future__ import annotations

import os
import threading

from zmqmq.errors import AddressInUse, BrokerUnavailable
from zmqmq.transport.sockets import Context

SCHEME = "inproc://"


class Lease:
    """A share of the context behind one inproc endpoint; ``release`` it after closing every socket made from it."""

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._released = False

    @property
    def context(self) -> Context:
        return self._shared.context

    @property
    def is_alive(self) -> bool:
        """False once the broker closed: this endpoint will not answer again, a new lease may."""
        return self._shared.is_serving

    def release(self) -> None:
        if not self._released:
            self._released = True
            _release(self._shared)


class _Shared:
    def __init__(self, context: Context) -> None:
        self.context = context
        self.lease_count = 0
        self.is_serving = True
        self.pid = os.getpid()


_lock = threading.Lock()
_serving: dict[str, _Shared] = {}


def serve(endpoint: str, context: Context) -> Lease:
    """Offer a context under an inproc endpoint. Raises AddressInUse."""
    with _lock:
        found = _serving.get(endpoint)
        if found is not None and found.pid == os.getpid():
            raise AddressInUse(f"{endpoint} is served by another broker of this process", hint="close it first, or choose another name")
        shared = _serving[endpoint] = _Shared(context)
        shared.lease_count = 1
    return Lease(shared)


def withdraw(endpoint: str, lease: Lease) -> None:
    """The broker closed: nobody new finds it. Its own lease is released apart."""
    with _lock:
        lease._shared.is_serving = False  # noqa: SLF001 - Lease is this module's own
        if _serving.get(endpoint) is lease._shared:  # noqa: SLF001 - Lease is this module's own
            del _serving[endpoint]


def lease(endpoint: str) -> Lease:
    """A share of the context that serves ``endpoint``. Raises BrokerUnavailable."""
    with _lock:
        shared = _serving.get(endpoint)
        if shared is None or shared.pid != os.getpid():
            raise BrokerUnavailable(
                f"no broker serves {endpoint} in this process",
                hint="inproc reaches only a broker opened by zmqmq.open() in the same process",
            )
        shared.lease_count += 1
    return Lease(shared)


def _release(shared: _Shared) -> None:
    with _lock:
        shared.lease_count -= 1
        is_last = shared.lease_count == 0
    if is_last and shared.pid == os.getpid():
        shared.context.term()
