"""What a nemesis can do to a cluster of several brokers on top of what ``deeds`` knows: to those that matter, or to many at once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from zmqmq.testing.sim.broker import SimBroker, State
from zmqmq.testing.sim.chance import log_uniform
from zmqmq.testing.sim.cluster import Cluster
from zmqmq.testing.sim.kernel import US_PER_S

CUT_OFF_S: Final = (0.4, 15.0)
"""Around the time after which a silent broker is fenced, and far longer."""
SETTLED_S: Final = (0.5, 5.0)
"""From the end of one broker of a rolling restart to that of the next."""


class ClusterDeeds:
    """``by_name`` as in ``Deeds``. ``later``: undo something after so many seconds, or when the cluster heals."""

    def __init__(self, cluster: Cluster, later: Callable[[float, Callable[[], None]], None]) -> None:
        self._cluster = cluster
        self._later = later
        self.by_name: dict[str, Callable[[random.Random], str]] = {
            "leader killed": self._kill_leader,
            "controller killed": self._kill_controller,
            "broker cut off": self._cut_off,
            "majority killed": self._kill_majority,
            "all killed": self._kill_all,
            "rolling restart": self._restart_all,
            "power cut of several": self._cut_power,
        }

    def _kill_leader(self, _dice: random.Random) -> str:
        """Of the most partitions; often in the middle of something, since who leads much does much."""
        broker = max(self._cluster.brokers, key=_led)
        return self._kill((broker,)) if _led(broker) else ""

    def _kill_controller(self, _dice: random.Random) -> str:
        return self._kill(broker for broker in self._cluster.brokers if _is_deciding(broker))

    def _kill_majority(self, dice: random.Random) -> str:
        brokers = self._cluster.brokers
        return self._kill(dice.sample(brokers, len(brokers) // 2 + 1))

    def _kill_all(self, _dice: random.Random) -> str:
        return self._kill(self._cluster.brokers)

    def _cut_off(self, dice: random.Random) -> str:
        """One broker loses all others, but no client: both ways, or one."""
        broker, seconds, way = dice.choice(self._cluster.brokers), log_uniform(dice, CUT_OFF_S), dice.randrange(3)
        network = self._cluster.network
        for other in self._cluster.brokers:
            if other is broker:
                continue
            if way != 1:
                network.block(broker.name, other.name)
                self._later(seconds, partial(network.unblock, broker.name, other.name))
            if way != 0:
                network.block(other.name, broker.name)
                self._later(seconds, partial(network.unblock, other.name, broker.name))
        return f"{broker.name} {('does not speak', 'does not hear', 'hears and speaks not')[way]} for {seconds:.2f} s"

    def _restart_all(self, dice: random.Random) -> str:
        """One after the other, as an upgrade does, but with less patience."""
        at_s = 0.0
        for broker in self._cluster.brokers:
            self._cluster.world.after(int(at_s * US_PER_S), self._stop, broker)
            at_s += log_uniform(dice, SETTLED_S)
        return f"within {at_s:.1f} s"

    def _cut_power(self, dice: random.Random) -> str:
        brokers = self._cluster.brokers
        struck = dice.sample(brokers, dice.randrange(2, len(brokers) + 1))
        for broker in struck:
            broker.cut_power()
        return ", ".join(broker.name for broker in struck)

    def _kill(self, brokers: Iterable[SimBroker]) -> str:
        running = [broker for broker in brokers if broker.state is not State.DOWN]
        for broker in running:
            broker.kill()
        return ", ".join(broker.name for broker in running)

    def _stop(self, broker: SimBroker) -> None:
        if broker.state is State.SERVING and not self._cluster.chance.is_quiet:
            broker.stop()


def _led(broker: SimBroker) -> int:
    return len(broker.loop.node.partitions.leaders) if broker.loop is not None else 0


def _is_deciding(broker: SimBroker) -> bool:
    desk = broker.loop.node.cluster if broker.loop is not None else None
    return desk is not None and desk.active.epoch is not None
