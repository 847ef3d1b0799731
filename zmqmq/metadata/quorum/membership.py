"""Who belongs to the quorum, and how that changes: one voter at a time (thesis 4.1).

A configuration counts from the moment when it is in the log, committed or not; an entry that is truncated takes its configuration away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmqmq.errors import InvalidConfig

if TYPE_CHECKING:
    from zmqmq.metadata.quorum.state import Configuration, Member


class Configurations:
    """The configurations of the log, the oldest one from the snapshot."""

    def __init__(self, base_end: int, base: Configuration) -> None:
        self._items: list[tuple[int, Configuration]] = [(base_end, base)]
        """(end of its entry, configuration), ascending; never empty."""

    @property
    def current(self) -> Configuration:
        return self._items[-1][1]

    @property
    def end(self) -> int:
        """Where the entry of the current one ends."""
        return self._items[-1][0]

    def append(self, end: int, configuration: Configuration) -> None:
        if end > self.end:
            self._items.append((end, configuration))

    def truncate(self, index: int) -> None:
        """Entries from ``index`` on are gone."""
        while len(self._items) > 1 and self._items[-1][0] > index:
            self._items.pop()

    def replace(self, end: int, configuration: Configuration) -> None:
        self._items = [(end, configuration)]

    def forget_before(self, end: int) -> None:
        """Nothing before ``end`` is asked for any more."""
        while len(self._items) > 1 and self._items[1][0] <= end:
            del self._items[0]

    def at(self, end: int) -> Configuration:
        """The one that counts when the log ends at ``end``."""
        return next((configuration for at, configuration in reversed(self._items) if at <= end), self._items[0][1])

    def may_campaign(self, member: Member, commit_end: int) -> bool:
        """A voter, or one whose removal is not committed: it may be the only one whose log is good enough (thesis 4.2.2)."""
        if member in self.current.voters:
            return True
        return self.end > commit_end and len(self._items) > 1 and member in self._items[-2][1].voters


def check_change(old: Configuration, new: Configuration) -> None:
    """Raises InvalidConfig unless any majority of the one and any majority of the other have a voter in common (thesis 4.1), and
    names are clear."""
    members = new.members
    node_ids = [member.node_id for member in members]
    if len(set(node_ids)) < len(node_ids):
        raise InvalidConfig(
            f"a node id is there twice in {_names(members)}", hint="remove the old directory's member first, then add the new one"
        )
    if not new.voters:
        raise InvalidConfig("a quorum without voters cannot decide anything", hint="keep at least one voter")
    changed = set(old.voters) ^ set(new.voters)
    if len(changed) > 1:
        raise InvalidConfig(
            f"from {_names(old.voters)} to {_names(new.voters)} more than one voter changes",
            hint="add or remove one voter, wait until that is committed, then the next",
        )
    if old == new:
        raise InvalidConfig(f"the quorum is {_names(members)} already", hint="nothing is to be done")
    unknown = set(new.voters) - set(old.members)
    if unknown:
        raise InvalidConfig(
            f"{_names(tuple(unknown))} would vote without having learned the log (thesis 4.2.1)",
            hint="add it as a learner first",
        )


def _names(members: tuple[Member, ...]) -> str:
    return ", ".join(str(member) for member in members) or "nobody"
