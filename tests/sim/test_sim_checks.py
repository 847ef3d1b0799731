"""Each check of the simulator, broken on purpose: it must be seen, under its name."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from zmqmq.errors import TimeoutError, UnknownTopic
from zmqmq.model import METADATA_PARTITION, PartitionId
from zmqmq.testing.history import Poll, Send
from zmqmq.testing.sim import Cluster, MakeCluster, SimClient, run, workload
from zmqmq.testing.sim.chance import Omissions
from zmqmq.testing.sim.gardener import Garden, _expect_lost
from zmqmq.testing.sim.invariants import Invariants, Violation
from zmqmq.testing.sim.notes import History
from zmqmq.testing.sim.programs import Program, number_of
from zmqmq.testing.sim.run import _Story
from zmqmq.testing.sim.workload import Workload

TROUBLE_S = 2.0
WELL: dict[str, int] = {"epoch": 1, "log_start": 2, "high_watermark": 5, "synced_end": 5, "log_end": 6, "next_offset": 6, "term": 1}
PARTITION = PartitionId(b"t" * 16, 0)


def loop(*, is_ready: bool = True, durability: str = "fsync", **changed: int) -> Any:
    """A broker's loop as the invariants see it, with one partition."""
    now = {**WELL, **changed}
    term = now.pop("term")
    leadership, config = SimpleNamespace(epoch=now.pop("epoch")), SimpleNamespace(durability=durability)
    leader = SimpleNamespace(partition=PARTITION, leadership=leadership, config=config, **now)
    states = {METADATA_PARTITION: SimpleNamespace(epochs=[SimpleNamespace(epoch=term)])}
    partitions = SimpleNamespace(leaders={PARTITION: leader})
    node = SimpleNamespace(partitions=partitions, is_ready=is_ready, cluster=None)
    return SimpleNamespace(node=node, store=SimpleNamespace(state=states.__getitem__))


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("ends in order", {"log_start": 6}),
        ("ends in order", {"high_watermark": 7, "synced_end": 6}),
        ("ends in order", {"log_end": 7, "next_offset": 6}),
        ("ends in order", {"synced_end": 7}),
        ("fsync watermark is on disk", {"synced_end": 4}),
        ("watermark never falls", {"high_watermark": 4}),
        ("start never falls", {"log_start": 1}),
    ],
)
def test_what_must_hold_within_an_opening_is_checked(name: str, changed: dict[str, int]) -> None:
    invariants = Invariants()
    invariants.after_turn("b0", 1, loop())
    with pytest.raises(Violation, match=f"^{name}: "):
        invariants.after_turn("b0", 1, loop(**changed))


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("one leader in an epoch", {"term": 2}),
        ("epoch rises with each opening", {"epoch": 0, "term": 2}),
        ("term rises with each opening", {"epoch": 2}),
        ("what was synced stays", {"epoch": 2, "term": 2, "high_watermark": 4, "synced_end": 4, "log_end": 4}),
    ],
)
def test_what_must_hold_from_one_opening_to_the_next_is_checked(name: str, changed: dict[str, int]) -> None:
    invariants = Invariants()
    invariants.after_turn("b0", 1, loop())
    with pytest.raises(Violation, match=f"^{name}: "):
        invariants.after_turn("b0", 2, loop(**changed))


def test_what_may_happen_is_no_violation() -> None:
    invariants = Invariants()
    invariants.after_turn("b0", 1, loop())
    invariants.after_turn("b0", 1, loop(high_watermark=6, synced_end=6))
    invariants.after_turn("b0", 2, loop(epoch=2, term=2, log_start=0, high_watermark=6, synced_end=6))
    invariants.after_turn("b0", 2, loop(epoch=2, term=2, durability="replicated", high_watermark=8, log_end=8, next_offset=8))
    assert invariants.check_count == 4


def note_lost_write(history: History) -> None:
    """Acknowledged at offset 0, and not there when everything was read."""
    for kind, f, steps, final in (
        ("invoke", "send", [Send("t/0", 1)], False),
        ("ok", "send", [Send("t/0", 1, 0, 0)], False),
        ("invoke", "send", [Send("t/0", 2)], False),
        ("ok", "send", [Send("t/0", 2, 1, 0)], False),
        ("invoke", "poll", [Poll()], True),
        ("ok", "poll", [Poll({"t/0": [(1, 2)]})], True),
    ):
        history.note(history.moment(), "p", kind, f, steps, final=final)  # type: ignore[arg-type]


def test_a_history_with_an_anomaly_is_seen_and_pardoned_only_where_power_was_lost() -> None:
    story = _Story(0, Omissions())
    note_lost_write(story.workload.lenient)
    with pytest.raises(Violation, match="lost-write"):
        story._check_histories()
    story.cluster.brokers[0].power_cuts = 1
    story._check_histories()
    note_lost_write(story.workload.strict)
    with pytest.raises(Violation, match="lost-write"):
        story._check_histories()


def test_a_damaged_directory_of_a_stopped_broker_is_seen() -> None:
    story = _Story(0, Omissions())
    cluster = story.cluster
    cluster.start()
    cluster.run(cluster.client("c"), cluster.clients["c"].admin.create_topic("t"))
    (path,) = [path for path, content in cluster.brokers[0].disk.files().items() if path.endswith(".log") and "/logs/" in path and content]
    cluster.brokers[0].disk.flip(path, 300)
    with pytest.raises(Violation, match="a stopped broker's directory is whole"):
        story._check_directories()


def test_a_cluster_that_does_not_serve_after_heal_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    heal = Cluster.heal

    def heal_badly(cluster: Cluster) -> None:
        heal(cluster)
        cluster.end_supervision()
        cluster.brokers[0].kill()

    monkeypatch.setattr(Cluster, "heal", heal_badly)
    assert "the healed cluster serves" in run(1, trouble_s=TROUBLE_S).failure


def test_a_program_that_does_not_end_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workload, "stop", lambda _self: None)
    assert "every program ends" in run(1, trouble_s=TROUBLE_S).failure


def test_an_error_that_no_user_has_to_expect_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def break_off(_program: Program) -> None:
        raise UnknownTopic("nobody deleted it")

    monkeypatch.setattr(workload, "produce", break_off)
    assert run(1, trouble_s=TROUBLE_S).failure.startswith("bug: UnknownTopic")


def test_a_task_that_breaks_beside_its_program_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = list[asyncio.Task[None]]()

    async def fail() -> None:
        raise UnknownTopic("beside the program")

    async def wander(program: Program) -> None:
        tasks.append(asyncio.create_task(fail()))
        await program.pause()

    monkeypatch.setattr(workload, "produce", wander)
    assert "nobody awaited" in run(1, trouble_s=TROUBLE_S).failure


async def grow(mq: SimClient) -> None:
    await mq.admin.create_topic("t")
    for value in (b"0", b"1", b"2"):
        await mq.produce("t", value)


@pytest.fixture
def mq(zmqmq_sim: MakeCluster) -> SimClient:
    cluster = zmqmq_sim(seed=1)
    cluster.start()
    client = cluster.client("c")
    cluster.run(client, grow(client))
    return client


@pytest.mark.parametrize(
    ("name", "made", "starts", "ends"),
    [
        ("a topic that was made is there", {"t": 2}, {}, {}),
        ("a topic that was made is there", {"gone": 1}, {}, {}),
        ("deleted records stay deleted", {"t": 1}, {("t", 0): 1}, {}),
        ("acknowledged records stay", {"t": 1}, {}, {("t", 0): 4}),
    ],
)
def test_what_the_gardener_was_told_is_checked(
    mq: SimClient, name: str, made: dict[str, int], starts: dict[tuple[str, int], int], ends: dict[tuple[str, int], int]
) -> None:
    garden = Garden()
    garden.made, garden.starts, garden.ends = made, starts, ends
    with pytest.raises(Violation, match=f"^{name}: "):
        mq.process.run(garden.audit(mq), 30)


def test_a_deleted_topic_that_is_there_is_seen(mq: SimClient) -> None:
    garden = Garden()
    garden.deleted["t"] = None
    with pytest.raises(Violation, match=r"^a deleted topic stays deleted: "):
        mq.process.run(garden.audit(mq), 30)


def test_a_deleted_record_has_to_be_told_as_lost(mq: SimClient) -> None:
    with pytest.raises(Violation, match=r"^deleted records are not read: "):
        mq.process.run(_expect_lost(mq, "t", 0, 1), 30)
    with pytest.raises(TimeoutError, match="nobody said"):
        mq.process.run(_expect_lost(mq, "t", 0, 3), 30)


def test_an_old_duplicate_that_is_not_there_is_seen(zmqmq_sim: MakeCluster) -> None:
    programs = Workload(zmqmq_sim(seed=1))
    topic = programs.topics[0]
    programs.unplaced[topic.name] = [7]
    programs._check_unplaced(topic, {7})
    with pytest.raises(Violation, match=r"^acknowledged records stay: \[7\]"):
        programs._check_unplaced(topic, {6})


def test_a_changed_value_is_seen() -> None:
    changed: Any = SimpleNamespace(raw_value=b"1 00000000 ab")
    with pytest.raises(Violation, match=r"^records are never changed: "):
        number_of(changed)
