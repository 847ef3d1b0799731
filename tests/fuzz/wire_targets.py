"""Targets: what travels. See ``targets``."""

from __future__ import annotations

from typing import Final

import msgspec
from fuzzing import Target
from mutating import Trees, as_is, pack, unpack

from zmqmq.errors import RemoteProtocolError, UnsupportedVersion, ZmqmqError
from zmqmq.wire import framing, replies, requests

TOPIC: Final = b"0123456789abcdef"
FRAME_END: Final = b"\xc1|"
"""0xc1 is the one byte that msgpack never uses."""

FAULT: Final = replies.Fault(47, "out of range", "seek", {"log_start": 3, "log_end": 9, "outcome": "unknown", "similar": ["a"]})
REQUESTS: Final = (
    requests.Hello(1, 500, client_id="c", software="s", cluster_id="x"),
    requests.GetMetadata(2, 500, ["a", "b"], internal=True),
    requests.Produce(3, 500, -1, [requests.ProduceEntry(TOPIC, 1, 2), requests.ProduceEntry(TOPIC, 2)]),
    requests.Fetch(4, 500, entries=[requests.FetchEntry(TOPIC, 1, 77, 2, 4096)]),
    requests.ListOffsets(5, 500, [requests.OffsetQuery(TOPIC, 1, 2, 99)]),
    requests.CreateTopic(6, 500, "t", 3, 1, {"retention_ms": "7d"}),
    requests.DeleteTopic(7, 500, "t"),
    requests.AlterTopic(8, 500, "t", {"durability": "fsync"}, ["retention_ms"]),
    requests.DeleteRecords(9, 500, [requests.DeleteEntry(TOPIC, 1, -1)]),
    requests.GetStats(10, 500),
    requests.InitProducer(11, 500, 7, 1),
    requests.Ping(12, 500),
    requests.GetCluster(13, 500),
    requests.MoveLeaders(14, 500, [requests.LeaderMove("t", 1, 2)], balance=True),
    requests.Reassign(15, 500, [requests.ReplicaMove("t", 1, [1, 2])], cancel=True),
    requests.DrainBroker(16, 500, 1),
    requests.RemoveBroker(17, 500, 1),
    requests.GetEvents(18, 500, 7, ["isr-shrink"], 100),
)
REPLIES: Final = (
    *(replies.ErrorReply(1, msgspec.structs.replace(FAULT, code=code)) for code in (1, 15, 30, 41, 47, 999)),
    replies.HelloReply(1, 1, "cluster", 1, "zmqmq"),
    replies.MetadataReply(
        2, "cluster", 1, [replies.BrokerInfo(1, "tcp://h:1", "r")],
        [replies.TopicInfo("t", TOPIC, [replies.PartitionInfo(0, 1, 2, [1], [1], FAULT)], 1, b"\0\1", {"a": "b"}, FAULT)],
    ),
    replies.ProduceReply(3, [replies.ProduceResult(1, 2, 3, 1, 1), replies.ProduceResult(-1, 0, 0, 0, 0, FAULT)]),
    replies.FetchReply(4, [replies.FetchResult(TOPIC, 1, 9, 0, 2, 1), replies.FetchResult(TOPIC, 1, 9, 0, 2, 0, FAULT)]),
    replies.ListOffsetsReply(5, [replies.OffsetResult(TOPIC, 1, 9, 5, 1)]),
    replies.TopicReply(6, replies.TopicInfo("t", TOPIC)),
    replies.DoneReply(7),
    replies.DeleteRecordsReply(9, [replies.DeleteResult(TOPIC, 1, 5)]),
    replies.StatsReply(
        10, 1, "cluster", "zmqmq", *range(5), {"Fetch": 1}, {"DiskFull": 1}, *range(4), *([replies.Summary(1, 2, 3, [0, 1])] * 3),
        *range(5), partitions=[replies.PartitionStats("t", 0, 1, 2, 3, 4, 5, 6, [1], [1])],
    ),
    replies.InitProducerReply(11, 5, 0),
    replies.PingReply(12),
    replies.ClusterReply(
        13, "cluster", 1, 2, 3, 9, [1, 2], [3],
        [replies.BrokerStatus(1, "tcp://h:1", "tcp://h:2", "r", "zmqmq", 4, *(False, True), 1, 2, 1)],
        *range(7), [replies.PartitionStatus("t", 0, -1, 3, [1, 2], [1], 2)],
        [replies.PartitionStatus("t", 1, 1, 3, [1, 2], [1], 2, [2], [1])],
    ),
    replies.ChangedReply(14, 1, [replies.PartitionStatus("t", 0, 1, 3, [1, 2], [1], 2)]),
    replies.EventsReply(18, 1, 3, 9, [replies.Event(9, 1_700_000_000_000, "isr-shrink", "t", 0, 1, "[1,2] to [1]")]),
)  # fmt: skip


def check_request(data: bytes) -> None:
    frames = [framing.PROTOCOL, data]
    framing.correlation_id(frames)
    request, _ = framing.decode_request(frames)
    assert framing.decode_request(framing.encode(request))[0] == request


def check_reply(data: bytes) -> None:
    reply, _ = framing.decode_reply([framing.PROTOCOL, data])
    encoded = pack(reply)
    again, _ = framing.decode_reply([framing.PROTOCOL, encoded])
    assert pack(again) == encoded  # not the values: a NaN in the details of an error is not itself
    faults = [reply.fault] if isinstance(reply, replies.ErrorReply) else [each.error for each in getattr(reply, "results", ())]
    for fault in faults:
        if fault is not None:
            assert isinstance(framing.raised(fault), ZmqmqError)
            framing.fault(framing.raised(fault))


def check_frames(data: bytes) -> None:
    frames = data.split(FRAME_END)
    framing.correlation_id(frames)
    try:
        reply, payload = framing.decode_reply(frames)
    except (RemoteProtocolError, UnsupportedVersion):
        reply = None
    if reply is not None:
        assert pack(framing.decode_reply(framing.encode(reply, payload))[0]) == pack(reply)
    request, payload = framing.decode_request(frames)
    assert framing.decode_request(framing.encode(request, payload)) == (request, payload)


_ERRORS: Final = (RemoteProtocolError, UnsupportedVersion)
_REQUESTS: Final = tuple(map(pack, REQUESTS))
_REPLIES: Final = tuple(map(pack, REPLIES))
_FRAMES: Final = tuple(
    FRAME_END.join((framing.PROTOCOL, each, *more)) for each in (*_REPLIES, *_REQUESTS) for more in ((b"one", b"two"), ())
)

TARGETS: Final = (
    Target("request", check_request, _ERRORS, _REQUESTS, trees=Trees(_REQUESTS, unpack, pack, as_is)),
    Target("reply", check_reply, _ERRORS, _REPLIES, trees=Trees(_REPLIES, unpack, pack, as_is)),
    Target("frames", check_frames, _ERRORS, _FRAMES[::-1]),
)
