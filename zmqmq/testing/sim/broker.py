"""A broker in the simulator: the product's own loop, machines and store on a simulated machine.

``server.Broker`` is the same life with threads, sockets and a real disk. Here a turn happens soon after something arrived, and at
the loop's own deadline; the world stands still meanwhile.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from random import Random
from typing import Any, Final

from zmqmq.broker.cluster import ClusterSettings
from zmqmq.broker.config import BrokerConfig, peer_addresses
from zmqmq.broker.loop import Loop, Surroundings, Usage, open_store
from zmqmq.broker.peering import Ways
from zmqmq.errors import ZmqmqError
from zmqmq.facts import LogState
from zmqmq.model import PartitionId
from zmqmq.store.store import Store
from zmqmq.testing.sim.chance import log_uniform
from zmqmq.testing.sim.clock import SimClock
from zmqmq.testing.sim.disk import Loss, PowerCut, SimDisk
from zmqmq.testing.sim.kernel import World
from zmqmq.testing.sim.mesh import SimMesh
from zmqmq.testing.sim.network import Network
from zmqmq.testing.sim.stream import SimStream
from zmqmq.testing.sim.transport import SimRouter
from zmqmq.testing.sim.worker import SimWorker

TURN_US_MAX: Final = 300
"""What wakes a turn waits up to so long for it: the messages that come meanwhile are in the same round."""
SYNC_US: Final = (100.0, 20_000.0)
"""Mean time of a sync: least and greatest; each machine has its own disk."""
CHECKPOINT_SYNCS: Final = 10
"""How much longer a checkpoint takes."""
CONTROL_PORT: Final = 5580
DATA_PORT: Final = 5581
STREAM_PORT: Final = 5582
SETTLE_S_MAX: Final = 10.0
"""A clean stop waits so long for the disk, like the real one."""


class State(enum.Enum):
    DOWN = "down"
    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"


def address_of(machine: str, port: int) -> str:
    return f"tcp://{machine}:{port}"


class SimBroker:
    """One broker on its machine, which outlives it: the disk and the clock stay. ``tell`` gets what happens to it; ``on_turn`` is
    called after each turn, ``on_down`` when it ended, however that was, ``on_loss`` before its disk loses what was not synced."""

    def __init__(
        self,
        world: World,
        network: Network,
        config: BrokerConfig,
        *,
        name: str,
        disk: SimDisk,
        clock: SimClock,
        random: Random,
        tell: Callable[[str, str], None],
        on_turn: Callable[[SimBroker], None],
        on_down: Callable[[SimBroker], None],
        on_loss: Callable[[SimBroker], None],
    ) -> None:
        self.world = world
        self.config = config
        self.name = name
        self.disk = disk
        self.clock = clock
        self.address = config.listen[0]
        self.state = State.DOWN
        self.loop: Loop | None = None
        self.process = world.process(name)
        self.opening_count = 0
        self.power_cuts = 0
        self._network = network
        self._random = random
        self._sync_us = log_uniform(random, SYNC_US)
        self._tell = tell
        self._on_turn = on_turn
        self._on_down = on_down
        self._on_loss = on_loss
        self._store: Store | None = None
        """Of this life or the last one."""
        self._router: SimRouter | None = None
        self._meshes: tuple[SimMesh, SimMesh] | None = None
        self._stream: SimStream | None = None
        self._turn_at_us = -1
        """When the next turn is due; -1: none is."""

    def __repr__(self) -> str:
        return f"SimBroker({self.name} {self.state.value})"

    @property
    def offline(self) -> str:
        """Why the store writes nothing any more; empty while it does."""
        return self.loop.offline if self.loop is not None else ""

    def log_state(self, partition: PartitionId) -> LogState | None:
        """As this life of the broker has it, or as the last one had it."""
        return self._store.state(partition) if self._store is not None and partition in self._store else None

    def unsynced(self) -> dict[PartitionId, tuple[int, int]]:
        """What a power cut may take now, at most: the records from here to there, by partition."""
        store = self._store if self.loop is not None else None
        states = {partition: store.state(partition) for partition in store.partitions()} if store is not None else {}
        return {partition: (state.synced_end, state.log_end) for partition, state in states.items() if state.synced_end < state.log_end}

    def start(self) -> None:
        """Switch the machine on and start the broker. When its directory cannot be opened, it is down again afterwards."""
        assert self.state is State.DOWN
        self.state = State.STARTING
        self.opening_count += 1
        self.process = self.world.process(self.name)
        self._turn_at_us = -1
        self._network.go_light(self.name)
        self._guarded(self._open)

    def kill(self) -> None:
        """kill -9: the page cache stays."""
        if self.state is not State.DOWN:
            self._end(is_silent=False)
            self.disk.kill()

    def cut_power(self, loss: Loss | None = None) -> None:
        """What was not synced is lost as ``loss`` says, or by chance."""
        self.power_cuts += 1
        self._on_loss(self)
        self._network.go_dark(self.name)
        if self.state is not State.DOWN:
            self._end(is_silent=True)
        self.disk.crash(loss)

    def stop(self) -> None:
        """SIGTERM: it answers what waits for the disk, then closes."""
        if self.state is State.SERVING:
            self.state = State.STOPPING
            self.process.call_later(SETTLE_S_MAX, self._guarded, self._close)
            self._wake()
        else:
            self.kill()

    def pause(self) -> None:
        self.process.pause()
        self._network.mute(self.name)

    def resume(self) -> None:
        self.process.resume()

    def _open(self) -> None:
        self._router = SimRouter(self._network, self.process, self.name, self.address, self._wake)
        ways = self._open_ways() if self.config.peers else None
        try:
            store = open_store(self.config, disk=self.disk, clock=self.clock, random=self._random)
        except ZmqmqError as error:
            self._tell("open failed", f"{self.name}: {type(error).__name__}: {error}")
            self._end(is_silent=False)
            self.disk.kill()
            return
        surroundings = Surroundings(
            clock=self.clock,
            random=self._random,
            disk=self.disk,
            transport=self._router,
            sync_worker=self._worker(self._sync_us),
            checkpoint_worker=self._worker(self._sync_us * CHECKPOINT_SYNCS),
            usage=lambda: Usage(0, 0),
            ways=ways,
            boot_id=f"{self.name} {self.power_cuts}",
        )
        self._store = store
        self._tell("opened", f"{self.name}: {store.report!r}")
        self.loop = Loop(self.config, store, surroundings, endpoint=self.address, cluster=self._membership() if ways is not None else None)
        self.loop.begin()
        self._after_turn()

    def _open_ways(self) -> Ways:
        def mesh(port: int) -> SimMesh:
            address = address_of(self.name, port)
            return SimMesh(self._network, self.process, address, wake=self._wake, random=self._random)

        stream = address_of(self.name, STREAM_PORT)
        self._meshes = (mesh(CONTROL_PORT), mesh(DATA_PORT))
        self._stream = SimStream(self._network, self.process, stream, wake=self._wake, random=self._random)
        return Ways(*self._meshes, self._stream)

    def _membership(self) -> ClusterSettings:
        control, data, stream = (address_of(self.name, port) for port in (CONTROL_PORT, DATA_PORT, STREAM_PORT))
        return ClusterSettings(peer_addresses(self.config), control, data, stream, rack=self.config.rack)

    def _worker(self, job_us_mean: float) -> SimWorker[Any]:
        return SimWorker(self.process, self._random, self.disk, self._guarded, self._wake, job_us_mean=job_us_mean)

    def _turn(self, at_us: int) -> None:
        if at_us != self._turn_at_us:
            return  # an earlier one was asked for since
        self._turn_at_us = -1
        self._guarded(self._turn_once)

    def _turn_once(self) -> None:
        assert self.loop is not None
        if self.state is State.SERVING or (self._stream is not None and self.state is State.STARTING):
            self.loop.turn()
        else:
            self.loop.go_on()
        self._after_turn()

    def _after_turn(self) -> None:
        loop, router = self.loop, self._router
        assert loop is not None
        assert router is not None
        if self.state is State.STARTING and loop.node.is_ready:
            self.state = State.SERVING
            self._tell("serving", self.name)
        if self.state is State.STOPPING and loop.is_settled:
            self._close()
            return
        self._on_turn(self)
        if self.state is not State.SERVING and (self._stream is None or self.state is State.STOPPING):
            return  # only a worker has news
        if router.has_arrived or self._has_heard_peers():
            self._wake()
        else:
            self._turn_by(self.clock.world_us(loop.next_turn_ms()))

    def _has_heard_peers(self) -> bool:
        ways = (*(self._meshes or ()), *((self._stream,) if self._stream is not None else ()))
        return any(way.has_arrived for way in ways)

    def _close(self) -> None:
        loop = self.loop
        if self.state is State.STOPPING and loop is not None:
            loop.close(is_clean=loop.is_settled)
            self._tell("closed", self.name)
            self._end(is_silent=False)
            self.disk.kill()

    def _wake(self) -> None:
        self._turn_by(self.world.now_us + int(self._random.random() * TURN_US_MAX))

    def _turn_by(self, at_us: int) -> None:
        at_us = max(at_us, self.world.now_us)
        if self._turn_at_us < 0 or at_us < self._turn_at_us:
            self._turn_at_us = at_us
            self.process.call_at(at_us / 1e6, self._turn, at_us)

    def _guarded(self, function: Callable[[], None]) -> bool:
        """Run what uses the disk, which may cut the power in the middle. False: it did. A bug of the broker ends the run."""
        opening = self.opening_count
        try:
            function()
        except PowerCut:
            self._tell("power cut", f"{self.name}: inside a call of the disk")
            self.cut_power()
        except ZmqmqError as error:
            is_its_end = self.loop is not None and self.loop.node.start_error is error
            if self.state is not State.STARTING and not is_its_end:
                raise
            self._tell("gave up", f"{self.name}: {type(error).__name__}: {error}")
            self.kill()
        return self.opening_count == opening and self.state is not State.DOWN

    def _end(self, *, is_silent: bool) -> None:
        self.process.kill()
        self.state = State.DOWN
        self.loop = None
        if self._router is not None:
            self._network.drop_listener(self._router, is_silent=is_silent)
            self._router = None
        for way in (*(self._meshes or ()), *((self._stream,) if self._stream is not None else ())):
            way.end(is_silent=is_silent)
        self._meshes = self._stream = None
        self._on_down(self)
