"""A cluster in virtual time, from one seed: brokers and clients that are the product's own, on simulated machines.

``Cluster`` is the world of a test, ``Nemesis`` breaks it by chance, ``run`` lives a whole seed through with the checks of this
package. docs/simulator.md explains them.
"""

from zmqmq.testing.sim.client import SimClient
from zmqmq.testing.sim.cluster import Cluster, MakeCluster
from zmqmq.testing.sim.kernel import SimBug, Stuck, UnknownMachine
from zmqmq.testing.sim.nemesis import Nemesis
from zmqmq.testing.sim.run import Result, run

__all__ = ["Cluster", "MakeCluster", "Nemesis", "Result", "SimBug", "SimClient", "Stuck", "UnknownMachine", "run"]
