"""Breaks a cluster by chance, deed by deed. The whole plan is drawn before the run begins; each class is on or off, and each single
deed can be taken out of it. What a deed does, ``deeds`` knows."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Final

from msgspec import Struct

from zmqmq.errors import InvalidConfig
from zmqmq.testing.sim.chance import CLASS_IS_ON, log_uniform
from zmqmq.testing.sim.cluster import Cluster
from zmqmq.testing.sim.deeds import Deeds
from zmqmq.testing.sim.kernel import US_PER_S

GAP_S: Final = (4.0, 40.0)
"""Mean time between two deeds of a class: least and greatest."""


class Deed(Struct, frozen=True):
    """``seed`` feeds all the chance of one deed, so that it does not depend on the others."""

    at_us: int
    name: str
    number: int
    seed: float


class Nemesis:
    """Plans for ``duration_s`` from now on, and carries the plan out. ``classes``: the deeds to do; else chance says which.
    ``every_s``: the mean time between two of a class; else chance says how long. ``spares``: clients that are neither killed nor
    paused; the one that ``Cluster.run`` runs never is. What is under way ends when the cluster heals. Raises InvalidConfig for a
    class that does not exist or a cluster that was healed, UnknownMachine for a machine to spare that does not."""

    def __init__(
        self,
        cluster: Cluster,
        duration_s: float,
        *,
        classes: Collection[str] | None = None,
        every_s: float | None = None,
        spares: Collection[str] = (),
    ) -> None:
        if cluster.chance.is_quiet:
            raise InvalidConfig("the cluster was healed: nothing goes wrong in it any more", hint="make another cluster")
        cluster.world.check_machines(*spares)
        self._cluster = cluster
        cluster.nemesis_count += 1
        suffix = f" {cluster.nemesis_count}" if cluster.nemesis_count > 1 else ""
        self._deeds = Deeds(cluster, cluster.world.now_us + int(duration_s * US_PER_S), spares).by_name
        unknown = sorted(set(classes or ()) - set(self._deeds))
        if unknown:
            raise InvalidConfig(f"{unknown[0]!r} is no deed of the nemesis", hint=f"there are: {', '.join(self._deeds)}")
        self.plan = [
            deed
            for name in self._deeds
            if classes is None or name in classes
            for deed in _drawn(cluster.chance.stream(f"nemesis {name}{suffix}"), name, duration_s, every_s, is_chosen=classes is not None)
        ]
        for deed in self.plan:
            cluster.world.after(deed.at_us, self._do, deed)

    def _do(self, deed: Deed) -> None:
        chance = self._cluster.chance
        if chance.decide(deed.name, deed.number):
            detail = self._deeds[deed.name](random.Random(deed.seed))
            if detail:
                chance.count(deed.name, deed.number, detail)


def _drawn(dice: random.Random, name: str, duration_s: float, every_s: float | None, *, is_chosen: bool) -> list[Deed]:
    is_on = dice.random() < CLASS_IS_ON
    if not (is_on or is_chosen):
        return []
    gap_s = log_uniform(dice, GAP_S)
    gap_s = every_s or gap_s
    at_s, deeds = 0.0, list[Deed]()
    while (at_s := at_s + dice.expovariate(1.0 / gap_s)) < duration_s:
        deeds.append(Deed(int(at_s * US_PER_S), name, len(deeds), dice.random()))
    return deeds
