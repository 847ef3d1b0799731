"""PUB/SUB in the simulated network: fast, in order, and with no promise.

As with ZeroMQ, a message is dropped for whom its queue is full, for whom it does not reach, and for who subscribed too late; nobody
is told. A subscription takes its way to the publisher before it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from zmqmq.ports import Buffer
from zmqmq.testing.sim.links import Direction
from zmqmq.testing.sim.network import Network

FEED_MESSAGES_MAX: Final = 64
"""Messages under way to one subscriber, like the HWM of a publisher's socket."""

OnPublished = Callable[[list[bytes]], None]


class Subscription:
    """``cancel`` ends it at once, whatever is under way."""

    def __init__(self, prefix: bytes, way: Direction, on_message: OnPublished) -> None:
        self.prefix = prefix
        self.way = way
        self.on_message = on_message
        self.is_open = True

    def cancel(self) -> None:
        self.is_open = False


class Feed:
    """A publisher on a machine."""

    def __init__(self, network: Network, machine: str) -> None:
        self.dropped_count = 0
        self._network = network
        self._machine = machine
        self._subscriptions: list[Subscription] = []

    def subscribe(self, machine: str, prefix: bytes, on_message: OnPublished) -> Subscription:
        """``on_message(frames)`` gets what is published from about now on, with a first frame that begins with ``prefix``."""
        made = Subscription(prefix, Direction(self._machine, machine), on_message)
        self._network.carry(Direction(machine, self._machine), lambda: self._subscriptions.append(made))
        return made

    def publish(self, frames: Sequence[Buffer]) -> None:
        copies = [bytes(frame) for frame in frames]
        self._subscriptions = [one for one in self._subscriptions if one.is_open]
        for subscription in self._subscriptions:
            if copies[0].startswith(subscription.prefix):
                self._publish_to(subscription, copies)

    def _publish_to(self, subscription: Subscription, frames: list[bytes]) -> None:
        way = subscription.way
        if way.under_way >= FEED_MESSAGES_MAX or self._network.is_blocked(way) or self._network.loses_published(way):
            self.dropped_count += 1
            return
        way.under_way += 1

        def deliver() -> None:
            way.under_way -= 1
            if subscription.is_open:
                subscription.on_message(frames)

        self._network.carry(way, deliver)
