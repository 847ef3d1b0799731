"""A simulated network between machines, with the manners of ZeroMQ over TCP, and worse.

A *link* is what a DEALER and a ROUTER hold: messages arrive whole, in order and once, until the link breaks, and then what was
under way is lost in both directions, which each side learns on its own. Beyond what TCP does, single messages may be lost,
doubled or overtaken: the product must not depend on it.

Machines that cannot reach each other keep their links for SILENCE_US (the heartbeat's patience); messages wait meanwhile. A process
that dies is noticed at once, a machine that loses its power only by that silence.

PUB/SUB is in ``feed``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from zmqmq.ports import Buffer
from zmqmq.testing.sim.chance import NEVER, Chance, Rates
from zmqmq.testing.sim.kernel import World
from zmqmq.testing.sim.links import Caller, Direction, Link, Listener, MessageLoss

DELAY_US_MIN: Final = 30
SILENCE_US: Final = 3_000_000
"""Like ZeroMQ's HEARTBEAT_TIMEOUT in ``transport.sockets``."""
LINK_MESSAGES_MAX: Final = 128
"""Messages under way in one direction of a link: the queues of both sides."""
REPLIES_MAX: Final = 1024
"""Replies under way to one peer; more are dropped, and the broker is told."""
VIEW_FROM_BYTES: Final = 4096
"""Larger frames arrive as views, as with ZeroMQ."""
CLASSES: Final[dict[str, tuple[float, float]]] = {
    "message lost": (1e-4, 0.05),
    "message doubled": (1e-4, 0.1),
    "message overtaken": (1e-3, 0.2),
    "message late": (1e-3, 0.1),
    "link broken": (1e-5, 5e-3),
    "published lost": (1e-3, 0.3),
}
"""Least and greatest rate per message."""
LATE_US_MAX: Final = 2_000_000


class Network:
    """Who listens where, who can reach whom, and what is under way."""

    def __init__(self, world: World, chance: Chance, mix: Callable[[Buffer], None], *, has_faults: bool) -> None:
        """``mix`` gets the bytes of everything that arrives, for the trace."""
        self.world = world
        self._mix = mix
        self._random = chance.stream("network")
        self._rates = Rates(chance, chance.stream("network faults"), CLASSES if has_faults else dict.fromkeys(CLASSES, NEVER))
        self._delay_us = int(10 ** self._random.uniform(1.5, 4.5))  # 30 us to 30 ms
        self._listeners: dict[str, Listener] = {}
        self._links: dict[int, tuple[Link, Caller]] = {}
        self._link_count = 0
        self._blocked: dict[tuple[str, str], int] = {}
        """How many hold each way blocked."""
        self._clogged_until_us: dict[tuple[str, str], int] = {}
        self._dark: set[str] = set()
        self._losses: list[MessageLoss] = []

    def listen(self, listener: Listener) -> None:
        self._listeners[listener.address] = listener

    def call(self, caller: Caller, address: str) -> Link:
        """Begin to connect. ``on_connected`` or ``on_lost`` follows, or nothing when nobody can be reached."""
        self._link_count += 1
        broker = self._listeners[address].machine if address in self._listeners else _machine_of(address)
        link = Link(self._link_count, address, caller.machine, broker)
        self._links[self._link_count] = (link, caller)
        there_us = self._delay(link.to_broker) + self._delay(link.to_client)
        self.world.after(there_us, self._finish_call, self._link_count)
        return link

    def hang_up(self, link: Link) -> None:
        """The client closes it; the broker learns of it."""
        self._break(link, tells_client=False)

    def drop_listener(self, listener: Listener, *, is_silent: bool) -> None:
        """The broker's process ended. Silent: its machine lost its power, so nobody is told."""
        self._listeners.pop(listener.address, None)
        for link, _ in self._links_of(lambda link: link.address == listener.address):
            if is_silent:
                link.to_broker.waiting.clear()
                self.world.after(SILENCE_US, self._break, link)
            else:
                self._break(link)

    def drop_caller(self, machine: str) -> None:
        """A client's process ended."""
        for link, _ in self._links_of(lambda link: link.client == machine):
            self._break(link, tells_client=False)

    def go_dark(self, machine: str) -> None:
        """Without power nothing arrives, and nothing is refused."""
        self._dark.add(machine)

    def go_light(self, machine: str) -> None:
        self._dark.discard(machine)

    def block(self, source: str, target: str) -> None:
        """No message from one to the other until each ``block`` has had its ``unblock``; links that need it break after SILENCE_US.
        Raises UnknownMachine, as all do that take names."""
        self.world.check_machines(source, target)
        self._blocked[source, target] = self._blocked.get((source, target), 0) + 1
        self.world.after(SILENCE_US, self._break_blocked, source, target)

    def unblock(self, source: str, target: str) -> None:
        self.world.check_machines(source, target)
        held = self._blocked.pop((source, target), 0)
        if held > 1:
            self._blocked[source, target] = held - 1
        self._release()

    def part(self, one: str, other: str) -> None:
        """``block`` both ways, until ``join``."""
        self.block(one, other)
        self.block(other, one)

    def join(self, one: str, other: str) -> None:
        self.unblock(one, other)
        self.unblock(other, one)

    def clog(self, source: str, target: str, duration_us: int) -> None:
        """Nothing arrives for a while, then all of it, in order. The longest clog counts."""
        self.world.check_machines(source, target)
        until_us = self.world.now_us + duration_us
        self._clogged_until_us[source, target] = max(until_us, self._clogged_until_us.get((source, target), 0))

    def mute(self, machine: str) -> None:
        """A process that was stopped answers no heartbeat either."""
        self.world.after(SILENCE_US, self._break_if_muted, machine)

    def lose(self, source: str, target: str, is_wanted: Callable[[list[Buffer]], bool] = lambda _frames: True) -> MessageLoss:
        """Lose every message from one to the other that ``is_wanted(frames)``, though their link holds."""
        self.world.check_machines(source, target)
        loss = MessageLoss(source, target, is_wanted)
        self._losses.append(loss)
        return loss

    def heal(self) -> None:
        """Everybody reaches everybody."""
        self._losses.clear()
        self._blocked.clear()
        self._clogged_until_us.clear()
        self._release()

    def break_links(self, machine: str) -> None:
        """All connections of a machine end, with all that is under way."""
        self.world.check_machines(machine)
        for link, _ in self._links_of(lambda link: machine in {link.client, link.broker}):
            self._break(link)

    def send_to_broker(self, link: Link, frames: Sequence[Buffer]) -> bool:
        """False: its queue is full; nothing was taken."""
        if link.to_broker.under_way >= LINK_MESSAGES_MAX:
            return False
        self._send(link, link.to_broker, frames, lambda copies: self._deliver_to_broker(link, copies))
        return True

    def send_to_client(self, link: Link, frames: Sequence[Buffer]) -> bool:
        if link.to_client.under_way >= REPLIES_MAX:
            return False
        self._send(link, link.to_client, frames, lambda copies: self._deliver_to_client(link, copies))
        return True

    def link_named(self, name: bytes) -> Link | None:
        found = self._links.get(int.from_bytes(name[1:], "big"))
        return found[0] if found is not None else None

    def carry(self, way: Direction, deliver: Callable[[], None]) -> None:
        """One thing from machine to machine without a link: in order, after a while, or never."""
        at_us = way.clear_us = max(self.world.now_us + self._delay(way), way.clear_us)
        if not self.is_blocked(way):
            self.world.at(at_us, self._carried, way, deliver)

    def loses_published(self, way: Direction) -> bool:
        return self._rates.roll("published lost", f"{way.source} to {way.target}")

    def _carried(self, way: Direction, deliver: Callable[[], None]) -> None:
        if way.target not in self._dark:
            deliver()

    def _send(self, link: Link, direction: Direction, frames: Sequence[Buffer], deliver: Callable[[list[Buffer]], None]) -> None:
        copies: list[Buffer] = [bytes(frame) for frame in frames]
        copies = [frame if len(frame) < VIEW_FROM_BYTES else memoryview(frame) for frame in copies]
        what = f"{direction.source} to {direction.target}"
        is_lost = self._rates.roll("message lost", what)
        is_doubled = self._rates.roll("message doubled", what)
        is_overtaken = self._rates.roll("message overtaken", what)
        is_late = self._rates.roll("message late", what)
        if self._rates.roll("link broken", what):
            self._break(link)
        if is_lost or not link.is_open or any(loss.takes(direction, copies) for loss in self._losses):
            return
        for _ in range(2 if is_doubled else 1):
            direction.under_way += 1
            if self.is_blocked(direction):
                direction.waiting.append((deliver, copies))
                continue
            at_us = self.world.now_us + self._delay(direction)
            if is_late:
                at_us += self._random.randrange(0, LATE_US_MAX)
            if not is_overtaken:
                at_us = direction.clear_us = max(at_us, direction.clear_us)
            self.world.at(at_us, self._arrive, link, direction, deliver, copies)

    def _arrive(self, link: Link, direction: Direction, deliver: Callable[[list[Buffer]], None], frames: list[Buffer]) -> None:
        if not link.is_open:
            return
        if self.is_blocked(direction):
            direction.waiting.append((deliver, frames))
            return
        direction.under_way -= 1
        for frame in frames:
            self._mix(frame)
        if direction.target not in self._dark:
            deliver(frames)

    def _release(self) -> None:
        for link, _ in self._links_of(lambda link: bool(link.to_broker.waiting or link.to_client.waiting)):
            for direction in (link.to_broker, link.to_client):
                if not self.is_blocked(direction):
                    while direction.waiting:
                        deliver, frames = direction.waiting.popleft()
                        at_us = direction.clear_us = max(self.world.now_us + self._delay(direction), direction.clear_us)
                        self.world.at(at_us, self._arrive, link, direction, deliver, frames)

    def _delay(self, direction: Direction) -> int:
        delay_us = DELAY_US_MIN + int(self._random.expovariate(1.0) * self._delay_us)
        clogged_us = self._clogged_until_us.get((direction.source, direction.target), 0) - self.world.now_us
        return max(delay_us, clogged_us)

    def is_blocked(self, direction: Direction) -> bool:
        """Nothing gets through just now."""
        return (direction.source, direction.target) in self._blocked

    def _finish_call(self, number: int) -> None:
        link, caller = self._links.get(number, (None, None))
        if link is None or caller is None or not link.is_open:
            return
        if self.is_blocked(link.to_broker) or self.is_blocked(link.to_client) or link.broker in self._dark:
            return  # the session's own deadline ends the attempt
        link.listener = self._listeners.get(link.address)
        if link.listener is None:
            self._break(link, reason="connection refused")
        else:
            caller.on_connected(link)

    def _deliver_to_broker(self, link: Link, frames: list[Buffer]) -> None:
        listener = self._listeners.get(link.address)
        if listener is not link.listener:
            self._break(link)  # the machine is back, and knows nothing of the connection
            return
        if listener is not None:
            listener.on_message(link.name, frames)
        _, caller = self._links[int.from_bytes(link.name[1:], "big")]
        caller.on_room(link)

    def _deliver_to_client(self, link: Link, frames: list[Buffer]) -> None:
        _, caller = self._links[int.from_bytes(link.name[1:], "big")]
        caller.on_message(link, frames)

    def _break_blocked(self, source: str, target: str) -> None:
        if (source, target) in self._blocked:
            for link, _ in self._links_of(lambda link: {link.client, link.broker} == {source, target}):
                self._break(link)

    def _break_if_muted(self, machine: str) -> None:
        for link, caller in self._links_of(lambda link: machine in {link.client, link.broker}):
            listener = self._listeners.get(link.address)
            if (caller.machine == machine and caller.is_paused) or (
                listener is not None and listener.machine == machine and listener.is_paused
            ):
                self._break(link)

    def _break(self, link: Link, *, tells_client: bool = True, reason: str = "connection lost") -> None:
        if not link.is_open:
            return
        link.is_open = False
        _, caller = self._links.pop(int.from_bytes(link.name[1:], "big"))
        if tells_client:
            caller.on_lost(link, reason)
        listener = self._listeners.get(link.address)
        if listener is not None and listener is link.listener:
            listener.on_gone(link.name)

    def _links_of(self, is_wanted: Callable[[Link], bool]) -> list[tuple[Link, Caller]]:
        return [(link, caller) for link, caller in self._links.values() if is_wanted(link)]


def _machine_of(address: str) -> str:
    return address.partition("://")[2].partition(":")[0]
