"""What an operator should read in a broker's log: said once when it begins, and once when it ends.

Pure: the shell asks after each turn and writes what it gets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from zmqmq.broker.cluster import ClusterDesk

Level: TypeAlias = Literal["info", "warning", "error"]
STRANGERS: Final = ("of another cluster", "for another node")


class Notice(NamedTuple):
    level: Level
    text: str


class Noticing:
    """Of a member of a cluster."""

    def __init__(self, cluster: ClusterDesk) -> None:
        self._cluster = cluster
        self._waits_for = ""
        self._was_ready = False
        self._was_leased = False
        self._was_fenced = False
        self._strangers: set[str] = set()
        self._problems: set[str] = set()

    def take(self) -> list[Notice]:
        """What is new."""
        notices = [*self._membership(), *self._strange(), *self._unclean()]
        return [Notice(level, text) for level, text in notices]

    def take_problems(self) -> list[Notice]:
        """Replicas that cannot follow; looks at all of them, so not after each turn."""
        found = {follower.problem for follower in self._cluster.replicas.following if follower.problem}
        fresh, self._problems = found - self._problems, found
        return [Notice("warning", problem) for problem in sorted(fresh)]

    def _membership(self) -> list[Notice]:
        cluster = self._cluster
        notices: list[Notice] = []
        if not cluster.is_ready and cluster.waits_for != self._waits_for:
            self._waits_for = cluster.waits_for
            notices.append(Notice("info", self._waits_for))
        if cluster.is_ready and not self._was_ready:
            self._was_ready = True
            notices.append(Notice("info", f"registered in cluster {cluster.cluster_id}, the controller is broker {cluster.controller}"))
        is_leased = cluster.has_lease
        if self._was_leased and not is_leased and not cluster.membership.wants_stop:
            notices.append(Notice("warning", "lost touch with the controller: this broker leads nothing until it is back"))
        elif is_leased and not self._was_leased and self._was_ready:
            notices.append(Notice("info", f"in touch with the controller, broker {cluster.controller}"))
        self._was_leased = is_leased
        if cluster.membership.is_fenced and not self._was_fenced:
            notices.append(Notice("warning", "fenced by the controller: it did not hear of this broker for a while"))
        self._was_fenced = cluster.membership.is_fenced
        return notices

    def _strange(self) -> list[Notice]:
        fresh = [name for name in STRANGERS if self._cluster.dropped[name] and name not in self._strangers]
        self._strangers.update(fresh)
        return [
            Notice("warning", f"messages {name} come to this broker and are dropped; compare the --peers of all brokers") for name in fresh
        ]

    def _unclean(self) -> list[Notice]:
        unclean, self._cluster.active.unclean[:] = list(self._cluster.active.unclean), []
        return [
            Notice(
                "error", f"partition {partition} gets a leader that was not in sync, as its topic allows: acknowledged records may be lost"
            )
            for partition in unclean
        ]
