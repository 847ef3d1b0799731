"""One seed of a cluster of QuorumLogs: faults, a controller, then calm. ``python tests/quorum/engine_run.py FIRST..END`` runs many."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from typing import Final

from engine_disk import EngineDisk
from engine_world import Engine, EngineWorld, Weather

FAULTS_MS: Final = 8_000
HEAL_MS: Final = 8_000
BACKLOG_MAX: Final = 50
FAULTS: Final = ("crash", "crash_all", "partition", "isolate_leader", "fill", "transfer", "change")


class EngineStory:
    """What happens in one seed."""

    def __init__(self, seed: int, make_disk: Callable[[str], EngineDisk] | None = None) -> None:
        self.chance = chance = random.Random(f"{seed}:engine story")
        self.world = EngineWorld(seed, chance.choice((1, 3, 3, 5)), spares=2, make_disk=make_disk)
        self.weights = {name: chance.choice((0, 0, 1, 3)) for name in FAULTS}
        self.pace_ms = chance.choice((60, 200, 600))

    def run(self) -> None:
        chance, world = self.chance, self.world
        world.weather = Weather(
            loss=chance.choice((0.0, 0.1, 0.3)), duplicates=chance.choice((0.0, 0.2)), delay_ms=(0.1, chance.choice((1.0, 10.0, 60.0))),
            sync_ms=(0.1, chance.choice((1.0, 20.0, 200.0))), fuse=chance.choice((0.0, 0.0, 0.003)),
        )  # fmt: skip
        world.later(self.pace_ms, self.strike)
        world.later(0, self.work)
        world.run_ms(FAULTS_MS)
        self.heal()

    def work(self) -> None:
        chance, world = self.chance, self.world
        if world.now_us < FAULTS_MS * 1_000:
            world.later(chance.expovariate(1 / 25), self.work)
        able = [engine for engine in world.engines.values() if engine.told is not None]
        if not able:
            return
        engine = chance.choice(able)
        if len(engine.open) < BACKLOG_MAX:
            engine.propose(chance.choice((1, 1, 3)), stale=int(chance.random() < 0.05))
        if engine.told is not None and chance.random() < 0.2:
            engine.barrier()

    def strike(self) -> None:
        chance, world = self.chance, self.world
        if world.now_us >= FAULTS_MS * 1_000:
            return
        world.later(chance.expovariate(1 / self.pace_ms), self.strike)
        if chance.random() < 0.5:
            self.repair(0.6)
        if any(self.weights.values()):
            getattr(self, chance.choices(list(self.weights), list(self.weights.values()))[0])()

    def repair(self, share: float) -> None:
        world = self.world
        if self.chance.random() < share:
            world.blocked.clear()
        for engine in world.engines.values():
            if self.chance.random() < share:
                engine.disk.is_full = False
            if engine.log is None and self.chance.random() < share:
                engine.start()

    def one(self) -> Engine:
        return self.chance.choice(list(self.world.engines.values()))

    def crash(self) -> None:
        self.one().crash()

    def crash_all(self) -> None:
        for engine in self.world.engines.values():
            engine.crash()
        self.repair(0.9)

    def partition(self) -> None:
        ids = list(self.world.engines)
        side = {node_id for node_id in ids if self.chance.random() < 0.5}
        self.world.blocked = {(a, b) for a in ids for b in ids if (a in side) != (b in side)}

    def isolate_leader(self) -> None:
        leader = self.world.leader()
        if leader is not None:
            self.world.isolate(leader.member.node_id)

    def fill(self) -> None:
        self.one().disk.is_full = True

    def transfer(self) -> None:
        leader = self.world.leader()
        if leader is not None and leader.log is not None and leader.log.is_leader:
            target = self.chance.choice(leader.log.configuration.voters).node_id
            leader.do(lambda log: log.transfer(target) if log.is_leader else None)

    def change(self) -> None:
        leader = self.world.leader()
        if leader is None or leader.log is None:
            return
        voters = leader.log.configuration.voters
        engine = self.one()
        aim = "removed" if engine.member in voters and len(voters) > 1 else self.chance.choice(("voter", "voter", "learner"))
        leader.do(lambda log: log.change(next(self.world.numbers), engine.member, aim))  # type: ignore[arg-type]

    def heal(self) -> None:
        world = self.world
        world.weather = Weather(delay_ms=(0.5, 0.5), sync_ms=(0.5, 0.5))
        self.chance = random.Random(0)
        world.blocked.clear()
        for engine in world.engines.values():
            engine.disk.is_full = False
            if engine.log is None:
                engine.start()
        assert not world.offline()
        world.wait(lambda: world.leader() is not None, HEAL_MS)
        world.wait(self.is_proposal_committed, HEAL_MS)
        world.wait(self.is_level, HEAL_MS)
        world.wait(lambda: not any(engine.open for engine in world.engines.values()), HEAL_MS)
        for engine in world.engines.values():
            engine.check_read()
            assert not engine.barriers or engine.told is not None, "a barrier was never answered"

    def is_proposal_committed(self) -> bool:
        leader = self.world.leader()
        if leader is None:
            return False
        proposal_id = leader.propose()
        self.world.run_ms(30)
        return self.world.contract.answers.get(proposal_id) == "committed"

    def is_level(self) -> bool:
        leader = self.world.leader()
        if leader is None or leader.log is None:
            return False
        ends = [self.world.engines[member.node_id].handed_out for member in leader.log.configuration.members]
        return set(ends) == {len(self.world.contract.history)}


def main() -> int:
    first, _, end = sys.argv[1].partition("..")
    began = time.monotonic()
    failed = 0
    seeds = range(int(first), int(end or int(first) + 1))
    for seed in seeds:
        try:
            EngineStory(seed).run()
        except AssertionError as error:
            failed += 1
            print(f"seed {seed}: {error}"[:600], flush=True)
    print(f"{len(seeds)} seeds, {failed} failed, {time.monotonic() - began:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
