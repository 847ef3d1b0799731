"""Stories that random search finds seldom: each is one that the paper, the thesis, or somebody's cluster tells."""

from __future__ import annotations

import msgspec
import pytest
from raft_hands import Hands
from raft_world import World

from zmqmq.errors import LogOffline, Throttled
from zmqmq.metadata.log import BarrierLost, Leader, Lost, Passed, Refused, SnapshotNeeded, Unknown
from zmqmq.metadata.quorum.core import Settings
from zmqmq.metadata.quorum.effects import Apply, SnapshotWanted
from zmqmq.metadata.quorum.messages import AppendEntries, AppendReply, InstallSnapshot, RequestVote, TimeoutNow, Vote
from zmqmq.metadata.quorum.state import Configuration, Entry, HardState, Member, SnapshotMeta


def member(number: int) -> Member:
    return Member(number, "a")


def of(hands: Hands, number: int, kind: type) -> list:
    return [event for event in hands.events[number] if isinstance(event, kind)]


def test_figure_8_an_entry_of_an_old_term_is_not_committed_by_counting() -> None:
    hands = Hands(5)
    hands.campaign(1, [2, 3, 4])
    hands.deliver(1, 2, 3, 4, 5)
    hands.propose(1, b"old")
    hands.deliver(1, 2)
    hands.crash(1)
    hands.campaign(5, [3, 4])
    hands.crash(5)
    hands.open(1)
    hands.campaign(1, [2, 3])
    refusal = hands.take(AppendEntries, 1, 3)
    hands.tell(refusal)
    hands.tell(hands.take(AppendReply, 3, 1))
    carried = hands.take(AppendEntries, 1, 3)
    assert [entry.records for entry in carried.entries] == [(b"old",)], "the old entry travels without the no-op"
    hands.tell(carried)
    hands.tell(hands.take(AppendReply, 3, 1))
    probe = hands.take(AppendEntries, 1, 2)
    hands.tell(msgspec.structs.replace(probe, entries=()))
    hands.tell(hands.take(AppendReply, 2, 1))

    assert hands[1]._role.followers[member(2)].match_end == hands[1]._role.followers[member(3)].match_end == 2
    assert hands[1].commit_end < 2, "three of five hold it, and it may still go away"
    hands.crash(1)
    hands.open(5)
    hands.campaign(5, [3, 4])
    hands.deliver(2, 3, 4, 5)
    assert all(b"old" not in hands.texts(number) for number in (2, 3, 4, 5))
    assert hands[5].commit_end == hands[5].log_end


def test_a_newer_term_beats_a_longer_log_and_a_longer_log_an_equal_one() -> None:
    hands = Hands(3)
    hands.campaign(1, [2])
    hands.deliver(1, 2, 3)
    for number in range(5):
        hands.propose(1, b"lost %d" % number)
    hands.campaign(2, [3])
    hands.deliver(2, 3)
    hands.later()
    for last_term, log_end, is_granted in ((1, 6, False), (2, 1, False), (2, 2, True), (3, 1, True)):
        hands.tell(RequestVote(member(1), member(3), 2, 3, last_term, log_end, is_pre_vote=True))
        assert hands.take(Vote, 3, 1).is_granted == is_granted


def test_an_old_entry_is_committed_with_one_of_the_own_term() -> None:
    hands = Hands(3)
    hands.campaign(1, [2])
    hands.deliver(1, 2, 3)
    hands.propose(1, b"kept")
    hands.deliver(1, 2)
    hands.crash(1)
    hands.campaign(2, [3])
    hands.deliver(2, 3)
    assert hands.texts(2) == hands.texts(3) == [b"kept"]


def test_without_an_own_entry_committed_the_quorum_does_not_change() -> None:
    """2015: S1's unfinished addition of S5 and S2's removal of S1 would be decided by quorums without a common member."""
    hands = Hands(4, learners=1)
    five, without = (
        Configuration(tuple(map(member, (1, 2, 3, 4, 5)))),
        Configuration(tuple(map(member, (2, 3, 4))), (member(5),)),
    )
    hands.campaign(1, [2, 3, 4])
    hands.deliver(1, 2, 3, 4, 5)
    hands.change(1, five)
    hands.deliver(1, 5)
    hands.campaign(2, [3, 4])
    hands.change(2, without)
    hands.deliver(2, 3)
    refused = of(hands, 2, Refused)
    assert len(refused) == 1
    assert isinstance(refused[0].error, Throttled)
    assert hands[2].configuration == hands.configuration

    hands.later(100)
    hands.tick(2)
    hands.deliver(2, 3, 4)
    hands.change(2, without, proposal_id=2)
    assert hands[2].configuration == without
    hands.later()
    hands.mail.clear()
    hands.tick(1)
    assert not hands[1].is_leader
    hands.deliver(1, 4, 5)
    assert not hands[1].is_leader, "4 has an entry of the newer term"


def test_a_configuration_goes_with_its_truncated_entry() -> None:
    hands = Hands(3, learners=1)
    four = Configuration(tuple(map(member, (1, 2, 3, 4))))
    hands.campaign(1, [2])
    hands.deliver(1, 2, 3, 4)
    hands.change(1, four)
    assert hands[1].configuration == four, "it counts as soon as it is in the log"
    hands.campaign(2, [3])
    hands.deliver(1, 2, 3, 4)
    assert hands[1].configuration == hands.configuration
    assert of(hands, 1, Unknown)


def test_only_one_voter_changes_at_a_time() -> None:
    hands = Hands(3, learners=2)
    hands.campaign(1, [2])
    hands.deliver(1, 2, 3, 4, 5)
    four, five = Configuration(tuple(map(member, (1, 2, 3, 4))), (member(5),)), Configuration(tuple(map(member, (1, 2, 3, 4, 5))))
    hands.change(1, five)
    assert "more than one voter" in str(of(hands, 1, Refused)[-1].error)
    hands.change(1, four, 2)
    hands.change(1, five, 3)
    assert of(hands, 1, Refused)[-1].proposal_id == 3
    hands.deliver(1, 2, 3, 4, 5)
    hands.change(1, five, 4)
    hands.deliver(1, 2, 3, 4, 5)
    assert hands[5].configuration == five


def test_a_leader_that_is_removed_leads_until_that_is_committed_and_hands_over() -> None:
    hands = Hands(3)
    hands.campaign(1, [2])
    hands.deliver(1, 2, 3)
    hands.change(1, Configuration((member(2), member(3))))
    assert hands[1].is_leader
    hands.deliver(1, 2, 3)
    assert not hands[1].is_leader
    assert of(hands, 1, Lost)[-1].reason == "it was removed from the quorum"
    assert hands[2].is_leader or hands[3].is_leader
    assert hands[1].next_deadline_ms() is None, "it stands for election no more"


def test_a_removed_member_whose_removal_is_not_committed_may_still_be_elected() -> None:
    """Thesis 4.2.2: of two members only the leader has the entry that removes it; the other cannot win without it."""
    hands = Hands(2)
    hands.campaign(1, [2])
    hands.deliver(1, 2)
    hands.change(1, Configuration((member(2),)))
    hands.crash(1)
    hands.open(1)
    hands.later()
    hands.tick(1)
    for _ in range(2):
        hands.tell(hands.take(RequestVote, 1, 2))
        hands.tell(hands.take(Vote, 2, 1))
    assert hands[1].is_leader
    hands.deliver(1, 2)
    assert hands[2].is_leader
    assert hands[2].configuration.voters == (member(2),)


def test_a_vote_leaves_only_when_it_is_synced_and_outlives_a_crash() -> None:
    hands = Hands(3)
    request = RequestVote(member(1), member(2), 1, 1, 0, 0)
    hands.syncs = False
    hands.tell(request)
    assert hands.mail == []
    hands.sync(2)
    assert hands.take(Vote, 2, 1).is_granted
    hands.crash(2)
    hands.open(2)
    hands.syncs = True
    hands.tell(msgspec.structs.replace(request, source=member(3)))
    assert not hands.take(Vote, 2, 3).is_granted
    hands.tell(request)
    assert hands.take(Vote, 2, 1).is_granted, "the same vote may be said again"


def test_a_vote_that_was_not_synced_was_never_given() -> None:
    hands = Hands(3)
    hands.syncs = False
    hands.tell(RequestVote(member(1), member(2), 1, 1, 0, 0))
    hands.crash(2)
    assert hands.disks[2].synced.hard_state == HardState()
    hands.open(2)
    hands.syncs = True
    hands.tell(RequestVote(member(3), member(2), 1, 1, 0, 0))
    assert hands.take(Vote, 2, 3).is_granted


def test_a_candidate_counts_its_own_vote_when_it_is_synced() -> None:
    hands = Hands(3)
    hands.later()
    hands.tick(1)
    hands.tell(hands.take(RequestVote, 1, 2))
    hands.syncs = False
    hands.tell(hands.take(Vote, 2, 1))
    assert not [message for message in hands.mail if isinstance(message, RequestVote) and not message.is_pre_vote]
    hands[1].on_message(Vote(member(2), member(1), 1, 1, is_granted=True), hands.now_ms)
    hands.turn(1)
    assert not hands[1].is_leader
    hands.sync(1)
    assert hands[1].is_leader


def test_a_leader_alone_commits_when_it_synced_and_not_before() -> None:
    hands = Hands(1)
    assert of(hands, 1, Leader) == [Leader(1, 1)]
    hands.syncs = False
    hands.propose(1, b"x")
    assert hands.texts(1) == []
    hands.sync(1)
    assert hands.texts(1) == [b"x"]


def test_a_follower_answers_for_entries_when_they_are_synced_and_for_heartbeats_at_once() -> None:
    hands = Hands(3)
    hands.campaign(1, [2])
    hands.deliver(1, 2, 3)
    hands.syncs = False
    hands.propose(1, b"x")
    hands.tell(hands.take(AppendEntries, 1, 2))
    assert not [message for message in hands.mail if message.source == member(2)]
    hands.later(100)
    hands.tick(1)
    hands.tell(hands.take(AppendEntries, 1, 2))
    assert hands.take(AppendReply, 2, 1).match_end == 1, "alive, and with what it has on disk"
    hands.sync(2)
    assert hands.take(AppendReply, 2, 1).match_end == 2


def test_a_conflict_costs_one_refusal_for_each_term_not_for_each_entry() -> None:
    hands = Hands(3)
    hands.campaign(1, [2])
    hands.deliver(1, 2, 3)
    for number in range(50):
        hands.propose(1, b"lost %d" % number)
    hands.campaign(2, [3])
    hands.deliver(2, 3)
    for number in range(50):
        hands.propose(2, b"kept %d" % number)
    hands.deliver(2, 3)
    hands.later()
    hands.tick(2)  # no majority answered
    hands.campaign(3, [2])
    refusals = 0
    for _ in range(20):
        mail, hands.mail = hands.mail, []
        refusals += sum(isinstance(message, AppendReply) and not message.is_accepted for message in mail)
        for message in mail:
            hands.tell(message)
    assert hands[1].log_end == hands[3].log_end
    assert 1 <= refusals <= 3


def test_a_member_that_differs_before_the_start_of_the_leaders_log_gets_the_snapshot() -> None:
    hands = Hands(3)
    hands.campaign(1, [2])
    hands.deliver(1, 2, 3)
    for number in range(9):
        hands.propose(1, b"lost %d" % number)
    hands.crash(1)
    hands.campaign(2, [3])
    hands.deliver(2, 3)
    for text in (b"a", b"b", b"c"):
        hands.propose(2, text)
        hands.deliver(2, 3)
        hands[2].save_snapshot(hands[2].commit_end, b"state after " + text)
        hands.turn(2)
    hands.open(1)
    for _ in range(8):
        heartbeat(hands, 2, 1, 3)
    assert hands.restored(1)
    assert hands[1].commit_end == hands[2].commit_end


def test_a_delayed_append_takes_nothing_back() -> None:
    hands = Hands(3)
    hands.campaign(1, [2])
    hands.deliver(1, 2, 3)
    hands.propose(1, b"a")
    late = hands.take(AppendEntries, 1, 2)
    hands.tell(late)
    hands.deliver(1, 2, 3)
    hands.propose(1, b"b")
    hands.deliver(1, 2, 3)
    hands.tell(late)
    assert hands[2].log_end == 3
    assert hands.take(AppendReply, 2, 1).match_end >= 2


def snapshot_story(settings: Settings | None = None) -> Hands:
    """1 leads; 3 heard nothing since the start, and what it needs is only in a snapshot."""
    hands = Hands(3, settings=settings)
    hands.campaign(1, [2])
    hands.deliver(1, 2)
    for text in (b"a", b"b"):
        hands.propose(1, text)
        hands.deliver(1, 2)
        hands[1].save_snapshot(hands[1].commit_end, b"state after " + text)
        hands.turn(1)
    hands.propose(1, b"c")
    hands.deliver(1, 2)
    return hands


def first_part(hands: Hands) -> InstallSnapshot:
    """Taken out of the mail from 1 to 3."""
    for _ in range(8):
        hands.later(100)
        hands.tick(1)
        mail, hands.mail = hands.mail, []
        parts = [message for message in mail if isinstance(message, InstallSnapshot) and message.data]
        if parts:
            return parts[0]
        for message in mail:
            if message.target == member(2):
                hands.tell(message)
        hands.deliver(1, 2)
    raise AssertionError("no part was sent")


def heartbeat(hands: Hands, *numbers: int) -> None:
    hands.later(100)
    hands.tick(numbers[0])
    hands.deliver(*numbers)


def test_a_member_that_missed_too_much_gets_a_snapshot_in_parts_and_then_the_rest() -> None:
    hands = snapshot_story(Settings(chunk_bytes=4))
    assert hands[1].read(0, 1_000) == SnapshotNeeded(3)
    for _ in range(3):
        heartbeat(hands, 1, 2, 3)
    assert hands.restored(3) == [3]
    assert hands.texts(3) == [b"c"]
    hands.crash(3)
    hands.open(3)
    assert hands.restored(3) == [3]


def test_a_stale_snapshot_takes_nothing_back() -> None:
    hands = snapshot_story()
    stale = first_part(hands)
    hands.tell(stale)
    hands.deliver(1, 2, 3)
    heartbeat(hands, 1, 2, 3)
    assert hands[3].commit_end == 4
    hands.tell(stale)
    assert hands.restored(3) == [3]
    assert hands[3].commit_end == hands[3].log_end == 4
    assert hands.take(AppendReply, 3, 1).match_end == 4


@pytest.mark.parametrize("where", ["on the way", "on the leader's disk"])
def test_a_damaged_snapshot_is_never_applied(where: str) -> None:
    hands = snapshot_story()
    if where == "on the leader's disk":
        hands.disks[1].visible.data = b"State after b"
    part = first_part(hands)
    hands.tell(part if where == "on the leader's disk" else msgspec.structs.replace(part, data=b"State after b"))
    hands.deliver(1, 2, 3)
    assert hands.restored(3) == []
    if where == "on the leader's disk":
        assert of(hands, 1, SnapshotWanted)
        hands[1].save_snapshot(part.snapshot.end, b"state after b")
        hands.turn(1)
    for _ in range(8):
        heartbeat(hands, 1, 2, 3)
    assert len(hands.restored(3)) == 1


def test_the_snapshot_has_the_configuration_of_its_end() -> None:
    hands = Hands(3, learners=1)
    hands.campaign(1, [2])
    hands.deliver(1, 2, 3, 4)
    end = hands[1].commit_end
    hands.change(1, Configuration(tuple(map(member, (1, 2, 3, 4)))))
    hands[1].save_snapshot(end, b"state")
    hands.turn(1)
    assert hands.disks[1].synced.snapshot.configuration == hands.configuration


def test_a_barrier_of_a_deposed_leader_never_passes() -> None:
    hands = Hands(3)
    hands.campaign(1, [2])
    hands.deliver(1, 2, 3)
    hands.campaign(2, [3])
    hands.deliver(2, 3)
    hands.propose(2, b"unseen")
    hands.deliver(2, 3)
    hands[1].barrier(7, hands.now_ms)
    hands.turn(1)
    assert of(hands, 1, Passed) == []
    hands.deliver(1, 2, 3)
    assert of(hands, 1, Passed) == []
    assert of(hands, 1, BarrierLost)[0].token == 7


def test_a_barrier_passes_after_a_round_and_writes_nothing() -> None:
    hands = Hands(3)
    hands.campaign(1, [2])
    hands.deliver(1, 2, 3)
    end = hands[1].log_end
    hands[1].barrier(7, hands.now_ms)
    hands.turn(1)
    assert of(hands, 1, Passed) == []
    hands.deliver(1, 2)
    assert of(hands, 1, Passed) == [Passed(7)]
    assert hands[1].log_end == end


def test_a_barrier_waits_for_the_first_entry_of_a_new_leader() -> None:
    hands = Hands(3)
    hands.campaign(1, [2])
    hands.deliver(1, 2, 3)
    hands.propose(1, b"x")
    hands.deliver(1, 2, 3)
    hands.campaign(2, [3])
    hands[2].barrier(7, hands.now_ms)
    hands.turn(2)
    for message in [message for message in hands.mail if message.target == member(3)]:
        hands.tell(msgspec.structs.replace(message, entries=()))
    for message in [message for message in hands.mail if isinstance(message, AppendReply)]:
        hands.tell(message)
    assert of(hands, 2, Passed) == []
    hands.later(100)
    hands.tick(2)
    hands.deliver(2, 3)
    assert of(hands, 2, Passed) == [Passed(7)]


def test_the_lead_is_handed_over_to_a_member_that_has_everything() -> None:
    hands = Hands(3)
    hands.campaign(1, [2])
    hands.deliver(1, 2)
    hands.propose(1, b"x")
    hands[1].transfer(member(3), hands.now_ms)
    hands.turn(1)
    assert not [message for message in hands.mail if isinstance(message, TimeoutNow)], "3 does not have everything yet"
    hands.propose(1, b"refused", 9)
    assert of(hands, 1, Refused)[-1].proposal_id == 9
    heartbeat(hands, 1, 2, 3)
    assert hands[3].is_leader
    assert of(hands, 1, Lost)
    assert hands.texts(3) == [b"x"]


def test_a_transfer_that_is_not_taken_up_ends_and_the_leader_goes_on() -> None:
    hands = Hands(3)
    hands.campaign(1, [2])
    hands.deliver(1, 2, 3)
    hands[1].transfer(member(3), hands.now_ms)
    hands.turn(1)
    hands.deliver(1, 2)
    for _ in range(4):
        heartbeat(hands, 1, 2)
    hands.propose(1, b"again")
    hands.deliver(1, 2)
    assert hands.texts(1) == [b"again"]


def test_what_may_be_in_the_log_is_unknown_when_the_lead_is_lost_and_told_later() -> None:
    hands = Hands(3)
    hands.campaign(1, [2])
    hands.deliver(1, 2, 3)
    hands.propose(1, b"kept", 1)
    hands.deliver(1, 2)
    hands.propose(1, b"maybe", 2)
    hands.tell(hands.take(AppendEntries, 1, 2))
    hands.campaign(2, [3])
    hands.deliver(1, 2, 3)
    assert [event.proposal_id for event in of(hands, 1, Unknown)] == [2]
    assert [(entry.term, entry.proposal_id) for apply in of(hands, 1, Apply) for entry in apply.entries if entry.records] == [
        (1, 1),
        (1, 2),
    ]


def test_a_member_whose_disk_failed_is_silent() -> None:
    hands = Hands(1)
    hands.propose(1, b"x", 3)
    hands.syncs = False
    hands.propose(1, b"y", 4)
    hands[1].on_offline(LogOffline("sync failed"))
    hands.turn(1)
    assert [event.proposal_id for event in of(hands, 1, Unknown)] == [4]
    assert of(hands, 1, Lost)
    hands.propose(1, b"z", 5)
    assert of(hands, 1, Refused)[-1].proposal_id == 5
    assert hands[1].next_deadline_ms() is None


def test_another_directory_under_the_same_node_id_is_somebody_else() -> None:
    hands = Hands(3)
    hands.tell(RequestVote(member(1), Member(2, "wiped"), 1, 1, 0, 0))
    assert hands.mail == []
    hands.later()
    hands.tick(1)
    hands.tell(Vote(Member(2, "wiped"), member(1), 0, 1, is_granted=True, is_pre_vote=True))
    hands.tell(Vote(Member(3, "wiped"), member(1), 0, 1, is_granted=True, is_pre_vote=True))
    assert hands[1].term == 0, "their votes are nobody's"


@pytest.mark.parametrize(
    "entries",
    [(Entry(5, 1, (b"x",)),), (Entry(1, 0, (b"x",)),), (Entry(1, 9, (b"x",)),)],
    ids=["a gap", "an older term than the one before", "a term to come"],
)
def test_an_append_that_no_leader_can_have_sent_changes_nothing(entries: tuple[Entry, ...]) -> None:
    hands = Hands(3)
    hands.campaign(1, [2])
    hands.deliver(1, 2, 3)
    hands.tell(AppendEntries(member(1), member(2), 1, 1, 1, entries, 1, 0))
    assert hands[2].log_end == 1


def test_an_impostor_of_the_same_term_changes_nothing() -> None:
    hands = Hands(3)
    hands.campaign(1, [2])
    hands.deliver(1, 2, 3)
    hands.tell(AppendEntries(member(3), member(1), 1, 0, 0, (Entry(0, 1, (b"x",)),), 1, 0))
    assert hands[1].is_leader
    hands.tell(InstallSnapshot(member(1), member(2), 1, SnapshotMeta(9, 7, hands.configuration), 0, b"", 0, 1))
    assert hands.restored(2) == []
    hands.tell(AppendEntries(member(1), member(2), 1, 0, 0, (Entry(0, 0), Entry(1, 0, (b"x",))), 2, 0))
    assert hands[2].log_end == 1


def calm(voters: int, settings: Settings) -> World:
    world = World(1, voters, settings)
    world.wait(world.leader)
    world.run_ms(300)
    return world


def test_a_member_that_comes_back_disturbs_nobody_with_pre_vote() -> None:
    for has_pre_vote in (True, False):
        world = calm(3, Settings(has_pre_vote=has_pre_vote))
        leader = world.leader()
        assert leader is not None
        assert leader.raft is not None
        term = leader.raft.term
        follower = next(node for node in world.nodes.values() if node is not leader)
        world.isolate(follower.member.node_id)
        world.run_ms(3_000)
        world.blocked.clear()
        world.run_ms(2_000)
        assert follower.raft is not None
        assert (follower.raft.term == term and leader.is_leader) == has_pre_vote


def test_a_leader_that_nobody_can_answer_gives_up_with_check_quorum() -> None:
    for has_check_quorum in (True, False):
        world = calm(3, Settings(has_check_quorum=has_check_quorum))
        deaf = world.leader()
        assert deaf is not None
        world.blocked = {(node.member.node_id, deaf.member.node_id) for node in world.nodes.values()}
        world.run_ms(2_500)
        assert deaf.is_leader != has_check_quorum
        assert any(node.is_leader for node in world.nodes.values() if node is not deaf) == has_check_quorum


def test_a_leader_without_a_majority_stops_within_an_election_timeout() -> None:
    world = calm(5, Settings())
    leader = world.leader()
    assert leader is not None
    world.isolate(leader.member.node_id)
    world.wait(lambda: leader.told is None, 2 * world.settings.election_timeout_ms)


def test_a_slow_disk_of_the_followers_does_not_end_a_leadership() -> None:
    world = calm(3, Settings())
    leader = world.leader()
    assert leader is not None
    world.weather.sync_ms = (1_500.0, 1_600.0)
    leader.propose((b"slow",))
    world.run_ms(1_400)
    assert leader.is_leader
    world.wait(lambda: world.acked == 1)
