"""A small TOML writer for configurations: scalars, lists, and one level of tables."""

from __future__ import annotations

import json
from typing import Any

import msgspec


def toml(config: msgspec.Struct) -> str:
    """The config as TOML that ``zmqmq serve --config`` reads back to the same."""
    members: dict[str, Any] = msgspec.to_builtins(config)
    plain = [f"{name} = {_value(value)}" for name, value in members.items() if not isinstance(value, dict)]
    tables = [
        "\n".join([f"[{name}]", *(f"{key} = {_value(value)}" for key, value in table.items())])
        for name, table in members.items()
        if isinstance(table, dict)
    ]
    return "\n\n".join(["\n".join(plain), *tables]) + "\n"


def _value(value: object) -> str:
    """JSON's scalars and lists are TOML's too."""
    return json.dumps(value, ensure_ascii=False)
