"""This broker's place in its cluster: it registers, shows that it lives, and knows until when it may lead.

Pure. Promise: ``may_lead`` ends LEASE_MS after the *sending* of the last heartbeat that a controller answered, which is before any
controller may have fenced this broker for its silence (``messages.FENCE_MS``). So a leader that is cut off stops by itself.

Whoever is the controller may change at any time; every message is repeated until it is answered or makes no sense any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from zmqmq.errors import Fenced, ZmqmqError
from zmqmq.marks import reached
from zmqmq.metadata.messages import HEARTBEAT_MS, LEASE_MS, BrokerAccepted, BrokerRefused, Heartbeat, HeartbeatReply, RegisterBroker
from zmqmq.wire.framing import raised

if TYPE_CHECKING:
    from zmqmq.metadata.image import ClusterImage

REGISTER_MS: Final = 100
"""Between two requests to be registered."""
NOT_REGISTERED: Final = -1


class Outgoing(Struct, frozen=True):
    """To the controller."""

    node_id: int
    body: RegisterBroker | Heartbeat


class Membership:
    """See the module. ``fatal_error``: the cluster does not want this broker, and asking again will not help."""

    def __init__(self, registration: RegisterBroker) -> None:
        self.registration = registration
        self.broker_epoch = NOT_REGISTERED
        self.fatal_error: ZmqmqError | None = None
        self.refusal: ZmqmqError | None = None
        """Why the last request to be registered was turned down; it is repeated."""
        self.wants_stop = False
        self.may_stop = False
        self.is_fenced = False
        self.offline = ""
        self._controller: int | None = None
        self._applied_index = 0
        self._next_ms = 0
        self._lease_ms: int | None = None
        """When the answered heartbeat was sent."""

    def __repr__(self) -> str:
        return f"Membership({self.registration.node_id} epoch={self.broker_epoch} controller={self._controller})"

    @property
    def node_id(self) -> int:
        return self.registration.node_id

    @property
    def is_registered(self) -> bool:
        """The registration is committed, and this broker has applied it."""
        return self.broker_epoch != NOT_REGISTERED

    def may_lead(self, now_ms: int) -> bool:
        return self.is_registered and not self.is_fenced and self._lease_ms is not None and now_ms < self._lease_ms + LEASE_MS

    def lease_end_ms(self) -> int | None:
        return None if self._lease_ms is None else self._lease_ms + LEASE_MS

    def on_controller(self, node_id: int | None) -> None:
        """Who leads the metadata log, as far as it is known here."""
        if node_id != self._controller:
            self._controller = node_id
            self._next_ms = 0

    def on_image(self, image: ClusterImage) -> None:
        self._applied_index = image.index
        mine = image.brokers.get(self.node_id)
        if mine is not None and mine.incarnation == self.registration.incarnation:
            if self.broker_epoch != mine.broker_epoch:
                self.broker_epoch, self.refusal, self._next_ms = mine.broker_epoch, None, 0
            self.is_fenced = mine.is_fenced
        elif self.broker_epoch != NOT_REGISTERED:
            reached("registration lost")
            self.broker_epoch = NOT_REGISTERED
            self._lease_ms = None
            if mine is None:
                self.fatal_error = Fenced(
                    f"broker {self.node_id} was removed from its cluster",
                    hint="to use the machine again, start it with an empty data directory",
                )
            else:
                self.fatal_error = Fenced(
                    f"another process has registered as broker {self.node_id}",
                    hint="give every broker its own --node-id and data directory",
                )

    def on_accepted(self, message: BrokerAccepted) -> None:
        """Only news: the registration counts when the image shows it."""
        if message.incarnation == self.registration.incarnation:
            self.refusal = None

    def on_refused(self, message: BrokerRefused) -> None:
        if message.incarnation != self.registration.incarnation or self.broker_epoch != NOT_REGISTERED:
            return
        error = raised(message.fault)
        if error.retriable:
            self.refusal = error
        else:
            self.fatal_error = error

    def on_reply(self, message: HeartbeatReply) -> None:
        if message.broker_epoch != self.broker_epoch:
            return
        self.may_stop = message.may_stop
        if not message.is_fenced:
            self._lease_ms = max(message.sent_ms, self._lease_ms or message.sent_ms)

    def on_time(self, now_ms: int) -> list[Outgoing]:
        """What is to be said now."""
        if self._controller is None or self.fatal_error is not None or now_ms < self._next_ms:
            return []
        if self.broker_epoch == NOT_REGISTERED:
            self._next_ms = now_ms + REGISTER_MS
            return [Outgoing(self._controller, self.registration)]
        self._next_ms = now_ms + HEARTBEAT_MS
        beat = Heartbeat(self.node_id, self.broker_epoch, now_ms, self._applied_index, self.wants_stop, self.offline)
        return [Outgoing(self._controller, beat)]

    def stop(self) -> None:
        """Ask to be let go; ``may_stop`` says when nobody will miss this broker."""
        self.wants_stop = True
        self._next_ms = 0

    def next_deadline_ms(self) -> int | None:
        return None if self._controller is None or self.fatal_error is not None else self._next_ms
