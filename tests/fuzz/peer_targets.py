"""Targets: what brokers say to each other, and what the quorum keeps. See ``targets``."""

from __future__ import annotations

from typing import Final

from fuzzing import Target
from mutating import Trees, as_is, pack, unpack

from zmqmq.broker import peers
from zmqmq.errors import CorruptLog, RemoteProtocolError, UnsupportedVersion
from zmqmq.metadata import messages as control
from zmqmq.metadata.quorum import messages as quorum
from zmqmq.metadata.quorum.format import decode_saved, encode_saved
from zmqmq.metadata.quorum.forming import Introduce, Seen
from zmqmq.metadata.quorum.state import Configuration, Entry, HardState, Member, SnapshotMeta
from zmqmq.model import PartitionId
from zmqmq.replication import messages as copies
from zmqmq.wire import framing
from zmqmq.wire.replies import Fault

TOPIC: Final = b"0123456789abcdef"
ME: Final = Member(1, "one")
YOU: Final = Member(2, "two")
CONFIGURATION: Final = Configuration((ME, YOU), (Member(3, "three"),))
FAULT: Final = Fault(12, "moved", "ask", {"leader": 2, "endpoint": "tcp://h:1"})
SEEN: Final = Seen(1, "one", b"i" * 16, "cluster")

CONTROL: Final = (
    quorum.RequestVote(ME, YOU, 3, 4, 2, 9, is_pre_vote=True),
    quorum.Vote(YOU, ME, 3, 4, is_granted=True),
    quorum.AppendEntries(ME, YOU, 3, 7, 2, (Entry(7, 3, (b"\x01\x93", b""), 5), Entry(9, 3, (), -1, CONFIGURATION)), 7, 2),
    quorum.AppendReply(YOU, ME, 3, is_accepted=False, prev_end=7, match_end=0, round=2, hint_end=5, hint_term=1),
    quorum.InstallSnapshot(ME, YOU, 3, SnapshotMeta(9, 2, CONFIGURATION, 4, 77), 0, b"snap", 77, 1),
    quorum.SnapshotReply(YOU, ME, 3, 9, 4, 1),
    quorum.TimeoutNow(ME, YOU, 3),
    control.RegisterBroker(1, "one", b"12345678", "tcp://h:1", "tcp://h:2", "tcp://h:3", "tcp://h:4", "r", "0.1", True, ""),  # noqa: FBT003
    control.BrokerAccepted(1, b"12345678", 7),
    control.BrokerRefused(1, b"12345678", FAULT),
    control.Heartbeat(1, 7, 1000, 99, wants_stop=True),
    control.HeartbeatReply(1, 7, 1000, 3, is_fenced=False, may_stop=True),
    control.AlterPartitions(1, 7, [control.PartitionProposal(TOPIC, 1, 2, 3, [(1, 7), (2, 9)])]),
    control.PartitionsRefused(1, [control.PartitionRefusal(TOPIC, 1, 3, FAULT)]),
    control.Forward(1, 5, [b"a", b"b"]),
    control.Forwarded(1, 5, [b"a"], 9),
    Introduce(SEEN, (1, 2), "tcp://h:2", base=CONFIGURATION, configuration=CONFIGURATION),
)
DATA: Final = (
    copies.ReplicaFetch(1, 7, 3, 4096, [copies.ReplicaFetchEntry(TOPIC, 1, 2, 99, 1)]),
    copies.ReplicaBatches(
        2, 8, 3, [copies.ReplicaResult(TOPIC, 1, 2, 90, 0, 99, 1, 50), copies.ReplicaResult(TOPIC, 2, 2, -1, -1, -1, fault=FAULT)]
    ),
    copies.ReplicaReport(1, 7, [copies.ReportEntry(TOPIC, 1, 2, 99, 95, 90, 3)], 4),
)
STREAM: Final = (
    copies.stream_frames(PartitionId(TOPIC, 1), copies.StreamHeader(1, 2, 99, 1, 90, 3), b"batch"),
    copies.beat_frames(2, copies.Beat(1, [copies.BeatEntry(TOPIC, 1, 2, 99, 1, 90)])),
)
ENVELOPE: Final = pack(peers.Envelope("cluster", 1, "one", 2))


def check_control(data: bytes) -> None:
    envelope, body = peers.decode_control([framing.PROTOCOL, ENVELOPE, data])
    again = peers.encode(envelope, body)
    assert pack(peers.decode_control(again)[1]) == pack(body)


def check_data(data: bytes) -> None:
    envelope, body, payload = peers.decode_data([framing.PROTOCOL, ENVELOPE, data, b"payload"])
    again = peers.encode(envelope, body, payload)
    assert pack(peers.decode_data(again)[1]) == pack(body)


def check_envelope(data: bytes) -> None:
    peers.decode_control([framing.PROTOCOL, data, pack(CONTROL[0])])


def check_stream(data: bytes) -> None:
    key, _, rest = data.partition(b"|")
    copies.decode_stream([key, *rest.split(b"|", 1)])


def check_saved(data: bytes) -> None:
    found = decode_saved(data)
    assert decode_saved(encode_saved(found.hard_state, found.base)) == found


_ERRORS: Final = (RemoteProtocolError, UnsupportedVersion)
_CONTROL: Final = tuple(map(pack, CONTROL))
_DATA: Final = tuple(map(pack, DATA))
_STREAM: Final = tuple(b"|".join(bytes(frame) for frame in frames) for frames in STREAM)
_SAVED: Final = (encode_saved(HardState(3, ME), CONFIGURATION), encode_saved(HardState(), Configuration()))

TARGETS: Final = (
    Target("peer-control", check_control, _ERRORS, _CONTROL, trees=Trees(_CONTROL, unpack, pack, as_is)),
    Target("peer-data", check_data, _ERRORS, _DATA, trees=Trees(_DATA, unpack, pack, as_is)),
    Target("peer-envelope", check_envelope, _ERRORS, (ENVELOPE,), trees=Trees((ENVELOPE,), unpack, pack, as_is)),
    Target("peer-stream", check_stream, _ERRORS, _STREAM),
    Target("quorum-saved", check_saved, (CorruptLog, UnsupportedVersion), _SAVED),
)
