"""A leader whose partitions all want another in-sync set at once: it asks for some at a time, and for all in the end."""

from __future__ import annotations

from test_replica_following import leading

from zmqmq.replication.insync import LAG_MS_MAX, PROPOSAL_RETRY_MS, Leadership
from zmqmq.replication.leading import CHECK_MS, PROPOSALS_UNDER_WAY_MAX

OVERDUE_MS = LAG_MS_MAX + CHECK_MS
COUNT = 2 * PROPOSALS_UNDER_WAY_MAX + 1


def test_the_next_ones_are_proposed_when_the_image_shows_those_before() -> None:
    made, _leaders = leading(COUNT, end=4)
    made.take_proposals(LAG_MS_MAX)
    rounds = []
    while proposals := made.take_proposals(OVERDUE_MS):
        assert made.take_proposals(OVERDUE_MS) == [], "these are under way"
        rounds.append(len(proposals))
        for each in proposals:
            made.on_leadership(each.partition, Leadership(1, (0,), each.partition_epoch + 1, (0, 1)), OVERDUE_MS)
    assert rounds == [PROPOSALS_UNDER_WAY_MAX, PROPOSALS_UNDER_WAY_MAX, 1]


def test_those_without_an_answer_come_again_after_those_that_were_not_sent() -> None:
    made, _leaders = leading(COUNT, end=4)
    made.take_proposals(LAG_MS_MAX)
    seen = [made.take_proposals(OVERDUE_MS + turn * PROPOSAL_RETRY_MS) for turn in range(3)]
    assert [len(proposals) for proposals in seen] == [PROPOSALS_UNDER_WAY_MAX] * 3
    assert len({each.partition for proposals in seen for each in proposals}) == COUNT
