"""The active controller: hears brokers, keeps their time, and drives the decisions about them.

A pure machine around ``Controller``. Its shell gives it what happened and performs what ``take_appends`` and
``take_messages`` hold: appends to the metadata log in their order, and messages to brokers. A round is: log events,
``on_message`` and ``on_evidence`` for all that arrived, then ``on_time``, which decides. Whoever else appends takes
proposal ids from ``Controller.fresh_proposal_id``, and appends in the order in which it decided.

Promises: no broker hears of a change before it is committed, and none that is being fenced has its lease renewed.
The timers of silence begin anew when this broker becomes active, and when its own loop stood still: silence that
nobody listened to proves nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from zmqmq.errors import Throttled, ZmqmqError
from zmqmq.metadata.decisions import membership
from zmqmq.metadata.decisions.decision import Decision, chunks
from zmqmq.metadata.decisions.internal import raise_internal
from zmqmq.metadata.decisions.partitions import alter_partition, prefer_leaders
from zmqmq.metadata.image import NO_LEADER, BrokerImage
from zmqmq.metadata.messages import (
    FENCE_MS,
    HEARTBEAT_MS,
    AlterPartitions,
    BrokerAccepted,
    BrokerRefused,
    Heartbeat,
    HeartbeatReply,
    PartitionProposal,
    PartitionRefusal,
    PartitionsRefused,
    RegisterBroker,
)
from zmqmq.wire.framing import fault

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zmqmq.metadata.controller import Controller
    from zmqmq.metadata.messages import ControlMessage
    from zmqmq.metadata.records import MetadataRecord
    from zmqmq.model import PartitionId

GRACE_MS: Final = 300
"""Beyond FENCE_MS, before a controller that has just become active fences anybody for silence."""
STALL_MS: Final = 300
"""Between two calls of ``on_time``: more means that the loop stood still and heard nobody."""
BALANCE_MS: Final = 5_000
"""Between two looks for partitions that are not led by their first replica."""
BALANCE_MOVES_MAX: Final = 100
"""Leaders that move at a time."""
CALM_MS: Final = 50
"""After an append that was refused, before anything is decided anew: the same decision may be refused again."""
CHANGES_WAITING_MAX: Final = 100_000
"""Proposals of leaders that wait for the end of the round; those beyond come again by themselves."""


class MetadataAppend(Struct, frozen=True):
    """To be appended at ``index``, all or nothing; the overlay has it already. Its outcome is told to ``Controller`` as any
    other's, and then here: ``on_committed``, ``on_refused``."""

    proposal_id: int
    index: int
    records: tuple[MetadataRecord, ...]


class _Change(Struct, frozen=True):
    node_id: int
    broker_epoch: int
    proposal: PartitionProposal


class _Purpose(Struct, frozen=True):
    """What a proposal is for: the kind of decision, and the broker that registers."""

    kind: str
    node_id: int = NO_LEADER


class ActiveController:
    """See the module. ``known_nodes``: who may register; None: everybody.

    Invariant: while this broker is not active, it has nothing to append or to send and hears nobody.
    """

    def __init__(self, controller: Controller, known_nodes: frozenset[int] | None = None) -> None:
        self.epoch: int | None = None
        self.known_nodes = known_nodes
        self.unclean: list[PartitionId] = []
        """Partitions that got an unclean leader, until the shell has said so and cleared the list."""
        self._controller = controller
        self._now_ms = 0
        self._heard: dict[int, int] = {}
        """When each unfenced broker was last heard."""
        self._changes: list[_Change] = []
        self._stopping: dict[int, None] = {}
        self._silent: dict[int, None] = {}
        """Brokers that are dead by evidence, until the end of the round."""
        self._registering: dict[int, RegisterBroker] = {}
        self._fenced_at: dict[int, int] = {}
        """The index that a broker must have applied to be unfenced: what it sent before it knew may be old."""
        self._open: dict[int, _Purpose] = {}
        """What each proposal that is on its way is for."""
        self._repair_at_ms: int | None = None
        self._calm_until_ms = 0
        """When every partition is to be settled again, because something was left undone."""
        self._wants_internal = False
        self._balance_at_ms = 0
        self._appends: list[MetadataAppend] = []
        self._messages: list[tuple[int, ControlMessage]] = []

    def __repr__(self) -> str:
        return f"ActiveController(epoch={self.epoch}, open={len(self._open)}, silent={sorted(self._silent)})"

    @property
    def next_deadline_ms(self) -> int | None:
        """``on_time`` wants to be called by then."""
        if self.epoch is None:
            return None
        times = [heard_ms + FENCE_MS for heard_ms in self._heard.values() if heard_ms + FENCE_MS > self._now_ms]
        times += [self._calm_until_ms] if self._calm_until_ms > self._now_ms else []
        times += [self._now_ms + HEARTBEAT_MS] if self._repair_at_ms is None else [self._now_ms + HEARTBEAT_MS, self._repair_at_ms]
        return min(times)

    def on_leader(self, epoch: int, now_ms: int) -> None:
        """This broker decides from now on: all that was committed before has been applied."""
        self._forget()
        self.epoch = epoch
        self._now_ms = now_ms
        self._balance_at_ms = now_ms + BALANCE_MS
        self._repair_at_ms, self._wants_internal = now_ms, True
        # One that lost touch with the quorum may go on renewing leases until it notices.
        self._listen_anew(self._now_ms + GRACE_MS)

    def on_lost(self) -> None:
        """Somebody else decides now; the overlay goes too."""
        self._forget()
        self._controller.on_lost()

    def on_message(self, message: ControlMessage, now_ms: int) -> None:
        """From a broker; those that are not for a controller are passed over."""
        if self.epoch is None:
            return
        match message:
            case Heartbeat():
                self._on_heartbeat(message, now_ms)
            case RegisterBroker():
                self._on_register(message, now_ms)
            case AlterPartitions():
                room = CHANGES_WAITING_MAX - len(self._changes)
                self._changes.extend(_Change(message.node_id, message.broker_epoch, change) for change in message.changes[:room])

    def on_evidence(self, node_id: int, _now_ms: int) -> None:
        """The broker's process is gone: its connection closed, and its address refuses another one."""
        if self.epoch is not None:
            self._silent[node_id] = None

    def on_time(self, now_ms: int) -> None:
        """The end of a round: decide."""
        if self.epoch is None:
            return
        has_stalled = now_ms - self._now_ms > STALL_MS
        self._now_ms = now_ms
        if has_stalled:
            self._listen_anew()
        if now_ms < self._calm_until_ms:
            return
        if self._repair_at_ms is not None and now_ms >= self._repair_at_ms:
            self._repair_at_ms = None
            self._propose(_Purpose("repair"), membership.repaired(self._controller.pending))
        self._fence(now_ms)
        self._drain()
        self._alter()
        self._look_after(now_ms)

    def on_committed(self, proposal_id: int, now_ms: int) -> None:
        """After ``Controller.on_committed``. Proposals of others may come too."""
        purpose = self._open.pop(proposal_id, None)
        if purpose is None:
            return
        self._wants_internal = self._wants_internal or purpose.kind in ("register", "alter", "internal")
        request = self._registering.get(purpose.node_id)
        broker = self._controller.committed.brokers.get(purpose.node_id)
        if request is not None and broker is not None and broker.incarnation == request.incarnation:
            del self._registering[request.node_id]
            self._heard[request.node_id] = now_ms
            self._accept(request, broker)

    def on_refused(self, proposal_id: int) -> None:
        """After ``Controller.on_refused``, or when the outcome is unknown. Whoever asked asks again."""
        purpose = self._open.pop(proposal_id, None)
        if purpose is not None:
            self._registering.pop(purpose.node_id, None)
            self._repair_at_ms = self._now_ms + HEARTBEAT_MS
            self._calm_until_ms = self._now_ms + CALM_MS

    def propose(self, decision: Decision) -> int | None:
        """Append what a client's request decided. When the proposal that is returned is committed, all of it is; None: nothing to do."""
        return self._propose(_Purpose("request"), decision)

    def take_appends(self) -> list[MetadataAppend]:
        appends, self._appends = self._appends, []
        return appends

    def take_messages(self) -> list[tuple[int, ControlMessage]]:
        """(node id, message)."""
        messages, self._messages = self._messages, []
        return messages

    def _on_heartbeat(self, message: Heartbeat, now_ms: int) -> None:
        node_id, epoch = message.node_id, message.broker_epoch
        committed = self._controller.committed.brokers.get(node_id)
        pending = self._controller.pending.brokers.get(node_id)
        is_fenced = may_stop = False
        if committed is None or pending is None or not committed.broker_epoch == pending.broker_epoch == epoch:
            is_fenced = True
        else:
            self._on_heard(message, pending, now_ms)
            is_fenced = committed.is_fenced or pending.is_fenced
            may_stop = message.wants_stop and committed == pending and self._may_stop(committed)
        assert self.epoch is not None
        self._messages.append((node_id, HeartbeatReply(node_id, epoch, message.sent_ms, self.epoch, is_fenced, may_stop)))

    def _on_heard(self, message: Heartbeat, broker: BrokerImage, now_ms: int) -> None:
        node_id = message.node_id
        self._heard[node_id] = now_ms
        if message.wants_stop or message.offline:
            self._stopping[node_id] = None
        elif broker.is_fenced and message.applied_index >= self._fenced_at.get(node_id, broker.broker_epoch + 1):
            self._propose(_Purpose("unfence"), membership.unfence(node_id, self._controller.pending))

    def _may_stop(self, broker: BrokerImage) -> bool:
        if any(purpose.kind == "drain" for purpose in self._open.values()):
            return False
        return broker.is_fenced or (broker.is_draining and membership.may_stop(broker.node_id, self._controller.committed))

    def _on_register(self, message: RegisterBroker, now_ms: int) -> None:
        node_id = message.node_id
        committed = self._controller.committed.brokers.get(node_id)
        if committed is not None and committed.incarnation == message.incarnation != b"":
            self._accept(message, committed)
        elif node_id not in self._registering:
            before = self._controller.pending.brokers.get(node_id)
            heard_ms = self._heard.get(node_id, now_ms - FENCE_MS)
            decision = membership.register(
                message,
                self._controller.pending,
                is_alive=before is not None and not before.is_fenced and now_ms - heard_ms < FENCE_MS,
                is_known=self.known_nodes is None or node_id in self.known_nodes,
            )
            if decision.error is not None:
                self._refuse(message, decision.error)
            else:
                self._registering[node_id] = message
                self._heard[node_id] = now_ms
                self._fenced_at.pop(node_id, None)
                self._propose(_Purpose("register", node_id), decision)
        elif self._registering[node_id].incarnation != message.incarnation:
            error = Throttled(f"another process registers as broker {node_id}", retry_after_ms=FENCE_MS)
            self._refuse(message, error)

    def _accept(self, request: RegisterBroker, broker: BrokerImage) -> None:
        self._messages.append((request.node_id, BrokerAccepted(request.node_id, request.incarnation, broker.broker_epoch)))

    def _refuse(self, request: RegisterBroker, error: ZmqmqError) -> None:
        self._messages.append((request.node_id, BrokerRefused(request.node_id, request.incarnation, fault(error))))

    def _fence(self, now_ms: int) -> None:
        for node_id, broker in self._controller.pending.brokers.items():
            if not broker.is_fenced and now_ms - self._heard.setdefault(node_id, now_ms) >= FENCE_MS:
                self._silent[node_id] = None
        if self._silent:
            self._propose(_Purpose("fence"), membership.fence(self._silent, self._controller.pending))
            self._fenced_at.update(dict.fromkeys(self._silent, self._controller.pending.index))
            self._silent.clear()

    def _drain(self) -> None:
        for node_id in self._stopping:
            self._propose(_Purpose("drain"), membership.drain(node_id, self._controller.pending))
        self._stopping.clear()

    def _alter(self) -> None:
        """Decide what leaders proposed in this round, together. What is on its way already is passed over: it comes again."""
        records: list[MetadataRecord] = []
        refusals: dict[int, list[PartitionRefusal]] = {}
        decided: set[tuple[bytes, int]] = set()
        for change in self._changes:
            place = (change.proposal.topic_id, change.proposal.partition)
            if place in decided or self._is_on_its_way(*place):
                continue
            decided.add(place)
            decision = alter_partition(change.node_id, change.broker_epoch, change.proposal, self._controller.pending)
            records.extend(decision.records)
            if decision.error is not None:
                refusal = PartitionRefusal(*place, change.proposal.partition_epoch, fault(decision.error))
                refusals.setdefault(change.node_id, []).append(refusal)
        self._changes.clear()
        self._messages.extend((node_id, PartitionsRefused(node_id, refused)) for node_id, refused in refusals.items())
        self._propose(_Purpose("alter"), Decision(tuple(records)))

    def _is_on_its_way(self, topic_id: bytes, partition: int) -> bool:
        committed = self._controller.committed.topics.get(topic_id)
        pending = self._controller.pending.topics.get(topic_id)
        if committed is None or pending is None or not 0 <= partition < len(committed.partitions):
            return False
        return committed.partitions[partition] != pending.partitions[partition]

    def _look_after(self, now_ms: int) -> None:
        """What nobody asks for: done when nothing else is on its way."""
        if self._wants_internal and not self._open:
            self._wants_internal = False
            self._propose(_Purpose("internal"), raise_internal(self._controller.pending))
        if now_ms >= self._balance_at_ms and not self._open:
            self._balance_at_ms = now_ms + BALANCE_MS
            self._propose(_Purpose("balance"), prefer_leaders(self._controller.pending, BALANCE_MOVES_MAX))

    def _propose(self, purpose: _Purpose, decision: Decision) -> int | None:
        self.unclean.extend(decision.unclean)
        proposal_id = None
        for records in chunks(decision.records):
            proposal_id = self._controller.fresh_proposal_id()
            self._appends.append(MetadataAppend(proposal_id, self._controller.pending.index, records))
            self._controller.on_proposed(proposal_id, records)
            self._open[proposal_id] = purpose
        return proposal_id

    def _forget(self) -> None:
        self.epoch = None
        self._repair_at_ms, self._wants_internal = None, False
        self._calm_until_ms = 0
        for waiting in (self._heard, self._stopping, self._silent, self._registering, self._fenced_at, self._open):
            waiting.clear()
        self._changes.clear()
        self._appends.clear()
        self._messages.clear()

    def _listen_anew(self, since_ms: int | None = None) -> None:
        self._heard = dict.fromkeys(self._unfenced(), self._now_ms if since_ms is None else since_ms)

    def _unfenced(self) -> Iterable[int]:
        return (node_id for node_id, broker in self._controller.pending.brokers.items() if not broker.is_fenced)
