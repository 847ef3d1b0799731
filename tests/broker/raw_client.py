"""A client of nothing but a DEALER and the wire modules: what reaches the broker is what the test wrote."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import zmq

from zmqmq import batch
from zmqmq.batch import Record
from zmqmq.transport.sockets import new_context, new_dealer
from zmqmq.wire import framing
from zmqmq.wire.replies import TopicInfo
from zmqmq.wire.requests import CreateTopic, Fetch, FetchEntry, Hello, Produce, ProduceEntry, Request

WAIT_MS = 10_000


class RawClient:
    """One connection; ``call`` sends and waits for the answer with the same correlation id."""

    def __init__(self, endpoint: str, *, hello: bool = True) -> None:
        self._context = new_context()
        self.socket = new_dealer(self._context)
        self.socket.setsockopt(zmq.SNDTIMEO, WAIT_MS)
        self.socket.setsockopt(zmq.RCVTIMEO, WAIT_MS)
        self.socket.setsockopt(zmq.IMMEDIATE, 0)
        self.socket.connect(endpoint)
        self._ids = itertools.count(1)
        if hello:
            self.hello = self.call(Hello, client_id="raw")

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()
        self._context.term()

    def send(self, kind: type[Request], payload: tuple[bytes, ...] = (), **fields: Any) -> int:
        correlation_id = next(self._ids)
        self.send_frames(framing.encode(kind(correlation_id, WAIT_MS, **fields), payload))
        return correlation_id

    def send_frames(self, frames: list[Any]) -> None:
        self.socket.send_multipart(frames)

    def receive(self, timeout_ms: int = WAIT_MS) -> tuple[Any, list[bytes]]:
        assert self.socket.poll(timeout_ms), "no answer"
        reply, payload = framing.decode_reply(self.socket.recv_multipart())
        return reply, [bytes(frame) for frame in payload]

    def call(self, kind: type[Request], payload: tuple[bytes, ...] = (), **fields: Any) -> Any:
        return self.exchange(kind, payload, **fields)[0]

    def exchange(self, kind: type[Request], payload: tuple[bytes, ...] = (), **fields: Any) -> tuple[Any, list[bytes]]:
        correlation_id = self.send(kind, payload, **fields)
        while True:
            reply, frames = self.receive()
            if reply.correlation_id == correlation_id:
                return reply, frames

    def create(self, name: str, partitions: int = 1, **config: str) -> TopicInfo:
        reply = self.call(CreateTopic, name=name, partitions=partitions, config=config)
        topic: TopicInfo = reply.topic
        return topic

    def produce(self, topic: TopicInfo, *values: bytes, partition: int = 0, acks: int = -1) -> Any:
        """The result of one batch."""
        entry = ProduceEntry(topic.topic_id, partition)
        return self.call(Produce, (make_batch(*values),), acks=acks, entries=[entry]).results[0]

    def values(self, topic: TopicInfo, partition: int = 0, offset: int = 0, wait_ms: int = 0) -> list[bytes | None]:
        """The values that one fetch gives."""
        reply, frames = self.exchange(Fetch, wait_ms_max=wait_ms, entries=[FetchEntry(topic.topic_id, partition, offset)])
        if reply.results and reply.results[0].error is not None:
            raise framing.raised(reply.results[0].error)
        return [value for frame in frames for at, value in values_of(frame) if at >= offset]


def make_batch(*values: bytes, producer_id: int = -1, epoch: int = 0, sequence: int = -1) -> bytes:
    encoded = batch.encode_records([Record(None, value, 0) for value in values])
    return batch.build(
        encoded,
        record_count=len(values),
        base_timestamp_ms=1,
        max_timestamp_ms=1,
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=sequence,
    )


def values_of(data: bytes) -> list[tuple[int, bytes | None]]:
    """Offsets and values of whole batches, checked."""
    found = []
    position = 0
    while position < len(data):
        header = batch.parse_header(data, position)
        batch.check_body(header, data, position)
        for i, record in enumerate(batch.records(header, data, position)):
            found.append((header.base_offset + i, record.value if record else None))
        position += header.length
    return found


def details(reply: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(reply)
    return found
