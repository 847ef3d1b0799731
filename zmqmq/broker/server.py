"""The broker as an object: opening, running, stopping, closing.

A bug in the loop ends the broker loudly, without a clean close; nothing that a peer or a disk does is a bug.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import weakref
from typing import TYPE_CHECKING, Final

import msgspec

from zmqmq.broker.cluster import ClusterSettings
from zmqmq.broker.config import control_address, peer_addresses
from zmqmq.broker.http import HttpServer
from zmqmq.broker.loop import CLOSE_TIMEOUT_S, START_TIMEOUT_S, Loop, Surroundings, open_store
from zmqmq.broker.peering import Ways
from zmqmq.broker.usage import boot_id, process_usage
from zmqmq.broker.worker_thread import WorkerThread
from zmqmq.clock import SystemClock
from zmqmq.errors import ClosedError, InvalidConfig, TimeoutError
from zmqmq.store.disk import RealDisk
from zmqmq.transport.guard import CONNECTIONS_MIN, descriptors
from zmqmq.transport.mesh import ZmqMesh
from zmqmq.transport.registry import SCHEME as INPROC
from zmqmq.transport.router import RouterTransport
from zmqmq.transport.stream import ZmqStream
from zmqmq.transport.wakeup import Wakeup

if TYPE_CHECKING:
    from zmqmq.broker.config import BrokerConfig
    from zmqmq.broker.node import NodeIdentity
    from zmqmq.ports import Disk
    from zmqmq.store.recovery import RecoveryReport

log: Final = logging.getLogger("zmqmq.broker")

HANG_S: Final = 5.0
"""A loop that did not turn for so long is not ready."""

_brokers: Final[weakref.WeakSet[Broker]] = weakref.WeakSet()
"""Those of this process, for a child made by ``fork``."""


class Broker:
    """``open``, then ``run`` in the same thread until another calls ``stop``; or ``start`` and ``close`` from one thread,
    with the loop in a thread of its own. Attributes may be read from any thread once it is open."""

    def __init__(self, config: BrokerConfig, *, disk: Disk | None = None) -> None:
        if not __debug__:
            raise InvalidConfig("the broker does not run without assertions", hint="start python without -O and PYTHONOPTIMIZE")
        self.config = _within_descriptors(config)
        self._disk: Disk = disk if disk is not None else RealDisk()
        self._clock = SystemClock()
        self._random = random.SystemRandom()
        self._wakeup = Wakeup()
        self._transport = RouterTransport(self._wakeup, connections_max=_with_room(self.config.limits.connections_max))
        self._loop: Loop | None = None
        self._ways: Ways | None = None
        self._peer_sockets: list[ZmqMesh | ZmqStream] = []
        self._http: HttpServer | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._opened = threading.Event()
        self._failure: BaseException | None = None
        self._is_closed = False
        _brokers.add(self)

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "stopping" if self._stopping.is_set() else "open"
        return f"Broker({self.config.data!r} {state} {', '.join(self.endpoints)})"

    def open(self) -> None:
        """Listen, recover, register. Raises AddressInUse, DataDirLocked, CorruptLog, InvalidConfig, LogOffline …"""
        try:
            self._open()
        except BaseException:
            self._let_go(is_clean=False)
            raise

    def run(self) -> None:
        """Serve until ``stop``, then close: bounded, answers given, store synced."""
        loop = self._opened_loop()
        try:
            while not self._stopping.is_set():
                loop.turn()
            loop.leave()
            loop.drain()
        except BaseException as error:
            self._failure = error
            log.critical("the broker's loop ended by a bug or by force: %r", error)
            self._let_go(is_clean=False)
            raise
        self._let_go()

    def start(self) -> None:
        """``open`` and ``run`` in a thread of its own; returns when the broker serves. Raises what ``open`` raises."""
        self._thread = threading.Thread(target=self._main, name="zmqmq-broker", daemon=True)
        self._thread.start()
        self._opened.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def stop(self) -> None:
        """Ask the loop to end. From any thread or signal handler."""
        self._stopping.set()
        self._wakeup.set()

    def close(self) -> None:
        """``stop`` and wait. Raises what ended the loop, if it was not this; TimeoutError if it does not end."""
        if self._failure is None:
            self.stop()
        if self._thread is None:
            self._let_go()
        else:
            self._thread.join(CLOSE_TIMEOUT_S + START_TIMEOUT_S)
            if self._thread.is_alive():
                raise TimeoutError("the broker did not end in time", hint="its disk may hang; look at the system's log")
        if self._failure is not None:
            raise self._failure

    @property
    def endpoints(self) -> list[str]:
        """Where it listens, with real port numbers."""
        return list(self._transport.endpoints)

    @property
    def http_url(self) -> str:
        return self._http.url if self._http is not None else ""

    @property
    def identity(self) -> NodeIdentity:
        return self._opened_loop().node.identity

    @property
    def report(self) -> RecoveryReport:
        """What recovery found."""
        return self._opened_loop().store.report

    def unready(self) -> str:
        """Why it does not serve; empty when it does. From any thread."""
        if self._loop is None or self._stopping.is_set() or not self._opened.is_set():
            return "starting or stopping"
        if not self._loop.node.is_ready:
            return self._loop.node.waits_for
        silent_s = (self._clock.monotonic_us() - self._loop.turned_us) / 1e6
        return f"the loop has not turned for {silent_s:.0f} s" if silent_s > HANG_S else self._loop.offline

    def _main(self) -> None:
        try:
            self.open()
        except BaseException as error:  # noqa: BLE001 - raised again by start()
            self._failure = error
            return
        finally:
            self._opened.set()
        self.run()

    def _open(self) -> None:
        for address in self.config.listen:
            self._transport.bind(address)
        cluster = self._open_ways()
        store = open_store(self.config, disk=self._disk, clock=self._clock, random=self._random)
        try:
            self._loop = Loop(self.config, store, self._surroundings(), endpoint=self._advertised(), cluster=cluster)
        except BaseException:
            store.abandon()
            raise
        self._loop.become_ready()
        if self.config.http:
            self._http = HttpServer(self.config.http, self.unready)
        self._opened.set()

    def _surroundings(self) -> Surroundings:
        return Surroundings(
            clock=self._clock,
            random=self._random,
            disk=self._disk,
            transport=self._transport,
            sync_worker=WorkerThread("zmqmq-sync", self._wakeup),
            checkpoint_worker=WorkerThread("zmqmq-checkpoint", self._wakeup),
            usage=process_usage,
            ways=self._ways,
            boot_id=boot_id(),
        )

    def _open_ways(self) -> ClusterSettings | None:
        """Listen for the other brokers, if this one is a member of a cluster. Raises AddressInUse, InvalidConfig."""
        address = control_address(self.config)
        if not address:
            return None
        anywhere = f"{address.rpartition(':')[0]}:0"
        control, data, stream = ZmqMesh(), ZmqMesh(), ZmqStream()
        self._peer_sockets = [control, data, stream]
        self._ways = Ways(control, data, stream)
        settings = ClusterSettings(
            peers=peer_addresses(self.config),
            control=control.bind(address),
            replication=data.bind(self.config.replication or anywhere),
            stream=stream.bind(self.config.stream or anywhere),
            rack=self.config.rack,
            catch_up_bytes_per_s=self.config.catch_up_bytes_per_second,
        )
        for socket in self._peer_sockets:
            self._transport.watch(socket)
        return settings

    def _advertised(self) -> str:
        outside = [endpoint for endpoint in self.endpoints if not endpoint.startswith(INPROC)]
        return self.config.advertise or (outside[0] if outside else "")

    def _opened_loop(self) -> Loop:
        if self._loop is None:
            raise ClosedError("the broker was not opened")
        return self._loop

    def _let_go(self, *, is_clean: bool = True) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._stopping.set()
        if self._http is not None:
            self._http.close()
        self._transport.close()
        for socket in self._peer_sockets:
            socket.close()
        if self._loop is not None:
            self._loop.close(is_clean=is_clean)
        self._wakeup.close()

    def _on_forked(self) -> None:
        """In the child: the threads stayed with the parent. Close what was inherited, release nothing, use no ZeroMQ."""
        if self._is_closed:
            return
        self._is_closed = True
        self._stopping.set()
        self._thread = None
        self._failure = ClosedError("the broker was opened before fork(); only the parent may use it")
        if self._http is not None:
            self._http.abandon()
        if self._loop is not None:
            self._loop.store.abandon()


def _within_descriptors(config: BrokerConfig) -> BrokerConfig:
    """The bounds as the process can hold them: who is over a bound is told, who gets no descriptor is not."""
    connections, files = descriptors()
    limits = msgspec.structs.replace(config.limits, connections_max=min(config.limits.connections_max, connections))
    store = msgspec.structs.replace(config.store, open_files_max=min(config.store.open_files_max, files))
    return msgspec.structs.replace(config, limits=limits, store=store)


def _with_room(connections_max: int) -> int:
    """Beyond the bound that a Hello is told of, connections are cut without a word."""
    return connections_max + connections_max // 4 + CONNECTIONS_MIN


def _after_fork_in_child() -> None:
    for broker in list(_brokers):
        broker._on_forked()  # noqa: SLF001 - this module's own


os.register_at_fork(after_in_child=_after_fork_in_child)
