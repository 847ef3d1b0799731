"""Topics and producer ids: requests become decisions, decisions proposals to the metadata log, commits answers.

Promise: nothing is answered before its records are committed and applied. Reads see the committed image.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from zmqmq.broker.dispatch import Dispatch
from zmqmq.broker.limits import RETRY_AFTER_MS
from zmqmq.broker.operating import OperatorRequest, operate
from zmqmq.broker.partitions import Partitions
from zmqmq.broker.status import changed_reply
from zmqmq.errors import NotLeader, OutcomeUnknown, RemoteProtocolError, Throttled, UnknownProducer, UnknownTopic, ZmqmqError
from zmqmq.metadata.controller import PRODUCER_ID_BLOCK, Controller, Decision, unknown_topic
from zmqmq.metadata.image import NO_LEADER, PartitionImage, TopicImage, apply
from zmqmq.metadata.log import REPLAYED, Committed, Leader, LogEvent, Lost, MetadataLog, Refused, Unknown
from zmqmq.metadata.quorum.engine import QuorumLog
from zmqmq.metadata.records import ProducerIdsAllocated
from zmqmq.model import INTERNAL_PREFIX
from zmqmq.wire.framing import fault
from zmqmq.wire.replies import (
    BrokerInfo,
    DoneReply,
    InitProducerReply,
    MetadataReply,
    PartitionInfo,
    Reply,
    TopicInfo,
    TopicReply,
)
from zmqmq.wire.requests import AlterTopic, CreateTopic, DeleteTopic, GetMetadata, InitProducer

if TYPE_CHECKING:
    from zmqmq.broker.connections import Connection
    from zmqmq.metadata.controlling import ActiveController

PROPOSALS_MAX: Final = 1_000
"""Changes on their way into the metadata log."""
PRODUCERS_WAITING_MAX: Final = 10_000
TOPICS_ASKED_MAX: Final = 20_000
"""Names in one GetMetadata; who wants more asks for all."""
_NEAR_NAMES_MAX: Final = 4
"""Unknown topics of one request for which names that are near are looked for; it takes time."""
PRODUCER_EPOCH_MAX: Final = (1 << 16) - 1


class _Asked(Struct, frozen=True):
    """Who waits for a proposal, and what the answer is about."""

    source: bytes
    correlation_id: int
    topic_id: bytes
    answer: Reply | None = None


class TopicDesk:
    """See the module. ``is_ready`` once this broker's registration is committed."""

    def __init__(self, node_id: int, cluster_id: str, controller: Controller, partitions: Partitions, dispatch: Dispatch) -> None:
        self.is_ready = False
        self.start_error: ZmqmqError | None = None
        self._node_id = node_id
        self.cluster_id = cluster_id
        self._controller = controller
        self._partitions = partitions
        self._dispatch = dispatch
        self.active: ActiveController | None = None
        """Of a member of a cluster: decides together with this desk. A broker of its own registers itself."""
        self._log: MetadataLog | None = None
        self._epoch: int | None = None
        self._registration: tuple[str, str] = ("", "")
        self._open: dict[int, _Asked | None] = {}
        self._producer_ids = range(0)
        self._ids_proposal: int | None = None
        self._wanting_ids: deque[tuple[bytes, int]] = deque()
        """Invariant: not empty only while ``_ids_proposal`` is on its way."""

    def start(self, log: MetadataLog, directory_id: str, endpoint: str) -> None:
        self._log = log
        self._registration = (directory_id, endpoint)

    def change(self, connection: Connection, request: CreateTopic | AlterTopic | DeleteTopic) -> None:
        self._check_room()
        self.decide(connection.source, request.correlation_id, self._controller.decide(request))

    def operate(self, connection: Connection, request: OperatorRequest) -> None:
        """What an operator asks for; answered with what it changed."""
        self._check_room()
        pending = self._controller.pending
        decision = operate(request, pending)
        answer = changed_reply(request.correlation_id, decision.records, apply(pending, decision.records))
        self.decide(connection.source, request.correlation_id, decision, answer)

    def _check_room(self) -> None:
        self._partitions.check_writable()
        if len(self._open) >= PROPOSALS_MAX:
            raise Throttled(f"{len(self._open)} metadata changes are on their way", retry_after_ms=RETRY_AFTER_MS)

    def decide(self, source: bytes, correlation_id: int, decision: Decision, answer: Reply | None = None) -> None:
        """Carry a decision out, then say ``answer``; None: the topic that it is about. Raises the decision's error."""
        if decision.error is not None:
            raise decision.error
        asked = _Asked(source, correlation_id, decision.topic_id, answer)
        if decision.records:
            self._propose(decision, asked)
        else:
            self._answer(asked)

    def metadata(self, connection: Connection, request: GetMetadata) -> None:
        image = self._partitions.image
        topics = self._listed(request.internal) if request.topics is None else self._named(request.topics)
        brokers = [BrokerInfo(broker.node_id, broker.endpoint, broker.rack) for broker in image.brokers.values()]
        self._dispatch.reply(connection.source, MetadataReply(request.correlation_id, self.cluster_id, self._decider(), brokers, topics))

    def _decider(self) -> int:
        """The node that decides, as far as it is known; -1 if it is not."""
        if self.active is None:
            return self._node_id
        leader = self._log.leader_node if isinstance(self._log, QuorumLog) else None
        return NO_LEADER if leader is None else leader

    def init_producer(self, connection: Connection, request: InitProducer) -> None:
        if request.producer_id >= self._partitions.image.producer_ids_end:
            raise UnknownProducer(f"producer id {request.producer_id} was never given out by this cluster")
        if request.producer_id >= 0 and 0 <= request.producer_epoch < PRODUCER_EPOCH_MAX:
            reply = InitProducerReply(request.correlation_id, request.producer_id, request.producer_epoch + 1)
            self._dispatch.reply(connection.source, reply)
            return
        if len(self._wanting_ids) >= PRODUCERS_WAITING_MAX:
            raise Throttled(f"{len(self._wanting_ids)} producers wait for an id", retry_after_ms=RETRY_AFTER_MS)
        self._wanting_ids.append((connection.source, request.correlation_id))
        self._give_ids()

    def on_events(self, events: list[LogEvent], now_ms: int = 0) -> None:
        for event in events:
            match event:
                case Committed():
                    self._on_committed(event, now_ms)
                case Refused():
                    self._controller.on_refused(event.proposal_id)
                    self._on_failed(event.proposal_id, event.error)
                    if self.active is not None:
                        self.active.on_refused(event.proposal_id)
                case Unknown():
                    self._on_failed(event.proposal_id, event.error)
                case Leader():
                    self._epoch = event.epoch
                    if self.active is not None:
                        self._controller.advance_to(event.index)
                        self.active.on_leader(event.epoch, now_ms)
                    else:
                        self._propose(self._controller.register(self._node_id, *self._registration), None)
                case Lost():
                    self._on_lost(event)

    def append_decided(self) -> bool:
        """Hand to the log what the active controller decided. Tells whether there was anything."""
        if self.active is None or self._log is None:
            return False
        appends = self.active.take_appends()
        for append in appends:
            assert self._epoch is not None
            self._log.append(self._epoch, append.index, append.proposal_id, append.records)
        return bool(appends)

    @property
    def is_deciding(self) -> bool:
        """This broker is the active controller."""
        return self._epoch is not None

    def _on_lost(self, event: Lost) -> None:
        self._epoch = None
        if self.active is not None:
            self.active.on_lost()
            error = OutcomeUnknown(
                f"the controller changed while it was decided: {event.reason}", hint="look whether it was done before you ask again"
            )
            for proposal_id in list(self._open):
                self._on_failed(proposal_id, error)

    def _on_committed(self, event: Committed, now_ms: int) -> None:
        self._controller.advance_to(event.index)
        assert event.index == self._controller.committed.index
        if not event.records:
            self._controller.advance_to(event.index + 1)
            self._partitions.set_image(self._controller.committed)
            return
        proposal_id = self._controller.resolve(event.proposal_id, event.records)
        self._partitions.set_image(self._controller.on_committed(proposal_id, event.records))
        if proposal_id == REPLAYED:
            return
        if self.active is not None:
            self.active.on_committed(proposal_id, now_ms)
        asked = self._open.pop(proposal_id, None)
        self._on_ids_answered(proposal_id)
        broker = self._partitions.image.brokers.get(self._node_id)
        self.is_ready = self.is_ready or (broker is not None and broker.broker_epoch == event.index)
        if asked is not None:
            self._answer(asked)
        for record in event.records:
            if isinstance(record, ProducerIdsAllocated) and record.node_id == self._node_id:
                self._take_ids(record.end)

    def _on_failed(self, proposal_id: int, error: ZmqmqError) -> None:
        asked = self._open.pop(proposal_id, None)
        if not self.is_ready and self.active is None:
            self.start_error = error
        if asked is not None:
            self._dispatch.refuse(asked.source, asked.correlation_id, error)
        if self._on_ids_answered(proposal_id):
            self._refuse_ids(error)

    def _propose(self, decision: Decision, asked: _Asked | None) -> int:
        if self._log is None or self._epoch is None:
            raise NotLeader("this broker does not decide about topics now")
        if self.active is not None:
            proposal_id = self.active.propose(decision)
            assert proposal_id is not None
            self._open[proposal_id] = asked
            return proposal_id
        proposal_id = self._controller.fresh_proposal_id()
        index = self._controller.pending.index
        self._open[proposal_id] = asked
        self._controller.on_proposed(proposal_id, decision.records)
        self._log.append(self._epoch, index, proposal_id, decision.records)
        return proposal_id

    def _answer(self, asked: _Asked) -> None:
        if asked.answer is not None:
            self._dispatch.reply(asked.source, asked.answer)
            return
        topic = self._partitions.image.topics.get(asked.topic_id)
        if topic is None:
            self._dispatch.reply(asked.source, DoneReply(asked.correlation_id))
        else:
            self._dispatch.reply(asked.source, TopicReply(asked.correlation_id, topic_info(topic)))

    @property
    def producers_waiting_count(self) -> int:
        return len(self._wanting_ids)

    def _take_ids(self, end: int) -> None:
        self._producer_ids = range(end - PRODUCER_ID_BLOCK, end)
        self._give_ids()

    def _give_ids(self) -> None:
        while self._wanting_ids and self._producer_ids:
            source, correlation_id = self._wanting_ids.popleft()
            self._dispatch.reply(source, InitProducerReply(correlation_id, self._producer_ids[0], 0))
            self._producer_ids = self._producer_ids[1:]
        if self._wanting_ids and self._ids_proposal is None:
            try:
                self._ids_proposal = self._allocate_ids()
            except ZmqmqError as error:
                self._refuse_ids(error)

    def _allocate_ids(self) -> int:
        """Ask the log for a block of ids; the proposal. Raises why that cannot be done."""
        self._partitions.check_writable()
        decision = self._controller.allocate_producer_ids(self._node_id)
        if decision.error is not None:
            raise decision.error
        return self._propose(decision, None)

    def _on_ids_answered(self, proposal_id: int) -> bool:
        is_for_ids = proposal_id == self._ids_proposal
        if is_for_ids:
            self._ids_proposal = None
        return is_for_ids

    def _refuse_ids(self, error: ZmqmqError) -> None:
        while self._wanting_ids:
            self._dispatch.refuse(*self._wanting_ids.popleft(), error)

    def _named(self, names: list[str]) -> list[TopicInfo]:
        if len(names) > TOPICS_ASKED_MAX:
            raise RemoteProtocolError(f"GetMetadata names {len(names)} topics, the limit is {TOPICS_ASKED_MAX}")
        image = self._partitions.image
        found: list[TopicInfo] = []
        unknown_count = 0
        for name in names:
            topic = image.topic(name)
            if topic is not None:
                found.append(topic_info(topic))
                continue
            unknown_count += 1
            error = unknown_topic(name, image) if unknown_count <= _NEAR_NAMES_MAX else UnknownTopic(f"topic {name!r} does not exist")
            found.append(TopicInfo(name, b"", error=fault(error)))
        return found

    def _listed(self, internal: bool) -> list[TopicInfo]:
        topics = self._partitions.image.topics.values()
        return [topic_info(topic) for topic in topics if internal or not topic.name.startswith(INTERNAL_PREFIX)]


def topic_info(topic: TopicImage) -> TopicInfo:
    partitions = [_partition_info(number, image) for number, image in enumerate(topic.partitions)]
    return TopicInfo(topic.name, topic.topic_id, partitions, topic.table_version, topic.slot_table, topic.config)


def _partition_info(number: int, image: PartitionImage) -> PartitionInfo:
    error = fault(NotLeader(f"partition {number} has no leader")) if image.leader == NO_LEADER else None
    return PartitionInfo(number, image.leader, image.leader_epoch, list(image.replicas), list(image.isr), error)
