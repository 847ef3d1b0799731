"""The client without its sockets: sessions, metadata, questions, senders and fetchers, put together.

Facts come in (``on_connected``, ``on_lost``, ``on_message``, ``on_drained``, ``advance``), effects go out
(``take_effects``). It belongs to one thread and asks for no time of its own; ``next_deadline_ms`` says when to
call ``advance`` at the latest. The sync client drives it from its I/O thread, the simulator from its event loop.

Invariant: every question is answered exactly once, at its deadline at the latest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from zmqmq.client.fetcher import ANSWER_MS, FETCH_BYTES_MAX, FetchCall, Fetcher, OffsetsCall
from zmqmq.client.routing import NO_LEADER, Routing
from zmqmq.client.sender import Identity, IdentityCall, ProduceCall, Sender
from zmqmq.client.session import Answer, Build, Done, Effect, Session, State
from zmqmq.errors import BrokerUnavailable, FatalError, OutcomeUnknown, ZmqmqError
from zmqmq.ports import Buffer, Random
from zmqmq.wire.framing import raised
from zmqmq.wire.replies import ErrorReply, InitProducerReply, MetadataReply
from zmqmq.wire.requests import Fetch, GetMetadata, InitProducer, ListOffsets, Produce, ProduceEntry, Request

ANY_BROKER: Final = -1
METADATA_MS: Final = 1_000
SILENCE_MS: Final = 800
"""A broker that owes an answer for so long, beyond any long poll, may be stopped: the others are asked who leads."""
IDENTITY_MS: Final = 5_000
SOFTWARE: Final = "zmqmq-python"

Answered: TypeAlias = Callable[[Answer], None]


class _Question:
    """A request of the application. ``is_safe``: asking twice does no harm, so a lost one is asked again."""

    __slots__ = ("answered", "asked_times", "build", "deadline_ms", "is_safe", "node", "what")

    def __init__(self, build: Build, node: int, deadline_ms: int, answered: Answered, *, is_safe: bool, what: str) -> None:
        self.build = build
        self.node = node
        self.deadline_ms = deadline_ms
        self.answered = answered
        self.is_safe = is_safe
        self.what = what
        self.asked_times = 0


class ClientCore:
    """See the module. ``addresses`` are the brokers to begin with; others are learned from metadata."""

    def __init__(self, addresses: Sequence[str], *, client_id: str, random: Random) -> None:
        self.routing = Routing()
        self._addresses = list(addresses)
        self._client_id = client_id
        self._random = random
        self._effects: list[Effect] = []
        self._sessions: dict[str, Session] = {}
        self._senders: dict[Sender, None] = {}
        self._fetchers: dict[Fetcher, str] = {}
        self._waiting: list[_Question] = []
        self._under_way: dict[tuple[str, int], tuple[Session, str, tuple[int, ...], int]] = {}
        """Requests to leaders, by connection and number: topic, partitions and leader."""
        self._told_metadata: set[str] = set()
        """Who was asked for it in this round of all connections."""
        for address in self._addresses:
            self._session(address)

    def on_connected(self, address: str, now_ms: int) -> None:
        self._sessions[address].on_connected(now_ms)

    def on_lost(self, address: str, reason: str, now_ms: int) -> None:
        self._sessions[address].on_lost(reason, now_ms)
        self.routing.want_refresh()

    def on_message(self, address: str, frames: Sequence[Buffer], now_ms: int) -> None:
        self._sessions[address].on_message(frames, now_ms)

    def on_congested(self, address: str) -> None:
        """The transport holds a message back; nothing more for this broker until ``on_drained``."""
        self._sessions[address].is_congested = True

    def on_drained(self, address: str) -> None:
        self._sessions[address].is_congested = False

    def advance(self, now_ms: int) -> None:
        """Do all that can be done now."""
        for session in list(self._sessions.values()):
            session.on_tick(now_ms)
            if self._is_silent(session, now_ms):
                self.routing.want_refresh()
        self._refresh(now_ms)
        self._ask_waiting(now_ms)
        obstacle = self.obstacle()
        for sender in list(self._senders):
            self._advance_sender(sender, obstacle, now_ms)
        for fetcher in list(self._fetchers):
            self._advance_fetcher(fetcher, obstacle, now_ms)

    def take_effects(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def next_deadline_ms(self) -> int | None:
        soonest = self.routing.refresh_due_ms() if self._is_connected() else None
        machines: list[Session | Sender | Fetcher] = [*self._sessions.values(), *self._senders, *self._fetchers]
        for machine in machines:
            time_ms = machine.next_deadline_ms()
            if time_ms is not None and (soonest is None or time_ms < soonest):
                soonest = time_ms
        for question in self._waiting:
            soonest = question.deadline_ms if soonest is None else min(soonest, question.deadline_ms)
        return soonest

    def ask(
        self, build: Build, answered: Answered, *, deadline_ms: int, what: str, now_ms: int, node: int = ANY_BROKER, is_safe: bool = True
    ) -> None:
        """Ask a broker. ``answered`` gets the reply; or the broker's error; or BrokerUnavailable that names addresses and
        steps, at the deadline; or OutcomeUnknown, when an unsafe question was sent and its connection ended."""
        self._waiting.append(_Question(build, node, deadline_ms, answered, is_safe=is_safe, what=what))
        self._ask_waiting(now_ms)

    def add_sender(self, sender: Sender) -> None:
        self.routing.use(sender.topic)
        self._senders[sender] = None

    def remove_sender(self, sender: Sender) -> None:
        del self._senders[sender]
        self.routing.release(sender.topic)

    def add_fetcher(self, topic: str, fetcher: Fetcher) -> None:
        self.routing.use(topic)
        self._fetchers[fetcher] = topic

    def remove_fetcher(self, fetcher: Fetcher) -> None:
        self.routing.release(self._fetchers.pop(fetcher))

    def close(self, error: ZmqmqError, now_ms: int) -> None:
        """End everything: questions are answered with ``error``, batches fail as what is known of them."""
        for session in self._sessions.values():
            session.close(BrokerUnavailable(str(error)), now_ms)
        waiting, self._waiting = self._waiting, []
        for question in waiting:
            question.answered(error)
        for sender in self._senders:
            sender.fail_all(str(error))

    def obstacle(self) -> ZmqmqError | None:
        """Why no broker can be asked; None when one can."""
        if self._is_connected():
            return None
        idle = [session.failure for session in self._sessions.values() if session.state is State.IDLE]  # not one that tries again
        fatal = [failure for failure in idle if isinstance(failure, FatalError)]
        if fatal:
            return fatal[0]
        reasons = [
            str(session.failure) if session.failure is not None else f"{session.address}: still trying ({session.state.value})"
            for session in self._sessions.values()
        ]
        return BrokerUnavailable("no broker answers: " + "; ".join(reasons), hint="start one with 'zmqmq serve', or correct the address")

    def _is_connected(self) -> bool:
        return any(session.is_ready for session in self._sessions.values())

    def sessions(self) -> list[Session]:
        return list(self._sessions.values())

    def requests_sent(self) -> int:
        return sum(session.requests_sent for session in self._sessions.values())

    def ready_nodes(self) -> dict[int, str]:
        """Node ids and addresses of the connections that stand."""
        return {session.node_id: session.address for session in self._sessions.values() if session.is_ready and session.node_id is not None}

    def _session(self, address: str) -> Session:
        found = self._sessions.get(address)
        if found is None:
            found = self._sessions[address] = Session(
                address, client_id=self._client_id, software=SOFTWARE, emit=self._effects_append, random=self._random
            )
        return found

    def _effects_append(self, effect: Effect, /) -> None:
        self._effects.append(effect)

    def _is_wanted(self, session: Session) -> bool:
        """Worth connecting to: the first addresses, and brokers that metadata names."""
        return session.address in self._addresses or any(broker.endpoint == session.address for broker in self.routing.endpoints.values())

    def _session_for(self, node: int, now_ms: int) -> Session | None:
        """A connection to that broker that stands, or None after beginning to connect. A broker that is known by a
        connection of ours is not connected to again by its advertised address."""
        ready = [session for session in self._sessions.values() if session.is_ready and node in (session.node_id, ANY_BROKER)]
        lively = next((session for session in ready if not self._is_silent(session, now_ms)), None)
        if lively is not None:
            return lively
        for session in self._candidates() if node == ANY_BROKER else [] if ready else self._sessions_to(node):
            session.maybe_open(now_ms)
        return ready[0] if ready else None

    def _candidates(self) -> list[Session]:
        """Whoever may answer any question: metadata names more brokers than the client was told at first."""
        known = {session.node_id for session in self._sessions.values()}
        for broker in self.routing.endpoints.values():
            if broker.endpoint and broker.node_id not in known:
                self._session(broker.endpoint)
        return [session for session in self._sessions.values() if self._is_wanted(session)]

    def _sessions_to(self, node: int) -> list[Session]:
        """Where that broker is, or may be."""
        known = [session for session in self._sessions.values() if session.node_id == node]
        broker = self.routing.endpoints.get(node)
        if known or broker is None or not broker.endpoint:
            return known or list(self._sessions.values())
        return [self._session(broker.endpoint)]

    def _is_silent(self, session: Session, now_ms: int) -> bool:
        has_others = len(self._sessions) > 1 or len(self.routing.endpoints) > 1
        since_ms = session.waits_since_ms() if has_others else None
        return since_ms is not None and now_ms - since_ms >= SILENCE_MS

    def _has_room(self, now_ms: int) -> Callable[[int], bool]:
        def has_room(node: int) -> bool:
            session = self._session_for(node, now_ms)
            return session is not None and session.has_room

        return has_room

    def _ask_waiting(self, now_ms: int) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for question in waiting:
            session = self._session_for(question.node, now_ms)
            obstacle = None if session is not None else self.obstacle()
            if session is not None:
                question.asked_times += 1
                session.request(question.build, (), question.deadline_ms, self._on_answer(question), now_ms)
            elif isinstance(obstacle, FatalError) or now_ms >= question.deadline_ms:
                question.answered(obstacle or BrokerUnavailable(f"broker {question.node} could not be reached for {question.what}"))
            else:
                self._waiting.append(question)

    def _on_answer(self, question: _Question) -> Done:
        def done(answer: Answer, _payload: Sequence[Buffer], now_ms: int) -> None:
            if isinstance(answer, ErrorReply):
                question.answered(raised(answer.fault))
            elif not isinstance(answer, BrokerUnavailable):
                question.answered(answer)
            elif question.is_safe and now_ms < question.deadline_ms:
                self._waiting.append(question)
            elif question.is_safe:
                question.answered(answer)
            else:
                text = f"the connection ended while {question.what} was under way: {answer}"
                question.answered(OutcomeUnknown(text, hint="it may have been carried out: look before you try again", outcome="unknown"))

        return done

    def _refresh(self, now_ms: int) -> None:
        due_ms = self.routing.refresh_due_ms()
        if due_ms is None or now_ms < due_ms:
            return
        session = self._next_for_metadata(now_ms)
        if session is None:
            return
        topics = self.routing.topics
        self.routing.on_asked(now_ms)

        def build(correlation_id: int, timeout_ms: int) -> Request:
            return GetMetadata(correlation_id, timeout_ms, topics=topics)

        session.request(build, (), now_ms + METADATA_MS, self._on_metadata, now_ms)

    def _next_for_metadata(self, now_ms: int) -> Session | None:
        """Another broker than the last time: one that is cut off from the others goes on telling what was."""
        ready = [session for session in self._sessions.values() if session.is_ready and not self._is_silent(session, now_ms)]
        others = [session for session in ready if session.address not in self._told_metadata]
        if not others:
            self._told_metadata.clear()
        session = next(iter(others or ready), None)
        if session is None:
            return self._session_for(ANY_BROKER, now_ms)
        self._told_metadata.add(session.address)
        return session

    def _on_metadata(self, answer: Answer, _payload: Sequence[Buffer], now_ms: int) -> None:
        if isinstance(answer, MetadataReply):
            self.routing.on_reply(answer, is_refresh=True)
            self._abandon_moved(now_ms)
        else:
            self.routing.on_failed()

    def _abandon_moved(self, now_ms: int) -> None:
        """Who sent to a leader that is not the leader any more need not wait for its answer: it may be stopped."""
        for key, (session, topic, partitions, node) in list(self._under_way.items()):
            if any(self.routing.leader(topic, partition) not in (node, NO_LEADER) for partition in partitions):
                self._under_way.pop(key, None)
                session.abandon(key[1], BrokerUnavailable(f"a partition of {topic!r} has another leader now"), now_ms)

    def leader_of(self, topic: str) -> Callable[[int], int]:
        return lambda partition: self.routing.leader(topic, partition)

    def _advance_sender(self, sender: Sender, obstacle: ZmqmqError | None, now_ms: int) -> None:
        sender.obstacle = obstacle
        for call in sender.poll(now_ms, self._has_room(now_ms)):
            if isinstance(call, IdentityCall):
                self._ask_identity(sender, call.known, now_ms)
            else:
                self._produce(sender, call, now_ms)
        if sender.wants_metadata:
            sender.wants_metadata = False
            self.routing.want_refresh()

    def _ask_identity(self, sender: Sender, known: Identity | None, now_ms: int) -> None:
        def build(correlation_id: int, timeout_ms: int) -> Request:
            if known is None:
                return InitProducer(correlation_id, timeout_ms)
            return InitProducer(correlation_id, timeout_ms, known.producer_id, known.epoch)

        def answered(answer: Answer) -> None:
            if isinstance(answer, InitProducerReply):
                sender.on_identity(Identity(answer.producer_id, answer.producer_epoch))
            else:
                error = answer if isinstance(answer, ZmqmqError) else OutcomeUnknown("the broker gave no producer id")
                sender.on_identity_failed(error, now_ms)

        self.ask(build, answered, deadline_ms=now_ms + IDENTITY_MS, what="InitProducer", now_ms=now_ms)

    def _produce(self, sender: Sender, call: ProduceCall, now_ms: int) -> None:
        route = self.routing.routes[sender.topic]
        entries = [ProduceEntry(route.topic_id, batch.partition, batch.table_version) for batch in call.batches]
        session = self._session_for(call.node, now_ms)
        assert session is not None

        def build(correlation_id: int, timeout_ms: int) -> Request:
            return Produce(correlation_id, timeout_ms, sender.acks, entries)

        def done(answer: Answer, _payload: Sequence[Buffer], at_ms: int) -> None:
            self._under_way.pop((session.address, number), None)
            sender.on_answer(call, answer, at_ms)
            for hint in sender.take_hints():
                self.routing.on_hint(sender.topic, hint)

        if sender.acks == 0:
            session.post(build, call.frames)
            sender.on_posted(call)
        else:
            number = session.request(build, call.frames, call.deadline_ms, done, now_ms)
            partitions = tuple(batch.partition for batch in call.batches)
            self._under_way[session.address, number] = (session, sender.topic, partitions, call.node)

    def _advance_fetcher(self, fetcher: Fetcher, obstacle: ZmqmqError | None, now_ms: int) -> None:
        fetcher.obstacle = obstacle
        for call in fetcher.poll(now_ms, self._has_room(now_ms)):
            session = self._session_for(call.node, now_ms)
            assert session is not None
            if isinstance(call, OffsetsCall):
                self._list_offsets(fetcher, call, session, now_ms)
            else:
                self._fetch(fetcher, call, session, now_ms)
        if fetcher.wants_metadata:
            fetcher.wants_metadata = False
            self.routing.want_refresh()

    def _list_offsets(self, fetcher: Fetcher, call: OffsetsCall, session: Session, now_ms: int) -> None:
        def build(correlation_id: int, timeout_ms: int) -> Request:
            return ListOffsets(correlation_id, timeout_ms, list(call.queries))

        def done(answer: Answer, _payload: Sequence[Buffer], at_ms: int) -> None:
            fetcher.on_offsets(call, answer, at_ms)

        session.request(build, (), now_ms + ANSWER_MS, done, now_ms)

    def _fetch(self, fetcher: Fetcher, call: FetchCall, session: Session, now_ms: int) -> None:
        def build(correlation_id: int, timeout_ms: int) -> Request:
            return Fetch(correlation_id, timeout_ms, call.wait_ms, 1, FETCH_BYTES_MAX, list(call.entries))

        def done(answer: Answer, payload: Sequence[Buffer], at_ms: int) -> None:
            self._under_way.pop((session.address, number), None)
            fetcher.on_fetch(call, answer, payload, at_ms)
            for hint in fetcher.take_hints():
                self.routing.on_hint(topic, hint)

        topic = self._fetchers[fetcher]
        number = session.request(build, (), now_ms + call.wait_ms + ANSWER_MS, done, now_ms)
        self._under_way[session.address, number] = (session, topic, tuple(entry.partition for entry in call.entries), call.node)
