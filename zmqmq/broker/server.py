"""The broker's shell: one loop around the machines, one thread for syncs, one for checkpoints.

A turn: take the messages that wait, give them to the node, append everything in one call, answer what need
not wait for the disk; the sync runs in its thread and ends by a wake-up, while the loop goes on. A bug in the
loop ends the broker loudly; nothing that a peer or a disk does is a bug.
"""

from __future__ import annotations

import logging
import os
import random
import resource
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final

from zmqmq.broker.clock import SystemClock
from zmqmq.broker.http import HttpServer
from zmqmq.broker.node import Node, NodeIdentity
from zmqmq.broker.stats import Gauges
from zmqmq.broker.storage import Storage
from zmqmq.broker.summary import SummaryCounter
from zmqmq.broker.upkeep import Upkeep
from zmqmq.broker.worker import Worker
from zmqmq.effects import Append, Effect, Send, Sync
from zmqmq.errors import ClosedError, InvalidConfig, LogOffline, TimeoutError
from zmqmq.metadata.local import METADATA_CONFIG, LocalLog
from zmqmq.model import BATCH_BYTES_MAX, METADATA_PARTITION
from zmqmq.store.disk import RealDisk
from zmqmq.store.store import Store, SyncJob
from zmqmq.transport.registry import SCHEME as INPROC
from zmqmq.transport.router import RouterTransport
from zmqmq.transport.wakeup import Wakeup
from zmqmq.wire import framing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmqmq.broker.config import BrokerConfig
    from zmqmq.broker.outbox import Now
    from zmqmq.facts import StartMoved
    from zmqmq.ports import Buffer, Disk
    from zmqmq.store.recovery import RecoveryReport
    from zmqmq.wire.replies import Reply

log: Final = logging.getLogger("zmqmq.broker")

MESSAGES_PER_TURN: Final = 256
"""Taken before the round is written and answered."""
WAIT_MS_MAX: Final = 200
"""The loop turns at least so often, so that /readyz can tell a loop that hangs."""
HANG_S: Final = 5.0
"""A loop that did not turn for so long is not ready."""
START_TIMEOUT_S: Final = 60.0
CLOSE_TIMEOUT_S: Final = 10.0

_brokers: Final[weakref.WeakSet[Broker]] = weakref.WeakSet()
"""Those of this process, for a child made by ``fork``."""


class Broker:
    """``open``, then ``run`` in the same thread until another calls ``stop``; or ``start`` and ``close`` from one thread,
    with the loop in a thread of its own. Attributes may be read from any thread once it is open."""

    def __init__(self, config: BrokerConfig, *, disk: Disk | None = None) -> None:
        if not __debug__:
            raise InvalidConfig("the broker does not run without assertions", hint="start python without -O and PYTHONOPTIMIZE")
        self.config = config
        self.sync_latency = SummaryCounter()
        self.turned_s = 0.0
        self._disk: Disk = disk if disk is not None else RealDisk()
        self._clock = SystemClock()
        self._wakeup = Wakeup()
        self._transport = RouterTransport()
        self._http: HttpServer | None = None
        self._stopping = threading.Event()
        self._opened = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._is_closed = False
        self._wants_sync = False
        self._told_offline = False
        self._unsynced_us: int | None = None
        self._syncing_moved: list[StartMoved] = []
        self._store: Store | None = None
        _brokers.add(self)

    # ── life ─────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Listen, recover, register. Raises AddressInUse, DataDirLocked, CorruptLog, InvalidConfig, LogOffline …"""
        try:
            self._open()
        except BaseException:
            self._let_go()
            raise

    def run(self) -> None:
        """Serve until ``stop``, then close: bounded, answers given, store synced."""
        try:
            while not self._stopping.is_set():
                self._turn()
            self._drain()
        except BaseException as error:
            self._failure = error
            log.critical("the broker's loop ended by a bug or by force: %r", error)
            raise
        finally:
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
        self.stop()
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT_S + START_TIMEOUT_S)
            if self._thread.is_alive():
                raise TimeoutError("the broker did not end in time", hint="its disk may hang; look at the system's log")
        else:
            self._let_go()
        if self._failure is not None:
            raise self._failure

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "stopping" if self._stopping.is_set() else "open"
        return f"Broker({self.config.data!r} {state} {', '.join(self.endpoints)})"

    @property
    def endpoints(self) -> list[str]:
        """Where it listens, with real port numbers."""
        return list(self._transport.endpoints)

    @property
    def http_url(self) -> str:
        return self._http.url if self._http is not None else ""

    @property
    def identity(self) -> NodeIdentity:
        return self._node.identity

    @property
    def report(self) -> RecoveryReport:
        """What recovery found."""
        assert self._store is not None
        return self._store.report

    def unready(self) -> str:
        """Why it does not serve; empty when it does. From any thread."""
        if self._stopping.is_set() or not self._opened.is_set():
            return "starting or stopping"
        if time.monotonic() - self.turned_s > HANG_S:
            return f"the loop has not turned for {time.monotonic() - self.turned_s:.0f} s"
        return self._node.partitions.offline

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
        config = self.config
        for address in config.listen:
            self._transport.bind(address)
        self._transport.watch(self._wakeup.fd)
        self._store = store = Store.open(
            self._disk, config.data, clock=self._clock, random=random.SystemRandom(), options=config.store, node_id=config.node_id
        )
        if store.identity.node_id != config.node_id:
            raise InvalidConfig(
                f"node_id = {config.node_id}: the data directory {config.data} belongs to node {store.identity.node_id}",
                hint=f"use --node-id {store.identity.node_id}, or another directory",
            )
        store.create(METADATA_PARTITION, METADATA_CONFIG)
        self._sync_worker: Worker[SyncJob] = Worker("zmqmq-sync", self._wakeup)
        identity = NodeIdentity(store.identity.cluster_id, config.node_id, store.identity.directory_id, self._advertised())
        metadata = LocalLog(config.node_id, store.state(METADATA_PARTITION), self._read_metadata)
        self._node = Node(identity, config.limits, logs=store, random=random.SystemRandom(), metadata=metadata, gauges=self._gauges)
        self._storage = Storage(store, self._send, self._node.on_fetched)
        self._upkeep = Upkeep(store, self._disk, config.data, self._wakeup, self._node.partitions.watermark)
        self._become_ready()
        store.retain_only(list(self._node.partitions.image.topics))
        self.turned_s = time.monotonic()
        if config.http:
            self._http = HttpServer(config.http, self.unready)
        self._opened.set()

    def _become_ready(self) -> None:
        """Turn without taking messages until the registration is on disk."""
        deadline = time.monotonic() + START_TIMEOUT_S
        self._node.start(self._clock.now())
        while not self._node.is_ready:
            now = self._clock.now()
            self._after_jobs(now)
            self._perform(now)
            if self._node.start_error is not None:
                raise self._node.start_error
            if time.monotonic() > deadline:
                raise LogOffline(f"the registration did not reach the disk within {START_TIMEOUT_S:.0f} s", hint="look at the disk")
            if not self._node.is_ready:
                self._sync_worker.wait(1.0)

    def _advertised(self) -> str:
        outside = [endpoint for endpoint in self._transport.endpoints if not endpoint.startswith(INPROC)]
        return self.config.advertise or (outside[0] if outside else "")

    def _read_metadata(self, offset: int, end: int) -> bytes:
        assert self._store is not None
        return self._store.read(METADATA_PARTITION, offset, end, BATCH_BYTES_MAX)

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────

    def _turn(self) -> None:
        transport = self._transport
        messages = transport.receive(MESSAGES_PER_TURN)
        if not messages:
            if transport.wait(self._timeout_ms()):
                self._wakeup.clear()
            messages = transport.receive(MESSAGES_PER_TURN)
        now = self._clock.now()
        self.turned_s = now.us / 1e6
        for source, frames in messages:
            self._node.on_message(source, frames, now)
        self._after_jobs(now)
        self._node.on_tick(now)
        self._perform(now)

    def _timeout_ms(self) -> int:
        now_ms = self._clock.monotonic_ms()
        deadline = self._node.next_deadline_ms()
        timeout = WAIT_MS_MAX if deadline is None else max(0, min(deadline - now_ms, WAIT_MS_MAX))
        if self._unsynced_us is not None:
            timeout = min(timeout, max(0, self._unsynced_us // 1000 + self.config.replicated_sync_ms - now_ms))
        return timeout

    def _perform(self, now: Now) -> None:
        """Everything that the machines ask for, and what follows from it."""
        while effects := self._node.take_effects(now):
            self._perform_once(effects, now)
        transport = self._transport
        if transport.has_queued:
            transport.flush()
        for source in transport.take_gone():
            self._node.on_gone(source)
        self._begin_sync(now)
        self._upkeep.turn(now)

    def _perform_once(self, effects: list[Effect], now: Now) -> None:
        appends = [effect for effect in effects if type(effect) is Append]
        if appends:
            written, errors = self._storage.append(appends)
            self._node.on_appended(written, now)
            if errors:
                self._node.on_append_failed(errors, now)
            if self._unsynced_us is None:
                self._unsynced_us = now.us
        for effect in effects:
            kind = type(effect)
            if isinstance(effect, Send):
                self._send(effect.target, effect.reply, effect.payload)
            elif kind is Sync:
                self._wants_sync = True
            elif kind is not Append:
                self._storage.perform(effect)
        if self._storage.failed_moves:
            failed, self._storage.failed_moves = self._storage.failed_moves, []
            for partition, error in failed:
                self._node.on_start_failed(partition, error, now)

    def _send(self, target: bytes, reply: Reply, payload: Sequence[Buffer]) -> None:
        self._transport.send(target, framing.encode(reply, payload))

    def _begin_sync(self, now: Now) -> None:
        assert self._store is not None
        if self._store.offline and not self._told_offline:
            self._tell_offline(self._store.offline, now)
        if self._unsynced_us is not None and now.us - self._unsynced_us >= self.config.replicated_sync_ms * 1000:
            self._wants_sync = True
        if not self._wants_sync or self._sync_worker.is_busy:
            return
        self._wants_sync = False
        self._unsynced_us = None
        self._syncing_moved, self._storage.moved = self._storage.moved, []
        job = self._store.begin_sync()
        if job is not None:
            self._sync_worker.submit(job)
        elif self._syncing_moved:
            self._node.on_start_moved(self._syncing_moved, now)

    def _after_jobs(self, now: Now) -> None:
        """Take in what the threads finished."""
        assert self._store is not None
        done = self._sync_worker.take_done()
        if done is not None:
            self.sync_latency.add(done.elapsed_us)
            synced = self._store.end_sync(done.job, done.error)
            if not self._store.offline:
                self._node.on_synced(synced, now)
                self._node.on_start_moved(self._syncing_moved, now)
            self._syncing_moved = []
        moved = self._upkeep.after_jobs(now)
        if moved:
            self._node.on_start_moved(moved, now)
        if self._upkeep.lost and not self._told_offline:
            self._tell_offline(self._upkeep.lost, now)

    def _tell_offline(self, reason: str, now: Now) -> None:
        self._told_offline = True
        log.error("nothing is written any more: %s", reason)
        self._node.on_offline(reason, now)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────

    def _drain(self) -> None:
        """Answer what waits for the disk; take nothing new."""
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        while (self._wants_sync or self._sync_worker.is_busy) and time.monotonic() < deadline:
            self._sync_worker.wait(deadline - time.monotonic())
            now = self._clock.now()
            self._after_jobs(now)
            self._perform(now)

    def _let_go(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._stopping.set()
        if self._http is not None:
            self._http.close()
        self._transport.close()
        if hasattr(self, "_sync_worker"):
            self._sync_worker.close(CLOSE_TIMEOUT_S)
        if hasattr(self, "_upkeep"):
            self._upkeep.close(CLOSE_TIMEOUT_S)
        if self._store is not None:
            self._store.close()
        self._wakeup.close()

    def _on_forked(self) -> None:
        """In the child: the threads stayed with the parent. Close what was inherited, release nothing, use no ZeroMQ."""
        if self._is_closed:
            return
        self._is_closed = True
        self._failure = ClosedError("the broker was opened before fork(); only the parent may use it")
        self._thread = None
        if self._http is not None:
            self._http.abandon()
        if self._store is not None:
            self._store.abandon()

    def _gauges(self) -> Gauges:
        assert self._store is not None
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return Gauges(
            fetch=self._storage.fetch_latency.summary(),
            sync=self.sync_latency.summary(),
            disk_free_bytes=self._upkeep.free_bytes(),
            journal_bytes=self._store.journal_bytes(),
            checkpoints=self._upkeep.checkpoint_count,
            cpu_ms=int((usage.ru_utime + usage.ru_stime) * 1000),
            rss_bytes=_rss_bytes(usage.ru_maxrss),
        )


def _rss_bytes(peak_kib: int) -> int:
    """Resident memory now; its peak where there is no /proc."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak_kib * 1024


def _after_fork_in_child() -> None:
    for broker in list(_brokers):
        broker._on_forked()  # noqa: SLF001 - this module's own


os.register_at_fork(after_in_child=_after_fork_in_child)
