"""Contexts: names for clusters, one JSON file each in the user's config folder. What ``-C``, $ZMQMQ_CONTEXT and ``context use`` name.

A file is replaced whole, so that a reader never sees half of one.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

from zmqmq.errors import InvalidConfig

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PREVIOUS: Final = "-"
"""The name of the context that was selected before."""
_FILE_BYTES_MAX: Final = 64 << 10


class Context(NamedTuple):
    """``brokers`` as -b takes them."""

    name: str
    brokers: str


def folder() -> Path:
    """Where this user's settings of zmqmq are."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "zmqmq"


class Contexts:
    """Those of this user."""

    def __init__(self, path: Path | None = None) -> None:
        self._folder = path or folder()

    def names(self) -> list[str]:
        return sorted(file.stem for file in (self._folder / "context").glob("*.json"))

    @property
    def selected(self) -> str:
        """Empty when none is."""
        return self._state()[0]

    def find(self, name: str | None = None) -> Context | None:
        """The context of that name; without a name the selected one, if any. Raises InvalidConfig."""
        if name:
            return self.get(name)
        selected = self.selected
        return self.get(selected) if selected else None

    def get(self, name: str) -> Context:
        """Raises InvalidConfig when there is none."""
        file = self._file(name)
        if not file.exists():
            known = self.names()
            near = difflib.get_close_matches(name, known, n=1)
            there = f"there are: {', '.join(known)}" if known else "make it with  zmqmq context add NAME -b tcp://HOST:PORT"
            raise InvalidConfig(f"there is no context {name!r}", hint=f"did you mean {near[0]}?" if near else there)
        brokers = _read(file).get("brokers")
        if not isinstance(brokers, str) or not brokers:
            raise InvalidConfig(f"context {name}: {file} names no brokers", hint=f"make it anew with  zmqmq context add {name} -b …")
        return Context(name, brokers)

    def add(self, context: Context) -> bool:
        """Make or replace it. True when it is new."""
        file = self._file(context.name)
        is_new = not file.exists()
        _write(file, {"brokers": context.brokers})
        return is_new

    def use(self, name: str) -> Context:
        """Select it; ``-`` is the one before."""
        selected, previous = self._state()
        if name == PREVIOUS:
            if not previous:
                raise InvalidConfig("no context was selected before", hint="name one; see  zmqmq context list")
            name = previous
        found = self.get(name)
        if name != selected:
            self._save(name, selected)
        return found

    def delete(self, name: str) -> None:
        """Raises InvalidConfig when there is none. Deleting the selected one selects the one before, if it is still there."""
        self.get(name)
        selected, previous = self._state()
        self._file(name).unlink()
        if name in (selected, previous):
            left = [each for each in (selected, previous) if each not in ("", name) and each in self.names()]
            self._save(left[0] if left else "", "")

    def _file(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise InvalidConfig(
                f"context name {name!r} is not allowed",
                hint="use up to 64 of the characters a-z A-Z 0-9 . _ - and begin with a letter or digit",
            )
        return self._folder / "context" / f"{name}.json"

    def _state(self) -> tuple[str, str]:
        """Selected, and selected before."""
        file = self._folder / "selected.json"
        state = _read(file) if file.exists() else {}
        return str(state.get("selected") or ""), str(state.get("previous") or "")

    def _save(self, selected: str, previous: str) -> None:
        _write(self._folder / "selected.json", {"selected": selected, "previous": previous})


def _read(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _FILE_BYTES_MAX:
            raise ValueError(f"it is larger than {_FILE_BYTES_MAX} bytes")
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidConfig(f"{file} cannot be read: {error}", hint="correct it, or delete it and make it anew") from error
    if not isinstance(found, dict):
        raise InvalidConfig(f"{file} holds no JSON object", hint="correct it, or delete it and make it anew")
    return found


def _write(file: Path, value: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    made = file.with_name(f".{file.name}.{os.getpid()}")
    made.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    made.replace(file)
