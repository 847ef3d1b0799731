"""How brokers become one cluster: whatever is lost, late or restarted, there is one quorum; who is wrong is told why."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmqmq.errors import Fenced, InvalidConfig
from zmqmq.metadata.quorum.forming import INTRODUCE_MS, Formed, Forming, Introduce
from zmqmq.metadata.quorum.state import Configuration, Member

CALM_MS = 10_000
DELAYED_MAX = 200


class Broker:
    """What is on disk, and the machine of this process."""

    def __init__(self, member: Member, peers: Sequence[int], chance: random.Random) -> None:
        self.peers = [(node_id, f"tcp://host{node_id}:1") for node_id in peers]
        self.member = member
        self.chance = chance
        self.cluster_id = f"cluster of {member}"
        self.base: Configuration | None = None
        self.has_entries = False
        self.start()

    def start(self) -> None:
        self.forming = Forming(
            self.member, self.cluster_id, f"tcp://host{self.member.node_id}:1", self.peers, self.chance,
            is_fresh=not self.has_entries and self.base is None, base=self.base,
        )  # fmt: skip

    def write_down(self) -> Formed | None:
        formed = self.forming.formed
        if formed is not None:
            self.cluster_id, self.base = formed.cluster_id, formed.base
            self.forming.on_formed()
        return formed


class Town:
    """Brokers and the messages among them, which nothing ever forgets."""

    def __init__(self, seed: int = 0) -> None:
        self.chance = random.Random(seed)
        self.now_ms = 0
        self.brokers: dict[int, Broker] = {}
        self.mail: list[tuple[int, Introduce]] = []
        self.started: set[tuple[str, Configuration]] = set()

    def add(self, *node_ids: int, peers: Sequence[int] = (), directory: str = "a") -> None:
        for node_id in node_ids:
            self.brokers[node_id] = Broker(Member(node_id, directory), peers or node_ids, self.chance)

    def collect(self, broker: Broker) -> None:
        self.mail += [(outgoing.node_id, outgoing.message) for outgoing in broker.forming.take_messages()]
        if len(self.mail) > DELAYED_MAX:
            del self.mail[: -DELAYED_MAX // 2]

    def deliver(self, target: int, message: Introduce) -> None:
        if target in self.brokers:
            self.brokers[target].forming.on_message(message)
            self.collect(self.brokers[target])

    def tick(self, broker: Broker) -> None:
        broker.forming.on_time(self.now_ms)
        self.collect(broker)

    def write_down(self, broker: Broker) -> None:
        formed = broker.write_down()
        if formed is not None and formed.base.voters:
            self.started.add((formed.cluster_id, formed.base))

    def calm(self) -> None:
        """Nothing is lost any more, and everybody does its part."""
        until_ms = self.now_ms + CALM_MS
        while self.now_ms < until_ms:
            self.now_ms += INTRODUCE_MS // 2
            for broker in self.brokers.values():
                self.tick(broker)
            while self.mail:
                self.deliver(*self.mail.pop(0))
            for broker in self.brokers.values():
                self.write_down(broker)

    def errors(self) -> dict[int, str]:
        return {node_id: str(broker.forming.error) for node_id, broker in self.brokers.items() if broker.forming.error}


def strike(town: Town) -> None:
    chance = town.chance
    broker = chance.choice(list(town.brokers.values()))
    match chance.choice(("tick", "tick", "deliver", "deliver", "deliver", "again", "lose", "restart", "wipe", "write")):
        case "tick":
            town.now_ms += chance.randrange(0, INTRODUCE_MS)
            town.tick(broker)
        case "deliver" if town.mail:
            town.deliver(*town.mail.pop(chance.randrange(0, len(town.mail))))
        case "again" if town.mail:
            town.deliver(*chance.choice(town.mail))
        case "lose" if town.mail:
            town.mail.pop(chance.randrange(0, len(town.mail)))
        case "restart" if chance.random() < 0.2:
            if broker.forming.formed is not None and chance.random() < 0.3:
                broker.cluster_id = broker.forming.formed.cluster_id  # written, but not the quorum
            broker.start()
        case "wipe" if chance.random() < 0.05 and broker.base is None:
            member = Member(broker.member.node_id, broker.member.directory_id + "+")
            town.brokers[member.node_id] = Broker(member, [node_id for node_id, _ in broker.peers], chance)
        case "write" if chance.random() < 0.5:
            town.write_down(broker)


@given(seed=st.integers(0, 1 << 32), size=st.sampled_from([1, 2, 3, 3, 5]), steps=st.integers(0, 400))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_to_introductions_one_quorum_starts(seed: int, size: int, steps: int) -> None:
    town = Town(seed)
    town.add(*range(1, size + 1))
    for _ in range(steps):
        strike(town)
        assert len(town.started) <= 1, town.started
    town.calm()
    assert len(town.started) == 1, (town.started, town.brokers[1].forming, town.errors())


@given(seed=st.integers(0, 1 << 32), steps=st.integers(0, 200))
@settings(max_examples=50, deadline=None)
def test_in_calm_weather_everybody_is_in_that_quorum(seed: int, steps: int) -> None:
    town = Town(seed)
    town.add(1, 2, 3)
    for _ in range(steps):
        strike(town)
    town.calm()
    ((cluster_id, base),) = town.started
    for broker in town.brokers.values():
        if broker.forming.error is None:
            assert (broker.cluster_id, broker.base) == (cluster_id, base)
        else:
            assert broker.member not in base.members, "only who was wiped is refused"


def test_three_brokers_form_the_cluster_of_the_least_node_id() -> None:
    town = Town()
    town.add(3, 1, 2)
    town.calm()
    assert town.started == {("cluster of 1:a", Configuration((Member(1, "a"), Member(2, "a"), Member(3, "a"))))}
    assert all(broker.forming.next_deadline_ms() is None for broker in town.brokers.values()), "they have said everything"


def test_nothing_is_formed_while_one_peer_is_missing() -> None:
    town = Town()
    town.add(1, 2, peers=(1, 2, 3))
    town.calm()
    assert not town.started
    assert town.brokers[1].forming.waits_for == (3,)


def test_a_directory_of_one_broker_becomes_a_cluster_that_others_join() -> None:
    town = Town()
    town.add(1, 2, 3)
    town.brokers[1].has_entries = True
    town.brokers[1].start()
    town.calm()
    assert town.started == {("cluster of 1:a", Configuration((Member(1, "a"),)))}
    assert town.brokers[2].base == Configuration()
    assert town.brokers[2].cluster_id == "cluster of 1:a"
    assert {joiner.member.node_id for joiner in town.brokers[1].forming.take_joiners()} == {2, 3}


def test_a_joiner_is_reachable_and_is_told_until_the_quorum_has_it() -> None:
    town = Town()
    town.add(1, 2, 3)
    town.calm()
    town.add(4, peers=(1, 2, 3))
    town.calm()
    assert town.brokers[1].forming.addresses[4] == "tcp://host4:1"
    (joiner,) = town.brokers[1].forming.take_joiners()
    assert (joiner.member, joiner.control) == (Member(4, "a"), "tcp://host4:1")
    town.calm()
    assert town.brokers[1].forming.take_joiners(), "it says so again"
    quorum = Configuration((Member(1, "a"), Member(2, "a"), Member(3, "a")), (Member(4, "a"),))
    for broker in town.brokers.values():
        broker.forming.on_configuration(quorum)
    town.calm()
    assert not town.brokers[1].forming.take_joiners()
    assert town.brokers[4].forming.next_deadline_ms() is None


def test_a_wiped_broker_under_its_old_node_id_is_refused() -> None:
    town = Town()
    town.add(1, 2, 3)
    town.calm()
    town.add(2, peers=(1, 2, 3), directory="new")
    town.calm()
    error = town.brokers[2].forming.error
    assert isinstance(error, Fenced)
    assert "directory a, this one is new" in str(error)
    assert "zmqmq cluster remove 2" in error.hint
    assert set(town.errors()) == {2}


def test_peers_of_another_cluster_are_refused() -> None:
    town = Town()
    for node_id in (1, 2, 3):
        town.add(node_id, peers=(1, 2, 3))
        town.brokers[node_id].has_entries = True
        town.brokers[node_id].start()
    town.calm()
    assert set(town.errors()) == {1, 2, 3}
    assert "this broker belongs to cluster cluster of 1:a, but its peers" in town.errors()[1]


def test_one_stray_peer_does_not_end_a_good_broker() -> None:
    town = Town()
    town.add(1, 2, 3)
    town.calm()
    town.add(3, peers=(1, 2, 3))
    town.brokers[3].has_entries = True
    town.brokers[3].cluster_id = "another"
    town.brokers[3].start()
    town.brokers[1].start()
    town.calm()
    assert set(town.errors()) == {3}


def test_peers_lists_that_differ_are_refused() -> None:
    town = Town()
    town.add(1, 2, peers=(1, 2, 3))
    town.add(3, peers=(2, 3))
    town.calm()
    assert "told the peers 1, 2, 3, node 3 was told 2, 3" in town.errors()[2]
    assert not town.started


@pytest.mark.parametrize("peers", [[(1, "a"), (1, "b")], [(1, "a"), (2, "a")]], ids=["node id", "address"])
def test_a_list_that_names_something_twice_is_refused(peers: list[tuple[int, str]]) -> None:
    with pytest.raises(InvalidConfig, match=r"twice|same address"):
        Forming(Member(1, "a"), "c", "a", peers, random.Random(0), is_fresh=True)


def test_two_brokers_with_one_node_id_are_told_so() -> None:
    town = Town()
    town.add(1, 2, peers=(1, 2, 3))
    for directory in ("x", "y") * 12:
        other = Broker(Member(3, directory), (1, 2, 3), town.chance)
        other.forming.on_time(0)
        for outgoing in other.forming.take_messages():
            town.deliver(outgoing.node_id, outgoing.message)
    assert "node id 3 is used by two brokers, with the directories x and y" in town.errors()[1]
