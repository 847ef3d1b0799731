"""One seed: a cluster, a workload, a nemesis; a minute of trouble, then peace, then the account.

``run`` gives a ``Result`` whatever happens: a failure names the promise that was broken, and the trace tells how.
"""

from __future__ import annotations

import gc
import logging
import random
from collections import Counter
from time import perf_counter
from typing import Final

from msgspec import Struct, structs

from zmqmq import marks
from zmqmq.broker.config import BrokerConfig
from zmqmq.errors import ZmqmqError
from zmqmq.store.store import StoreOptions
from zmqmq.store.verify import verify_directory
from zmqmq.testing.history import check
from zmqmq.testing.sim.broker import State
from zmqmq.testing.sim.chance import Omissions
from zmqmq.testing.sim.cluster import SMALL, Cluster
from zmqmq.testing.sim.invariants import Violation
from zmqmq.testing.sim.kernel import US_PER_S, SimBug
from zmqmq.testing.sim.nemesis import Nemesis
from zmqmq.testing.sim.notes import History
from zmqmq.testing.sim.trace import Event
from zmqmq.testing.sim.workload import Workload

TROUBLE_S: Final = 60.0
CALM_S_MAX: Final = 90.0
"""Delivery timeouts and pauses that are under way end within it."""
FIRST_CUT_RATE: Final = 0.2
FIRST_CALLS_MAX: Final = 40
SERVE_S_MAX: Final = 15.0
IN_SYNC_S_MAX: Final = 30.0
BROKERS_BY_MILLION: Final = (1, 3, 5)
"""Seeds below a million have one broker, those of the next million three, later ones five."""
NEEDS_POWER: Final = frozenset({
    "lost-write", "unseen", "vanished", "inconsistent-offsets", "duplicate", "poll-skip", "nonmonotonic-poll", "int-poll-skip",
    "int-nonmonotonic-poll", "nonmonotonic-send", "int-nonmonotonic-send", "sequence-reuse", "epoch-regression",
    "watermark-regression", "G1c", "G1c-process", "G1c-realtime", "G1a",
})  # fmt: skip
"""Promises about ``replicated`` records that end when all their replicas lose power."""


class Result(Struct, frozen=True):
    """What came of one seed. ``failure`` is empty when every promise was kept."""

    seed: int
    failure: str
    digest: int
    simulated_s: float
    events: int
    openings: int
    acknowledged: int
    values_read: int
    checks: int
    struck: dict[str, int]
    marks: dict[str, int]
    """Rare places of the code that were reached, see ``marks``."""
    elapsed_s: float
    leader_changes: int = 0
    """Of all partitions, to another broker each."""
    allowed: tuple[tuple[str, int], ...] = ()
    """Faults that were let strike, by class and number."""
    steps: tuple[tuple[str, int], ...] = ()
    """And what programs did, by program and number."""
    trace: tuple[Event, ...] = ()


def run(seed: int, omissions: Omissions | None = None, *, trouble_s: float = TROUBLE_S) -> Result:
    """Live one seed through. Trouble ends early after ``trouble_s``."""
    started = perf_counter()
    was_collecting = gc.isenabled()
    gc.disable()  # when a cycle is collected must not depend on what the process did before
    logging.disable(logging.CRITICAL)
    story = _Story(seed, omissions or Omissions())
    marks.listener = story.on_mark
    try:
        failure = story.live(trouble_s)
        return story.result(failure, perf_counter() - started)
    finally:
        marks.listener = None
        story.cluster.world.dispose()
        del story
        logging.disable(logging.NOTSET)
        if was_collecting:
            gc.enable()


def broker_count(seed: int) -> int:
    """How many brokers live in a seed: its million says so."""
    return BROKERS_BY_MILLION[min(seed // 1_000_000, len(BROKERS_BY_MILLION) - 1)]


class _Story:
    def __init__(self, seed: int, omissions: Omissions) -> None:
        config = BrokerConfig(store=_draw_store(seed))
        self.cluster = Cluster(
            seed, config=config, has_faults=True, is_supervised=True, omissions=omissions, broker_count=broker_count(seed)
        )
        self.workload = Workload(self.cluster)
        self.values_read = 0
        self.marks: Counter[str] = Counter()

    def on_mark(self, name: str) -> None:
        self.marks[name] += 1

    def live(self, trouble_s: float) -> str:
        """Why it failed, or an empty string."""
        cluster, workload = self.cluster, self.workload
        try:
            cluster.chance.is_quiet = True
            self._cut_the_first_opening()
            cluster.start()
            workload.start()
            cluster.chance.is_quiet = False
            Nemesis(cluster, TROUBLE_S)  # of the whole time, so that a shorter trouble is the beginning of it
            cluster.run_for(trouble_s)
            cluster.heal()
            workload.stop()
            cluster.run_until(cluster.is_serving, SERVE_S_MAX, "the healed cluster serves")
            cluster.run_until(lambda: workload.running == 0, CALM_S_MAX, "every program ends")
            cluster.run_until(cluster.is_in_sync, IN_SYNC_S_MAX, "every replica of the healed cluster is in sync")
            workload.read_all()
            if cluster.agreement is not None:
                cluster.agreement.check_replicas()
            self._check_histories()
            self._check_directories()
            cluster.world.raise_unawaited()
        except Violation as violation:
            return f"invariant: {violation}"
        except SimBug as bug:
            if isinstance(bug.__cause__, Violation):
                return f"invariant: {bug.__cause__}"
            return f"bug: {type(bug.__cause__).__name__}: {bug}"
        except (ZmqmqError, AssertionError) as error:
            return f"{type(error).__name__}: {error}"
        except Exception as error:  # noqa: BLE001 - whatever a broken product raises is a failure of this seed, not of the campaign
            return f"bug: {type(error).__name__}: {error}"
        return ""

    def _cut_the_first_opening(self) -> None:
        """Some data directories are half made when they are opened for the second time."""
        dice = self.cluster.chance.stream("first opening")
        for broker in self.cluster.brokers:
            if dice.random() < FIRST_CUT_RATE:
                broker.disk.fuse = dice.randrange(0, FIRST_CALLS_MAX)

    def result(self, failure: str, elapsed_s: float) -> Result:
        cluster = self.cluster
        if failure:
            cluster.trace.tell("FAILED", failure)
        return Result(
            seed=cluster.chance.seed,
            failure=failure,
            digest=cluster.trace.digest,
            simulated_s=cluster.world.now_us / US_PER_S,
            events=cluster.world.event_count,
            openings=sum(broker.opening_count for broker in cluster.brokers),
            acknowledged=self.workload.acknowledged,
            values_read=self.values_read,
            checks=cluster.invariants.check_count,
            struck=dict(sorted(cluster.chance.struck.items())),
            marks=dict(sorted(self.marks.items())),
            elapsed_s=elapsed_s,
            leader_changes=cluster.agreement.leader_changes if cluster.agreement is not None else 0,
            allowed=tuple(cluster.chance.allowed),
            steps=tuple(cluster.chance.steps),
            trace=tuple(cluster.trace.events),
        )

    def _check_histories(self) -> None:
        self._check(self.workload.strict, frozenset())
        self._check(self.workload.lenient, NEEDS_POWER if self.cluster.has_lost_power else frozenset())

    def _check(self, history: History, pardoned: frozenset[str]) -> None:
        report = check(history.operations())
        self.values_read += report.metrics.values_read
        wrong = [anomaly for anomaly in report.anomalies if anomaly.invalidates and anomaly.name not in pardoned]
        if wrong:
            raise Violation("; ".join(f"{anomaly.name} ({anomaly.count}): {anomaly.examples[0].what}" for anomaly in wrong))

    def _check_directories(self) -> None:
        """What a clean stop leaves is whole."""
        cluster = self.cluster
        cluster.end_supervision()
        for broker in cluster.brokers:
            broker.stop()
        cluster.run_until(lambda: all(broker.state is State.DOWN for broker in cluster.brokers), SERVE_S_MAX, "every broker stops")
        for broker in cluster.brokers:
            found = verify_directory(broker.disk, broker.config.data).findings
            may_rot = {"note"} if not cluster.chance.struck["flip"] else {"note", "index"}  # nobody may have read it since
            wrong = [finding for finding in found if finding.severity not in may_rot]
            if wrong:
                raise Violation(f"a stopped broker's directory is whole: {wrong}")


def _draw_store(seed: int) -> StoreOptions:
    """Some seeds with a larger journal, and with checkpoints that come often or seldom."""
    dice = random.Random(f"{seed}:store")
    return structs.replace(SMALL, journal_bytes_max=dice.choice((64, 64, 256)) << 10, checkpoint_ms_max=dice.choice((500, 5_000, 60_000)))
