"""Writes the reference pages from the code: ``docs/configuration.md`` and ``docs/errors.md``.

python scripts/reference.py            # write them
python scripts/reference.py --check    # exit 1 if they are not what the code says
"""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

from msgspec import Struct

from zmqmq import errors
from zmqmq.broker import limits
from zmqmq.broker.config import BrokerConfig
from zmqmq.store import store
from zmqmq.topic_config import SETTINGS, TopicConfig, describe_config
from zmqmq.units import format_bytes, format_duration_ms

DOCS = Path(__file__).parent.parent / "docs"
WRITTEN = "<!-- Written by scripts/reference.py from the code. Change the code, then run it. -->\n"


def field_docs(cls: type[Struct]) -> dict[str, str]:
    """What the source says of each field: the string below it, or the comment behind it."""
    source = inspect.getsource(cls)
    lines = source.splitlines()
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for node, after in zip(definition.body, [*definition.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                text = inspect.cleandoc(str(after.value.value)).replace("\n", " ")
            elif "#" in (line := lines[node.lineno - 1]):
                text = line.partition("#")[2].strip()
            found[node.target.id] = text
    return found


def shown(name: str, value: object) -> str:
    """A default as it would be written in the file."""
    if isinstance(value, bool) or not isinstance(value, int):
        return f"`{str(list(value) if isinstance(value, tuple) else value).lower() if isinstance(value, bool) else quoted(value)}`"
    if "bytes" in name:
        return f"`{format_bytes(value)}`"
    return f"`{format_duration_ms(value)}`" if name.endswith(("_ms", "_ms_max")) else f"`{value:,}`"


def quoted(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else f'"{value}"'


def broker_rows(cls: type[Struct], prefix: str = "") -> list[str]:
    documented = field_docs(cls)
    defaults = cls()
    rows = []
    for name in cls.__struct_fields__:
        value = getattr(defaults, name)
        if not isinstance(value, Struct):
            rows.append(f"| `{prefix}{name}` | {shown(name, value)} | {documented[name]} |")
    return rows


def configuration() -> str:
    topic_rows = [
        f"| `{name}` | `{describe_config(TopicConfig())[name]}` | {setting.rule} | {setting.doc} |" for name, setting in SETTINGS.items()
    ]
    return "\n".join(
        [
            "# Configuration",
            "",
            WRITTEN,
            "Sizes and durations are written as people write them: `64MiB`, `10kB`, `7d`, `250ms`; a bare number is bytes or milliseconds.",
            "",
            "## Topics",
            "",
            "Set with `zmqmq topic create NAME -c key=value`, `zmqmq topic alter NAME --set key=value` or",
            '`admin.create_topic(name, config={"key": "value"})`; kept in the metadata log, effective at once.',
            "",
            "| setting | default | allowed | meaning |",
            "|---|---|---|---|",
            *topic_rows,
            "",
            "## Broker",
            "",
            "A TOML file, read once at the start: `zmqmq serve --config zmqmq.toml`. `zmqmq serve --print-config` shows what is in",
            "effect, `--check` only checks. Options of the command win over the file. A key that is not known is refused.",
            "",
            "| setting | default | meaning |",
            "|---|---|---|",
            *broker_rows(BrokerConfig),
            "",
            "### [limits]",
            "",
            "Over a bound a client gets a named error that says what to do, mostly `Throttled`, which clients wait out by themselves.",
            "",
            "| setting | default | meaning, allowed values |",
            "|---|---|---|",
            *broker_rows(limits.BrokerLimits),
            "",
            "### [store]",
            "",
            "| setting | default | meaning |",
            "|---|---|---|",
            *broker_rows(store.StoreOptions),
            "",
        ]
    )


def error_page() -> str:
    rows = []
    for code, cls in sorted(errors.BY_CODE.items()):
        doc = inspect.cleandoc(cls.__doc__ or "").replace("\n", " ")
        rows.append(f"| {code} | `{cls.__name__}` | {'yes' if cls.retriable else 'no'} | {doc} |")
    return "\n".join(
        [
            "# Errors",
            "",
            WRITTEN,
            "Every error is a class of `zmqmq.errors` and has a code that travels on the wire. *Retriable*: the same call may succeed",
            "later with nothing changed. The message says what happened and where, `.hint` what to do next (tracebacks show it).",
            'Errors of a produce have an `.outcome`: `"not_written"` (it is in no log) or `"unknown"` (it was sent and no answer came).',
            "",
            "| code | error | retriable | when, and what to do |",
            "|---:|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> int:
    pages = {DOCS / "configuration.md": configuration(), DOCS / "errors.md": error_page()}
    pages = {path: text.replace("``", "`") for path, text in pages.items()}
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.name} is not what the code says: run python scripts/reference.py", file=sys.stderr)
        return 1 if stale else 0
    for path, text in pages.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
