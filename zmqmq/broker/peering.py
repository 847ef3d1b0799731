"""A broker's ways to the other brokers of its cluster: two meshes and the streams.

*Control* carries what decides (the quorum, the controller, heartbeats), *data* what is copied, so that bulk never delays a vote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from zmqmq.broker import peers
from zmqmq.effects import AnswerReplica, Connect, Publish, Subscribe, Tell
from zmqmq.ports import Mesh, Stream

if TYPE_CHECKING:
    from zmqmq.broker.dispatch import Now
    from zmqmq.broker.node import Node
    from zmqmq.ports import Buffer
    from zmqmq.store.store import Store

CONTROL_MESSAGES_PER_TURN: Final = 256
DATA_MESSAGES_PER_TURN: Final = 128
STREAM_MESSAGES_PER_TURN: Final = 512
BYTES_PER_TURN: Final = 8 << 20

PeerEffect = Tell | Publish | Subscribe | Connect | AnswerReplica
PEER_EFFECTS: Final = frozenset({Tell, Publish, Subscribe, Connect, AnswerReplica})


class Ways(Struct, frozen=True):
    """What a member of a cluster has beside its clients' transport."""

    control: Mesh
    data: Mesh
    stream: Stream


class Peering:
    """Takes messages from the ways to the node, and performs what it asks for. Belongs to the loop's thread."""

    def __init__(self, ways: Ways, node: Node, store: Store) -> None:
        self._ways = ways
        self._node = node
        self._store = store
        self._control: list[list[Buffer]] = []
        self._dead: list[int] = []
        self._published: list[list[Buffer]] = []
        self._data: list[list[Buffer]] = []

    def receive(self) -> bool:
        """Take what waits. Tells whether there was anything."""
        ways = self._ways
        self._control = ways.control.receive(CONTROL_MESSAGES_PER_TURN, BYTES_PER_TURN)
        self._dead = ways.control.take_refused()
        self._published = ways.stream.receive(STREAM_MESSAGES_PER_TURN, BYTES_PER_TURN)
        self._data = ways.data.receive(DATA_MESSAGES_PER_TURN, BYTES_PER_TURN)
        ways.data.take_refused()
        return bool(self._control or self._dead or self._published or self._data)

    def hand_over_control(self, now: Now) -> None:
        """What decides comes first: it may change whom the rest concerns."""
        for frames in self._control:
            self._node.on_control(frames, now)
        for node_id in self._dead:
            self._node.on_peer_died(node_id, now)
        self._control, self._dead = [], []

    def hand_over_bulk(self, now: Now) -> None:
        for frames in self._published:
            self._node.on_published(frames, now)
        for frames in self._data:
            self._node.on_data(frames, now)
        self._published, self._data = [], []

    def perform(self, effect: PeerEffect) -> None:
        match effect:
            case Tell():
                way = self._ways.data if effect.is_bulk else self._ways.control
                way.send(effect.node_id, peers.encode(self._envelope(effect.node_id), effect.body, effect.payload))
            case Publish():
                self._ways.stream.publish(bytes(effect.frames[0]), effect.frames[1:])
            case Subscribe():
                (self._ways.stream.subscribe if effect.is_wanted else self._ways.stream.unsubscribe)(effect.node_id, effect.key)
            case Connect():
                self._ways.control.set_peers(effect.control)
                self._ways.data.set_peers(effect.replication)
                self._ways.stream.follow(effect.stream)
            case AnswerReplica():
                body, payload = effect.answer.filled(self._node.identity.node_id, self._store.read)
                self._ways.data.send(effect.node_id, peers.encode(self._envelope(effect.node_id), body, payload))

    def _envelope(self, target: int) -> peers.Envelope:
        identity = self._node.identity
        return peers.Envelope(identity.cluster_id, identity.node_id, identity.directory_id, target)
