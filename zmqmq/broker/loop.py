"""The loop of an open broker: store, machines and threads, and the turn that drives them.

A turn: take the messages that wait, give them to the node, append everything in one call, answer what need
not wait for the disk; the sync runs in its thread and ends by a wake-up, while the loop goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from zmqmq.broker.cluster import ClusterSettings, Member
from zmqmq.broker.dispatch import Now
from zmqmq.broker.node import Node, NodeIdentity
from zmqmq.broker.noticing import Noticing
from zmqmq.broker.peering import PEER_EFFECTS, Peering, Ways
from zmqmq.broker.stats import Gauges
from zmqmq.broker.storage import Storage
from zmqmq.broker.summary import SummaryCounter
from zmqmq.broker.upkeep import Upkeep
from zmqmq.broker.worker import Worker
from zmqmq.effects import AdoptCluster, Append, Effect, Relay, ResetLog, Send, Sync, TruncateLogs, WriteQuorum
from zmqmq.errors import InvalidConfig, LogOffline, MessageTooLarge, ZmqmqError
from zmqmq.metadata.local import METADATA_CONFIG, LocalLog
from zmqmq.model import BATCH_BYTES_MAX, FRAME_BYTES_MAX, METADATA_PARTITION
from zmqmq.ports import Clock, Disk, Random, Transport
from zmqmq.store.boot import is_intact, note_told
from zmqmq.store.files import disk_error
from zmqmq.store.store import CheckpointJob, Store, SyncJob
from zmqmq.wire import framing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmqmq.broker.config import BrokerConfig
    from zmqmq.facts import StartMoved
    from zmqmq.ports import Buffer
    from zmqmq.wire.replies import Reply

log: Final = logging.getLogger("zmqmq.broker")

MESSAGES_PER_TURN: Final = 256
MESSAGE_BYTES_PER_TURN: Final = 8 << 20
"""Taken before the round is written and answered; one more message may go over the bytes."""
WAIT_MS_MAX: Final = 200
"""The loop turns at least so often, so that /readyz can tell a loop that hangs."""
PROBLEMS_MS: Final = 5_000
"""Between two looks for replicas that cannot follow."""
_LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
START_TIMEOUT_S: Final = 60.0
LEAVE_TIMEOUT_S: Final = 5.0
"""For the leaders of a broker that stops to move; after it the others find out by themselves."""
CLOSE_TIMEOUT_S: Final = 10.0


_EARLY: Final = frozenset({Append, TruncateLogs, ResetLog, WriteQuorum, AdoptCluster})
"""Performed before the others of a round."""


class Usage(Struct, frozen=True):
    """What the process took from the machine."""

    cpu_ms: int
    rss_bytes: int


class Surroundings(Struct, frozen=True):
    """All that a broker needs from the world. ``server`` has the real one, the simulator its own."""

    clock: Clock
    random: Random
    disk: Disk
    transport: Transport
    sync_worker: Worker[SyncJob]
    checkpoint_worker: Worker[CheckpointJob]
    usage: Callable[[], Usage]
    ways: Ways | None = None
    """To the other brokers, for a member of a cluster."""
    boot_id: str = ""
    """The same as long as the machine's memory lives; empty: not known."""


def open_store(config: BrokerConfig, *, disk: Disk, clock: Clock, random: Random) -> Store:
    """Recover the data directory, or make it. Raises what ``Store.open`` raises, and InvalidConfig."""
    store = Store.open(disk, config.data, clock=clock, random=random, options=config.store, node_id=config.node_id)
    if store.identity.node_id != config.node_id:
        store.abandon()
        raise InvalidConfig(
            f"node_id = {config.node_id}: the data directory {config.data} belongs to node {store.identity.node_id}",
            hint=f"use --node-id {store.identity.node_id}, or another directory",
        )
    return store


class Loop:
    """Owns the store and its workers; belongs to the broker's thread. Other threads may read ``turned_us`` and ``offline``."""

    def __init__(
        self, config: BrokerConfig, store: Store, surroundings: Surroundings, *, endpoint: str, cluster: ClusterSettings | None = None
    ) -> None:
        """``cluster``: a member of one; ``surroundings`` has the ways to the others then."""
        self.store = store
        self._config = config
        self._clock = surroundings.clock
        self._transport = surroundings.transport
        self._usage = surroundings.usage
        self._disk = surroundings.disk
        self._boot_id = surroundings.boot_id
        self.turned_us = self._clock.monotonic_us()
        self._wants_sync = False
        self._unsynced_us: int | None = None
        self._told_offline = False
        self._syncing_starts: list[StartMoved] = []
        self._sync_latency = SummaryCounter()
        store.create(METADATA_PARTITION, METADATA_CONFIG)
        self._is_member = cluster is not None
        metadata: LocalLog | Member
        if cluster is None:
            if store.saved(METADATA_PARTITION):
                raise InvalidConfig(
                    f"the data directory {config.data} belongs to a member of the cluster {store.identity.cluster_id}",
                    hint="start it with the --peers of that cluster",
                )
            metadata = LocalLog(config.node_id, store.state(METADATA_PARTITION), self._read_metadata)
        else:
            state, saved = store.state(METADATA_PARTITION), store.saved(METADATA_PARTITION)
            has_all = is_intact(
                surroundings.disk, config.data, surroundings.boot_id, was_clean=store.report.was_clean, is_fresh=not state.log_end
            )
            metadata = Member(cluster, state, saved, self._read_quorum, is_intact=has_all)
        identity = NodeIdentity(store.identity.cluster_id, config.node_id, store.identity.directory_id, endpoint)
        self.node = Node(identity, config.limits, logs=store, random=surroundings.random, metadata=metadata, gauges=self._gauges)
        self._storage = Storage(store, self._clock, self._send, self.node.on_fetched, self.node.on_start_moved)
        self._peering = Peering(surroundings.ways, self.node, store) if surroundings.ways is not None else None
        self._noticing = Noticing(self.node.cluster) if self.node.cluster is not None else None
        self._problems_ms = 0
        self._syncs = surroundings.sync_worker
        self._upkeep = Upkeep(store, surroundings.disk, config.data, surroundings.checkpoint_worker, self.node.partitions.watermark)

    @property
    def offline(self) -> str:
        """Why nothing is written any more, or empty."""
        return self.node.partitions.offline

    def become_ready(self) -> None:
        """Turn without taking messages until the registration is on disk. Raises what refused it, or LogOffline. A member of a cluster
        needs the others for that: it only begins."""
        if self._is_member:
            self.begin()
            return
        deadline_ms = self._clock.monotonic_ms() + int(START_TIMEOUT_S * 1000)
        self.begin()
        while not self.node.is_ready:
            if self._clock.monotonic_ms() > deadline_ms:
                raise LogOffline(f"the registration did not reach the disk within {START_TIMEOUT_S:.0f} s", hint="look at the disk")
            self._syncs.wait(1.0)
            self.go_on()

    def begin(self) -> None:
        """Ask for the registration; the broker serves when ``node.is_ready``. Until then ``go_on``, after it ``turn``."""
        self.node.start(self._now())
        self.go_on()

    def go_on(self) -> None:
        """A turn that takes no messages. Raises what refused the registration."""
        was_ready = self.node.is_ready
        now = self._now()
        self._after_jobs(now)
        self._perform(now)
        if self.node.start_error is not None:
            raise self.node.start_error
        self._after_ready(was_ready)
        self.turned_us = now.us

    def turn(self) -> None:
        """Take what waits, after sleeping until there is something, and answer it."""
        transport = self._transport
        peering = self._peering
        was_ready = self.node.is_ready
        messages = transport.receive(MESSAGES_PER_TURN, MESSAGE_BYTES_PER_TURN)
        if not (peering is not None and peering.receive()) and not messages:
            transport.wait(self._timeout_ms())
            messages = transport.receive(MESSAGES_PER_TURN, MESSAGE_BYTES_PER_TURN)
            if peering is not None:
                peering.receive()
        now = self._now()
        self.turned_us = now.us
        if peering is not None:
            peering.hand_over_control(now)
            self._after_jobs(now)
            self._perform(now)
            peering.hand_over_bulk(now)
        for source, frames in messages:
            self.node.on_message(source, frames, now)
        if peering is None:
            self._after_jobs(now)
        self.node.on_tick(now)
        self._perform(now)
        if peering is not None:
            self._after_ready(was_ready)
            self._say(now)
            if self.node.start_error is not None:
                raise self.node.start_error

    def _say(self, now: Now) -> None:
        """What an operator should know of this member of a cluster."""
        if self._noticing is None:
            return
        notices = self._noticing.take()
        if now.ms >= self._problems_ms:
            self._problems_ms = now.ms + PROBLEMS_MS
            notices += self._noticing.take_problems()
        for level, text in notices:
            log.log(_LEVELS[level], "%s", text)

    def _after_ready(self, was_ready: bool) -> None:
        if self.node.is_ready and not was_ready:
            if self._is_member:
                note_told(self._disk, self._config.data, self._boot_id)
            self.store.retain_only(list(self.node.partitions.image.topics))

    def leave(self) -> None:
        """A member of a cluster asks to be let go, and turns until nobody would miss it. Bounded."""
        if not self._is_member:
            return
        self.node.leave(self._now())
        deadline_ms = self._clock.monotonic_ms() + int(LEAVE_TIMEOUT_S * 1000)
        while not self.node.may_leave and self._clock.monotonic_ms() < deadline_ms:
            self.turn()

    def drain(self) -> None:
        """Answer what waits for the disk; take nothing new. Bounded."""
        deadline_ms = self._clock.monotonic_ms() + int(CLOSE_TIMEOUT_S * 1000)
        while not self.is_settled and (left_ms := deadline_ms - self._clock.monotonic_ms()) > 0:
            self._syncs.wait(left_ms / 1000)
            self.go_on()

    @property
    def is_settled(self) -> bool:
        """Nobody waits for the disk."""
        return not (self._wants_sync or self._syncs.is_busy)

    def next_turn_ms(self) -> int:
        """When to ``turn`` at the latest, on the monotonic clock."""
        return self._clock.monotonic_ms() + self._timeout_ms()

    def close(self, *, is_clean: bool) -> None:
        """End the threads and the store. Not cleanly: write nothing more, the next open recovers as after a crash."""
        is_clean = is_clean and not self._syncs.is_busy
        self._syncs.close(CLOSE_TIMEOUT_S)
        is_clean = self._upkeep.close(CLOSE_TIMEOUT_S) and is_clean
        if is_clean:
            self.store.close()
        else:
            self.store.abandon()

    def _now(self) -> Now:
        return Now(self._clock.wall_ms(), self._clock.monotonic_us())

    def _timeout_ms(self) -> int:
        now_ms = self._clock.monotonic_ms()
        deadline = self.node.next_deadline_ms()
        timeout = WAIT_MS_MAX if deadline is None else max(0, min(deadline - now_ms, WAIT_MS_MAX))
        if self._unsynced_us is not None and not self._syncs.is_busy:
            timeout = min(timeout, max(0, -(-self._unsynced_us // 1000) + self._config.replicated_sync_ms - now_ms))
        return timeout

    def _perform(self, now: Now) -> None:
        """Everything that the machines ask for, and what follows from it."""
        while effects := self.node.take_effects(now):
            self._perform_once(effects, now)
        if self._transport.has_queued:
            self._transport.flush()
        for source in self._transport.take_gone():
            self.node.on_gone(source)
        if self.store.offline:
            self._tell_offline(self.store.offline, now)
        self._upkeep.turn(now)
        self._maybe_sync(now)  # last, for the worker wants the interpreter, and the loop is about to sleep

    def _perform_once(self, effects: list[Effect], now: Now) -> None:
        if self._peering is not None:
            self._cut(effects, now)
        appends = [effect for effect in effects if type(effect) is Append]
        if appends:
            self._append(appends, now)
        for effect in effects:
            kind = type(effect)
            if isinstance(effect, Send):
                self._send(effect.target, effect.reply, effect.payload)
            elif kind is Sync:
                self._wants_sync = True
            elif isinstance(effect, Relay):
                self._transport.send(effect.target, effect.frames)
            elif kind in PEER_EFFECTS:
                assert self._peering is not None
                self._peering.perform(effect)  # type: ignore[arg-type]  # it is one of them
            elif kind not in _EARLY:
                self._storage.perform(effect)
        for partition, error in self._storage.take_failed_moves():
            self.node.on_start_failed(partition, error, now)

    def _cut(self, effects: list[Effect], now: Now) -> None:
        """What has to be done to logs before anything is appended to them."""
        for effect in effects:
            match effect:
                case TruncateLogs():
                    self.node.on_truncated(self.store.truncate(effect.ends), now)
                case ResetLog():
                    self._reset(effect, now)
                case WriteQuorum():
                    self._write_quorum(effect, now)
                case AdoptCluster():
                    self._adopt(effect, now)

    def _reset(self, effect: ResetLog, now: Now) -> None:
        try:
            self.store.reset(effect.partition, effect.log_start)
        except ZmqmqError as error:
            self.node.on_reset_failed(effect.partition, error, now)
        else:
            self.node.on_reset(effect.partition, effect.log_start, now)

    def _write_quorum(self, effect: WriteQuorum, now: Now) -> None:
        store, partition = self.store, METADATA_PARTITION
        error: ZmqmqError | None = None
        try:
            if effect.truncate_to >= 0:
                end = store.truncate({partition: effect.truncate_to})[partition]
                error = end if isinstance(end, ZmqmqError) else None
            if effect.saved is not None and error is None:
                store.save(partition, effect.saved)
        except ZmqmqError as refused:
            error = refused
        if effect.batches and error is None:
            error = store.append([Append(partition, effect.batches)]).get(partition)
        self._wants_sync = True
        self.node.on_quorum_written(error, now)

    def _adopt(self, effect: AdoptCluster, now: Now) -> None:
        """Once in the life of a directory, so the loop waits for the disk. Raises ZmqmqError: without it there is nothing to do."""
        self.store.adopt_cluster(effect.cluster_id)
        self.store.save(METADATA_PARTITION, effect.saved)
        job = self.store.begin_sync()
        assert job is not None
        try:
            job.run()
        except OSError as error:
            self.store.end_sync(job, error)
            raise disk_error(error, "forming the cluster") from error
        self.store.end_sync(job)
        self.node.on_adopted(effect.cluster_id, now)

    def _append(self, appends: list[Append], now: Now) -> None:
        written, errors = self._storage.append(appends)
        if self._unsynced_us is None:
            self._unsynced_us = now.us
        now = self._now()
        self.node.on_appended(written, now)
        if errors:
            self.node.on_append_failed(errors, now)

    def _send(self, target: bytes, reply: Reply, payload: Sequence[Buffer]) -> None:
        frames = framing.encode(reply, payload)
        if len(frames[1]) > FRAME_BYTES_MAX:  # it would end the connection
            too_large = MessageTooLarge(
                f"the answer would have {len(frames[1])} bytes, the limit is {FRAME_BYTES_MAX}", hint="ask for fewer topics or partitions"
            )
            frames = framing.encode(framing.error_reply(reply.correlation_id, too_large))
        self._transport.send(target, frames)

    def _maybe_sync(self, now: Now) -> None:
        if self._unsynced_us is not None and now.us - self._unsynced_us >= self._config.replicated_sync_ms * 1000:
            self._wants_sync = True
        if not self._wants_sync or self._syncs.is_busy:
            return
        self._wants_sync = False
        self._unsynced_us = None
        self._syncing_starts = self._storage.take_moved_starts()
        self.node.on_sync_begun()
        job = self.store.begin_sync()
        if job is not None:
            self._syncs.submit(job)
        elif self._syncing_starts:
            self.node.on_start_synced(self._syncing_starts, now)

    def _after_jobs(self, now: Now) -> None:
        """Take in what the threads finished."""
        done = self._syncs.take_done()
        if done is not None:
            self._sync_latency.add(done.elapsed_us)
            synced = self.store.end_sync(done.job, done.error)
            if not self.store.offline:
                self.node.on_synced(synced, now)
                if self._syncing_starts:
                    self.node.on_start_synced(self._syncing_starts, now)
            self._syncing_starts = []
        for moved in self._upkeep.after_jobs():
            self.node.on_start_moved(moved)

    def _tell_offline(self, reason: str, now: Now) -> None:
        if not self._told_offline:
            self._told_offline = True
            log.error("nothing is written any more: %s", reason)
            self.node.on_offline(reason, now)
            self._perform(now)

    def _read_metadata(self, offset: int, end: int) -> bytes:
        return self.store.read(METADATA_PARTITION, offset, end, BATCH_BYTES_MAX)

    def _read_quorum(self, offset: int, end: int, bytes_max: int) -> bytes:
        return self.store.read(METADATA_PARTITION, offset, end, bytes_max)

    def _gauges(self) -> Gauges:
        usage = self._usage()
        return Gauges(
            fetch=self._storage.fetch_latency.summary(),
            sync=self._sync_latency.summary(),
            disk_free_bytes=self._upkeep.free_bytes(),
            journal_bytes=self.store.journal_bytes(),
            checkpoints=self._upkeep.checkpoint_count,
            cpu_ms=usage.cpu_ms,
            rss_bytes=usage.rss_bytes,
            replies_dropped=self._transport.dropped_count,
        )
