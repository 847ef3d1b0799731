"""A broker's place in its cluster: until when it may lead, and whose requests it sends on to the controller."""

from __future__ import annotations

import random

import msgspec
import pytest

from zmqmq.broker.forwarding import REPEAT_MS, SERVED_MAX, Forwarding, Served
from zmqmq.broker.membership import Membership
from zmqmq.errors import BrokerUnavailable, OutcomeUnknown
from zmqmq.metadata.image import ClusterImage, apply
from zmqmq.metadata.messages import HEARTBEAT_MS, LEASE_MS, Forward, Forwarded, Heartbeat, HeartbeatReply, RegisterBroker
from zmqmq.metadata.records import BrokerRegistered
from zmqmq.wire.requests import CreateTopic, InitProducer, Request

ME, CONTROLLER, OTHER = 1, 2, 3
START = b"this one"
FRAMES = [b"request"]
CREATE = CreateTopic(7, 5_000, "t")


def member() -> Membership:
    return Membership(RegisterBroker(ME, "directory", START, "tcp://h:1", "", "", "", "", "v", is_intact=True, settings="s"))


def shown(incarnation: bytes = START) -> ClusterImage:
    """What the metadata log says once the process of ``incarnation`` is registered."""
    return apply(ClusterImage(), [BrokerRegistered(ME, "directory", "tcp://h:1", "", "v", "", "", "", "s", incarnation)])


def registered() -> Membership:
    made = member()
    made.on_controller(CONTROLLER)
    made.on_image(shown())
    return made


def reply(beat: Heartbeat, *, is_fenced: bool = False) -> HeartbeatReply:
    return HeartbeatReply(ME, beat.broker_epoch, beat.sent_ms, 1, is_fenced, may_stop=False)


def beat_at(made: Membership, now_ms: int) -> Heartbeat:
    (outgoing,) = made.on_time(now_ms)
    assert isinstance(outgoing.body, Heartbeat)
    return outgoing.body


def test_a_broker_leads_for_the_time_of_its_lease_from_when_it_sent_the_heartbeat() -> None:
    made = registered()
    beat = beat_at(made, 1_000)
    assert not made.may_lead(1_000)
    made.on_reply(reply(beat))
    assert made.may_lead(1_000 + LEASE_MS - 1)
    assert not made.may_lead(1_000 + LEASE_MS)
    assert made.lease_end_ms() == 1_000 + LEASE_MS


def test_late_and_overtaken_replies_do_not_shorten_or_lengthen_a_lease() -> None:
    made = registered()
    first, second = beat_at(made, 1_000), beat_at(made, 1_000 + HEARTBEAT_MS)
    made.on_reply(reply(second))
    made.on_reply(reply(first))
    assert made.lease_end_ms() == 1_000 + HEARTBEAT_MS + LEASE_MS


def test_a_reply_that_says_fenced_gives_no_lease() -> None:
    made = registered()
    made.on_reply(reply(beat_at(made, 1_000), is_fenced=True))
    assert not made.may_lead(1_001)


def test_a_broker_whose_node_id_another_process_has_taken_leads_no_more() -> None:
    made = registered()
    made.on_reply(reply(beat_at(made, 1_000)))
    made.on_image(shown(b"another"))
    assert not made.may_lead(1_001)


def numbered(message: Forward, number: int) -> Forward:
    return msgspec.structs.replace(message, number=number)


def forwarding() -> Forwarding:
    return Forwarding(ME, 100)


@pytest.mark.parametrize("order", range(4))
def test_a_request_that_comes_again_is_carried_out_once(order: int) -> None:
    """Sent again before, between and after, in any order."""
    made, served = forwarding(), Served()
    made.forward(b"client", CREATE, FRAMES, 0)
    sent = made.take_messages(CONTROLLER, 0) + made.take_messages(CONTROLLER, REPEAT_MS) + made.take_messages(CONTROLLER, 2 * REPEAT_MS)
    assert len(sent) == 3
    random.Random(order).shuffle(sent)
    source = served.begin(sent[0])
    assert isinstance(source, bytes)
    assert served.begin(sent[1]) is None
    answer = served.finish(source, [b"done"], 5)
    assert served.begin(sent[2]) == [b"done"]
    made.on_answer(answer)
    made.on_answer(answer)
    assert [found.frames for found in made.take_answers(CONTROLLER, 5, 1_000)] == [(b"done",)]


def test_an_answer_waits_until_its_broker_has_applied_what_it_tells_of() -> None:
    made = forwarding()
    made.forward(b"client", CREATE, FRAMES, 0)
    (sent,) = made.take_messages(CONTROLLER, 0)
    made.on_answer(Forwarded(ME, sent.number, [b"done"], 5))
    assert made.take_answers(CONTROLLER, 4, 10) == []
    assert len(made.take_answers(CONTROLLER, 5, 11)) == 1


def test_when_the_controller_changes_what_was_sent_to_the_last_one_is_unknown_and_not_asked_again() -> None:
    made = forwarding()
    made.forward(b"client", CREATE, FRAMES, 0)
    made.take_messages(CONTROLLER, 0)
    (answer,) = made.take_answers(OTHER, 0, 10)
    assert isinstance(answer.error, OutcomeUnknown)
    assert made.take_messages(OTHER, 10) == []


def test_what_may_be_done_twice_is_asked_of_the_next_controller() -> None:
    made = forwarding()
    made.forward(b"client", InitProducer(7, 5_000), FRAMES, 0)
    made.take_messages(CONTROLLER, 0)
    assert made.take_answers(OTHER, 0, 10) == []
    assert len(made.take_messages(OTHER, 10)) == 1


@pytest.mark.parametrize(("controller", "error"), [(None, BrokerUnavailable), (CONTROLLER, OutcomeUnknown)])
def test_at_its_deadline_a_request_is_answered_whatever_happened(controller: int | None, error: type[Exception]) -> None:
    made = forwarding()
    request: Request = CREATE
    made.forward(b"client", request, FRAMES, 0)
    made.take_messages(controller, 0)
    assert made.take_answers(controller, 0, CREATE.timeout_ms - 1) == []
    (answer,) = made.take_answers(controller, 0, CREATE.timeout_ms)
    assert isinstance(answer.error, error)


def test_a_controller_remembers_a_bounded_number_of_answers() -> None:
    made, served = forwarding(), Served()
    made.forward(b"client", CREATE, FRAMES, 0)
    (first,) = made.take_messages(CONTROLLER, 0)
    sources = {served.begin(numbered(first, number)) for number in range(SERVED_MAX + 1)}
    assert len(sources) == SERVED_MAX + 1
    assert isinstance(served.begin(numbered(first, 0)), bytes)
    assert served.begin(numbered(first, SERVED_MAX)) is None
