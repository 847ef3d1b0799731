"""Brokers, clients and the world around them, from one seed.

Everything that decides or stores is the product's own code; simulated are time, chance, network and disks. One thread, no sleeping:
an hour of the cluster's life takes half a minute, and the same seed gives the same run, event for event.

A test of a program looks so::

    cluster = Cluster(seed=7)
    cluster.start()
    client = cluster.client("shop")
    cluster.run(client, place_orders(client))
    cluster.brokers[0].cut_power()
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import combinations
from typing import Any, Final, Protocol, TypeVar

import msgspec

from zmqmq.broker.config import BrokerConfig
from zmqmq.client.arguments import Seconds
from zmqmq.client.opening import TIMEOUT_S
from zmqmq.model import PartitionId
from zmqmq.store.layout import INDEX_SUFFIX
from zmqmq.store.store import StoreOptions
from zmqmq.testing.sim.agreement import Agreement
from zmqmq.testing.sim.broker import CONTROL_PORT, SimBroker, State, address_of
from zmqmq.testing.sim.chance import Chance, Omissions
from zmqmq.testing.sim.client import SimClient
from zmqmq.testing.sim.clock import SimClock
from zmqmq.testing.sim.disk import CAPACITY_BYTES, DiskFaults, SimDisk
from zmqmq.testing.sim.invariants import Invariants
from zmqmq.testing.sim.kernel import US_PER_S, Stuck, World
from zmqmq.testing.sim.network import Network
from zmqmq.testing.sim.trace import Trace

T = TypeVar("T")

START_S_MAX: Final = 60.0
RUN_S_MAX: Final = 600.0
RESTART_US_MAX: Final = 3_000_000
"""Who looks after a broker starts it again within this time of its end."""
OFFLINE_US_MAX: Final = 2_000_000
"""And ends one whose disk failed, within this."""
SKEW_US_MAX: Final = 500_000
DRIFT_PPM_MAX: Final = 100_000
UPTIME_US_MAX: Final = 10**12
CLOCK_CLASSES: Final = ("clock skewed", "clock drifts")
SMALL: Final = StoreOptions(journal_bytes_max=64 << 10, journal_allocate_bytes=8 << 10, open_files_max=16, disk_reserve_bytes=32 << 10)
"""A store that rolls, checkpoints and closes files often."""


class MakeCluster(Protocol):
    """What the fixture ``zmqmq_sim`` gives: makes a cluster that ends with the test. The arguments are those of ``Cluster``."""

    def __call__(
        self,
        seed: int = 0,
        *,
        config: BrokerConfig | None = None,
        has_faults: bool = False,
        is_supervised: bool = False,
        omissions: Omissions | None = None,
    ) -> Cluster: ...


class Cluster:
    """``seed`` decides all. ``has_faults``: network, disks and clocks misbehave by chance; what is done on purpose works without.
    ``is_supervised``: a broker that ended is started again. ``omissions``: faults that must not strike."""

    def __init__(
        self,
        seed: int = 0,
        *,
        config: BrokerConfig | None = None,
        has_faults: bool = False,
        is_supervised: bool = False,
        omissions: Omissions | None = None,
        broker_count: int = 1,
    ) -> None:
        self.world = World()
        self.trace = Trace(self.world)
        self.chance = Chance(seed, omissions or Omissions(), self._on_fault)
        self.network = Network(self.world, self.chance, self.trace.mix, has_faults=has_faults)
        self.invariants = Invariants()
        self.clients: dict[str, SimClient] = {}
        self._has_faults = has_faults
        self._is_supervised = is_supervised
        self._supervision = self.chance.stream("supervisor")
        self._clocks = self.chance.stream("clocks")
        self._started_count = 0
        self.nemesis_count = 0
        self.driver = ""
        """The machine whose program ``run`` is running."""
        self._losses: dict[PartitionId, list[tuple[str, int, int]]] = {}
        """Which broker's disk lost which offsets at most."""
        self._undos: dict[int, Callable[[], None]] = {}
        self._machines: dict[str, SimClock] = {}
        base = config or BrokerConfig(store=SMALL)
        self.brokers = [self._make_broker(node, base, broker_count, has_faults=has_faults) for node in range(broker_count)]
        self.agreement = Agreement(self.brokers, self.trace.tell, self._may_lose) if broker_count > 1 else None

    def __repr__(self) -> str:
        return f"Cluster(seed={self.chance.seed} at {self.world.now_us / US_PER_S:.3f} s, {self.brokers})"

    @property
    def addresses(self) -> list[str]:
        return [broker.address for broker in self.brokers]

    def start(self) -> None:
        """Start every broker that is down, and wait until all serve. Raises Stuck."""
        for broker in self.brokers:
            if broker.state is State.DOWN:
                broker.start()
        self.run_until(self.is_serving, START_S_MAX, "every broker serves")

    def is_serving(self) -> bool:
        return all(broker.state is State.SERVING and not broker.offline and not broker.process.is_paused for broker in self.brokers)

    def is_in_sync(self) -> bool:
        """Every partition has a leader, and all of its replicas are in sync. A broker of its own always is."""
        images = [broker.loop.node.partitions.image for broker in self.brokers if broker.loop is not None]
        return all(
            set(partition.isr) == set(partition.replicas) and partition.leader in partition.isr
            for image in images
            for topic in image.topics.values()
            for partition in topic.partitions
        )

    @property
    def has_lost_power(self) -> bool:
        """Committed records that were only ``replicated`` may be gone."""
        if len(self.brokers) == 1:
            return bool(self.brokers[0].power_cuts or self.chance.struck["eio_sync"])
        return any(map(self._may_lose, self._losses))

    def _may_lose(self, partition: PartitionId) -> bool:
        """Two disks lost the same offsets: of three replicas, an acknowledged record is on two. Of five brokers too."""
        losses = self._losses.get(partition, ())
        return any(one[0] != other[0] and one[1] < other[2] and other[1] < one[2] for one, other in combinations(losses, 2))

    def note_loss(self, broker: SimBroker) -> None:
        """Its disk is about to lose what was not synced, or has just lost it."""
        for partition, (start, end) in broker.unsynced().items():
            self._losses.setdefault(partition, []).append((broker.name, start, end))

    def client(self, machine: str, *, timeout: Seconds = TIMEOUT_S) -> SimClient:
        """A client on a machine of its own; a new process each time it is asked for."""
        self._started_count += 1
        process = self.world.process(machine)
        random = self.chance.stream(f"{machine} {self._started_count}")
        client = SimClient(self.network, process, self._clock_of(machine), random, self.addresses, client_id=machine, timeout=timeout)
        self.clients[machine] = client
        return client

    def spawn(self, machine: str, main: Callable[[SimClient], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """Start a program with a client on a machine; ``kill_client`` ends it in the middle."""
        client = self.client(machine)
        task: asyncio.Task[T] = client.process.create_task(main(client))
        task.add_done_callback(partial(self._on_ended, machine))
        return task

    def _on_ended(self, machine: str, task: asyncio.Task[Any]) -> None:
        """A program that broke ends the run: nobody may await it."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.world.on_bug(f"the program of {machine} broke", error)

    def at_heal(self, undo: Callable[[], None], after_s: float) -> None:
        """Undo some trouble after so long, or when the cluster is healed, whichever comes first."""
        number = len(self._undos) and next(reversed(self._undos)) + 1
        self._undos[number] = undo

        def when_over() -> None:
            if self._undos.get(number) is undo:
                del self._undos[number]
                undo()

        self.world.after(int(after_s * US_PER_S), when_over)

    def kill_client(self, machine: str) -> None:
        """Nothing happens when it is dead already. Raises UnknownMachine."""
        self.world.check_machines(machine)
        client = self.clients.pop(machine, None)
        if client is not None:
            client.process.kill()
            self.network.drop_caller(machine)

    def run(self, client: SimClient, main: Coroutine[Any, Any, T], timeout_s: float = RUN_S_MAX) -> T:
        """Run a coroutine in the process of a client until it has ended. Raises Stuck, and whatever the coroutine raises."""
        before, self.driver = self.driver, client.process.name
        try:
            return client.process.run(main, timeout_s)
        finally:
            self.driver = before

    def run_for(self, seconds: float) -> None:
        self.world.run_until(_never, self.world.now_us + int(seconds * US_PER_S))

    def run_until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Raises Stuck when it does not come true in time."""
        if not self.world.run_until(condition, self.world.now_us + int(timeout_s * US_PER_S)):
            raise Stuck(f"within {timeout_s:g} simulated seconds it did not happen that {what}", hint="look at the trace")

    def heal(self) -> None:
        """No more faults; machines reach each other, run, have room and the right time."""
        self.chance.is_quiet = True
        undos, self._undos = self._undos, {}
        for undo in undos.values():
            undo()
        self.network.heal()
        for clock in self._machines.values():
            clock.correct()
        for broker in self.brokers:
            broker.disk.swarm.is_active = False
            broker.disk.capacity_bytes = CAPACITY_BYTES
            broker.disk.fuse = None
            broker.disk.faults.clear()
            broker.process.wake()
            if broker.state is State.DOWN:
                broker.start()
        for client in self.clients.values():
            client.process.wake()
        self.trace.tell("healed")

    def end_supervision(self) -> None:
        """A broker that ends stays down."""
        self._is_supervised = False

    def close(self) -> None:
        """Nothing of it runs any more. Raises SimBug when a task broke and nobody awaited it."""
        try:
            self.world.raise_unawaited()
        finally:
            self.clients.clear()
            self.world.dispose()

    def _make_broker(self, node: int, base: BrokerConfig, broker_count: int, *, has_faults: bool) -> SimBroker:
        name = f"b{node}"
        faults = DiskFaults.draw(self.chance.stream(f"{name} disk faults")) if has_faults else DiskFaults(torn=1.0)
        disk = SimDisk(
            self.chance.stream(f"{name} disk"), faults=faults, decide=self.chance.decide, on_fault=partial(self._on_disk_fault, node)
        )
        peers = tuple(f"{peer}@{address_of(f'b{peer}', CONTROL_PORT)}" for peer in range(broker_count)) if broker_count > 1 else ()
        base = msgspec.structs.replace(base, peers=peers)
        config = msgspec.structs.replace(base, data="/data", node_id=node, listen=(f"tcp://{name}:5570",), http="", insecure_plaintext=True)
        return SimBroker(
            self.world,
            self.network,
            config,
            name=name,
            disk=disk,
            clock=self._clock_of(name),
            random=self.chance.stream(name),
            tell=self.trace.tell,
            on_turn=self._on_turn,
            on_down=self._on_down,
            on_loss=self.note_loss,
        )

    def clock(self, machine: str) -> SimClock:
        """Raises UnknownMachine."""
        self.world.check_machines(machine)
        return self._clock_of(machine)

    def _clock_of(self, machine: str) -> SimClock:
        if machine not in self._machines:
            random = self._clocks
            skew_us = random.randrange(-SKEW_US_MAX, SKEW_US_MAX)
            drift_ppm = random.randrange(-DRIFT_PPM_MAX, DRIFT_PPM_MAX)
            start_us = random.randrange(0, UPTIME_US_MAX)
            self._machines[machine] = SimClock(
                self.world,
                skew_us=skew_us if self._has_faults and self.chance.strikes(CLOCK_CLASSES[0], f"{machine} by {skew_us} us") else 0,
                drift_ppm=drift_ppm if self._has_faults and self.chance.strikes(CLOCK_CLASSES[1], f"{machine} by {drift_ppm} ppm") else 0,
                start_us=start_us,
            )
        return self._machines[machine]

    def _on_turn(self, broker: SimBroker) -> None:
        assert broker.loop is not None
        self.invariants.after_turn(broker.name, broker.opening_count, broker.loop)
        if self.agreement is not None:
            self.agreement.after_turn(broker)
        if broker.offline and self._is_supervised:
            self.world.after(self._supervision.randrange(1, OFFLINE_US_MAX), self._end_offline, broker, broker.opening_count)

    def _end_offline(self, broker: SimBroker, opening: int) -> None:
        if broker.opening_count == opening and broker.state is not State.DOWN:
            broker.kill()

    def _on_down(self, broker: SimBroker) -> None:
        if self._is_supervised:
            self.world.after(self._supervision.randrange(1, RESTART_US_MAX), self._restart, broker)

    def _restart(self, broker: SimBroker) -> None:
        """What can be made anew from the rest may rot meanwhile."""
        if broker.state is State.DOWN:
            broker.disk.maybe_flip(_is_index)
            broker.start()

    def _on_fault(self, name: str, number: int, detail: str) -> None:
        self.trace.tell("fault", f"{name} #{number}: {detail}")

    def _on_disk_fault(self, node: int, name: str, detail: str) -> None:
        self.chance.struck[name] += 1
        self.trace.tell("fault", f"{name}: {detail}")
        if name == "eio_sync":
            self.note_loss(self.brokers[node])
        if name == "eio_write" and self._is_supervised:  # the partition is out of service until somebody looks after the disk
            broker = self.brokers[node]
            self.world.after(self._supervision.randrange(1, OFFLINE_US_MAX), self._end_offline, broker, broker.opening_count)


def _never() -> bool:
    return False


def _is_index(path: str) -> bool:
    return path.endswith(INDEX_SUFFIX)
