"""Both ends of a simulated link, with the faces of the real ones: ``transport.router`` for brokers, ``transport.loop_dealer`` for
clients."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from zmqmq.ports import Buffer
from zmqmq.testing.sim.kernel import Process
from zmqmq.testing.sim.links import Caller, Link, Listener
from zmqmq.testing.sim.network import Network
from zmqmq.transport.dealer import Connected, Drained, Fact, Lost, Received


class SimRouter(Listener):
    """Implements ``ports.Transport``. It never waits: ``wake`` is called when there is something to take."""

    def __init__(self, network: Network, process: Process, machine: str, address: str, wake: Callable[[], None]) -> None:
        super().__init__(process, machine, address)
        self.dropped_count = 0
        self._network = network
        self._wake = wake
        self._arrived: deque[tuple[bytes, list[Buffer]]] = deque()
        self._gone: list[bytes] = []
        network.listen(self)

    def receive(self, count_max: int, bytes_max: int) -> list[tuple[bytes, list[Buffer]]]:
        messages: list[tuple[bytes, list[Buffer]]] = []
        taken_bytes = 0
        while self._arrived and len(messages) < count_max and taken_bytes < bytes_max:
            messages.append(self._arrived.popleft())
            taken_bytes += sum(map(len, messages[-1][1]))
        return messages

    def wait(self, timeout_ms: int) -> None:
        """The world goes on when the turn is over."""

    def send(self, target: bytes, frames: Sequence[Buffer]) -> bool:
        link = self._network.link_named(target)
        if link is not None and self._network.send_to_client(link, frames):
            return True
        self.dropped_count += 1
        return False

    @property
    def has_queued(self) -> bool:
        return False

    def flush(self) -> None:
        """Nothing waits here."""

    def take_gone(self) -> list[bytes]:
        """Those of whom no message waits any more."""
        waiting = {source for source, _ in self._arrived}
        gone = [source for source in self._gone if source not in waiting]
        self._gone = [source for source in self._gone if source in waiting]
        return gone

    @property
    def has_arrived(self) -> bool:
        return bool(self._arrived)

    def on_message(self, source: bytes, frames: list[Buffer]) -> None:
        self._arrived.append((source, frames))
        self._wake()

    def on_gone(self, source: bytes) -> None:
        self._gone.append(source)
        self._wake()


class SimDealers(Caller):
    """Implements ``client.aio.driver.LoopConnections``."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, network: Network, process: Process, on_ready: Callable[[], None]) -> None:
        super().__init__(process)
        self._network = network
        self._on_ready = on_ready
        self._links: dict[str, Link] = {}
        self._waiting: dict[str, deque[Sequence[Buffer]]] = {}
        self._facts: list[Fact] = []

    def connect(self, address: str) -> None:
        self._links[address] = self._network.call(self, address)

    def disconnect(self, address: str) -> None:
        link = self._links.pop(address, None)
        self._waiting.pop(address, None)
        if link is not None:
            self._network.hang_up(link)

    def send(self, address: str, frames: Sequence[Buffer]) -> bool:
        link = self._links.get(address)
        if link is None:
            return True
        waiting = self._waiting.get(address)
        if not waiting and self._network.send_to_broker(link, frames):
            return True
        self._waiting.setdefault(address, deque()).append(frames)
        return False

    def close(self) -> None:
        for address in list(self._links):
            self.disconnect(address)

    def take_facts(self) -> list[Fact]:
        facts, self._facts = self._facts, []
        return facts

    def has_more(self) -> bool:
        return bool(self._facts)

    def next_ms(self, now_ms: int) -> int | None:  # noqa: ARG002 - as the real ones
        return None

    def on_connected(self, link: Link) -> None:
        if self._links.get(link.address) is link:
            self._tell(Connected(link.address))

    def on_lost(self, link: Link, reason: str) -> None:
        if self._links.get(link.address) is link:
            del self._links[link.address]
            self._waiting.pop(link.address, None)
            self._tell(Lost(link.address, reason))

    def on_message(self, link: Link, frames: list[Buffer]) -> None:
        if self._links.get(link.address) is link:
            self._tell(Received(link.address, frames))

    def on_room(self, link: Link) -> None:
        waiting = self._waiting.get(link.address)
        if not waiting or self._links.get(link.address) is not link:
            return
        while waiting and self._network.send_to_broker(link, waiting[0]):
            if waiting:  # the link may have broken by what was sent
                waiting.popleft()
        if not waiting and self._links.get(link.address) is link:
            self._tell(Drained(link.address))

    def _tell(self, fact: Fact) -> None:
        """The process sees it in its own time, or not at all when it is dead."""
        self._facts.append(fact)
        self.process.call_soon(self._on_ready)
