"""The simulated network: what a link promises, and how it breaks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from zmqmq.ports import Buffer
from zmqmq.testing.sim.chance import Chance, Omissions
from zmqmq.testing.sim.feed import FEED_MESSAGES_MAX, Feed
from zmqmq.testing.sim.kernel import World
from zmqmq.testing.sim.network import LINK_MESSAGES_MAX, SILENCE_US, Network
from zmqmq.testing.sim.transport import SimDealers, SimRouter
from zmqmq.transport.dealer import Connected, Drained, Fact, Lost, Received

ADDRESS = "tcp://b0:1"
SECOND = 1_000_000


class Wires:
    """One client and one broker, with what each of them saw."""

    def __init__(self, seed: int = 1, *, has_faults: bool = False) -> None:
        self.world = World()
        chance = Chance(seed, Omissions(), lambda *_: None)
        self.network = Network(self.world, chance, lambda _: None, has_faults=has_faults)
        self.broker = self.world.process("b0")
        self.client = self.world.process("c0")
        self.router = SimRouter(self.network, self.broker, "b0", ADDRESS, lambda: None)
        self.dealers = SimDealers(self.network, self.client, self._take)
        self.facts: list[Fact] = []

    def _take(self) -> None:
        self.facts += self.dealers.take_facts()

    def run(self, seconds: float = 1.0) -> None:
        self.world.run_until(lambda: False, self.world.now_us + int(seconds * SECOND))

    def connect(self) -> None:
        self.dealers.connect(ADDRESS)
        self.run()
        assert self.facts.pop() == Connected(ADDRESS)

    def arrived(self) -> list[bytes]:
        return [bytes(frames[0]) for _, frames in self.router.receive(1000, 1 << 30)]

    def answered(self) -> list[bytes]:
        return [bytes(fact.frames[0]) for fact in self.facts if isinstance(fact, Received)]

    def send(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.dealers.send(ADDRESS, [payload])

    def source(self) -> bytes:
        self.send(b"hello")
        self.run(5)
        (message,) = self.router.receive(1000, 1 << 30)
        return message[0]


@pytest.fixture
def wires() -> Wires:
    made = Wires()
    made.connect()
    return made


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def test_messages_arrive_whole_in_order_and_once(wires: Wires) -> None:
    wires.send(*numbers(50))
    wires.run(5)
    assert wires.arrived() == numbers(50)
    source = wires.source()
    for payload in numbers(50):
        assert wires.router.send(source, [payload])
    wires.run(5)
    assert wires.answered() == numbers(50)


def test_nobody_listening_is_a_refusal(wires: Wires) -> None:
    wires.dealers.connect("tcp://b0:2")
    wires.run()
    assert wires.facts == [Lost("tcp://b0:2", "connection refused")]


def test_a_full_queue_holds_back_and_drains(wires: Wires) -> None:
    wires.network.clog("c0", "b0", SECOND)
    taken = [wires.dealers.send(ADDRESS, [payload]) for payload in numbers(LINK_MESSAGES_MAX + 20)]
    assert taken.count(False) == 20
    wires.run(5)
    assert wires.arrived() == numbers(LINK_MESSAGES_MAX + 20)
    assert wires.facts[-1] == Drained(ADDRESS)


def test_a_short_partition_delays_a_long_one_breaks(wires: Wires) -> None:
    wires.network.block("c0", "b0")
    wires.send(b"late")
    wires.run(1)
    assert wires.arrived() == []
    wires.network.unblock("c0", "b0")
    wires.run(1)
    assert wires.arrived() == [b"late"]
    wires.network.block("c0", "b0")
    wires.send(b"lost")
    wires.run(SILENCE_US / SECOND + 0.1)
    wires.network.heal()
    wires.run(5)
    assert wires.arrived() == []
    assert wires.facts == [Lost(ADDRESS, "connection lost")]
    assert len(wires.router.take_gone()) == 1


def test_who_lifts_one_block_does_not_lift_that_of_another(wires: Wires) -> None:
    wires.network.part("c0", "b0")
    wires.network.block("c0", "b0")
    wires.send(b"late")
    wires.run(0.5)
    wires.network.join("c0", "b0")
    wires.run(0.5)
    assert wires.arrived() == []
    wires.network.unblock("c0", "b0")
    wires.run(0.5)
    assert wires.arrived() == [b"late"]


def test_a_short_clog_does_not_end_a_longer_one(wires: Wires) -> None:
    wires.network.clog("c0", "b0", 2 * SECOND)
    wires.network.clog("c0", "b0", SECOND // 10)
    wires.send(b"late")
    wires.run(1.5)
    assert wires.arrived() == []
    wires.run(1)
    assert wires.arrived() == [b"late"]


def test_one_direction_may_be_cut_alone(wires: Wires) -> None:
    source = wires.source()
    wires.network.block("b0", "c0")
    wires.router.send(source, [b"never"])
    wires.send(b"heard")
    wires.run(1)
    assert wires.arrived() == [b"heard"]
    assert wires.answered() == []


def test_a_process_that_dies_is_noticed_at_once_a_machine_without_power_later(wires: Wires) -> None:
    wires.network.drop_listener(wires.router, is_silent=False)
    wires.run(0.1)
    assert wires.facts == [Lost(ADDRESS, "connection lost")]
    other = Wires()
    other.connect()
    other.network.go_dark("b0")
    other.network.drop_listener(other.router, is_silent=True)
    other.run(SILENCE_US / SECOND - 0.1)
    assert other.facts == []
    other.run(0.2)
    assert other.facts == [Lost(ADDRESS, "connection lost")]


def test_a_machine_that_is_back_breaks_the_connections_it_does_not_know(wires: Wires) -> None:
    wires.network.go_dark("b0")
    wires.network.drop_listener(wires.router, is_silent=True)
    wires.network.go_light("b0")
    again = SimRouter(wires.network, wires.broker, "b0", ADDRESS, lambda: None)
    wires.send(b"to the dead")
    wires.run(1)
    assert again.receive(10, 1 << 20) == []
    assert wires.facts == [Lost(ADDRESS, "connection lost")]


def test_answers_to_a_peer_that_is_gone_are_counted(wires: Wires) -> None:
    source = wires.source()
    wires.dealers.disconnect(ADDRESS)
    assert not wires.router.send(source, [b"nobody"])
    assert wires.router.dropped_count == 1


def test_with_faults_messages_are_lost_doubled_and_overtaken() -> None:
    lost = doubled = overtaken = 0
    for seed in range(40):
        wires = Wires(seed, has_faults=True)
        wires.connect()
        sent = numbers(100)
        wires.send(*sent)
        wires.run(10)
        found = wires.arrived()
        lost += len(set(sent) - set(found))
        doubled += len(found) - len(set(found))
        overtaken += found != sorted(found, key=int)
    assert lost
    assert doubled
    assert overtaken


def published(feed: Feed, frames: Sequence[Sequence[Buffer]]) -> None:
    for each in frames:
        feed.publish(each)


def test_a_feed_gives_a_subscriber_its_prefix_from_about_now_on(wires: Wires) -> None:
    feed, seen = Feed(wires.network, "b0"), list[bytes]()
    feed.publish([b"t1", b"early"])
    feed.subscribe("c0", b"t1", lambda frames: seen.append(frames[1]))
    feed.publish([b"t1", b"too early"])
    wires.run()
    published(feed, [[b"t1", b"1"], [b"t2", b"other"], [b"t1", b"2"]])
    wires.run()
    assert seen == [b"1", b"2"]


def test_a_feed_drops_beyond_its_queue_and_tells_nobody(wires: Wires) -> None:
    feed, seen = Feed(wires.network, "b0"), list[bytes]()
    feed.subscribe("c0", b"", lambda frames: seen.append(frames[0]))
    wires.run()
    wires.network.clog("b0", "c0", SECOND)
    published(feed, [[payload] for payload in numbers(FEED_MESSAGES_MAX + 30)])
    wires.run(5)
    assert seen == numbers(FEED_MESSAGES_MAX)
    assert feed.dropped_count == 30
