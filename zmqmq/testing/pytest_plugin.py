"""Fixtures for tests of programs that use zmqmq. Loaded by pytest; imports nothing heavy before a fixture is used."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from zmqmq.testing.broker import TestBroker
    from zmqmq.testing.brokers import TestCluster
    from zmqmq.testing.sim import Cluster, MakeCluster

TRACE_EVENTS_MAX: Final = 60
"""Of the end of each simulation, shown when its test fails."""
CLUSTER_BROKERS: Final = 3
LOG_CHARACTERS_MAX: Final = 4_000
"""Of the end of each broker's log, shown when its test fails."""
_real_cluster: Final = pytest.StashKey["TestCluster"]()
_clusters: Final = pytest.StashKey["list[Cluster]"]()


@pytest.fixture
def zmqmq_broker(tmp_path: Path) -> Iterator[TestBroker]:
    """A real broker in this process, on its own directory: ``.url`` for clients, ``.messages(topic)``, ``.restart()``."""
    from zmqmq.testing.broker import TestBroker

    broker = TestBroker(tmp_path / "zmqmq")
    try:
        yield broker
    finally:
        broker.close()


@pytest.fixture
def zmqmq_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TestCluster]:
    """Three real brokers in processes of their own: ``.brokers`` and ``.client()``; ``.kill(i)``, ``.pause(i)``, ``.restart(i)``,
    ``.partition({0}, {1, 2})``, ``.heal()``, ``.wait_until_healthy()``. For another number:
    ``@pytest.mark.parametrize("zmqmq_cluster", [5], indirect=True)``. When the test fails, its report shows the brokers' logs."""
    from zmqmq.testing.brokers import TestCluster

    cluster = request.node.stash[_real_cluster] = TestCluster(tmp_path / "zmqmq", getattr(request, "param", CLUSTER_BROKERS))
    try:
        cluster.wait_until_healthy()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def zmqmq_sim(request: pytest.FixtureRequest) -> Iterator[MakeCluster]:
    """Makes simulated clusters: ``cluster = zmqmq_sim(seed=7)``, with the arguments of ``zmqmq.testing.sim.Cluster``. When the test
    fails, its report shows how they came to their ends."""
    from zmqmq.testing.sim import Cluster

    made: list[Cluster] = request.node.stash.setdefault(_clusters, [])

    def make(seed: int = 0, **arguments: Any) -> Cluster:
        made.append(Cluster(seed, **arguments))
        return made[-1]

    yield make
    with ExitStack() as ends:  # each is closed, also when another one tells of a bug
        for cluster in made:
            ends.callback(cluster.close)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        real = item.stash.get(_real_cluster, None)
        if real is not None:
            report.sections.extend((f"broker {node}", real.log(node)[-LOG_CHARACTERS_MAX:]) for node in real.nodes)
        for cluster in item.stash.get(_clusters, []):
            report.sections.append(
                (f"simulation of seed {cluster.chance.seed}", "\n".join(map(str, cluster.trace.events[-TRACE_EVENTS_MAX:])))
            )
    return report
