"""How brokers that were only told each other's addresses become one cluster, once.

States: *looking* (nothing on disk says which cluster) → *formed* (it is decided; the shell writes it down) → *established* (it is on disk).
A broker that is looking introduces itself to its peers every INTRODUCE_MS; one that is established answers.

Promise: no two different quorums ever start from the brokers of one ``--peers`` list. The argument: a broker *claims* the set of all peers,
each with its directory and *incarnation* (a random name of its process), at most one set in an *attempt* (a number that only grows in a
process, and is taken over from others); it forms only what all of the set claim alike in one attempt. A claim names only brokers that
have heard each other in that attempt, so of two sets that were claimed everywhere, everybody claimed the same one first; and whoever formed
that one wrote it down before it started, and has claimed nothing since. What is not covered: a broker that formed, started alone and was
then wiped.

A directory of the ``local`` engine is a quorum of one, at once. A broker that an established peer's quorum does not name joins without a
vote: ``joiners`` tells its leader, who adds it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from zmqmq.errors import Fenced, InvalidConfig, ZmqmqError
from zmqmq.marks import reached
from zmqmq.metadata.quorum.state import Configuration, Member

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmqmq.ports import Random

INTRODUCE_MS: Final = 200
"""Between two introductions of a broker that is looking."""
GREET_MS: Final = 1_000
"""The same for one that is established and has peers that it has not heard."""
INCARNATION_BYTES: Final = 16
JOINERS_MAX: Final = 64
"""Brokers without a vote that are remembered until the quorum has them."""
DIRECTORY_SWITCHES_MAX: Final = 20
"""A node id that changes its directory to and fro so often is used by two brokers."""


class Seen(Struct, frozen=True, array_like=True, order=True):
    """One process of one broker."""

    node_id: int
    directory_id: str
    incarnation: bytes
    cluster_id: str
    """Of its directory; that of the least node id becomes the cluster's."""


class Introduce(Struct, frozen=True, array_like=True, tag=30):
    """``peers`` are the node ids that it was told, its own too. ``seen``: whom it has heard in this attempt, as it is looking; ``claim``:
    what it will form in it, or nothing. ``base`` and ``configuration``, the quorum's first and present one, are there if it is
    established; both are empty for one that has joined and was not added yet. ``control`` is where it can be reached. An answer is not
    answered."""

    me: Seen
    peers: tuple[int, ...]
    control: str
    attempt: int = 0
    seen: tuple[Seen, ...] = ()
    claim: tuple[Seen, ...] = ()
    base: Configuration | None = None
    configuration: Configuration | None = None
    is_answer: bool = False

    @property
    def member(self) -> Member:
        return Member(self.me.node_id, self.me.directory_id)


class Outgoing(Struct, frozen=True):
    """To a node at an address of its control mesh."""

    node_id: int
    address: str
    message: Introduce


class Formed(Struct, frozen=True):
    """Write down, in this order: the cluster id (``Store.adopt_cluster``), then ``format.encode_saved(HardState(), base)``; sync; then
    ``on_formed``, and Raft may start. ``is_joining``: the base is empty, for the quorum does not know this broker yet."""

    cluster_id: str
    base: Configuration
    is_joining: bool = False


class Joiner(Struct, frozen=True):
    """A broker of this cluster that its quorum does not know: the leader makes it a learner."""

    member: Member
    control: str


class Forming:
    """See the module. ``error``: this broker cannot go on, and which one says why. ``peers`` are (node id, address) as the user wrote them;
    who is not in its own list only joins. ``configuration`` is that of the directory's quorum, None if there is none; ``is_fresh``: its
    metadata log is empty as well."""

    def __init__(
        self, me: Member, cluster_id: str, control: str, peers: Sequence[tuple[int, str]], random: Random,
        *, is_fresh: bool, base: Configuration | None = None,
    ) -> None:  # fmt: skip
        _check_peers(peers)
        self.error: ZmqmqError | None = None
        self._me = me
        self._cluster_id = cluster_id
        self._control = control
        self._told = tuple(sorted(node_id for node_id, _ in peers))
        self.addresses: dict[int, str] = {node_id: address for node_id, address in peers if node_id != me.node_id}
        """Where the control mesh reaches whom: the peers, and those who introduced themselves."""
        self._base = base
        self._configuration = base
        self._formed: Formed | None = None
        self._incarnation = random.randbytes(INCARNATION_BYTES)
        self._attempt = 0
        self._heard: dict[int, Introduce] = {}
        """Peers that are looking too, in this attempt."""
        self._claim: tuple[Seen, ...] = ()
        self._greeted: set[int] = set()
        """Established peers that were heard, by one that is established."""
        self._foreign: dict[int, str] = {}
        """Peers that belong to other clusters."""
        self._directories: dict[int, deque[str]] = {}
        self._joiners: dict[Member, Joiner] = {}
        self._outgoing: list[Outgoing] = []
        self._next_ms = 0
        if base is None and not is_fresh:
            self._form(Formed(cluster_id, Configuration((me,))))

    def __repr__(self) -> str:
        state = "established" if self.is_established else "formed" if self._formed else "looking"
        return f"Forming({self._me} {state} waits for {self.waits_for})"

    @property
    def is_established(self) -> bool:
        return self._base is not None

    @property
    def formed(self) -> Formed | None:
        """What to write down, until ``on_formed``."""
        return self._formed if not self.is_established else None

    @property
    def waits_for(self) -> tuple[int, ...]:
        """Peers that were not heard, while it is looking."""
        if self._formed is not None or self.is_established:
            return ()
        return tuple(node_id for node_id in self._told if node_id != self._me.node_id and node_id not in self._heard)

    def on_formed(self) -> None:
        """It is on disk."""
        assert self._formed is not None
        self._cluster_id = self._formed.cluster_id
        self._base = self._configuration = self._formed.base
        self._claim = ()
        self._heard.clear()
        reached("cluster joined" if self._formed.is_joining else "cluster formed")
        self._next_ms = 0

    def on_configuration(self, configuration: Configuration) -> None:
        """Raft's newest one."""
        self._configuration = configuration
        for member in [member for member in self._joiners if member in configuration.members]:
            del self._joiners[member]

    def take_joiners(self) -> list[Joiner]:
        """Those that the quorum does not know; told again as long as they say so."""
        joiners, self._joiners = list(self._joiners.values()), {}
        return joiners

    def take_messages(self) -> list[Outgoing]:
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def next_deadline_ms(self) -> int | None:
        return self._next_ms if self.error is None and self._to_greet() else None

    def on_time(self, now_ms: int) -> None:
        if self.error is not None:
            return
        self._maybe_claim()
        if now_ms >= self._next_ms:
            self._next_ms = now_ms + (GREET_MS if self.is_established and not self._is_joining() else INTRODUCE_MS)
            for node_id in self._to_greet():
                self._send(node_id)

    def on_message(self, message: Introduce) -> None:
        """The shell has checked that the envelope names the same source."""
        node_id = message.me.node_id
        if self.error is not None or message.member == self._me:
            return
        if node_id == self._me.node_id:
            if not self.is_established:
                self.error = _twice(node_id, self._me.directory_id, message.me.directory_id)
            return
        self._learn_address(message)
        if self.is_established:
            self._on_established_hears(message)
        elif self._formed is None and node_id in self.addresses and node_id in self._told:
            self._on_looking_hears(message)
        if not message.is_answer and self.error is None:
            self._send(node_id, is_answer=True)

    def _on_looking_hears(self, message: Introduce) -> None:
        if message.base is not None:
            self._join(message)
        elif not self._is_wrong(message) and message.attempt >= self._attempt:
            if message.attempt > self._attempt:
                self._begin_anew(message.attempt)
            if any(seen.node_id == message.me.node_id and seen != message.me for seen in self._claim):
                self._begin_anew(self._attempt + 1)  # who was claimed is gone, and in this attempt nothing else may be claimed
            else:
                self._heard[message.me.node_id] = message
            self._maybe_claim()

    def _on_established_hears(self, message: Introduce) -> None:
        if message.base is None:
            return
        node_id = message.me.node_id
        if message.me.cluster_id != self._cluster_id:
            self._on_foreign(message)
            return
        self._foreign.pop(node_id, None)
        self._greeted.add(node_id)
        configuration = self._configuration or Configuration()
        error = _wiped(self._me, message)
        if error is not None and self._me not in configuration.members:
            self.error = error
        elif not message.base.members and message.member not in configuration.members and len(self._joiners) < JOINERS_MAX:
            self._joiners[message.member] = Joiner(message.member, message.control)

    def _on_foreign(self, message: Introduce) -> None:
        """A peer of another cluster may be the one that is wrong. This one is, if it is about to join, or if more than half of the
        others are there."""
        if not message.is_answer or message.me.node_id not in self._told:
            return
        self._foreign[message.me.node_id] = message.me.cluster_id
        others = len(self._told) - (self._me.node_id in self._told)
        if self._is_joining() or 2 * len(self._foreign) > others:
            self.error = Fenced(
                f"this broker belongs to cluster {self._cluster_id}, but its peers {_list(self._foreign)} to {message.me.cluster_id}",
                hint="correct --peers, or use the data directory of that cluster",
            )

    def _join(self, message: Introduce) -> None:
        """There is a cluster already."""
        assert message.base is not None
        configuration = message.configuration or Configuration()
        error = _wiped(self._me, message)
        if error is not None:
            self.error = error
        elif self._me in configuration.members and self._me in message.base.members:
            self._form(Formed(message.me.cluster_id, message.base))
        elif configuration.members:
            self._form(Formed(message.me.cluster_id, Configuration(), is_joining=True))

    def _is_wrong(self, message: Introduce) -> bool:
        """A peer that is looking, and cannot become one cluster with this broker."""
        node_id = message.me.node_id
        if message.peers != self._told and self._me.node_id in self._told:
            self.error = InvalidConfig(
                f"this broker was told the peers {_list(self._told)}, node {node_id} was told {_list(message.peers)}",
                hint="give all first brokers of a cluster the same --peers; one that joins later does not list itself",
            )
            return True
        directories = self._directories.setdefault(node_id, deque(maxlen=DIRECTORY_SWITCHES_MAX + 1))
        if not directories or directories[-1] != message.me.directory_id:
            directories.append(message.me.directory_id)
        if len(directories) > DIRECTORY_SWITCHES_MAX and len(set(directories)) == 2:
            self.error = _twice(node_id, *sorted(set(directories)))
            return True
        return False

    def _maybe_claim(self) -> None:
        """Claim when everybody has seen everybody; form when everybody claims the same."""
        if self.is_established or self._formed is not None or self._me.node_id not in self._told:
            return
        me = self._seen()
        others = [self._heard.get(node_id) for node_id in self._told if node_id != self._me.node_id]
        if not self._claim and all(other is not None and me in other.seen for other in others):
            self._claim = tuple(sorted([me, *(other.me for other in others if other is not None)]))
        if self._claim and all(other is not None and other.claim == self._claim for other in others):
            members = tuple(Member(seen.node_id, seen.directory_id) for seen in self._claim)
            self._form(Formed(self._claim[0].cluster_id, Configuration(members)))

    def _form(self, formed: Formed) -> None:
        self._formed = formed

    def _begin_anew(self, attempt: int) -> None:
        reached("forming began anew")
        self._attempt = attempt
        self._claim = ()
        self._heard.clear()

    def _seen(self) -> Seen:
        return Seen(self._me.node_id, self._me.directory_id, self._incarnation, self._cluster_id)

    def _is_joining(self) -> bool:
        return self._configuration is not None and self._me not in self._configuration.members

    def _to_greet(self) -> list[int]:
        """Who is to be told again and again."""
        others = [node_id for node_id in self._told if node_id != self._me.node_id]
        if not self.is_established or self._is_joining():
            return others
        return [node_id for node_id in others if node_id not in self._greeted]

    def _send(self, node_id: int, *, is_answer: bool = False) -> None:
        seen = tuple(sorted(each.me for each in self._heard.values()))
        message = Introduce(
            self._seen(), self._told, self._control, self._attempt, seen, self._claim, self._base, self._configuration, is_answer
        )
        address = self.addresses.get(node_id)
        if address is not None:
            self._outgoing.append(Outgoing(node_id, address, message))

    def _learn_address(self, message: Introduce) -> None:
        """Of who is not in the list; the list counts more."""
        node_id = message.me.node_id
        if node_id not in self._told and message.control and (node_id in self.addresses or len(self.addresses) < JOINERS_MAX):
            self.addresses[node_id] = message.control


def _check_peers(peers: Sequence[tuple[int, str]]) -> None:
    """Raises InvalidConfig."""
    for position, (node_id, address) in enumerate(peers):
        for other_id, other_address in peers[:position]:
            if node_id == other_id:
                raise InvalidConfig(f"peers: node id {node_id} is there twice", hint="give every broker its own node id")
            if address == other_address:
                raise InvalidConfig(
                    f"peers: nodes {other_id} and {node_id} have the same address {address}", hint="give every broker its own address"
                )


def _wiped(me: Member, message: Introduce) -> ZmqmqError | None:
    """The quorum has another directory under this node id."""
    configuration = message.configuration or Configuration()
    known = next((member for member in configuration.members if member.node_id == me.node_id), me)
    if known == me:
        return None
    return Fenced(
        f"node {me.node_id} of cluster {message.me.cluster_id} has the directory {known.directory_id}, this one is {me.directory_id}",
        hint=f"bring the old data directory back, or start with a new node id, or first: zmqmq cluster remove {me.node_id}",
    )


def _twice(node_id: int, first: str, second: str) -> ZmqmqError:
    return Fenced(
        f"node id {node_id} is used by two brokers, with the directories {first} and {second}", hint="give every broker its own node id"
    )


def _list(node_ids: Sequence[int] | dict[int, str]) -> str:
    return ", ".join(str(node_id) for node_id in sorted(node_ids))
