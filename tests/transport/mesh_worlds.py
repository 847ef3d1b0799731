"""The same few brokers on real sockets and in the simulator, for scenarios that must end alike on both."""

from __future__ import annotations

import select
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from zmqmq.ports import Buffer, Mesh, Stream
from zmqmq.testing.sim.chance import Chance, Omissions
from zmqmq.testing.sim.kernel import World
from zmqmq.testing.sim.mesh import SimMesh
from zmqmq.testing.sim.network import Network
from zmqmq.testing.sim.stream import SimStream
from zmqmq.transport.mesh import ZmqMesh
from zmqmq.transport.stream import ZmqStream

WAIT_S = 20.0
NAP_MS = 20


class Worlds(ABC):
    """Nodes by number. A node that was killed can be made again, at the address that it had. What arrives is kept here."""

    def __init__(self) -> None:
        self.meshes: dict[int, Mesh] = {}
        self.streams: dict[int, Stream] = {}
        self.mesh_addresses: dict[int, str] = {}
        self.stream_addresses: dict[int, str] = {}
        self.arrived: dict[int, list[list[bytes]]] = {}
        self.published: dict[int, list[list[bytes]]] = {}
        self.refused: dict[int, list[int]] = {}

    def start(self, *nodes: int) -> None:
        for node in nodes:
            self.arrived[node], self.published[node], self.refused[node] = [], [], []
            self._start(node)

    def join(self) -> None:
        """Everybody sends to and follows everybody."""
        for node in self.meshes:
            self.meshes[node].set_peers({other: at for other, at in self.mesh_addresses.items() if other != node})
            self.streams[node].follow({other: at for other, at in self.stream_addresses.items() if other != node})

    def until(self, condition: Callable[[], bool]) -> None:
        assert self._until(lambda: self._take() or condition(), WAIT_S), "it did not happen"

    def rest(self, seconds: float) -> None:
        """Nothing is to happen for a while."""
        self._until(lambda: bool(self._take()), seconds)

    def send(self, source: int, target: int, *frames: Buffer) -> None:
        """Until it is taken."""
        self.until(lambda: self.meshes[source].send(target, frames))

    @abstractmethod
    def _start(self, node: int) -> None: ...

    @abstractmethod
    def kill(self, node: int) -> None: ...

    @abstractmethod
    def _until(self, condition: Callable[[], bool], timeout_s: float) -> bool: ...

    def _take(self) -> None:
        for node, mesh in self.meshes.items():
            self.arrived[node] += [[bytes(frame) for frame in frames] for frames in mesh.receive(100, 1 << 30)]
            self.refused[node] += mesh.take_refused()
        for node, stream in self.streams.items():
            self.published[node] += [[bytes(frame) for frame in frames] for frames in stream.receive(100, 1 << 30)]


class RealWorld(Worlds):
    def _start(self, node: int) -> None:
        mesh, stream = ZmqMesh(), ZmqStream()
        self.meshes[node], self.streams[node] = mesh, stream
        self.mesh_addresses[node] = mesh.bind(self.mesh_addresses.get(node, "tcp://127.0.0.1:0"))
        self.stream_addresses[node] = stream.bind(self.stream_addresses.get(node, "tcp://127.0.0.1:0"))

    def kill(self, node: int) -> None:
        for end in (self.meshes.pop(node), self.streams.pop(node)):
            assert isinstance(end, ZmqMesh | ZmqStream)
            end.close()

    def close(self) -> None:
        for node in list(self.meshes):
            self.kill(node)

    def _until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            self._wait()
        return True

    def _wait(self) -> None:
        poller = select.poll()
        timeout_ms = NAP_MS
        for end in [*self.meshes.values(), *self.streams.values()]:
            assert isinstance(end, ZmqMesh | ZmqStream)
            ms_max = end.before_wait()
            timeout_ms = timeout_ms if ms_max is None else min(timeout_ms, ms_max)
            poller.register(end.fileno(), select.POLLIN)
        poller.poll(timeout_ms)


class SimulatedWorld(Worlds):
    def __init__(self, seed: int = 1, *, has_faults: bool = False) -> None:
        super().__init__()
        self.world = World()
        chance = Chance(seed, Omissions(), lambda *_: None)
        self.mixed = bytearray()
        self.network = Network(self.world, chance, self.mixed.extend, has_faults=has_faults)
        self._chance = chance

    def _start(self, node: int) -> None:
        name = f"b{node}"
        process, random = self.world.process(name), self._chance.stream(f"mesh {node}")
        self.network.go_light(name)
        self.mesh_addresses[node], self.stream_addresses[node] = f"tcp://{name}:1", f"tcp://{name}:2"
        self.meshes[node] = SimMesh(self.network, process, self.mesh_addresses[node], wake=_nothing, random=random)
        self.streams[node] = SimStream(self.network, process, self.stream_addresses[node], wake=_nothing, random=random)

    def kill(self, node: int, *, is_silent: bool = False) -> None:
        mesh, stream = self.meshes.pop(node), self.streams.pop(node)
        assert isinstance(mesh, SimMesh)
        assert isinstance(stream, SimStream)
        if is_silent:
            self.network.go_dark(f"b{node}")
        mesh.process.kill()
        mesh.end(is_silent=is_silent)
        stream.end(is_silent=is_silent)

    def _until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        end_us = self.world.now_us + int(timeout_s * 1e6)
        while self.world.now_us < end_us:  # what is asked again must not be asked at every event
            if condition():
                return True
            self.world.run_until(lambda: False, min(end_us, self.world.now_us + NAP_MS * 1000))
        return condition()


@contextmanager
def real_world() -> Iterator[RealWorld]:
    made = RealWorld()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def simulated_world(seed: int = 1, *, has_faults: bool = False) -> Iterator[SimulatedWorld]:
    made = SimulatedWorld(seed, has_faults=has_faults)
    try:
        yield made
    finally:
        made.world.dispose()


def _nothing() -> None:
    """Everybody is looked at anyway."""
