"""What programs note of what they did: a history that is put in order when the run is over.

An operation whose records fared differently becomes several: the records that are there, those that are not, and those of which
nobody knows, all of them begun when it began. That is known only at its end, so operations get their index last.
"""

from __future__ import annotations

from collections.abc import Sequence

from zmqmq.client.aio.reader import AsyncReader
from zmqmq.client.message import Message
from zmqmq.errors import ZmqmqError
from zmqmq.model import Delivery
from zmqmq.testing.history import Batch, Operation, Poll, Seen, Send
from zmqmq.testing.history.model import Function, Kind, Step, Value
from zmqmq.testing.sim.kernel import World
from zmqmq.testing.sim.trace import Trace


class History:
    """Of all programs together."""

    def __init__(self, world: World) -> None:
        self.acknowledged = 0
        self._world = world
        self._noted: list[tuple[int, int, Operation]] = []
        self._order = 0

    def moment(self) -> tuple[int, int]:
        """Now, and its place among all that is noted at this time."""
        self._order += 1
        return self._world.now_us, self._order

    def note(
        self,
        at: tuple[int, int],
        process: str,
        kind: Kind,
        f: Function,
        steps: Sequence[Step],
        *,
        final: bool = False,
        part: int = 0,
    ) -> None:
        at_us, order = at
        self._noted.append((order, part, Operation(0, process, kind, f, at_us * 1000, list(steps), final=final)))

    def operations(self) -> list[Operation]:
        self._noted.sort(key=lambda noted: noted[:2])
        return [
            Operation(index, was.process, was.type, was.f, was.time_ns, was.value, final=was.final)
            for index, (_, _, was) in enumerate(self._noted)
        ]


class Notes:
    """Of one process. After an operation of which nobody knows the end it goes on under another name, as the checker wants it."""

    def __init__(self, history: History, trace: Trace, name: str, topic: str) -> None:
        self._history = history
        self._trace = trace
        self._name = name
        self._topic = topic
        self._life = 0
        self._began = (0, 0)
        self._under_way: tuple[Function, list[Step]] | None = None
        self._is_final = False

    @property
    def process(self) -> str:
        return f"{self._name}#{self._life}"

    def begin_send(self, sends: list[Send]) -> None:
        self._begin("send", list(sends))
        self._tell("sends", f"{sends[0].key} {_spans([send.value for send in sends])}")

    def end_send(self, sends: list[Send], results: list[Delivery | ZmqmqError], *, is_firm: bool = True) -> None:
        """Not ``is_firm``: what was acknowledged may be lost nevertheless, and so is no more than possible."""
        ended = [_ended(send, result) if is_firm else ("info", send) for send, result in zip(sends, results, strict=True)]
        self._history.acknowledged += sum(kind == "ok" for kind, _ in ended)
        offsets = [send.offset for kind, send in ended if kind == "ok" and send.offset is not None]
        others = ", ".join(f"{send.value}: {kind}" for kind, send in ended if kind != "ok")
        self._tell("sent", f"{sends[0].key} from {sends[0].value} at {_spans(offsets)}{'; ' + others if others else ''}")
        if all(kind == "ok" for kind, _ in ended):
            self._end("ok", [send for _, send in ended])
            return
        at = self._history.moment()
        self._under_way = None
        for part, (kind, send) in enumerate(ended):
            process = f"{self.process}/{part}"
            self._history.note(self._began, process, "invoke", "send", [Send(send.key, send.value)], part=part)
            self._history.note(at, process, kind, "send", [send], part=part)
        self._life += 1

    def begin_poll(self, *, final: bool = False) -> None:
        self._begin("poll", [Poll()], final=final)

    def end_poll(self, messages: list[Message[bytes]], reader: AsyncReader[bytes]) -> None:
        """Values are the numbers with which the records begin; 0 is nobody's."""
        records: dict[str, list[tuple[int, int | str]]] = {}
        batches: dict[str, dict[int, Batch]] = {}
        for message in messages:
            key = f"{self._topic}/{message.partition}"
            value = int(message.raw_value.split(b" ", 1)[0]) if message.raw_value else 0
            if value:
                records.setdefault(key, []).append((message.offset, value))
            batches.setdefault(key, {})[message.batch.base_offset] = _batch_of(message)
        watermarks = reader.high_watermarks()
        seen = {key: Seen(watermarks.get(int(key.rpartition("/")[2]), -1), batches=tuple(found.values())) for key, found in batches.items()}
        self._end("ok", [Poll(records, seen)])
        if messages:
            self._tell("read", "; ".join(f"{key} {found[0][0]} to {found[-1][0]}" for key, found in records.items()))

    def give_up(self) -> None:
        """The process ended, or what it did was cut off."""
        if self._under_way is not None:
            _, steps = self._under_way
            self._end("info", steps)
        self._life += 1

    def _begin(self, f: Function, steps: list[Step], *, final: bool = False) -> None:
        self._began = self._history.moment()
        self._under_way = (f, steps)
        self._is_final = final

    def _end(self, kind: Kind, steps: Sequence[Step]) -> None:
        assert self._under_way is not None
        f, begun = self._under_way
        self._under_way = None
        self._history.note(self._began, self.process, "invoke", f, begun, final=self._is_final)
        self._history.note(self._history.moment(), self.process, kind, f, steps, final=self._is_final)

    def _tell(self, kind: str, detail: str) -> None:
        self._trace.tell(kind, f"{self.process} {self._topic}: {detail}")


def _ended(send: Send, result: Delivery | ZmqmqError) -> tuple[Kind, Send]:
    if isinstance(result, Delivery):
        return "ok" if result.offset is not None else "info", Send(send.key, send.value, result.offset, result.leader_epoch)
    return "fail" if result.outcome == "not_written" else "info", send


def _batch_of(message: Message[bytes]) -> Batch:
    header = message.batch
    return Batch(
        header.base_offset, header.record_count, header.leader_epoch, header.producer_id, header.producer_epoch, header.base_sequence
    )


def _spans(numbers: Sequence[Value]) -> str:
    """1 to 4, 7"""
    spans: list[list[int]] = []
    for number in map(int, numbers):
        if spans and spans[-1][1] + 1 == number:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in spans) or "none"
