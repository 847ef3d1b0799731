"""The broker as a machine: decoded requests in, effects out. It routes; the desks decide.

One round: ``on_message`` for each message that waits, ``take_effects``, perform them, say what became of the
appends, take the effects of that, and so on until there are none. Whatever a peer sends, the answer is a
reply or a named error and a counter, never an exception.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

import msgspec
from msgspec import Struct

from zmqmq import __version__
from zmqmq.broker.cluster import ClusterDesk, Member, is_forwarded
from zmqmq.broker.connections import Connection, Connections
from zmqmq.broker.dispatch import Dispatch, Now
from zmqmq.broker.ends import EndsDesk
from zmqmq.broker.events import EventsDesk
from zmqmq.broker.fetch import FetchDesk
from zmqmq.broker.limits import BrokerLimits
from zmqmq.broker.partitions import Logs, Partitions
from zmqmq.broker.produce import ProduceDesk, offline_error
from zmqmq.broker.replicas import Replicas
from zmqmq.broker.stats import Gauges, stats_reply
from zmqmq.broker.status import Quorum, cluster_reply
from zmqmq.broker.topics import TopicDesk
from zmqmq.effects import Append, Effect, Send
from zmqmq.errors import BrokerUnavailable, Fenced, InvalidConfig, UnsupportedVersion, ZmqmqError
from zmqmq.metadata.controller import Controller
from zmqmq.metadata.local import LocalLog
from zmqmq.model import METADATA_PARTITION, PartitionId
from zmqmq.ports import Buffer
from zmqmq.wire import framing
from zmqmq.wire.replies import HelloReply, PingReply
from zmqmq.wire.requests import (
    PROTOCOL_VERSION,
    AlterTopic,
    CreateTopic,
    DeleteRecords,
    DeleteTopic,
    DrainBroker,
    Fetch,
    GetCluster,
    GetEvents,
    GetMetadata,
    GetStats,
    Hello,
    InitProducer,
    ListOffsets,
    MoveLeaders,
    Ping,
    Produce,
    Reassign,
    RemoveBroker,
    Request,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from zmqmq.facts import StartMoved, Synced
    from zmqmq.ports import Random

_FOR_CONTROLLER: Final = (CreateTopic, AlterTopic, DeleteTopic, InitProducer, MoveLeaders, Reassign, DrainBroker, RemoveBroker)
TEXT_MAX: Final = 255
"""Characters kept of what a client says about itself."""


class NodeIdentity(Struct, frozen=True):
    """Who this broker is. ``directory_id`` tells a wiped broker from the one that had its node id before."""

    cluster_id: str
    node_id: int
    directory_id: str
    endpoint: str
    """Where clients reach it; empty when it listens nowhere."""


class ReadGauges(Protocol):
    """What only the shell knows for a stats reply."""

    def __call__(self) -> Gauges: ...


class Node:
    """See the module. Owned by one thread."""

    def __init__(
        self, identity: NodeIdentity, limits: BrokerLimits, *, logs: Logs, random: Random, metadata: LocalLog | Member, gauges: ReadGauges
    ) -> None:
        """``metadata``: the log of a broker of its own, or what makes this one a member of a cluster."""
        self.identity = identity
        self._limits = limits
        self._logs = logs
        self._gauges = gauges
        self._log = metadata if isinstance(metadata, LocalLog) else None
        self._started_us = 0
        self._is_settled = True
        """The machines have nothing to tell each other."""
        self._idle_until_ms = 0
        """Of a member of a cluster: unless it hears something, nothing is to be done before."""
        self._dispatch = Dispatch()
        self._connections = Connections(limits)
        self.partitions = Partitions(identity.node_id, logs, self._dispatch)
        controller = Controller(limits.cluster(), random)
        self._topics = TopicDesk(identity.node_id, identity.cluster_id, controller, self.partitions, self._dispatch)
        self._produce = ProduceDesk(limits, self.partitions, self._dispatch)
        self._fetch = FetchDesk(limits, self.partitions, self._dispatch)
        self._ends = EndsDesk(limits, self.partitions, self._dispatch)
        self._events = EventsDesk(identity.node_id, self._dispatch)
        self.cluster: ClusterDesk | None = None
        if isinstance(metadata, Member):
            replicas = self.partitions.replicas = Replicas(
                identity.node_id, logs, self.partitions, self._dispatch, catch_up_bytes_per_s=metadata.settings.catch_up_bytes_per_s
            )
            self.cluster = ClusterDesk(
                identity, metadata, random=random, controller=controller, partitions=self.partitions,
                topics=self._topics, dispatch=self._dispatch, replicas=replicas,
            )  # fmt: skip

    def __repr__(self) -> str:
        return f"Node({self.identity.node_id} ready={self.is_ready} topics={len(self.partitions.image.topics)} {self._log!r})"

    @property
    def is_ready(self) -> bool:
        """This opening is registered: the broker leads and may be asked."""
        return self._topics.is_ready if self.cluster is None else self.cluster.is_ready

    @property
    def waits_for(self) -> str:
        """Why it is not ready."""
        return self.cluster.waits_for if self.cluster is not None else "starting"

    @property
    def start_error(self) -> ZmqmqError | None:
        """Why it will never be ready."""
        return self._topics.start_error if self.cluster is None else self.cluster.fatal_error

    def start(self, now: Now) -> None:
        """Replay the metadata log and register. Ready after the rounds that this needs."""
        self._started_us = now.us
        if self.cluster is not None:
            self.cluster.start(now)
        if self._log is not None:
            self._log.wall_ms = now.wall_ms
            self._topics.start(self._log, self.identity.directory_id, self.identity.endpoint)
            self._log.start()
        self._settle(now)

    def on_message(self, source: bytes, frames: Sequence[Buffer], now: Now) -> None:
        """``frames`` without the routing id. Buffers must not change afterwards."""
        self._is_settled = False
        try:
            request, payload = framing.decode_request(frames)
        except ZmqmqError as error:
            self._dispatch.refuse(source, framing.correlation_id(frames), error)
            return
        if self._log is not None:
            self._log.wall_ms = now.wall_ms
        name, handler = self._HANDLERS[type(request)]
        self._dispatch.requests[name] += 1
        try:
            if self._is_for_controller(request, source):
                self._heard(source, now)
                assert self.cluster is not None
                self.cluster.forward(source, request, frames, now)
            else:
                handler(self, source, request, payload, now)
        except ZmqmqError as error:
            if not (isinstance(request, Produce) and request.acks == 0):
                self._dispatch.refuse(source, request.correlation_id, error)
            else:
                self._dispatch.count(error)

    def on_appended(self, partitions: Iterable[PartitionId], now: Now) -> None:
        """Everything of these partitions that the last effects asked to append is written."""
        for partition in partitions:
            if partition == METADATA_PARTITION and self._log is not None:
                self._log.on_written()
            else:
                self.partitions.on_written(partition)
                if self.partitions.replicas is not None:
                    self.partitions.replicas.on_written(partition, now)
        self._settle(now)

    def on_append_failed(self, errors: Mapping[PartitionId, ZmqmqError], now: Now) -> None:
        """Nothing of it is written, or, when an error says so, nobody knows."""
        for partition, error in errors.items():
            error.outcome = error.outcome or "not_written"
            self._dispatch.count(error)
            if partition == METADATA_PARTITION and self._log is not None:
                self._log.on_append_failed(error)
            else:
                self.partitions.on_append_failed(partition, error)
                if self.partitions.replicas is not None:
                    self.partitions.replicas.on_append_failed(partition, now)
        self._settle(now)

    def on_synced(self, synced: Sequence[Synced], now: Now) -> None:
        for fact in synced:
            if fact.partition != METADATA_PARTITION:
                self.partitions.on_synced(fact)
                if self.partitions.replicas is not None:
                    self.partitions.replicas.following.on_synced(fact.partition, fact.end)
            elif self._log is not None:
                self._log.on_synced(fact.end)
            elif self.cluster is not None and self.cluster.engine is not None:
                self.cluster.engine.on_synced(fact.end, now.ms)
        self._settle(now)

    def on_start_moved(self, moved: StartMoved) -> None:
        """Records are gone for readers, asked for or by retention; a crash may still bring them back."""
        self._is_settled = False
        self._ends.on_start_moved(moved)
        if self.partitions.replicas is not None:
            self.partitions.replicas.on_start_moved(moved)

    def on_start_synced(self, moved: Sequence[StartMoved], now: Now) -> None:
        """New log starts that were asked for are on disk."""
        for fact in moved:
            self._ends.on_start_synced(fact)
            if self.partitions.replicas is not None:
                self.partitions.replicas.following.on_start_synced(fact.partition, fact.log_start)
        self._settle(now)

    def on_start_failed(self, partition: PartitionId, error: ZmqmqError, now: Now) -> None:
        self._dispatch.count(error)
        self._ends.on_start_failed(partition, error)
        self._settle(now)

    def on_offline(self, reason: str, now: Now) -> None:
        """The disk failed for good. What waits may be written or not; reads go on."""
        error = offline_error(reason)
        self._dispatch.count(error)
        self.partitions.on_offline(reason, error)
        self._ends.on_offline(error)
        if self._log is not None:
            self._log.on_offline(error)
        if self.cluster is not None:
            self.cluster.on_offline(error)
        self._settle(now)

    def on_gone(self, source: bytes) -> None:
        """The peer is not there any more, and everything that it sent was handed in."""
        self._connections.gone(source)
        self._fetch.on_gone(source)
        self._events.on_gone(source)
        if self.cluster is not None:
            self.cluster.on_gone(source)

    def leave(self, now: Now) -> None:
        """The broker is about to stop."""
        if self.cluster is not None:
            self.cluster.membership.stop()
            self._settle(now)

    @property
    def may_leave(self) -> bool:
        """Nobody would miss it, or nobody can be asked."""
        if self.cluster is None or not self.is_ready:
            return True
        return self.cluster.membership.may_stop or not self.partitions.may_lead

    def on_control(self, frames: Sequence[Buffer], now: Now) -> None:
        """What another broker says about decisions."""
        assert self.cluster is not None
        self._is_settled = False
        self.cluster.on_control(frames, now)

    def on_data(self, frames: Sequence[Buffer], now: Now) -> None:
        """What another broker says about copies."""
        assert self.cluster is not None
        self._is_settled = False
        self.cluster.on_data(frames, now)

    def on_published(self, frames: Sequence[Buffer], now: Now) -> None:
        """What a leader appended."""
        assert self.cluster is not None
        self._is_settled = False
        self.cluster.on_published(frames, now)

    def on_peer_died(self, node_id: int, now: Now) -> None:
        """By evidence: its connection ended, and its address refuses another."""
        assert self.cluster is not None
        self._is_settled = False
        self.cluster.on_peer_died(node_id, now)

    def on_adopted(self, cluster_id: str, now: Now) -> None:
        """The cluster that this broker belongs to is on disk."""
        assert self.cluster is not None
        self.identity = msgspec.structs.replace(self.identity, cluster_id=cluster_id)
        self._topics.cluster_id = cluster_id
        self.cluster.on_adopted(cluster_id, now)
        self._settle(now)

    def on_quorum_written(self, error: ZmqmqError | None, now: Now) -> None:
        """What the quorum's log asked for is written, or why not."""
        assert self.cluster is not None
        self.cluster.on_quorum_written(error)
        self._settle(now)

    def on_sync_begun(self) -> None:
        """The sync that begins now holds everything that was written."""
        if self.cluster is not None and self.cluster.engine is not None:
            self.cluster.engine.on_sync_begun()

    def on_truncated(self, ends: Mapping[PartitionId, int | ZmqmqError], now: Now) -> None:
        """Logs of followers end there now, or why not."""
        assert self.partitions.replicas is not None
        self.partitions.replicas.on_truncated(ends)
        self._settle(now)

    def on_reset(self, partition: PartitionId, log_start: int, now: Now) -> None:
        """The log of a follower begins there, and is empty."""
        assert self.partitions.replicas is not None
        self.partitions.replicas.on_reset(partition, log_start)
        self._settle(now)

    def on_reset_failed(self, partition: PartitionId, error: ZmqmqError, now: Now) -> None:
        """The log of a follower stays as it is, out of sync."""
        assert self.partitions.replicas is not None
        self.partitions.replicas.on_reset_failed(partition, error)
        self._settle(now)

    def on_fetched(self, partition: PartitionId, message_count: int, size_bytes: int) -> None:
        leader = self.partitions.opened(partition)
        if leader is not None:
            leader.messages_out += message_count
            leader.bytes_out += size_bytes

    def on_tick(self, now: Now) -> None:
        self._fetch.on_tick(now)
        self._events.on_tick(now)

    def next_deadline_ms(self) -> int | None:
        cluster_ms = self._idle_until_ms or (self.cluster.next_deadline_ms() if self.cluster is not None else None)
        deadlines = (self._fetch.next_deadline_ms(), self._events.next_deadline_ms(), cluster_ms)
        return min((each for each in deadlines if each is not None), default=None)

    def take_effects(self, now: Now) -> list[Effect]:
        """What to perform now, in order: appends first."""
        if self._is_idle(now):
            return []
        if not self._is_settled:
            self._settle(now)
        image = self.partitions.image
        effects: list[Effect] = list(self.partitions.take_appends())
        if self._log is not None:
            batches = self._log.take_batches()
            if batches:
                self._dispatch.wants_sync = True
                effects.append(Append(METADATA_PARTITION, batches))
        elif self.cluster is not None:
            effects.extend(self._take_cluster_effects(self.cluster, now))
        effects.extend(self._dispatch.take())
        if self.cluster is not None:
            if effects:
                return [routed for effect in effects for routed in self._routed(effect, self.cluster)] or self.take_effects(now)
            if self._is_settled and image is self.partitions.image:
                self._idle_until_ms = self.cluster.next_deadline_ms() or 0
        return effects

    def _is_idle(self, now: Now) -> bool:
        dispatch = self._dispatch
        return self._is_settled and now.ms < self._idle_until_ms and not dispatch.effects and not dispatch.wants_sync

    def _take_cluster_effects(self, cluster: ClusterDesk, now: Now) -> list[Effect]:
        if not self._dispatch.effects and cluster.place(now):
            self._settle(now)
        assert self.partitions.replicas is not None
        effects = [effect for effect in self.partitions.replicas.take_effects(now) if not cluster.takes(effect, now)]
        effects.extend(cluster.advance(now))
        while forwarded := cluster.take_forwarded():
            for source, frames in forwarded:
                self.on_message(source, frames, now)
            effects.extend(cluster.advance(now))
        self._settle(now)
        return effects

    def _routed(self, effect: Effect, cluster: ClusterDesk) -> Sequence[Effect]:
        """An answer to a request that another broker sent on goes back there."""
        return cluster.answer_forwarded(effect) if isinstance(effect, Send) and is_forwarded(effect.target) else (effect,)

    def _is_for_controller(self, request: Request, source: bytes) -> bool:
        """A change that this broker, of a cluster, cannot decide."""
        return (
            self.cluster is not None
            and isinstance(request, _FOR_CONTROLLER)
            and not self._topics.is_deciding
            and not is_forwarded(source)
            and not (isinstance(request, InitProducer) and request.producer_id >= 0)
        )

    def _settle(self, now: Now) -> None:
        """Hand on what the machines told each other; who hears something may have something to tell."""
        self._idle_until_ms = 0
        events = self._log.take_events() if self._log is not None else []
        self._topics.on_events(events)
        receipts = self.partitions.take_receipts()
        self._produce.on_receipts(receipts, now)
        advanced = self.partitions.take_advanced()
        self._fetch.on_advanced(advanced, now)
        self._ends.look()
        if self.is_ready:
            self._look_for_events(now)
        self._is_settled = not (events or receipts or advanced)

    def _look_for_events(self, now: Now) -> None:
        engine = self.cluster.engine if self.cluster is not None else None
        if engine is not None and engine.leader_node is not None:
            self._events.on_controller(engine.leader_node, engine.epoch, now)
        self._events.look(self.partitions.image, now)

    def _on_hello(self, source: bytes, request: Hello, _payload: Sequence[Buffer], now: Now) -> None:
        if not request.version_min <= PROTOCOL_VERSION <= request.version_max:
            raise UnsupportedVersion(
                f"the client speaks protocol versions {request.version_min} to {request.version_max}, this broker {PROTOCOL_VERSION}",
                hint="upgrade the older side",
            )
        if request.cluster_id and request.cluster_id != self.identity.cluster_id:
            raise Fenced(
                f"the client looks for cluster {request.cluster_id[:TEXT_MAX]}, this is {self.identity.cluster_id}",
                hint="another cluster answers at this address; correct the address, or make a new client",
            )
        if self.cluster is not None and not self.is_ready:
            raise BrokerUnavailable(
                f"broker {self.identity.node_id} has not joined its cluster yet", hint="a majority of the cluster's voters has to run"
            )
        self._connections.open(source, request.client_id[:TEXT_MAX], request.software[:TEXT_MAX], now.ms)
        reply = HelloReply(
            request.correlation_id, PROTOCOL_VERSION, self.identity.cluster_id, self.identity.node_id,
            f"zmqmq/{__version__}", self._limits.told(),
        )  # fmt: skip
        self._dispatch.reply(source, reply)

    def _on_ping(self, source: bytes, request: Ping, _payload: Sequence[Buffer], now: Now) -> None:
        self._heard(source, now)
        self._dispatch.reply(source, PingReply(request.correlation_id))

    def _on_metadata(self, source: bytes, request: GetMetadata, _payload: Sequence[Buffer], now: Now) -> None:
        self._topics.metadata(self._heard(source, now), request)

    def _on_change(self, source: bytes, request: CreateTopic | AlterTopic | DeleteTopic, _payload: Sequence[Buffer], now: Now) -> None:
        self._topics.change(self._heard(source, now), request)

    def _on_init_producer(self, source: bytes, request: InitProducer, _payload: Sequence[Buffer], now: Now) -> None:
        self._topics.init_producer(self._heard(source, now), request)

    def _on_produce(self, source: bytes, request: Produce, payload: Sequence[Buffer], now: Now) -> None:
        self._produce.produce(self._heard(source, now), request, payload, now)

    def _on_fetch(self, source: bytes, request: Fetch, _payload: Sequence[Buffer], now: Now) -> None:
        self._fetch.fetch(self._heard(source, now), request, now)

    def _on_list_offsets(self, source: bytes, request: ListOffsets, _payload: Sequence[Buffer], now: Now) -> None:
        self._ends.list_offsets(self._heard(source, now), request)

    def _on_delete_records(self, source: bytes, request: DeleteRecords, _payload: Sequence[Buffer], now: Now) -> None:
        self._ends.delete(self._heard(source, now), request)

    def _on_stats(self, source: bytes, request: GetStats, _payload: Sequence[Buffer], now: Now) -> None:
        self._heard(source, now)
        reply = stats_reply(
            request,
            now,
            self.partitions,
            self._logs,
            self._gauges(),
            node_id=self.identity.node_id,
            cluster_id=self.identity.cluster_id,
            uptime_ms=(now.us - self._started_us) // 1000,
            connections=len(self._connections),
            requests=dict(self._dispatch.requests),
            errors=dict(self._dispatch.errors),
            produce=self._produce.latency.summary(),
        )
        self._dispatch.reply(source, reply)

    def _on_cluster(self, source: bytes, request: GetCluster, _payload: Sequence[Buffer], now: Now) -> None:
        self._heard(source, now)
        node_id = self.identity.node_id
        reply = cluster_reply(
            request.correlation_id,
            self.partitions.image,
            cluster_id=self.identity.cluster_id,
            node_id=node_id,
            quorum=self._quorum(),
        )
        self._dispatch.reply(source, reply)

    def _quorum(self) -> Quorum:
        if self._log is not None:
            return Quorum(self.identity.node_id, self._log.epoch, (self.identity.node_id,))
        engine = self.cluster.engine if self.cluster is not None else None
        if engine is None:
            return Quorum(-1, -1, ())
        members = engine.configuration
        return Quorum(
            engine.leader_node if engine.leader_node is not None else -1,
            engine.epoch,
            tuple(voter.node_id for voter in members.voters),
            tuple(learner.node_id for learner in members.learners),
        )

    def _on_events(self, source: bytes, request: GetEvents, _payload: Sequence[Buffer], now: Now) -> None:
        self._heard(source, now)
        self._events.ask(source, request, now)

    def _on_operate(
        self, source: bytes, request: MoveLeaders | Reassign | DrainBroker | RemoveBroker, _payload: Sequence[Buffer], now: Now
    ) -> None:
        connection = self._heard(source, now)
        if self.cluster is None:
            raise InvalidConfig(
                f"broker {self.identity.node_id} is a cluster of its own: there is nobody to move anything to",
                hint="start a cluster with  zmqmq dev -n 3  or with  zmqmq serve --peers",
            )
        self._topics.operate(connection, request)

    def _heard(self, source: bytes, now: Now) -> Connection:
        if is_forwarded(source):
            return Connection(source, "", "")
        return self._connections.heard(source, now.ms)

    _HANDLERS: ClassVar[dict[type[Request], tuple[str, Callable[[Node, bytes, Any, Sequence[Buffer], Now], None]]]] = {
        Hello: ("hello", _on_hello),
        GetMetadata: ("metadata", _on_metadata),
        Produce: ("produce", _on_produce),
        Fetch: ("fetch", _on_fetch),
        ListOffsets: ("list_offsets", _on_list_offsets),
        CreateTopic: ("create_topic", _on_change),
        DeleteTopic: ("delete_topic", _on_change),
        AlterTopic: ("alter_topic", _on_change),
        DeleteRecords: ("delete_records", _on_delete_records),
        GetStats: ("stats", _on_stats),
        InitProducer: ("init_producer", _on_init_producer),
        Ping: ("ping", _on_ping),
        GetCluster: ("cluster", _on_cluster),
        GetEvents: ("events", _on_events),
        MoveLeaders: ("move_leaders", _on_operate),
        Reassign: ("reassign", _on_operate),
        DrainBroker: ("drain_broker", _on_operate),
        RemoveBroker: ("remove_broker", _on_operate),
    }
