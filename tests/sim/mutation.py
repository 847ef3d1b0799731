"""A planted bug: what is changed in the product's own code, and which promise that breaks.

Promise: a mutation that does not fit the code any more is an error, never a mutation that quietly does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from zmqmq.errors import ZmqmqError

ROOT = Path(__file__).parents[2]
PACKAGE = "zmqmq"
FIRST_CLUSTER = 1_000_000
"""Seeds from here on have three brokers, from twice as many on five."""


class NoLongerApplies(ZmqmqError):
    """The code that a mutation changes has changed itself."""


class Edit(Struct, frozen=True):
    """Replace ``old`` by ``new`` in a file of the package; ``old`` occurs exactly once."""

    file: str
    old: str
    new: str


class Mutation(Struct, frozen=True):
    """``breaks`` is the promise that does not hold any more."""

    name: str
    breaks: str
    edits: Sequence[Edit]
    stories: Sequence[str] = ()
    """Tests that must fail with the mutation, where chance would take too many seeds."""
    first_seed: int = 0
    """Where the search begins."""

    def __str__(self) -> str:
        return self.name


def mutate(mutation: Mutation, root: Path) -> dict[str, str]:
    """The changed files of the package below ``root``, by name. Raises NoLongerApplies."""
    changed: dict[str, str] = {}
    for edit in mutation.edits:
        text = changed[edit.file] if edit.file in changed else (root / PACKAGE / edit.file).read_text(encoding="utf-8")
        count = text.count(edit.old)
        if count != 1:
            raise NoLongerApplies(
                f"mutation '{mutation.name}' no longer applies: {edit.file} has its text {count} times instead of once",
                hint="write the mutation anew for the code as it is now, and see it found",
            )
        changed[edit.file] = text.replace(edit.old, edit.new)
    for file, text in changed.items():
        try:
            compile(text, file, "exec", dont_inherit=True)
        except SyntaxError as error:
            raise NoLongerApplies(f"mutation '{mutation.name}' makes no Python of {file}: {error}", hint="correct its new text") from error
    return changed
