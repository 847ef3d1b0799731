"""This broker as a member of a cluster: what comes from the other brokers, what goes to them, and who decides.

A thin desk. The quorum's log makes the image; whoever leads it runs the active controller; every broker registers with that one and shows
that it lives. What each of them promises is said in ``metadata.quorum``, ``metadata.controlling``, ``membership`` and ``replicas``.

Messages of another cluster, for another node, or from a directory that is not its node's are dropped and counted.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from zmqmq import __version__
from zmqmq.broker import peers
from zmqmq.broker.forwarding import Forwarding, Served, error_frames, is_forwarded
from zmqmq.broker.membership import Membership
from zmqmq.broker.replicas import Replicas
from zmqmq.effects import AdoptCluster, Append, Connect, Effect, Relay, Send, Tell, WriteQuorum
from zmqmq.errors import NotLeader, RemoteProtocolError, ZmqmqError
from zmqmq.marks import reached
from zmqmq.metadata.controlling import ActiveController
from zmqmq.metadata.messages import (
    AlterPartitions,
    BrokerAccepted,
    BrokerRefused,
    Forward,
    Forwarded,
    Heartbeat,
    HeartbeatReply,
    PartitionsRefused,
    RegisterBroker,
)
from zmqmq.metadata.quorum.disk import Save, Truncate
from zmqmq.metadata.quorum.engine import QuorumLog
from zmqmq.metadata.quorum.format import decode_saved, encode_saved
from zmqmq.metadata.quorum.forming import Forming, Introduce
from zmqmq.metadata.quorum.state import HardState
from zmqmq.metadata.quorum.state import Member as QuorumMember
from zmqmq.wire import framing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zmqmq.batch import StampedBatch
    from zmqmq.broker.dispatch import Dispatch, Now
    from zmqmq.broker.node import NodeIdentity
    from zmqmq.broker.partitions import Partitions
    from zmqmq.broker.topics import TopicDesk
    from zmqmq.facts import LogState
    from zmqmq.metadata.controller import Controller
    from zmqmq.metadata.image import BrokerImage, ClusterImage
    from zmqmq.metadata.quorum.changing import Aim
    from zmqmq.metadata.quorum.disk import ReadBatches
    from zmqmq.ports import Buffer, Random
    from zmqmq.wire.requests import Request

EVIDENCE_MS_MAX: Final = 5_000
"""How long it counts that a process was seen to be dead and not heard since."""
INCARNATION_BYTES: Final = 8
ROUNDS_MAX: Final = 100
"""Of messages that this broker sends to itself, in one turn."""


class ClusterSettings(Struct, frozen=True):
    """What a broker is told about its cluster, and where the others reach it."""

    peers: dict[int, str]
    control: str
    replication: str
    stream: str
    rack: str = ""
    catch_up_bytes_per_s: int = 0
    settings: str = ""
    """What must be alike in all brokers, as one text."""


class Member(Struct, frozen=True):
    """What makes a broker a member of a cluster: its settings, and what the metadata partition of its store holds. ``is_intact``: nothing
    that was written before it was opened can be missing."""

    settings: ClusterSettings
    state: LogState
    saved: bytes
    read: ReadBatches
    is_intact: bool


class ClusterDesk:
    """See the module. ``engine`` is None until it is known who belongs to the quorum."""

    def __init__(
        self,
        identity: NodeIdentity,
        member: Member,
        *,
        random: Random,
        controller: Controller,
        partitions: Partitions,
        topics: TopicDesk,
        dispatch: Dispatch,
        replicas: Replicas,
    ) -> None:
        self.identity = identity
        self.cluster_id = identity.cluster_id
        self.engine: QuorumLog | None = None
        self.fatal_error: ZmqmqError | None = None
        """This broker cannot be a member of its cluster."""
        self.dropped: Counter[str] = Counter()
        self.membership = Membership(_registration(identity, member, random.randbytes(INCARNATION_BYTES)))
        self.active = ActiveController(controller)
        self.replicas = replicas
        self._me = QuorumMember(identity.node_id, identity.directory_id)
        self._member = member
        self._random = random
        self._partitions = partitions
        self._topics = topics
        self._dispatch = dispatch
        self._forwarding = Forwarding(identity.node_id, random.randrange(0, 1 << 62))
        self._served = Served()
        self._removed: dict[int, str] = {}
        """Brokers that an operator removed, with their directories."""
        self._dead: dict[int, int] = {}
        """Brokers whose processes died, and when that was seen, until they are heard again: for who becomes the controller soon."""
        self._inbox: list[tuple[bytes, Forward]] = []
        self._connected: Connect | None = None
        self._connected_for: tuple[Mapping[int, BrokerImage], dict[int, str]] | None = None
        """What it was made of."""
        self._changing: int | None = None
        self._change_number = 0
        settings = member.settings
        saved = decode_saved(member.saved) if member.saved else None
        self.forming = Forming(
            self._me, identity.cluster_id, settings.control, sorted(settings.peers.items()), random,
            is_fresh=member.state.log_end == 0, base=saved.base if saved is not None else None,
        )  # fmt: skip
        partitions.may_lead = False
        topics.active = self.active

    def __repr__(self) -> str:
        return f"ClusterDesk({self._me} {self.forming!r} {self.engine!r} {self.membership!r})"

    @property
    def is_ready(self) -> bool:
        return self.membership.is_registered

    @property
    def has_lease(self) -> bool:
        """This broker may lead."""
        return self._partitions.may_lead

    @property
    def waits_for(self) -> str:
        """Why this broker is no member yet, in words."""
        if self.engine is None:
            missing = ", ".join(str(node) for node in self.forming.waits_for)
            return f"waiting for the brokers {missing} to form the cluster" if missing else "forming the cluster"
        if self.controller is None:
            return "waiting for a majority of the cluster's voters"
        refusal = self.membership.refusal
        return f"registering: {refusal}" if refusal is not None else "registering with the controller"

    @property
    def controller(self) -> int | None:
        """Who decides, as far as it is known here."""
        return self.engine.leader_node if self.engine is not None else None

    def start(self, now: Now) -> None:
        if self.forming.is_established:
            self._open_log(self._member.saved, now)

    def on_adopted(self, cluster_id: str, now: Now) -> None:
        """The cluster that was formed is on disk."""
        formed = self.forming.formed
        assert formed is not None
        self.cluster_id = cluster_id
        self.forming.on_formed()
        self._open_log(encode_saved(HardState(), formed.base), now)

    def on_control(self, frames: Sequence[Buffer], now: Now) -> None:
        try:
            envelope, body = peers.decode_control(frames)
        except ZmqmqError as error:
            self.dropped[type(error).__name__] += 1
            return
        if isinstance(body, Introduce):
            if (body.me.node_id, body.me.directory_id) == (envelope.node_id, envelope.directory_id):
                self.forming.on_message(body)
            return
        if self._is_ours(envelope):
            self._dead.pop(envelope.node_id, None)
            self._take(envelope.node_id, envelope.directory_id, body, now)

    def on_data(self, frames: Sequence[Buffer], now: Now) -> None:
        try:
            envelope, body, payload = peers.decode_data(frames)
            if self._is_ours(envelope) and body.node_id == envelope.node_id:
                self.replicas.on_message(body, payload, now)
        except ZmqmqError as error:
            self.dropped[type(error).__name__] += 1

    def on_published(self, frames: Sequence[Buffer], now: Now) -> None:
        try:
            self.replicas.on_published(frames, now)
        except RemoteProtocolError:
            self.dropped["RemoteProtocolError"] += 1

    def on_peer_died(self, node_id: int, now: Now) -> None:
        reached("peer died by evidence")
        self._dead[node_id] = now.ms
        if self.engine is not None:
            self.engine.on_death(node_id, now.ms)
        self.active.on_evidence(node_id, now.ms)

    def on_quorum_written(self, error: ZmqmqError | None) -> None:
        assert self.engine is not None
        if error is None:
            self.engine.on_written()
        else:
            self._dispatch.count(error)
            self.engine.on_append_failed(error)

    def on_offline(self, error: ZmqmqError) -> None:
        self.membership.offline = str(error)
        if self.engine is not None:
            self.engine.on_offline(error)

    def forward(self, source: bytes, request: Request, frames: Sequence[Buffer], now: Now) -> None:
        """A client's request that another broker has to decide. Raises Throttled."""
        self._forwarding.forward(source, request, frames, now.ms)

    def on_gone(self, source: bytes) -> None:
        self._forwarding.on_gone(source)

    def takes(self, effect: Effect, now: Now) -> bool:
        """Take a message for this broker itself, which no mesh carries. Tells whether it was one."""
        is_own = isinstance(effect, Tell) and effect.node_id == self.identity.node_id
        if isinstance(effect, Tell) and is_own:
            self._take(effect.node_id, self.identity.directory_id, effect.body, now)
        return is_own

    def take_forwarded(self) -> list[tuple[bytes, Sequence[Buffer]]]:
        """Requests of other brokers' clients, with sources to answer to."""
        inbox, self._inbox = self._inbox, []
        return [(source, message.frames) for source, message in inbox]

    def answer_forwarded(self, effect: Send) -> list[Effect]:
        """The answer to such a request, for the broker that it came from; which is this one if it became the controller meanwhile."""
        answer = self._served.finish(effect.target, framing.encode(effect.reply, effect.payload), self._partitions.image.index)
        return self._give(answer)

    def _give(self, answer: Forwarded) -> list[Effect]:
        if answer.node_id != self.identity.node_id:
            return [Tell(answer.node_id, answer)]
        self._forwarding.on_answer(answer)
        return []

    def advance(self, now: Now) -> list[Effect]:
        """Do all that can be done now."""
        effects: list[Effect] = []
        self.forming.on_time(now.ms)
        self.fatal_error = self.fatal_error or self.forming.error or self.membership.fatal_error or self._log_error()
        effects.extend(Tell(outgoing.node_id, outgoing.message) for outgoing in self.forming.take_messages())
        if self.engine is not None:
            self._advance_log(self.engine, now, effects)
        elif self.forming.formed is not None:
            formed = self.forming.formed
            effects.append(AdoptCluster(formed.cluster_id, encode_saved(HardState(), formed.base)))
        self._connect(effects)
        return effects

    def place(self, now: Now) -> bool:
        """Take this broker's roles; the logs that they need have been made. Tells whether there were any to take."""
        membership, replicas = self.membership, self.replicas
        if membership.broker_epoch > replicas.broker_epoch:
            replicas.on_registered(membership.broker_epoch, self._partitions.image)
        return self._partitions.place(now)

    def next_deadline_ms(self) -> int | None:
        times = [self.forming.next_deadline_ms(), self.membership.next_deadline_ms(), self.replicas.next_deadline_ms()]
        times += [self.active.next_deadline_ms, self._forwarding.next_deadline_ms()]
        times += [self.engine.next_deadline_ms()] if self.engine is not None else []
        times += [self.membership.lease_end_ms()] if self._partitions.may_lead else []
        times += [0] if self._partitions.has_placing else []
        return min((time for time in times if time is not None), default=None)

    def _log_error(self) -> ZmqmqError | None:
        """Why this member's log is silent until it is opened anew, while the rest of the disk is well."""
        return self.engine.offline_error if self.engine is not None and not self._partitions.offline else None

    def _open_log(self, saved: bytes, now: Now) -> None:
        member = self._member
        self.engine = QuorumLog(self._me, member.state, saved, member.read, self._random)
        self.engine.wall_ms = now.wall_ms
        self._topics.start(self.engine, self.identity.directory_id, self.identity.endpoint)
        self.engine.start(now.ms)

    def _advance_log(self, engine: QuorumLog, now: Now, effects: list[Effect]) -> None:
        engine.wall_ms = now.wall_ms
        engine.on_time(now.ms)
        for _ in range(ROUNDS_MAX):
            has_news = self._apply(engine, now)
            self._beat(now, effects)
            if self.active.epoch is not None:
                self.active.on_time(now.ms)
                has_news |= self._topics.append_decided()
            for node_id, message in self.active.take_messages():
                has_news |= self._tell(node_id, message, effects, now)
            if not has_news:
                break
        self._change_members(engine)
        self._forward(engine, now, effects)
        self._keep_lease(now)
        writes = engine.take_writes()
        if writes:
            effects.append(_write(writes))
        effects.extend(Tell(message.target.node_id, message) for message in engine.take_messages())

    def _apply(self, engine: QuorumLog, now: Now) -> bool:
        """What the log has handed out."""
        before = self._partitions.image
        was_active = self.active.epoch is not None
        events = engine.take_events()
        self._topics.on_events(events, now.ms)
        if self.active.epoch is not None and not was_active:
            for node_id, died_ms in self._dead.items():
                if now.ms - died_ms < EVIDENCE_MS_MAX:
                    self.active.on_evidence(node_id, now.ms)
        if not self._topics.is_deciding:
            self._served.clear()
        image = self._partitions.image
        if image is not before:
            self.membership.on_image(image)
            if image.brokers is not before.brokers:
                self._note_removed(before, image)
            if image.brokers is not before.brokers and self.replicas.broker_epoch >= 0:
                self.replicas.on_brokers(image)
            self.forming.on_configuration(engine.configuration)
        self.membership.on_controller(self.controller)
        self.replicas.controller = self.controller
        return bool(events)

    def _beat(self, now: Now, effects: list[Effect]) -> None:
        for outgoing in self.membership.on_time(now.ms):
            self._tell(outgoing.node_id, outgoing.body, effects, now)

    def _tell(self, node_id: int, body: Struct, effects: list[Effect], now: Now) -> bool:
        """Tells whether it went to this broker itself."""
        if node_id != self.identity.node_id:
            effects.append(Tell(node_id, body))
            return False
        self._take(node_id, self.identity.directory_id, body, now)
        return True

    def _take(self, node_id: int, directory_id: str, body: Struct, now: Now) -> None:
        match body:
            case RegisterBroker() | Heartbeat() | AlterPartitions():
                if body.node_id == node_id:
                    self.active.on_message(body, now.ms)
            case BrokerAccepted():
                self.membership.on_accepted(body)
            case BrokerRefused():
                self.membership.on_refused(body)
            case HeartbeatReply():
                self.membership.on_reply(body)
            case PartitionsRefused():
                self.replicas.on_partitions_refused(body, now)
            case Forward():
                self._on_forward(body)
            case Forwarded():
                self._forwarding.on_answer(body)
            case _:
                if self.engine is not None and body.source == QuorumMember(node_id, directory_id):  # type: ignore[attr-defined]
                    self.engine.on_message(body, now.ms)  # type: ignore[arg-type]  # all others are the quorum's

    def _on_forward(self, message: Forward) -> None:
        if not self._topics.is_deciding:
            return
        found = self._served.begin(message)
        if isinstance(found, bytes):
            self._inbox.append((found, message))
        elif found is not None:
            index = self._partitions.image.index
            self._dispatch.effects.extend(self._give(Forwarded(message.node_id, message.number, found, index)))

    def _forward(self, engine: QuorumLog, now: Now, effects: list[Effect]) -> None:
        controller = engine.leader_node
        for answer in self._forwarding.take_answers(controller, self._partitions.image.index, now.ms):
            frames = error_frames(answer.correlation_id, answer.error) if answer.error is not None else answer.frames
            effects.append(Relay(answer.source, tuple(frames)))
        for message in self._forwarding.take_messages(controller, now.ms):
            if controller is not None:
                self._tell(controller, message, effects, now)

    def _change_members(self, engine: QuorumLog) -> None:
        """The leader adds those who came to join and lets those go that were removed, one after the other."""
        for done in engine.take_changes():
            if done.token == self._changing:
                self._changing = None
        wanted = self._wanted_change(engine)
        if engine.is_leader and self._changing is None and wanted is not None:
            self._change_number += 1
            self._changing = self._change_number
            engine.change(self._change_number, *wanted)

    def _wanted_change(self, engine: QuorumLog) -> tuple[QuorumMember, Aim] | None:
        """Who is named by ``--peers`` votes; who joined beside them learns."""
        for joiner in self.forming.take_joiners():
            if joiner.member.directory_id != self._removed.get(joiner.member.node_id):
                return joiner.member, "voter" if joiner.member.node_id in self._member.settings.peers else "learner"
        members = engine.configuration.members
        return next(((member, "removed") for member in members if self._removed.get(member.node_id) == member.directory_id), None)

    def _note_removed(self, before: ClusterImage, image: ClusterImage) -> None:
        """Every member sees the same removals, when they happen or when it replays the log."""
        for node_id in image.brokers:
            self._removed.pop(node_id, None)
        for node_id, broker in before.brokers.items():
            if node_id not in image.brokers:
                self._removed[node_id] = broker.directory_id

    def _keep_lease(self, now: Now) -> None:
        """Who may have been replaced must not answer as if it led."""
        may_lead = self.membership.may_lead(now.ms)
        if self._partitions.may_lead and not may_lead:
            reached("lease ran out")
            self._partitions.fail_waiting(NotLeader(f"broker {self.identity.node_id} lost touch with the controller of its cluster"))
        self._partitions.may_lead = may_lead

    def _connect(self, effects: list[Effect]) -> None:
        """Say where everybody is, when that has changed."""
        image, addresses = self._partitions.image, self.forming.addresses
        if (image.brokers, addresses) == self._connected_for:
            return
        self._connected_for = image.brokers, dict(addresses)
        me = self.identity.node_id
        brokers = [broker for node, broker in image.brokers.items() if node != me]
        control = addresses | {broker.node_id: broker.control for broker in brokers if broker.control}
        wanted = Connect(
            control,
            {broker.node_id: broker.replication for broker in brokers if broker.replication},
            {broker.node_id: broker.stream for broker in brokers if broker.stream},
        )
        if wanted != self._connected:
            self._connected = wanted
            effects.insert(0, wanted)

    def _is_ours(self, envelope: peers.Envelope) -> bool:
        if envelope.target != self.identity.node_id:
            self.dropped["for another node"] += 1
            return False
        if envelope.cluster_id != self.cluster_id:
            self.dropped["of another cluster"] += 1
            return False
        return True


def _registration(identity: NodeIdentity, member: Member, incarnation: bytes) -> RegisterBroker:
    settings = member.settings
    return RegisterBroker(
        node_id=identity.node_id,
        directory_id=identity.directory_id,
        incarnation=incarnation,
        endpoint=identity.endpoint,
        control=settings.control,
        replication=settings.replication,
        stream=settings.stream,
        rack=settings.rack,
        software=__version__,
        is_intact=member.is_intact,
        settings=settings.settings,
    )


def _write(writes: Sequence[Truncate | Save | Append]) -> WriteQuorum:
    truncate_to = -1
    saved = None
    batches: list[StampedBatch] = []
    for write in writes:
        match write:
            case Truncate():
                truncate_to = write.end
            case Save():
                saved = write.data
            case Append():
                batches.extend(write.batches)
    return WriteQuorum(truncate_to, saved, tuple(batches))


__all__ = ["ClusterDesk", "ClusterSettings", "Member", "is_forwarded"]
