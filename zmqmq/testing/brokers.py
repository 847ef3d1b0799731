"""The cluster behind the ``zmqmq_cluster`` fixture: real brokers in processes of their own on the loopback, to be broken on purpose.

What it can and cannot do: ``kill`` is SIGKILL, ``pause`` SIGSTOP. ``partition`` makes brokers drop what others of them send and were to
be sent, which needs no root and no proxies; it cuts brokers from each other and never clients from brokers, and connections stay open
as they do in a network that loses packets. For refused connections and half-open ones there is the simulator.
"""

from __future__ import annotations

import itertools
import signal
import sys
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, ClassVar, Final

from zmqmq.client.sync import Client
from zmqmq.errors import InvalidConfig, RetriableError
from zmqmq.testing.processes import HOST, START_SECONDS_MAX, BrokerProcess, NodePlan, free_ports, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from zmqmq.wire.replies import ClusterReply

HEALTHY_SECONDS_MAX: Final = 30.0
ASK_SECONDS_MAX: Final = 2.0
ORDER_SECONDS_MAX: Final = 10.0
PORTS_PER_BROKER: Final = 2


class TestCluster:
    """Brokers 0 to n-1. Ports and directories stay the same over ``restart``. Not for use by several threads at once."""

    __test__: ClassVar[bool] = False  # not a class of tests

    def __init__(self, path: Path, count: int = 3) -> None:
        """Starts them; they are a cluster once ``wait_until_healthy`` returned."""
        ports = free_ports(PORTS_PER_BROKER * count)
        controls = [f"tcp://{HOST}:{port}" for port in ports[count:]] if count > 1 else [""]
        plans = [NodePlan(node, path / f"node-{node}", f"tcp://{HOST}:{ports[node]}", control=controls[node]) for node in range(count)]
        self._brokers = []
        for plan in plans:
            command = [sys.executable, "-m", "zmqmq.testing.broker_process", str(plan.write_config(plans))]
            self._brokers.append(BrokerProcess(plan, command, takes_orders=True))
        self._cuts: dict[int, frozenset[int]] = dict.fromkeys(range(count), frozenset())
        self._orders = itertools.count(1)
        self._paused: set[int] = set()
        try:
            for broker in self._brokers:
                self._start(broker)
            deadline = time.monotonic() + START_SECONDS_MAX
            for broker in self._brokers:
                broker.wait_started(deadline)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"TestCluster({self.brokers} running={self.running})"

    @property
    def nodes(self) -> list[int]:
        return [broker.plan.node_id for broker in self._brokers]

    @property
    def running(self) -> list[int]:
        """Those that were neither killed nor stopped; paused ones run."""
        return [broker.plan.node_id for broker in self._brokers if broker.is_running]

    @property
    def urls(self) -> list[str]:
        """For clients, by node id."""
        return [broker.plan.url for broker in self._brokers]

    @property
    def brokers(self) -> str:
        """All of them, as ``Client`` and $ZMQMQ_BROKERS take them."""
        return ",".join(self.urls)

    def client(self, **arguments: Any) -> Client:
        """A client of all brokers, with the arguments of ``Client``; yours to close."""
        return Client(self.brokers, **arguments)

    def leader(self, topic: str, partition: int = 0) -> int:
        """Who leads the partition now; -1: nobody."""
        with self.client() as client:
            return next(found.leader for found in client.admin.describe_topic(topic).partitions if found.partition == partition)

    def controller(self) -> int:
        """Who decides now; -1: nobody is known."""
        with self.client() as client:
            return client.admin.describe_cluster().controller

    def log(self, node: int) -> str:
        """What the broker said since its last start."""
        return self._broker(node).said()

    def kill(self, node: int) -> None:
        """SIGKILL."""
        self._broker(node).kill()
        self._paused.discard(node)

    def stop(self, node: int) -> int:
        """A clean stop; the exit code."""
        broker = self._broker(node)
        broker.ask_to_end()
        self._paused.discard(node)
        return broker.wait_ended()

    def pause(self, node: int) -> None:
        """SIGSTOP: it does nothing, and its connections stay."""
        self._broker(node).signal(signal.SIGSTOP)
        self._paused.add(node)

    def resume(self, node: int) -> None:
        self._broker(node).signal(signal.SIGCONT)
        self._paused.discard(node)

    def restart(self, node: int) -> None:
        """Stop it cleanly if it runs, and start it at the same place with the same data."""
        if self._broker(node).is_running:
            self.stop(node)
        self._start(self._broker(node))
        self._broker(node).wait_started(time.monotonic() + START_SECONDS_MAX)

    def partition(self, *groups: int | Collection[int]) -> None:
        """Only brokers of one group reach each other: ``partition({0}, {1, 2})``. Those that are not named form one more group:
        ``partition(0)`` cuts broker 0 off. Replaces the partition before."""
        sets = [frozenset([group]) if isinstance(group, int) else frozenset(group) for group in groups]
        named = [node for group in sets for node in group]
        if len(set(named)) != len(named) or not set(named) <= set(self.nodes):
            raise InvalidConfig(f"groups {groups} must be of different nodes of {self.nodes}", hint="as partition({0}, {1, 2})")
        sets.append(frozenset(self.nodes).difference(named))
        self._cut({node: frozenset(self.nodes) - group for group in sets for node in group})

    def heal(self) -> None:
        """All reach all again."""
        self._cut(dict.fromkeys(self.nodes, frozenset()))

    def wait_until_healthy(self, timeout: float = HEALTHY_SECONDS_MAX) -> None:
        """Until a controller is known, exactly the running brokers are unfenced, everything is led, and all replicas on running brokers
        are in sync; as each running broker knows it. Raises TimeoutError that says what is missing."""
        missing = ["nobody was asked"]

        def is_healthy() -> bool:
            missing[:] = [lack for node in self.running for lack in self._lacks(node, client)]
            return not missing

        with self.client(timeout=ASK_SECONDS_MAX) as client:
            wait_until(is_healthy, time.monotonic() + timeout, lambda: f"the cluster did not become healthy: {'; '.join(missing)}")

    def close(self) -> None:
        """Kill all brokers. Who wants to see them stop cleanly stops them."""
        for broker in self._brokers:
            broker.signal(signal.SIGKILL)
        for broker in self._brokers:
            broker.wait_ended()

    def _lacks(self, node: int, client: Client) -> list[str]:
        try:
            found = client.admin.describe_cluster(node=node)
        except RetriableError as error:
            return [f"broker {node}: {error}"]
        return [f"broker {node}: {lack}" for lack in self._lacks_in(found)]

    def _lacks_in(self, found: ClusterReply) -> list[str]:
        running = self.running
        active = [broker.node_id for broker in found.brokers if not broker.is_fenced]
        lacks = [] if found.controller in running else [f"the controller is {found.controller}"]
        if active != running:
            lacks.append(f"{active} are not fenced, {running} run")
        for partition in found.troubled:
            absent = [node for node in partition.replicas if node in running and node not in partition.isr]
            if absent or partition.leader < 0:
                lacks.append(f"{partition.topic}-{partition.partition}: leader {partition.leader}, not in sync {absent}")
        return lacks

    def _broker(self, node: int) -> BrokerProcess:
        if node not in self._cuts:
            raise InvalidConfig(f"there is no broker {node}", hint=f"there are {self.nodes}")
        return self._brokers[node]

    def _start(self, broker: BrokerProcess) -> None:
        broker.start()
        self._order(broker)

    def _order(self, broker: BrokerProcess) -> int:
        number = next(self._orders)
        broker.order(f"{number} {','.join(map(str, sorted(self._cuts[broker.plan.node_id])))}")
        return number

    def _cut(self, cuts: dict[int, frozenset[int]]) -> None:
        """Told to all, then waited for; a paused broker obeys when it is resumed."""
        self._cuts = cuts
        told = [(broker, self._order(broker)) for broker in self._brokers if broker.is_running]
        deadline = time.monotonic() + ORDER_SECONDS_MAX
        for broker, number in told:
            if broker.plan.node_id not in self._paused:
                broker.wait_said((f"cut {number}.",), deadline)
