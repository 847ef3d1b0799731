"""A log that refuses: the controller neither spins nor forgets."""

from __future__ import annotations

from metadata.test_active_controller import with_topic

from zmqmq.metadata.controlling import CALM_MS


def test_after_a_refused_append_nothing_is_decided_for_a_moment_and_then_it_is() -> None:
    made = with_topic()
    made.active.on_evidence(0, made.now_ms)
    made.turn()
    made.refuse()
    made.active.on_evidence(0, made.now_ms)
    made.turn()
    assert made.log == [], "a decision that is refused at once would be made again and again in one round"
    due_ms = made.active.next_deadline_ms
    assert due_ms is not None
    assert due_ms <= made.now_ms + CALM_MS
    made.now_ms += CALM_MS
    made.commit()
    assert made.image.brokers[0].is_fenced
