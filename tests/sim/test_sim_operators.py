"""What operators ask of a simulated cluster of three brokers: leaders and replicas move, a broker is drained and removed, and all of it
can be followed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from zmqmq.errors import InvalidConfig, UnknownTopic
from zmqmq.testing.sim import Cluster, SimClient
from zmqmq.wire.replies import ClusterReply


def started(seed: int, count: int = 3) -> tuple[Cluster, SimClient]:
    cluster = Cluster(seed, broker_count=count)
    cluster.start()
    return cluster, cluster.client("operator")


async def until(mq: SimClient, condition: Callable[[ClusterReply], Any]) -> ClusterReply:
    """The cluster once it is so, by what any broker says; the run's own limit ends what never comes."""
    while not condition(found := await mq.admin.describe_cluster()):
        await asyncio.sleep(0.05)
    return found


async def in_sync(mq: SimClient) -> ClusterReply:
    return await until(mq, lambda found: found.controller >= 0 and not found.troubled and not found.moving)


def test_leaders_are_moved_by_name_and_stay_where_they_were_put() -> None:
    cluster, mq = started(1)

    async def story() -> None:
        await mq.admin.create_topic("t", 3, 3)
        await in_sync(mq)
        before = await mq.admin.describe_topic("t")
        heir = next(node for node in before.partitions[0].replicas if node != before.partitions[0].leader)
        changed = await mq.admin.move_leaders({("t", 0): heir})
        assert (changed.count, changed.partitions[0].leader, changed.partitions[0].replicas[0]) == (1, heir, heir)
        assert (await mq.admin.move_leaders({("t", 0): heir})).count == 0
        assert (await mq.admin.balance_leaders()).count == 0
        assert (await in_sync(mq)).not_preferred == 0
        assert (await mq.admin.describe_topic("t")).partitions[0].leader == heir
        await mq.produce("t", b"1", partition=0)

    cluster.run(mq, story())
    cluster.close()


def test_replicas_move_are_followed_and_the_broker_that_keeps_none_is_removed() -> None:
    cluster, mq = started(2, 4)

    async def story() -> None:
        await mq.admin.create_topic("t", 1, 3)
        found = await in_sync(mq)
        (partition,) = (await mq.admin.describe_topic("t")).partitions
        for value in (b"1", b"2", b"3"):
            await mq.produce("t", value)
        leaver = partition.leader
        newcomer = next(broker.node_id for broker in found.brokers if broker.node_id not in partition.replicas)
        target = [newcomer, *(node for node in partition.replicas if node != leaver)]
        with pytest.raises(InvalidConfig, match="keeps replicas of t/0"):
            await mq.admin.remove_broker(leaver)
        after = (await mq.admin.events()).last_number
        assert (await mq.admin.reassign({("t", 0): target})).partitions[0].adding == [newcomer]
        await in_sync(mq)
        assert set((await mq.admin.describe_topic("t")).partitions[0].replicas) == set(target)
        kinds = [event.kind for event in (await mq.admin.events(after)).events]
        assert kinds.index("reassign-started") < kinds.index("reassign-completed")
        with pytest.raises(InvalidConfig, match="is running"):
            await mq.admin.remove_broker(leaver)
        async with mq.reader("t", timeout=2) as reader:
            assert [message.value async for message in reader] == [b"1", b"2", b"3"]
        cluster.brokers[leaver].cut_power()
        await until(mq, lambda found: any(broker.is_fenced for broker in found.brokers))
        await mq.admin.remove_broker(leaver)
        assert leaver not in [broker.node_id for broker in (await mq.admin.describe_cluster()).brokers]

    cluster.run(mq, story())
    cluster.close()


def test_a_move_is_cancelled_while_it_cannot_end() -> None:
    cluster, mq = started(3, 4)

    async def story() -> None:
        await mq.admin.create_topic("t", 1, 3)
        found = await in_sync(mq)
        (partition,) = (await mq.admin.describe_topic("t")).partitions
        newcomer = next(broker.node_id for broker in found.brokers if broker.node_id not in partition.replicas)
        cluster.brokers[newcomer].cut_power()
        target = [newcomer, *partition.replicas[1:]]
        await mq.admin.reassign({("t", 0): target})
        moving = await until(mq, lambda found: found.moving)
        assert (moving.reassigning[0].adding, moving.reassigning[0].topic) == ([newcomer], "t")
        await mq.admin.cancel_reassign()
        await until(mq, lambda found: not found.moving)
        assert set((await mq.admin.describe_topic("t")).partitions[0].replicas) == set(partition.replicas)

    cluster.run(mq, story())
    cluster.close()


def test_a_drained_broker_leads_nothing_and_events_say_where_leaders_went() -> None:
    cluster, mq = started(4)

    async def story() -> None:
        await mq.admin.create_topic("t", 6, 3)
        await in_sync(mq)
        after = (await mq.admin.events()).last_number
        await mq.admin.drain_broker(1)
        found = await until(mq, lambda found: not next(broker for broker in found.brokers if broker.node_id == 1).leaders)
        assert [broker.node_id for broker in found.brokers if broker.is_draining] == [1]
        assert found.leaderless == 0
        kinds = {event.kind for event in (await mq.admin.events(after)).events}
        assert {"broker-draining", "leader-change"} <= kinds
        for number in range(6):
            await mq.produce("t", b"x", partition=number)

    cluster.run(mq, story())
    cluster.close()


@pytest.mark.parametrize("seed", [1, 8])
def test_a_drained_broker_that_loses_its_power_is_in_sync_again_after_its_start(seed: int) -> None:
    """Its leaders proposed it while it drained, were refused, and asked for a new partition epoch to be sure of that."""
    cluster, mq = started(seed)

    async def drain() -> int:
        await mq.admin.create_topic("t", 3, 3)
        node = ((await in_sync(mq)).controller + 1) % 3
        await mq.admin.drain_broker(node)
        await asyncio.sleep(1)
        return node

    node = cluster.run(mq, drain())
    cluster.brokers[node].cut_power()
    cluster.start()
    cluster.run_until(cluster.is_in_sync, 10, "all are in sync")
    cluster.close()


def test_events_tell_of_a_broker_that_died_from_whichever_broker_is_left() -> None:
    cluster, mq = started(5)

    async def story() -> None:
        await mq.admin.create_topic("t", 3, 3)
        await in_sync(mq)
        after = (await mq.admin.events()).last_number
        cluster.brokers[2].cut_power()
        await until(mq, lambda found: [broker.node_id for broker in found.brokers if broker.is_fenced] == [2])
        found = await mq.admin.describe_cluster()
        for node in (0, 1):
            kinds = [(event.kind, event.node_id) for event in (await mq.admin.events(after, node=node, wait=5)).events]
            assert ("broker-fenced", 2) in kinds
            assert any(kind == "isr-shrink" for kind, _ in kinds)
        assert found.controller in (0, 1)

    cluster.run(mq, story())
    cluster.close()


def test_a_new_controller_is_an_event() -> None:
    cluster, mq = started(7)

    async def story() -> None:
        await mq.admin.create_topic("t", 3, 3)
        found = await in_sync(mq)
        reply = await mq.admin.events()
        cluster.brokers[found.controller].cut_power()
        await until(mq, lambda now: now.controller not in (found.controller, -1) and any(broker.is_fenced for broker in now.brokers))
        (event,) = (await mq.admin.events(reply.last_number, kinds=["controller-change"])).events
        assert event.node_id != found.controller
        assert event.text.startswith(f"{found.controller} → {event.node_id}, epoch ")

    cluster.run(mq, story())
    cluster.close()


def test_what_cannot_be_is_refused_with_what_to_do() -> None:
    cluster, mq = started(6)

    async def story() -> None:
        await mq.admin.create_topic("t", 1, 1)
        (partition,) = (await mq.admin.describe_topic("t")).partitions
        other = (partition.leader + 1) % 3
        refused = (
            (mq.admin.move_leaders({("t", 0): other}), InvalidConfig, "keeps no replica that stays"),
            (mq.admin.move_leaders({("nope", 0): 1}), UnknownTopic, "'nope' does not exist"),
            (mq.admin.move_leaders({("t", 7): 1}), UnknownTopic, "partitions 0 to 0, not 7"),
            (mq.admin.reassign({("t", 0): [1, 1]}), InvalidConfig, "must be different brokers"),
            (mq.admin.reassign({("t", 0): [9]}), InvalidConfig, "broker 9 is not registered"),
            (mq.admin.cancel_reassign([("nope", 0)]), UnknownTopic, "'nope' does not exist"),
            (mq.admin.drain_broker(9), InvalidConfig, "broker 9 is not registered"),
            (mq.admin.remove_broker(9), InvalidConfig, "broker 9 is not registered"),
        )
        for call, kind, said in refused:
            with pytest.raises(kind, match=said):
                await call
        await mq.admin.create_topic("r", 1, 3)
        await in_sync(mq)
        (replicated,) = (await mq.admin.describe_topic("r")).partitions
        away = next(node for node in replicated.replicas if node != replicated.leader)
        cluster.brokers[away].cut_power()
        await until(mq, lambda found: any(broker.is_fenced for broker in found.brokers))
        with pytest.raises(InvalidConfig, match=f"broker {away} is fenced"):
            await mq.admin.move_leaders({("r", 0): away})

    cluster.run(mq, story())
    cluster.close()
