"""One seed: a cluster, faults drawn for it, clients, then calm; ``python tests/quorum/raft_run.py FIRST..END`` runs many.

Each class of faults is on or off for a seed, with a rate of its own, so that one does not hide another.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Final

from msgspec import Struct
from raft_world import MS, Node, Weather, World

from zmqmq.metadata.quorum.core import Settings
from zmqmq.metadata.quorum.state import Configuration, Member

FAULTS_MS: Final = 12_000
HEAL_MS: Final = 6_000
"""After the last fault, everything must work again within that."""
SPARES: Final = 2
BACKLOG_MAX: Final = 100
"""Records of a leader that are not committed; its clients wait then."""
FAULTS: Final = ("crash", "crash all", "partition", "one way", "pause", "transfer", "change", "snapshot", "isolate leader")


class Outcome(Struct):
    """``failure`` is empty for a clean seed."""

    seed: int
    failure: str = ""
    events: int = 0
    crashes: int = 0
    leaders: int = 0
    acked: int = 0
    committed: int = 0
    restored: int = 0


class Story:
    """What happens in one seed."""

    def __init__(self, seed: int) -> None:
        self.chance = chance = random.Random(f"{seed}:story")
        settings = Settings(
            message_bytes=chance.choice((100, 2_000, 512 << 10)),
            in_flight_bytes_max=chance.choice((300, 4 << 20)),
            chunk_bytes=chance.choice((50, 10_000)),
        )
        self.world = World(seed, chance.choice((1, 3, 3, 3, 5, 5)), settings, drift=chance.choice((0.0, 0.05)))
        self.weights = {name: chance.choice((0, 0, 1, 3)) for name in FAULTS}
        self.pace_ms = chance.choice((40, 150, 600))
        self.client_ms = chance.choice((15, 40, 200))
        self.numbers = iter(range(1 << 60))

    def roll(self, least: float, greatest: float) -> float:
        return self.chance.uniform(least, greatest) if self.chance.random() < 0.4 else 0.0

    def run(self) -> None:
        world = self.world
        for spare in range(SPARES):
            world.add(Member(100 + spare, "a"))
        world.weather = Weather(
            loss=self.roll(0.0, 0.3), duplicates=self.roll(0.0, 0.3), damage=self.roll(0.0, 0.3), slow=self.roll(0.0, 0.2),
            delay_ms=(0.1, self.chance.choice((1.0, 10.0, 60.0))),
            sync_ms=(0.1, self.chance.choice((1.0, 20.0))), slow_sync=self.roll(0.0, 0.03), fuse=self.roll(0.0, 0.001),
        )  # fmt: skip
        world.at(self.pace_ms * MS, self.strike)
        world.at(0, self.work)
        world.run_until(lambda: False, FAULTS_MS * MS)
        self.heal()

    @property
    def is_over(self) -> bool:
        return self.world.now_us >= FAULTS_MS * MS

    def work(self) -> None:
        """Clients ask whoever believes that it leads."""
        if self.is_over:
            return
        chance, world = self.chance, self.world
        world.at(world.now_us + int(chance.expovariate(1 / self.client_ms) * MS), self.work)
        able = [node for node in world.nodes.values() if node.told is not None]
        if not able:
            return
        node = chance.choice(able)
        if chance.random() < 0.2:
            node.barrier()
        for _ in range(chance.choice((1, 1, 3))):
            if self.has_room(node):
                node.propose(self.records(), stale=int(chance.random() < 0.05))

    def has_room(self, node: Node) -> bool:
        """A backlog beyond what the seed's small windows move in time would only show that they are small."""
        if node.told is None or node.raft is None or node.paused_until > self.world.now_us:
            return False
        return node.raft.log_end - node.raft.commit_end < BACKLOG_MAX

    def records(self) -> tuple[bytes, ...]:
        return tuple(b"%d" % next(self.numbers) for _ in range(self.chance.choice((1, 1, 2, 5))))

    def strike(self) -> None:
        if self.is_over:
            return
        chance, world = self.chance, self.world
        world.at(world.now_us + int(chance.expovariate(1 / self.pace_ms) * MS), self.strike)
        if chance.random() < 0.5:
            self.repair()
        if any(self.weights.values()):
            name = chance.choices(list(self.weights), list(self.weights.values()))[0]
            getattr(self, name.replace(" ", "_"))()

    def repair(self) -> None:
        world = self.world
        if self.chance.random() < 0.5:
            world.blocked.clear()
        for node in world.nodes.values():
            if node.raft is None and self.chance.random() < 0.7:
                node.start()

    def crash(self) -> None:
        self.world.crash(self.chance.choice(list(self.world.nodes.values())))

    def crash_all(self) -> None:
        for node in self.world.nodes.values():
            self.world.crash(node)
        for node in self.world.nodes.values():
            if self.chance.random() < 0.8:
                node.start()

    def partition(self) -> None:
        ids = [member.node_id for member in self.world.nodes]
        side = {node_id for node_id in ids if self.chance.random() < 0.5}
        self.world.blocked = {(a, b) for a in ids for b in ids if (a in side) != (b in side)}

    def one_way(self) -> None:
        ids = [member.node_id for member in self.world.nodes]
        self.world.blocked |= {(self.chance.choice(ids), self.chance.choice(ids)) for _ in range(3)}

    def isolate_leader(self) -> None:
        leader = self.world.leader()
        if leader is not None:
            self.world.isolate(leader.member.node_id)

    def pause(self) -> None:
        node = self.chance.choice(list(self.world.nodes.values()))
        node.pause(self.chance.randrange(50, 1_500))

    def transfer(self) -> None:
        leader = self.world.leader()
        if leader is not None and leader.raft is not None and leader.raft.is_leader:
            target = self.chance.choice(leader.raft.configuration.voters)
            leader.do(lambda raft: raft.transfer(target, leader.now_ms) if raft.is_leader else None)

    def snapshot(self) -> None:
        for node in self.world.nodes.values():
            if node.raft is not None and self.chance.random() < 0.6:
                node.do(lambda raft, node=node: node.save_snapshot())  # type: ignore[misc]

    def change(self) -> None:
        """Not only who was told that it leads may be asked, and not only once."""
        able = [node for node in self.world.nodes.values() if node.is_leader and node.paused_until <= self.world.now_us]
        if not able:
            return
        leader = self.chance.choice(able)
        assert leader.raft is not None
        configuration = leader.raft.configuration
        changed = self.another(configuration)
        if changed is not None:
            leader.propose((), configuration=changed)
        self.wipe_the_removed()

    def another(self, now: Configuration) -> Configuration | None:
        outside = [member for member in self.world.nodes if member not in now.members]
        choices: list[Configuration] = []
        choices += [Configuration(now.voters, (*now.learners, member)) for member in outside]
        choices += [Configuration((*now.voters, each), tuple(x for x in now.learners if x != each)) for each in now.learners]
        if len(now.voters) > 1:
            choices += [Configuration(tuple(x for x in now.voters if x != each), now.learners) for each in now.voters]
        return self.chance.choice(choices) if choices else None

    def wipe_the_removed(self) -> None:
        """A member that nobody's configuration names may come back with an empty disk, under a new name."""
        world = self.world
        named = set(world.first.members) if not world.checks.committed else set()
        for node in world.nodes.values():
            if node.raft is not None:
                named |= {member for configuration in node.raft._core.configurations._items for member in configuration[1].members}
            else:
                return
        for member in [member for member in world.nodes if member not in named]:
            if self.chance.random() < 0.3:
                world.nodes.pop(member).crash()
                world.add(Member(member.node_id, member.directory_id + "b"))

    def heal(self) -> None:
        """Calm: a leader, a new proposal committed, and every member of the quorum has applied it."""
        world = self.world
        world.weather = Weather(delay_ms=(0.5, 0.5))
        world.blocked.clear()
        for node in world.nodes.values():
            node.resume(is_now=True)
            if node.raft is None:
                node.start()
        until_us = world.now_us + HEAL_MS * MS
        assert world.run_until(lambda: world.leader() is not None, until_us), f"no leader: {list(world.nodes.values())}"
        self.prove(until_us)
        for node in world.nodes.values():
            assert not node.barriers or node.is_leader, "a barrier was never answered"

    def prove(self, until_us: int) -> None:
        world = self.world
        while not self.is_proposal_committed(until_us):
            assert world.now_us < until_us, f"nothing is committed: {list(world.nodes.values())}"
            world.run_ms(20)
        assert world.run_until(self.is_level, until_us), f"not all members have everything: {list(world.nodes.values())}"

    def is_proposal_committed(self, until_us: int) -> bool:
        """Try one."""
        world = self.world
        leader = world.leader()
        if leader is None:
            return False
        proposal_id = leader.propose(self.records())
        world.run_until(lambda: proposal_id not in leader.mine, until_us)
        return any(entry.proposal_id == proposal_id for entry in world.checks.committed[-20:])

    def is_level(self) -> bool:
        world = self.world
        leader = world.leader()
        if leader is None or leader.raft is None:
            return False
        end = world.checks.committed_end
        return all(self.has_applied(world.nodes.get(member), end) for member in leader.raft.configuration.members)

    def has_applied(self, node: Node | None, end: int) -> bool:
        return node is not None and node.applied_end >= end


def run(seed: int) -> Outcome:
    """Raises nothing; a failure is told."""
    story = Story(seed)
    outcome = Outcome(seed)
    try:
        story.run()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this seed's result
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        line = f"{place.tb_frame.f_code.co_filename.rpartition('/')[2]}:{place.tb_lineno}" if place else "?"
        outcome.failure = f"{type(error).__name__} at {line}, {story.world.now_us / 1e6:.3f} s: {error}"[:600]
    world = story.world
    outcome.events, outcome.crashes, outcome.acked = world.event_count, world.crashes, world.acked
    outcome.leaders, outcome.committed = world.checks.leader_count, len(world.checks.committed)
    return outcome


def run_many(first: int, end: int, jobs: int) -> Iterator[Outcome]:
    if jobs == 1:
        yield from map(run, range(first, end))
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(run, range(first, end), chunksize=8)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("seeds", help="one seed, or FIRST..END")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    first, _, end = arguments.seeds.partition("..")
    began = time.monotonic()
    outcomes = []
    for outcome in run_many(int(first), int(end or int(first) + 1), arguments.jobs):
        outcomes.append(outcome)
        if outcome.failure:
            print(f"seed {outcome.seed}: {outcome.failure}", flush=True)
    failed = sum(bool(outcome.failure) for outcome in outcomes)
    medians = ", ".join(
        f"{name} {statistics.median(getattr(outcome, name) for outcome in outcomes):.0f}"
        for name in ("events", "crashes", "leaders", "acked", "committed")
    )
    print(f"{len(outcomes)} seeds, {failed} failed, {time.monotonic() - began:.1f} s; medians: {medians}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
