"""What happened in the cluster, as operators follow it: differences between one image and the next, the last ones kept. Pure.

An event's number is the index of the image in which it was seen. Brokers apply the same records but may see several of them at
once, so what is asked for *after* a number is never missing anything that is still known, and may repeat what was seen in pieces.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from zmqmq.errors import RemoteProtocolError, Throttled
from zmqmq.metadata.image import NO_LEADER, BrokerImage, ClusterImage, PartitionImage, TopicImage
from zmqmq.wire.replies import Event, EventsReply

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from zmqmq.broker.dispatch import Dispatch, Now
    from zmqmq.wire.requests import GetEvents

EVENTS_MAX: Final = 1_000
"""Kept; older ones are forgotten."""
WAITING_MAX: Final = 1_000
"""Questions that wait for the next event."""
WAIT_MS_MAX: Final = 30_000
RETRY_AFTER_MS: Final = 1_000

KINDS: Final = (
    "leader-change", "unclean-election", "isr-shrink", "isr-expand",
    "reassign-started", "reassign-completed", "reassign-cancelled",
    "broker-registered", "broker-fenced", "broker-unfenced", "broker-draining", "broker-removed",
    "topic-created", "topic-altered", "topic-deleted", "controller-change",
)  # fmt: skip


class EventLog:
    """A ring. The first image is where it begins; what was before is not known."""

    def __init__(self, events_max: int = EVENTS_MAX) -> None:
        self._image: ClusterImage | None = None
        self._controller: tuple[int, int] | None = None
        self._untold: list[tuple[int, _Change]] = []
        """Times and changes that get the number of the next image: at the present one somebody may have heard everything."""
        self._events: deque[Event] = deque()
        self._events_max = events_max
        self.known_after = -1
        """All events with a greater number are here."""

    def __len__(self) -> int:
        return len(self._events)

    @property
    def last_number(self) -> int:
        """Whoever heard of this has heard of everything."""
        return -1 if self._image is None else self._image.index

    def on_image(self, image: ClusterImage, time_ms: int) -> bool:
        """True when there are new events."""
        before, self._image = self._image, image
        if before is None:
            self.known_after = image.index
            return False
        found = [*self._untold, *((time_ms, change) for change in differences(before, image))]
        self._untold.clear()
        return self._add([Event(image.index, at_ms, *change) for at_ms, change in found])

    def on_controller(self, node_id: int, epoch: int, time_ms: int) -> None:
        """Another controller was heard of, or none (-1). Told with the next change of the image, which follows soon."""
        before, self._controller = self._controller, (node_id, epoch)
        if before is not None and before != (node_id, epoch) and len(self._untold) < self._events_max:
            text = f"{_node(before[0])} → {_node(node_id)}, epoch {epoch}"
            self._untold.append((time_ms, _Change("controller-change", node_id=node_id, text=text)))

    def after(self, number: int, kinds: Collection[str] = ()) -> list[Event]:
        return [event for event in self._events if event.number > number and (not kinds or event.kind in kinds)]

    def _add(self, found: Sequence[Event]) -> bool:
        self._events.extend(found)
        while len(self._events) > self._events_max:
            self.known_after = self._events.popleft().number
        return bool(found)


class _Change(NamedTuple):
    """An event without number and time."""

    kind: str
    topic: str = ""
    partition: int = -1
    node_id: int = -1
    text: str = ""


def differences(before: ClusterImage, after: ClusterImage) -> Iterator[_Change]:
    """Brokers first: what becomes of partitions follows from them."""
    for node_id in sorted(before.brokers.keys() | after.brokers.keys()):
        yield from _of_broker(node_id, before.brokers.get(node_id), after.brokers.get(node_id))
    for topic_id, topic in after.topics.items():
        old = before.topics.get(topic_id)
        if old is None:
            count = len(topic.partitions)
            yield _Change("topic-created", topic.name, text=f"{count} partition{'s' * (count != 1)}")
        elif old is not topic:
            yield from _of_topic(old, topic)
    for topic_id, topic in before.topics.items():
        if topic_id not in after.topics:
            yield _Change("topic-deleted", topic.name)


def _of_broker(node_id: int, before: BrokerImage | None, after: BrokerImage | None) -> Iterator[_Change]:
    if after is None:
        yield _Change("broker-removed", node_id=node_id)
    elif before is None or before.broker_epoch != after.broker_epoch:
        yield _Change("broker-registered", node_id=node_id, text=f"{after.endpoint or 'no address'}, epoch {after.broker_epoch}")
    elif before is not after:
        if before.is_fenced != after.is_fenced:
            yield _Change("broker-fenced" if after.is_fenced else "broker-unfenced", node_id=node_id)
        if after.is_draining and not before.is_draining:
            yield _Change("broker-draining", node_id=node_id)


def _of_topic(before: TopicImage, after: TopicImage) -> Iterator[_Change]:
    if before.config != after.config:
        text = " ".join(f"{name}={value}" for name, value in sorted(after.config.items()) if before.config.get(name) != value)
        yield _Change("topic-altered", after.name, text=text or "back to defaults")
    for number, (old, new) in enumerate(zip(before.partitions, after.partitions, strict=False)):
        if old is not new:
            for kind, node_id, text in _of_partition(old, new):
                yield _Change(kind, after.name, number, node_id, text)


def _of_partition(before: PartitionImage, after: PartitionImage) -> Iterator[tuple[str, int, str]]:
    if before.leader != after.leader:
        is_clean = after.leader == NO_LEADER or after.leader in before.isr or after.leader in before.eligible
        text = f"{_node(before.leader)} → {_node(after.leader)}, epoch {after.leader_epoch}"
        yield "leader-change" if is_clean else "unclean-election", after.leader, text
    lost, gained = set(before.isr) - set(after.isr), set(after.isr) - set(before.isr)
    change = f"{_nodes(before.isr)} → {_nodes(after.isr)}"
    if lost:
        yield "isr-shrink", min(lost) if len(lost) == 1 else -1, change
    if gained:
        yield "isr-expand", min(gained) if len(gained) == 1 else -1, change
    was_moving, is_moving = bool(before.adding or before.removing), bool(after.adding or after.removing)
    if is_moving and (before.adding, before.removing) != (after.adding, after.removing):
        yield "reassign-started", -1, f"adding {_nodes(after.adding)}, removing {_nodes(after.removing)}"
    elif was_moving and not is_moving:
        is_back = set(after.replicas) == set(before.replicas) - set(before.adding)
        is_there = set(after.replicas) == set(before.replicas) - set(before.removing)
        yield "reassign-cancelled" if is_back and not is_there else "reassign-completed", -1, f"replicas {_nodes(after.replicas)}"


def _node(node_id: int) -> str:
    return "none" if node_id == NO_LEADER else str(node_id)


def _nodes(nodes: Sequence[int]) -> str:
    return f"[{','.join(map(str, nodes))}]"


class _Waiting(NamedTuple):
    source: bytes
    request: GetEvents
    deadline_ms: int


class EventsDesk:
    """Answers GetEvents: at once, when something happens, or when the time is over."""

    def __init__(self, node_id: int, dispatch: Dispatch) -> None:
        self.log = EventLog()
        self._node_id = node_id
        self._dispatch = dispatch
        self._image: ClusterImage | None = None
        self._waiting: list[_Waiting] = []

    def ask(self, source: bytes, request: GetEvents, now: Now) -> None:
        if unknown := sorted(set(request.kinds).difference(KINDS)):
            raise RemoteProtocolError(f"no event is called {unknown[0][:40]!r}", hint=f"there are: {', '.join(KINDS)}")
        if self._answer(source, request, is_last=request.wait_ms_max <= 0):
            return
        if len(self._waiting) >= WAITING_MAX:
            raise Throttled(f"{len(self._waiting)} clients wait for events", retry_after_ms=RETRY_AFTER_MS)
        self._waiting.append(_Waiting(source, request, now.ms + min(request.wait_ms_max, WAIT_MS_MAX)))

    def look(self, image: ClusterImage, now: Now) -> None:
        """Called in each round; costs nothing when the image is the same."""
        if image is not self._image:
            self._image = image
            if self.log.on_image(image, now.wall_ms):
                self._waiting = [each for each in self._waiting if not self._answer(each.source, each.request, is_last=False)]

    def on_controller(self, node_id: int, epoch: int, now: Now) -> None:
        self.log.on_controller(node_id, epoch, now.wall_ms)

    def on_tick(self, now: Now) -> None:
        if not self._waiting:
            return
        left = []
        for each in self._waiting:
            if each.deadline_ms > now.ms:
                left.append(each)
            else:
                self._answer(each.source, each.request, is_last=True)
        self._waiting = left

    def on_gone(self, source: bytes) -> None:
        self._waiting = [each for each in self._waiting if each.source != source]

    def next_deadline_ms(self) -> int | None:
        return min((each.deadline_ms for each in self._waiting), default=None)

    def _answer(self, source: bytes, request: GetEvents, *, is_last: bool) -> bool:
        events = self.log.after(request.after_number, request.kinds)
        if not events and not is_last:
            return False
        reply = EventsReply(request.correlation_id, self._node_id, self.log.known_after, self.log.last_number, events)
        self._dispatch.reply(source, reply)
        return True
