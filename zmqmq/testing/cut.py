"""A broker's ways to the others, with some of them cut: what would go there or come from there is dropped, in both directions.

As in a network that loses every packet: connections stay, nobody is told, what was sent meanwhile never arrives. Clients are not
concerned. The names of nodes are changed by one thread and read by another; each look takes one value of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from zmqmq.ports import Mesh, Stream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zmqmq.ports import Buffer

_decode: Final = msgspec.msgpack.Decoder(list[Any]).decode
_ENVELOPE: Final = 1
_ENVELOPE_NODE: Final = 1
"""Place of the node id among the members of ``peers.Envelope``."""
_HEADER: Final = 1
_HEADER_NODE: Final = 0
"""Of what is published: the same in ``StreamHeader`` and ``Beat``."""


class Cut:
    """Which nodes this one cannot reach now."""

    def __init__(self) -> None:
        self.nodes: frozenset[int] = frozenset()

    def hides(self, frames: Sequence[Buffer], frame: int, member: int) -> bool:
        """Whether they come from a node that is cut off. What cannot be read is let through, for the broker to refuse."""
        nodes = self.nodes
        if not nodes:
            return False
        try:
            return _decode(frames[frame])[member] in nodes
        except (msgspec.MsgspecError, ValueError, IndexError, TypeError):
            return False


class CutMesh:
    """A mesh behind a ``Cut``."""

    def __init__(self, mesh: Mesh, cut: Cut) -> None:
        self._mesh = mesh
        self._cut = cut

    def __getattr__(self, name: str) -> Any:
        """What is not a matter of messages (waiting, closing) is the mesh's own."""
        return getattr(self._mesh, name)

    def set_peers(self, peers: Mapping[int, str]) -> None:
        self._mesh.set_peers(peers)

    def send(self, node: int, frames: Sequence[Buffer]) -> bool:
        return node not in self._cut.nodes and self._mesh.send(node, frames)

    def receive(self, count_max: int, bytes_max: int) -> list[list[Buffer]]:
        return [found for found in self._mesh.receive(count_max, bytes_max) if not self._cut.hides(found, _ENVELOPE, _ENVELOPE_NODE)]

    def take_refused(self) -> list[int]:
        return [node for node in self._mesh.take_refused() if node not in self._cut.nodes]


class CutStream:
    """A stream behind a ``Cut``. What is published goes out; those that are cut off drop it when it arrives."""

    def __init__(self, stream: Stream, cut: Cut) -> None:
        self._stream = stream
        self._cut = cut

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def publish(self, key: bytes, frames: Sequence[Buffer]) -> bool:
        return self._stream.publish(key, frames)

    def follow(self, publishers: Mapping[int, str]) -> None:
        self._stream.follow(publishers)

    def subscribe(self, node: int, key: bytes) -> None:
        self._stream.subscribe(node, key)

    def unsubscribe(self, node: int, key: bytes) -> None:
        self._stream.unsubscribe(node, key)

    def receive(self, count_max: int, bytes_max: int) -> list[list[Buffer]]:
        return [found for found in self._stream.receive(count_max, bytes_max) if not self._cut.hides(found, _HEADER, _HEADER_NODE)]
