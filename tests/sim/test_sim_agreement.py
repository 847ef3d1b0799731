"""Each check of what brokers must agree on, broken on purpose: it must be seen, under its name."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from zmqmq.errors import LogOffline
from zmqmq.facts import EpochStart
from zmqmq.metadata.image import ClusterImage
from zmqmq.model import PartitionId
from zmqmq.testing.sim import Cluster
from zmqmq.testing.sim.agreement import Agreement, _check_equal
from zmqmq.testing.sim.deeds_cluster import ClusterDeeds
from zmqmq.testing.sim.invariants import Violation

PARTITION = PartitionId(b"t" * 16, 0)
OPENINGS = 1


def leader(*, epoch: int = 1, end: int = 5, record_epoch: int = 1, durability: str = "fsync") -> Any:
    leadership = SimpleNamespace(epoch=epoch, isr=(0, 1))
    return SimpleNamespace(
        partition=PARTITION, leadership=leadership, config=SimpleNamespace(durability=durability), followers={},
        epochs=[EpochStart(record_epoch, 0)], log_start=0, log_end=end, high_watermark=end,
    )  # fmt: skip


class Broker:
    """A broker as the checks see it; its disk holds ``held`` records."""

    def __init__(self, name: str, held: int = 9) -> None:
        self.name = name
        self.opening_count = OPENINGS
        self.held = held
        self.loop: Any = None

    def leads(self, machine: Any = None, image: ClusterImage | None = None, controller: int | None = None) -> Broker:
        desk = SimpleNamespace(active=SimpleNamespace(epoch=controller), membership=SimpleNamespace(broker_epoch=1))
        leaders = {} if machine is None else {PARTITION: machine}
        partitions = SimpleNamespace(image=image or ClusterImage(), leaders=leaders)
        self.loop = SimpleNamespace(node=SimpleNamespace(cluster=desk, partitions=partitions))
        return self

    def log_state(self, _partition: PartitionId) -> Any:
        return SimpleNamespace(synced_end=self.held, log_end=self.held, error="")


@pytest.fixture
def brokers() -> list[Broker]:
    return [Broker("b0"), Broker("b1")]


@pytest.fixture
def agreement(brokers: list[Broker]) -> Agreement:
    return Agreement(brokers, lambda _kind, _detail: None, lambda _partition: False)


def test_two_controllers_in_one_epoch_are_seen(brokers: list[Broker], agreement: Agreement) -> None:
    agreement.after_turn(brokers[0].leads(controller=3))
    with pytest.raises(Violation, match=r"^one active controller: "):
        agreement.after_turn(brokers[1].leads(controller=3))


def test_two_images_of_one_index_are_seen(brokers: list[Broker], agreement: Agreement) -> None:
    agreement.after_turn(brokers[0].leads(image=ClusterImage(index=4)))
    with pytest.raises(Violation, match=r"^equal metadata: "):
        agreement.after_turn(brokers[1].leads(image=ClusterImage(index=4, producer_ids_end=7)))


def test_a_watermark_that_a_member_of_the_in_sync_set_does_not_hold_is_seen(brokers: list[Broker], agreement: Agreement) -> None:
    brokers[1].held = 4
    with pytest.raises(Violation, match=r"^the in-sync set holds what is committed: "):
        agreement.after_turn(brokers[0].leads(leader()))


@pytest.mark.parametrize("later", [{"end": 4}, {"end": 5, "record_epoch": 2}])
def test_a_leader_that_lacks_what_is_committed_is_seen(brokers: list[Broker], agreement: Agreement, later: dict[str, int]) -> None:
    agreement.after_turn(brokers[0].leads(leader()))
    with pytest.raises(Violation, match=r"^a leader has all that is committed: "):
        agreement.after_turn(brokers[1].leads(leader(epoch=2, **later)))


def test_a_leader_that_does_not_know_that_it_is_over_may_lack_it(brokers: list[Broker], agreement: Agreement) -> None:
    agreement.after_turn(brokers[0].leads(leader(epoch=2)))
    agreement.after_turn(brokers[1].leads(leader(epoch=1, end=4)))


def test_replicas_that_differ_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    loops: dict[str, Any] = {name: SimpleNamespace(store=SimpleNamespace(state=lambda _: SimpleNamespace(log_start=0))) for name in "ab"}
    contents = iter((b"1", b"2"))
    monkeypatch.setattr("zmqmq.testing.sim.agreement._contents", lambda *_: next(contents))
    with pytest.raises(Violation, match=r"^replicas are equal: "):
        _check_equal(PARTITION, 1, loops)


def test_only_offsets_that_two_disks_lost_are_pardoned() -> None:
    cluster = Cluster(1, broker_count=3)
    cluster._losses[PARTITION] = [("b0", 2, 5), ("b0", 2, 5), ("b1", 5, 7)]
    assert not cluster.has_lost_power
    cluster._losses[PARTITION].append(("b2", 4, 5))
    assert cluster.has_lost_power
    cluster.close()


def test_a_member_whose_metadata_log_failed_ends_and_comes_again() -> None:
    cluster = Cluster(4, broker_count=3, is_supervised=True)
    cluster.start()
    broker = cluster.brokers[0]
    assert broker.loop is not None
    assert broker.loop.node.cluster is not None
    assert broker.loop.node.cluster.engine is not None
    broker.loop.node.cluster.engine.on_offline(LogOffline("the metadata log cannot be read"))
    cluster.run_until(lambda: broker.opening_count > OPENINGS, 10, "it is started again")
    cluster.run_until(cluster.is_serving, 15, "every broker serves")
    cluster.close()


def test_whoever_leads_most_or_decides_can_be_killed() -> None:
    cluster = Cluster(2, broker_count=3)
    cluster.start()
    deeds = ClusterDeeds(cluster, lambda _seconds, _undo: None).by_name
    dice = random.Random(1)
    assert deeds["controller killed"](dice) in {"b0", "b1", "b2"}
    cluster.start()
    assert deeds["broker cut off"](dice)
    cluster.network.heal()
    assert len(deeds["power cut of several"](dice).split(", ")) >= 2
    cluster.start()
    assert len(deeds["all killed"](dice).split(", ")) == 3
    cluster.close()
