"""``zmqmq cluster`` and ``zmqmq events``: against one live broker, and against clusters that exist on paper only."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live import SECONDS_MAX, Command, ServeProcess

from zmqmq.errors import BrokerUnavailable, InvalidConfig
from zmqmq.wire.replies import BrokerStatus, ChangedReply, ClusterReply, Event, PartitionStatus
from zmqmq_cli import cluster, events, reassign, reassigning
from zmqmq_cli.main import run
from zmqmq_cli.settings import Settings

Zmqmq = Callable[..., tuple[int, str, str]]
URL = "tcp://h:1"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    process = ServeProcess(tmp_path_factory.mktemp("cluster") / "data")
    yield process
    process.end(signal.SIGTERM)


@pytest.fixture
def zmqmq(capsysbinary: pytest.CaptureFixture[bytes]) -> Zmqmq:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments)
        out, err = capsysbinary.readouterr()
        return code, out.decode(), err.decode()

    return call


# --- one live broker


@pytest.fixture
def live(broker: ServeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZMQMQ_BROKERS", broker.url)


@pytest.mark.usefixtures("live")
def test_a_broker_of_its_own_is_a_healthy_cluster(zmqmq: Zmqmq, broker: ServeProcess) -> None:
    zmqmq("topic", "create", "here", "-p", "2", "--if-not-exists")
    code, out, _ = zmqmq("cluster", "info")
    assert code == 0
    assert re.match(
        r"cluster     \S+  \(healthy\)\nbrokers     1, 1 running\ncontroller  0 \(epoch 1\); voters 0; metadata index \d+\n", out
    )
    row = json.loads(zmqmq("cluster", "info", "--json")[1])
    assert (row["healthy"], row["controller"], row["voters"], row["answered_by"]) == (True, 0, [0], 0)
    assert zmqmq("cluster", "health") == (0, "healthy  1 broker, 2 partitions\n", "")
    assert json.loads(zmqmq("cluster", "health", "--json")[1]) == {"healthy": True, "troubles": [], "partitions": []}
    assert zmqmq("cluster", "health", "-e")[0] == 0
    assert zmqmq("cluster", "brokers")[1] == f"0  running  {broker.url}  2  2  2  -\n"
    assert zmqmq("cluster", "controller")[1].startswith("controller 0  epoch 1  voters 0  metadata index ")
    assert zmqmq("cluster", "reassign", "status") == (0, "", "0 partitions moving\n")


@pytest.mark.usefixtures("live")
def test_a_broker_of_its_own_has_nobody_to_move_anything_to(zmqmq: Zmqmq, tmp_path: Path) -> None:
    zmqmq("topic", "create", "here", "-p", "2", "--if-not-exists")
    plan = tmp_path / "plan.json"
    plan.write_text('{"partitions": [{"topic": "here", "partition": 0, "replicas": [1]}]}')
    for arguments in (
        ("leaders", "balance"), ("leaders", "move", "here:0", "--to", "1"), ("drain", "0"), ("remove", "0", "--yes"),
        ("reassign", "apply", str(plan), "--execute"), ("reassign", "cancel"),
    ):  # fmt: skip
        code, _, said = zmqmq("cluster", *arguments)
        assert code == 2, (arguments, said)
        assert "is a cluster of its own" in said.splitlines()[0]
        assert "zmqmq dev -n 3" in said.splitlines()[2]


@pytest.mark.usefixtures("live")
def test_events_are_printed_filtered_and_bounded(zmqmq: Zmqmq) -> None:
    zmqmq("topic", "create", "noted", "-p", "2")
    zmqmq("topic", "delete", "noted", "--yes")
    code, out, _ = zmqmq("events", "-e")
    assert code == 0
    assert re.search(r"^\d\d:\d\d:\d\d  topic-created +noted  2 partitions$", out, re.MULTILINE)
    assert re.search(r"^\d\d:\d\d:\d\d  topic-deleted +noted$", out, re.MULTILINE)
    (line,) = zmqmq("events", "-e", "--type", "topic-deleted", "-J")[1].splitlines()[-1:]
    row = json.loads(line)
    assert {name: row[name] for name in ("type", "topic", "partition", "node")} == {
        "type": "topic-deleted", "topic": "noted", "partition": None, "node": None,
    }  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["time"])
    assert len(zmqmq("events", "-e", "-n", "1")[1].splitlines()) == 1
    assert zmqmq("events", "-e", "--since", "1ms")[1] == ""


def test_events_are_followed_until_ctrl_c_which_is_a_normal_end(broker: ServeProcess) -> None:
    command = Command(broker.url)
    following = command.start("events", "--type", "topic-altered")
    command("topic", "create", "followed", "--if-not-exists")
    command("topic", "alter", "followed", "--set", "retention_ms=1h")
    assert following.stdout is not None
    assert re.fullmatch(r"\S+  topic-altered +followed  retention_ms=1h\n", following.stdout.readline())
    following.send_signal(signal.SIGINT)
    assert following.communicate(timeout=SECONDS_MAX) == ("", "")
    assert following.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["events", "--type", "isr-shrnk"], "no event is called 'isr-shrnk'; there are: leader-change"),
        (["cluster", "leaders", "move", "orders", "--to", "1"], "'orders' is not of the form TOPIC:PARTITION"),
        (["cluster", "leaders", "move", "orders:1"], "--to"),
        (["cluster", "drain", "x"], "'x' is not a valid integer"),
        (["cluster", "remove", "3"], "zmqmq cluster remove forgets a broker for good, and nobody is there to be asked; add --yes"),
        (["cluster", "reassign", "plan", "--from", "a"], "'a' is not a list of node ids"),
        (["cluster", "halth"], "Did you mean health?"),
        (["dev", "-n", "0"], "0 is not in the range"),
        (["dev", "--data", "d", "--ephemeral"], "give one of them"),
        (["dev", "--topics", ":3"], "names no topic"),
        (["serve", "--check", "--peers", "1@127.0.0.1:5580"], "peers: '1@127.0.0.1:5580' must be node@tcp://host:port"),
        (["serve", "--check", "--peers", "1@tcp://127.0.0.1:5580,2@tcp://127.0.0.1:5581"], "node 0, this one, is not among [1, 2]"),
        (
            ["serve", "--check", "--peers", "0@tcp://127.0.0.1:1", "--peers", "0@tcp://127.0.0.1:2"],
            "a node or an address for the second time",
        ),
        (["serve", "--check", "--control", "tcp://127.0.0.1:5580"], "are for members of a cluster"),
        (["serve", "--check", "--peers", "0@tcp://10.0.0.1:5580"], "other machines could connect"),
    ],
)
def test_wrong_usage_is_three_lines_and_exit_code_2(arguments: list[str], said: str, zmqmq: Zmqmq) -> None:
    code, out, err = zmqmq(*arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 3), err
    assert said in err.splitlines()[0]


def test_peers_reach_the_configuration(zmqmq: Zmqmq) -> None:
    peers = "0@tcp://127.0.0.1:5580, 1@tcp://127.0.0.1:5581"
    options = ("--peers", peers, "--peers", "2@tcp://127.0.0.1:5582", "--rack", "a", "--stream", "tcp://127.0.0.1:6000")
    out = zmqmq("serve", *options, "--print-config")[1]
    assert 'peers = ["0@tcp://127.0.0.1:5580", "1@tcp://127.0.0.1:5581", "2@tcp://127.0.0.1:5582"]' in out
    assert 'rack = "a"' in out
    assert 'stream = "tcp://127.0.0.1:6000"' in out


# --- clusters on paper


def broker_of(node: int, **fields: Any) -> BrokerStatus:
    status = BrokerStatus(
        node, f"tcp://h:{node}", "", "", "0.1.0", node, is_fenced=False, is_draining=False, leaders=1, replicas=2, in_sync=2
    )
    return msgspec.structs.replace(status, **fields)


def partition_of(number: int = 0, **fields: Any) -> PartitionStatus:
    return msgspec.structs.replace(PartitionStatus("orders", number, 1, 4, [1, 2, 3], [1, 2, 3], 2), **fields)


WELL = ClusterReply(1, "c", 1, 2, 7, 40, [1, 2, 3], [], [broker_of(node) for node in (1, 2, 3)], 1, 6, *[0] * 5)


def sick(**fields: Any) -> ClusterReply:
    return msgspec.structs.replace(WELL, **fields)


class Admin:
    """Answers what it was given, one after the other, the last one for ever; and keeps what it was asked to do."""

    def __init__(self, *states: Any, changed: ChangedReply | None = None) -> None:
        self.states = list(states) or [WELL]
        self.changed = changed or ChangedReply(1, 0)
        self.asked: list[tuple[str, Any]] = []

    def describe_cluster(self) -> ClusterReply:
        found = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, ClusterReply)
        return found

    def topics(self, *, internal: bool) -> list[Any]:
        return [self.describe_topic("orders")]

    def describe_topic(self, name: str) -> Any:
        partitions = [SimpleNamespace(partition=number, replicas=(1, 2)) for number in range(3)]
        return SimpleNamespace(name=name, partitions=partitions)

    def __getattr__(self, name: str) -> Callable[..., ChangedReply]:
        def call(*arguments: Any) -> ChangedReply:
            self.asked.append((name, *arguments))  # type: ignore[arg-type]
            return self.changed

        return call


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> Callable[[Admin], Admin]:
    """Commands talk to this admin."""

    def use(admin: Admin) -> Admin:
        @contextmanager
        def client(settings: Settings) -> Iterator[Any]:
            settings.uses_brokers = True
            yield SimpleNamespace(admin=admin)

        monkeypatch.setattr(Settings, "client", client)
        monkeypatch.setattr(cluster, "LOOK_S", 0.001)
        monkeypatch.setattr(reassign, "LOOK_S", 0.001)
        return admin

    return use


@pytest.mark.parametrize(
    ("fields", "trouble"),
    [
        ({"controller": -1}, "no controller"),
        ({"leaderless": 1}, "leaderless 1"),
        ({"under_min": 2}, "under min_insync_replicas 2"),
        ({"under_replicated": 3}, "under-replicated 3"),
        ({"brokers": [broker_of(1, is_fenced=True), broker_of(2)]}, "fenced broker 1"),
        ({"brokers": [broker_of(1, is_fenced=True), broker_of(2, is_fenced=True)]}, "fenced brokers 1,2"),
    ],
)
def test_whatever_is_wrong_is_said_and_is_exit_code_10(
    fields: dict[str, Any], trouble: str, zmqmq: Zmqmq, paper: Callable[[Admin], Admin]
) -> None:
    paper(Admin(sick(**fields)))
    assert zmqmq("cluster", "health") == (10, f"UNHEALTHY  {trouble}\n", "")
    assert json.loads(zmqmq("cluster", "health", "--json")[1])["troubles"] == [trouble]
    assert f"({trouble})" in zmqmq("cluster", "info")[1]


def test_troubled_partitions_are_named_the_first_ones_for_people(zmqmq: Zmqmq, paper: Callable[[Admin], Admin]) -> None:
    troubled = [partition_of(0, leader=-1, isr=[3]), partition_of(1, isr=[3]), *(partition_of(n, isr=[1, 2]) for n in range(2, 25))]
    paper(Admin(sick(under_replicated=25, under_min=2, leaderless=1, troubled=troubled)))
    lines = zmqmq("cluster", "health")[1].splitlines()
    assert lines[0] == "UNHEALTHY  leaderless 1; under min_insync_replicas 2; under-replicated 25"
    assert [re.split(r"  +", line.strip()) for line in lines[1:5]] == [
        ["PARTITION", "TROUBLE", "LEADER", "REPLICAS", "ISR", "MIN"],
        ["orders-0", "leaderless", "-", "1,2,3", "3", "2"],
        ["orders-1", "under min", "1", "1,2,3", "3", "2"],
        ["orders-2", "under-replicated", "1", "1,2,3", "1,2", "2"],
    ]
    assert lines[-1] == "and 5 more"
    assert len(json.loads(zmqmq("cluster", "health", "--json")[1])["partitions"]) == 25


def test_moving_and_draining_are_told_and_are_healthy(zmqmq: Zmqmq, paper: Callable[[Admin], Admin]) -> None:
    paper(Admin(sick(moving=4, brokers=[broker_of(1, is_draining=True), broker_of(2)])))
    assert zmqmq("cluster", "health") == (0, "healthy  2 brokers, 6 partitions  4 partitions moving  draining 1\n", "")


def test_health_waits_until_all_is_well_also_while_no_broker_answers(zmqmq: Zmqmq, paper: Callable[[Admin], Admin]) -> None:
    paper(Admin(BrokerUnavailable("no"), sick(leaderless=2), sick(leaderless=2), sick(leaderless=1), WELL))
    code, out, _ = zmqmq("cluster", "health", "-e")
    assert code == 0
    assert out.splitlines() == [
        "UNHEALTHY  no broker answers",
        "UNHEALTHY  leaderless 2",
        "UNHEALTHY  leaderless 1",
        "healthy  3 brokers, 6 partitions",
    ]
    paper(Admin(sick(leaderless=2)))
    assert zmqmq("cluster", "health", "-e", "--within", "5ms")[0] == 10
    paper(Admin(BrokerUnavailable("no broker answers")))
    assert zmqmq("cluster", "health")[0] == 3


def test_leaders_are_moved_and_balanced(zmqmq: Zmqmq, paper: Callable[[Admin], Admin]) -> None:
    admin = paper(Admin(changed=ChangedReply(1, 1, [partition_of(leader=2)])))
    assert zmqmq("cluster", "leaders", "move", "orders:0", "a:b:7", "--to", "2") == (0, "orders-0  2  1,2,3  1,2,3\n", "1 leaders moved\n")
    assert zmqmq("cluster", "leaders", "balance")[0] == 0
    assert admin.asked == [("move_leaders", {("orders", 0): 2, ("a:b", 7): 2}), ("balance_leaders",)]
    paper(Admin())
    assert zmqmq("cluster", "leaders", "move", "orders:0", "--to", "2") == (0, "", "broker 2 leads already\n")


def test_drain_waits_until_the_broker_leads_nothing(zmqmq: Zmqmq, paper: Callable[[Admin], Admin]) -> None:
    idle = sick(brokers=[broker_of(1, leaders=0), broker_of(2)])
    admin = paper(Admin(WELL, BrokerUnavailable("no"), WELL, idle, changed=ChangedReply(1, 5)))
    assert zmqmq("cluster", "drain", "1") == (0, "drained 1  5 partitions changed\n", "")
    assert admin.asked == [("drain_broker", 1)]
    paper(Admin(WELL, changed=ChangedReply(1, 5)))
    code, out, said = zmqmq("cluster", "drain", "1", "--within", "5ms")
    assert (code, out) == (1, "broker 1 still leads 1 partitions\n")
    assert "no other in-sync replica" in said


def test_a_plan_is_made_shown_applied_and_followed(zmqmq: Zmqmq, paper: Callable[[Admin], Admin], tmp_path: Path) -> None:
    admin = paper(Admin(WELL, sick(moving=3), sick(moving=1), WELL, changed=ChangedReply(1, 3)))
    code, out, said = zmqmq("cluster", "reassign", "plan", "--from", "1")
    assert (code, said) == (0, "3 of 3 partitions would move\n")
    plan = tmp_path / "plan.json"
    plan.write_text(out)
    code, out, said = zmqmq("cluster", "reassign", "apply", str(plan))
    assert (code, said, admin.asked) == (0, "dry run: nothing changed; add --execute\n", [])
    assert [re.split(r"  +", line) for line in out.splitlines()] == [
        ["orders-0", "1,2", "2,3"],
        ["orders-1", "1,2", "3,2"],
        ["orders-2", "1,2", "2,3"],
    ]
    code, _, said = zmqmq("cluster", "reassign", "apply", str(plan), "--execute", "--wait")
    assert (code, said) == (0, "3 partitions begin to move; see  zmqmq cluster reassign status\n")
    assert admin.asked == [("reassign", {("orders", 0): (2, 3), ("orders", 1): (3, 2), ("orders", 2): (2, 3)})]
    assert zmqmq("cluster", "reassign", "cancel", "orders:1")[0] == 0
    assert admin.asked[-1] == ("cancel_reassign", (("orders", 1),))


def test_what_moves_is_shown(zmqmq: Zmqmq, paper: Callable[[Admin], Admin]) -> None:
    paper(Admin(sick(moving=1, reassigning=[partition_of(replicas=[1, 2, 4], isr=[1, 2], adding=[4], removing=[1])])))
    assert zmqmq("cluster", "reassign", "status") == (0, "orders-0  1,2,4  1,2  4  1\n", "1 partitions moving\n")


def test_brokers_that_cannot_take_replicas_are_refused(zmqmq: Zmqmq, paper: Callable[[Admin], Admin]) -> None:
    paper(Admin(sick(brokers=[broker_of(1), broker_of(2, is_fenced=True), broker_of(3, is_draining=True)])))
    for option, node, said in (("--to", "2", "is fenced"), ("--to", "3", "is draining"), ("--from", "9", "there is no broker 9")):
        code, _, err = zmqmq("cluster", "reassign", "plan", option, node)
        assert code == 2
        assert said in err.splitlines()[0]
    code, _, err = zmqmq("cluster", "reassign", "plan", "--to", "1")
    assert (code, err.splitlines()[0]) == (2, "Error: orders-0: 2 replicas need as many brokers, and 1 may keep them")


@pytest.mark.parametrize("value", ["", "[]", "{}", '{"partitions": 1}', '{"partitions": [{"topic": "a", "partition": 0, "replicas": []}]}',
                                   '{"partitions": [{"topic": "a", "partition": 0, "replicas": [true]}]}', "[" * 100_000,
                                   '{"partitions": [{"topic": "a", "partition": 0, "replicas": [1]}, {"topic": "a", "partition": 0, "replicas": [1]}]}'])  # fmt: skip  # noqa: E501 - one value
def test_a_plan_that_is_none_is_refused_by_name(value: str, zmqmq: Zmqmq, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(value)
    code, out, err = zmqmq("cluster", "reassign", "apply", str(file))
    assert (code, out, len(err.splitlines())) == (2, "", 3)
    assert str(file) in err.splitlines()[0]


def test_events_go_on_with_another_broker_and_say_what_was_forgotten(paper: Callable[[Admin], Admin], zmqmq: Zmqmq) -> None:
    asked: list[tuple[int, int | None]] = []

    def answer(after: int, *, kinds: tuple[str, ...], wait: float, node: int | None) -> Any:
        asked.append((after, node))
        if len(asked) == 2:
            raise BrokerUnavailable("gone")
        number = 10 * len(asked)
        return SimpleNamespace(
            node_id=len(asked),
            known_after=5 if len(asked) == 1 else 25,
            last_number=number,
            events=[Event(number, 0, "broker-removed", node_id=4)],
        )

    admin = paper(Admin())
    admin.events = answer  # type: ignore[method-assign,assignment]
    events_retry = events.RETRY_S
    events.RETRY_S = 0.001  # type: ignore[misc]
    try:
        code, out, said = zmqmq("events", "-n", "2")
    finally:
        events.RETRY_S = events_retry  # type: ignore[misc]
    assert code == 0
    assert [line.split(maxsplit=1)[1] for line in out.splitlines()] == ["broker-removed      broker 4"] * 2
    assert asked == [(-1, None), (10, 1), (10, None)]
    assert said == "events 11 to 25 are forgotten, or were before broker 3 started\n"


# --- plans

NODES = list(range(1, 7))


@given(
    partitions=st.lists(st.lists(st.sampled_from(NODES), min_size=1, max_size=3, unique=True), min_size=1, max_size=20),
    targets=st.sets(st.sampled_from(NODES), min_size=3),
    racks=st.sampled_from(["", "ab", "abc"]),
    count=st.integers(0, 3),
)
def test_plans_keep_their_laws(partitions: list[list[int]], targets: set[int], racks: str, count: int) -> None:
    current = {("t", number): replicas for number, replicas in enumerate(partitions)}
    rack_of = {node: racks[node % len(racks)] if racks else "" for node in targets}
    moves = reassigning.make_plan(current, rack_of, sorted(targets), count)
    after = {place: list(replicas) for place, replicas in current.items()} | {(m.topic, m.partition): list(m.replicas) for m in moves}
    for place, replicas in after.items():
        assert len(set(replicas)) == len(replicas) == (count or len(current[place]))
        assert set(replicas) <= targets
    loads = {node: sum(node in replicas for replicas in after.values()) for node in targets}
    if not racks:
        assert max(loads.values()) - min(loads.values()) <= 1
    assert reassigning.make_plan(after, rack_of, sorted(targets), count) == []
    assert reassigning.from_json(json.loads(json.dumps(reassigning.to_json(moves))), "x") == {
        (m.topic, m.partition): list(m.replicas) for m in moves
    }


def test_what_may_stay_stays() -> None:
    current = {("t", 0): [1, 2], ("t", 1): [2, 3], ("t", 2): [3, 1]}
    assert reassigning.make_plan(current, dict.fromkeys((1, 2, 3), ""), [1, 2, 3]) == []
    (first, second) = reassigning.make_plan(current, dict.fromkeys((1, 2, 4), ""), [1, 2, 4])
    assert (first.replicas, second.replicas) == ((2, 4), (4, 1))


def test_too_few_brokers_for_the_replicas_are_told() -> None:
    with pytest.raises(InvalidConfig, match="t-0: 2 replicas need as many brokers, and 1 may keep them"):
        reassigning.make_plan({("t", 0): [1, 2]}, {1: ""}, [1])
