"""An ``AsyncClient`` on a simulated machine: the same code, with a simulated clock, chance and network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from zmqmq.client.aio.client import AsyncClient
from zmqmq.client.aio.driver import LoopConnections
from zmqmq.client.arguments import Seconds
from zmqmq.client.opening import TIMEOUT_S
from zmqmq.ports import Clock
from zmqmq.ports import Random as RandomPort
from zmqmq.testing.sim.clock import SimClock
from zmqmq.testing.sim.kernel import Process
from zmqmq.testing.sim.network import Network
from zmqmq.testing.sim.transport import SimDealers


class SimClient(AsyncClient):
    """Made by ``Cluster.client``."""

    def __init__(
        self,
        network: Network,
        process: Process,
        clock: SimClock,
        random: Random,
        brokers: Sequence[str],
        *,
        client_id: str = "",
        timeout: Seconds = TIMEOUT_S,
    ) -> None:
        self._network = network
        self.process = process
        self._sim_clock = clock
        self._sim_random = random
        super().__init__(brokers, client_id=client_id, timeout=timeout)

    def _time_and_chance(self) -> tuple[Clock, RandomPort]:
        return self._sim_clock, self._sim_random

    def _connections(self, on_ready: Callable[[], None]) -> LoopConnections:
        return SimDealers(self._network, self.process, on_ready)

    def __del__(self) -> None:
        """Its process ends with the cluster, or was killed: nobody forgot to close it."""
