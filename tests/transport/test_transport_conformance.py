"""What both the real and the simulated transports between brokers do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mesh_worlds import Worlds, real_world, simulated_world

from zmqmq.transport.stream import MESSAGE_BYTES_MAX

KEY = b"\x01" + bytes(19) + b"\x07"
OTHER_KEY = b"\x01" + bytes(19) + b"\x08"


@pytest.fixture(params=["real", "simulated"])
def worlds(request: pytest.FixtureRequest) -> Iterator[Worlds]:
    with real_world() if request.param == "real" else simulated_world() as made:
        made.start(1, 2)
        made.join()
        yield made


def publish_until_seen(worlds: Worlds, source: int, key: bytes, target: int) -> None:
    seen = len(worlds.published[target])

    def is_seen() -> bool:
        worlds.streams[source].publish(key, [b"hello"])
        return len(worlds.published[target]) > seen

    worlds.until(is_seen)
    worlds.rest(0.2)
    worlds.published[target].clear()


def test_messages_of_a_connection_arrive_whole_and_in_order(worlds: Worlds) -> None:
    large = bytes(range(256)) * 1000
    sent = [[b"%d" % number, b"", large[: number * 5000]] for number in range(50)]
    for frames in sent:
        worlds.send(1, 2, *frames)
    worlds.until(lambda: len(worlds.arrived[2]) == len(sent))
    assert worlds.arrived[2] == sent
    assert worlds.arrived[1] == []


def test_both_directions_go_at_once(worlds: Worlds) -> None:
    for number in range(20):
        worlds.send(1, 2, b"to 2", b"%d" % number)
        worlds.send(2, 1, b"to 1", b"%d" % number)
    worlds.until(lambda: len(worlds.arrived[1]) == len(worlds.arrived[2]) == 20)
    assert {frames[0] for frames in worlds.arrived[2]} == {b"to 2"}


def test_what_has_nowhere_to_go_is_dropped_and_counted(worlds: Worlds) -> None:
    worlds.send(1, 2, b"x")
    mesh = worlds.meshes[1]
    before = mesh.dropped_count
    assert not mesh.send(7, [b"nobody"])
    mesh.set_peers({})
    assert not mesh.send(2, [b"nobody any more"])
    assert mesh.dropped_count == before + 2


def test_a_peer_that_does_not_take_its_messages_costs_no_more_than_its_bound(worlds: Worlds) -> None:
    worlds.send(1, 2, b"first")
    worlds.until(lambda: bool(worlds.arrived[2]))
    payload = bytes(100_000)
    taken = 0
    while worlds.meshes[1].send(2, [payload]):
        taken += 1
        assert taken < 2000
    assert worlds.meshes[1].dropped_count
    worlds.until(lambda: len(worlds.arrived[2]) == taken + 1)
    worlds.send(1, 2, b"again")
    worlds.until(lambda: worlds.arrived[2][-1] == [b"again"])


def test_a_peer_that_comes_back_is_found_again(worlds: Worlds) -> None:
    worlds.send(1, 2, b"before")
    worlds.until(lambda: bool(worlds.arrived[2]))
    worlds.kill(2)
    worlds.until(lambda: not worlds.meshes[1].send(2, [b"to the dead"]))
    worlds.start(2)
    worlds.send(1, 2, b"after")
    worlds.until(lambda: [b"after"] in worlds.arrived[2])
    assert worlds.arrived[2] == [[b"after"]]


def test_a_peer_that_moved_is_reached_at_its_new_address(worlds: Worlds) -> None:
    worlds.start(3)
    worlds.meshes[1].set_peers({2: worlds.mesh_addresses[3]})
    worlds.send(1, 2, b"moved")
    worlds.until(lambda: worlds.arrived[3] == [[b"moved"]])
    assert worlds.arrived[2] == []


def test_a_peer_that_never_was_there_gives_no_evidence(worlds: Worlds) -> None:
    worlds.start(3)
    worlds.kill(3)
    worlds.meshes[1].set_peers({3: worlds.mesh_addresses[3]})
    worlds.rest(0.5)
    assert worlds.refused[1] == []


def test_a_connection_that_ends_on_purpose_gives_no_evidence(worlds: Worlds) -> None:
    worlds.send(1, 2, b"x")
    worlds.meshes[1].set_peers({})
    worlds.kill(2)
    worlds.rest(0.5)
    assert worlds.refused[1] == []


def test_evidence_of_a_death_comes_once_for_each(worlds: Worlds) -> None:
    deaths = 0
    for _ in range(4):  # in the simulator one may go unnoticed
        worlds.send(1, 2, b"x")
        worlds.rest(0.1)
        worlds.kill(2)
        worlds.rest(0.2)
        assert worlds.refused[1] in ([], [2])
        deaths += len(worlds.refused[1])
        worlds.refused[1].clear()
        worlds.start(2)
    assert deaths


def test_a_subscriber_gets_its_keys_and_no_others(worlds: Worlds) -> None:
    worlds.streams[2].subscribe(1, KEY)
    publish_until_seen(worlds, 1, KEY, 2)
    large = bytes(200_000)
    for payload in (b"1", large, b"3"):
        assert worlds.streams[1].publish(KEY, [payload, b"end"])
        assert worlds.streams[1].publish(OTHER_KEY, [payload])
    worlds.until(lambda: len(worlds.published[2]) == 3)
    worlds.rest(0.2)
    assert worlds.published[2] == [[KEY, b"1", b"end"], [KEY, large, b"end"], [KEY, b"3", b"end"]]
    assert worlds.published[1] == []


def test_a_subscription_that_ended_gives_nothing_more(worlds: Worlds) -> None:
    for key in (KEY, OTHER_KEY):
        worlds.streams[2].subscribe(1, key)
        publish_until_seen(worlds, 1, key, 2)
    worlds.streams[2].unsubscribe(1, KEY)
    worlds.rest(0.3)
    worlds.published[2].clear()
    worlds.streams[1].publish(KEY, [b"x"])
    worlds.streams[1].publish(OTHER_KEY, [b"y"])
    worlds.until(lambda: worlds.published[2] == [[OTHER_KEY, b"y"]])


def test_subscriptions_hold_over_the_end_of_a_publisher(worlds: Worlds) -> None:
    worlds.streams[2].subscribe(1, KEY)
    publish_until_seen(worlds, 1, KEY, 2)
    worlds.kill(1)
    worlds.start(1)
    publish_until_seen(worlds, 1, KEY, 2)


def test_subscriptions_wait_until_their_node_is_followed(worlds: Worlds) -> None:
    worlds.start(3)
    worlds.streams[2].subscribe(3, KEY)
    worlds.streams[2].follow({3: worlds.stream_addresses[3]})
    publish_until_seen(worlds, 3, KEY, 2)
    worlds.streams[2].follow({})
    worlds.rest(0.2)
    worlds.published[2].clear()
    worlds.streams[3].publish(KEY, [b"x"])
    worlds.rest(0.3)
    assert worlds.published[2] == []
    worlds.streams[2].follow({3: worlds.stream_addresses[3]})
    publish_until_seen(worlds, 3, KEY, 2)


def test_a_late_joiner_misses_what_came_before(worlds: Worlds) -> None:
    worlds.streams[1].publish(KEY, [b"early"])
    worlds.streams[2].subscribe(1, KEY)
    publish_until_seen(worlds, 1, KEY, 2)
    assert [b"early"] not in [frames[1:] for frames in worlds.published[2]]


def test_what_is_too_large_for_a_stream_is_refused(worlds: Worlds) -> None:
    assert not worlds.streams[1].publish(KEY, [bytes(MESSAGE_BYTES_MAX), b"x"])
    assert worlds.streams[1].dropped_count == 1
    assert worlds.streams[1].publish(KEY, [bytes(MESSAGE_BYTES_MAX)])


def test_thousands_of_subscriptions_all_arrive(worlds: Worlds) -> None:
    keys = [b"\x01" + bytes(16) + number.to_bytes(4, "big") for number in range(1000)]
    for key in keys:
        worlds.streams[2].subscribe(1, key)
    for key in (keys[0], keys[-1], keys[500], keys[65]):
        publish_until_seen(worlds, 1, key, 2)
