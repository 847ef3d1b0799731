"""The parts of Raft by themselves: the log against a list, the configurations, messages as bytes, openings after odd crashes."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raft_hands import Hands
from raft_store import MemoryDisk, MemoryStore

from zmqmq.errors import CorruptLog, InvalidConfig, NotLeader
from zmqmq.metadata.quorum.core import Settings
from zmqmq.metadata.quorum.effects import Persist
from zmqmq.metadata.quorum.leading import UNCOMMITTED_BYTES_MAX
from zmqmq.metadata.quorum.log import RaftLog
from zmqmq.metadata.quorum.machine import Raft
from zmqmq.metadata.quorum.membership import Configurations, check_change
from zmqmq.metadata.quorum.messages import AppendEntries, Message, RequestVote
from zmqmq.metadata.quorum.snapshot import make
from zmqmq.metadata.quorum.state import Configuration, Entry, HardState, Member, SnapshotMeta

A, B, C, D = (Member(number, "a") for number in range(4))


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[str, int]]:
    names = st.sampled_from(["append", "term", "truncate", "save", "synced", "start"])
    return draw(st.lists(st.tuples(names, st.integers(0, 9)), max_size=60))


@given(steps())
def test_the_log_is_a_list_that_can_be_cut_at_both_ends(todo: list[tuple[str, int]]) -> None:
    disk = MemoryDisk(Configuration())
    log = RaftLog(disk.visible)
    twin: list[Entry] = []
    term, number = 1, 0
    for what, size in todo:
        if what == "append":
            entry = Entry(log.end, term, tuple(b"r" for _ in range(size % 4)))
            log.append((entry,))
            twin.append(entry)
        elif what == "term":
            term += 1
        elif what == "truncate" and twin:
            index = twin[-1 - size % len(twin)].index
            log.truncate(index)
            twin = [entry for entry in twin if entry.index < index]
        elif what == "save" and log.has_unsaved:
            number += 1
            truncate_from, entries = log.take_unsaved(number)
            disk.perform(Persist(number, None, None, log_start=log.start, truncate_from=truncate_from, entries=entries))
        elif what == "synced" and number:
            disk.sync(number)
            log.on_persisted(number)
        elif what == "start" and twin and twin[0].end <= log.tail_start:
            log.move_start(twin.pop(0).end)
        agree(log, twin)


def agree(log: RaftLog, twin: list[Entry]) -> None:
    found: list[Entry] = []
    while (found[-1].end if found else log.start) < log.end:
        found += log.read(found[-1].end if found else log.start, log.end, 200)
    assert found == twin
    assert log.persisted_end <= log.end
    assert all(log.term_at(entry.end) == entry.term for entry in twin)
    for entry in twin:
        bound, term = log.last_end_within(log.end, entry.term)
        assert bound == max(other.end for other in twin if other.term <= entry.term)
        assert term == log.term_at(bound)


@given(st.data())
def test_two_logs_find_where_they_agree_in_few_steps(data: st.DataObject) -> None:
    def grown(shared: list[Entry], terms: list[int]) -> RaftLog:
        log = RaftLog(MemoryStore(Configuration()))
        log.append(shared)
        for term in sorted(terms):
            if term >= log.last_term:
                log.append((Entry(log.end, term, (b"r",) * data.draw(st.integers(1, 4))),))
        return log

    shared = [Entry(0, 1, (b"a", b"b")), Entry(2, 1), Entry(3, 2, (b"c",))]
    # Even terms are of one leader, odd ones of the other, as terms have one leader each.
    leader = grown(shared, data.draw(st.lists(st.sampled_from([4, 6, 8]), max_size=6)))
    follower = grown(shared, data.draw(st.lists(st.sampled_from([3, 5, 7]), max_size=6)))
    end, refusals = leader.end, 0
    while not follower.holds(end, leader.term_at(end)):
        end = leader.agreeing_end(*follower.last_end_within(end, leader.term_at(end)))
        refusals += 1
        assert refusals <= 8
    assert end <= 4
    assert leader.read(end, leader.end, 1 << 20) or end == leader.end, "it is where an entry begins"


def test_a_snapshot_or_a_truncation_takes_configurations_along() -> None:
    one, two, three = (Configuration(members) for members in ((A,), (A, B), (A, B, C)))
    configurations = Configurations(0, one)
    configurations.append(5, two)
    configurations.append(9, three)
    assert [configurations.at(end) for end in (0, 4, 5, 8, 9, 20)] == [one, one, two, two, three, three]
    configurations.truncate(8)
    assert configurations.current == two
    configurations.forget_before(6)
    assert configurations.at(6) == configurations.current == two
    configurations.replace(30, three)
    assert (configurations.current, configurations.end) == (three, 30)


@pytest.mark.parametrize(
    ("new", "problem"),
    [
        (Configuration((A, B, C), (D,)), "already"),
        (Configuration((A,), (D,)), "more than one voter"),
        (Configuration((A, B, Member(9, "a"))), "more than one voter"),
        (Configuration((A, B, C, Member(9, "a"))), "without having learned"),
        (Configuration((A, B, C), (D, Member(1, "b"))), "twice"),
        (Configuration((), (A,)), "without voters"),
    ],
)
def test_a_change_that_could_split_the_quorum_is_refused(new: Configuration, problem: str) -> None:
    with pytest.raises(InvalidConfig, match=problem):
        check_change(Configuration((A, B, C), (D,)), new)


def test_messages_survive_as_bytes() -> None:
    messages: list[Message] = [
        RequestVote(A, B, 3, 4, 2, 17, is_pre_vote=True),
        AppendEntries(A, B, 3, 17, 2, (Entry(17, 3, (b"x", b"y"), 5), Entry(19, 3, configuration=Configuration((A, B), (C,)))), 9, 1),
    ]
    for message in messages:
        assert msgspec.msgpack.Decoder(Message).decode(msgspec.msgpack.encode(message)) == message


def test_entries_that_outlived_their_term_bring_it_back_without_a_vote() -> None:
    store = MemoryStore(Configuration((A, B, C)))
    store.hard_state = HardState(3, B)
    store.entries = [Entry(0, 3), Entry(1, 5)]
    raft = Raft(A, Settings(), store, random.Random(0))
    assert raft.term == 5
    assert raft._core.hard_state.vote is None


def test_a_snapshot_whose_log_was_not_replaced_any_more_wins() -> None:
    store = MemoryStore(Configuration((A, B, C)))
    store.entries = [Entry(0, 1), Entry(1, 1), Entry(2, 1)]
    snapshot = make(2, 4, Configuration((A, B)), b"state")
    store.snapshot, store.data = snapshot.meta, snapshot.data
    raft = Raft(A, Settings(), store, random.Random(0))
    assert (raft.log_end, raft.commit_end, raft.configuration) == (2, 2, Configuration((A, B)))
    persist = raft.take_effects()[0]
    assert isinstance(persist, Persist)
    store.perform(persist)
    assert (store.start, store.start_term, store.entries) == (2, 4, [])


@pytest.mark.parametrize("damage", ["bytes", "gap", "hole"])
def test_a_damaged_disk_is_refused_at_the_opening(damage: str) -> None:
    store = MemoryStore(Configuration((A,)))
    store.entries = [Entry(0, 1), Entry(1, 1), Entry(2, 1)]
    snapshot = make(1, 1, Configuration((A,)), b"state")
    store.snapshot, store.data = snapshot.meta, snapshot.data
    if damage == "bytes":
        store.data = b"State"
    elif damage == "gap":
        store.start, store.entries = 2, store.entries[2:]
    else:
        store.entries = [Entry(0, 1), Entry(2, 1)]
        store.read = lambda start, end, bytes_max: tuple(entry for entry in store.entries if entry.index >= start)[:1]  # type: ignore[method-assign]
    with pytest.raises(CorruptLog):
        Raft(A, Settings(), store, random.Random(0))


def test_a_leader_refuses_what_would_wait_without_bound() -> None:
    hands = Hands(3)
    hands.campaign(1, [2])
    hands.deliver(1, 2, 3)
    size = 400 << 10
    for proposal_id in range(UNCOMMITTED_BYTES_MAX // size + 5):
        hands.propose(1, b"x" * size, proposal_id)
    assert {type(event).__name__ for event in hands.events[1][-3:]} == {"Refused"}
    sent = [message for message in hands.mail if isinstance(message, AppendEntries) and message.target == Member(2, "a")]
    in_flight = sum(entry.size_bytes for message in sent for entry in message.entries)
    assert in_flight <= hands.settings.in_flight_bytes_max + hands.settings.message_bytes
    hands.propose(1, b"x" * (600 << 10), 10_000)
    assert "the limit is" in str(hands.events[1][-1].error)


def test_who_does_not_lead_says_so() -> None:
    hands = Hands(3)
    hands.propose(2, b"x", 4)
    hands[2].barrier(5, hands.now_ms)
    hands.turn(2)
    assert [type(event).__name__ for event in hands.events[2]] == ["Refused", "BarrierLost"]
    with pytest.raises(NotLeader):
        hands[2].transfer(Member(1, "a"), hands.now_ms)


def test_a_member_that_joins_with_an_empty_configuration_waits_to_be_told() -> None:
    raft = Raft(D, Settings(), MemoryStore(Configuration()), random.Random(0))
    raft.start(0)
    assert raft.next_deadline_ms() is None
    assert raft.configuration == Configuration()
    assert SnapshotMeta().end == 0


def test_a_heartbeat_that_is_too_rare_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="at most half"):
        Settings(heartbeat_ms=200, election_timeout_ms=300)
