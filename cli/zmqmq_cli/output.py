"""The only module that prints. Data goes to stdout, talk to stderr.

Tables come in six formats: text (aligned; a header only on a terminal), wide (text with more columns),
json (one array), jsonl (one object a line; what ``--json`` means), yaml and csv. Colour and progress
bars appear only on a terminal and never under ``NO_COLOR`` or ``--no-color``.
"""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

FORMATS: Final = ("text", "wide", "json", "jsonl", "yaml", "csv")
_BOLD: Final = "\x1b[1m"
_RED: Final = "\x1b[31m"
_PLAIN: Final = "\x1b[0m"
_YAML_PLAIN: Final = re.compile(r"[A-Za-z_/][A-Za-z0-9_./@-]*( [A-Za-z0-9_./@-]+)*")
_YAML_WORDS: Final = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}

Row: TypeAlias = "Mapping[str, Any]"


def _cell(value: object) -> str:
    match value:
        case None | "":
            return "-"
        case True:
            return "yes"
        case False:
            return "no"
        case list() | tuple():
            return ",".join(str(item) for item in value) or "-"
        case dict():
            return " ".join(f"{name}={item}" for name, item in value.items()) or "-"
        case _:
            return str(value)


def human_bytes_cell(value: float | None) -> str:
    """4.1 G."""
    from zmqmq.units import human_bytes

    return "-" if value is None else human_bytes(value)


class Column(NamedTuple):
    """``name`` is the member of the row and of JSON; ``show`` makes its cell in the text format."""

    name: str
    title: str = ""
    show: Callable[[Any], str] = _cell
    wide: bool = False
    """Only shown by ``-f wide``."""


class Output:
    """Where a command's answers go. One per process; ``quiet`` drops talk, never errors."""

    def __init__(self, format: str = "text", *, quiet: bool = False, color: bool = True) -> None:
        self.format = format
        self.quiet = quiet
        self.stdout_tty = sys.stdout.isatty()
        self.stderr_tty = sys.stderr.isatty()
        self.color = color and not os.environ.get("NO_COLOR")

    # --- data

    def rows(self, rows: Iterable[Row], columns: Sequence[Column]) -> None:
        """A list of things of one kind."""
        match self.format:
            case "json":
                self._write(json.dumps(list(rows), ensure_ascii=False, indent=2) + "\n")
            case "jsonl":
                for row in rows:
                    self._write(_json(row) + "\n")
            case "yaml":
                self._write(yaml(list(rows)))
            case "csv":
                self._write(csv_text(rows, columns))
            case _:
                shown = [column for column in columns if self.format == "wide" or not column.wide]
                self._write(table(rows, shown, header=self.stdout_tty, bold=self.stdout_tty and self.color))

    def one(self, row: Row, text: str) -> None:
        """A single thing: ``text`` for people, the row for programs."""
        match self.format:
            case "json" | "jsonl":
                self._write(_json(row) + "\n")
            case "yaml":
                self._write(yaml(row))
            case "csv":
                self._write(csv_text([row], [Column(name) for name in row]))
            case _:
                self._write(text + "\n")

    def text(self, text: str) -> None:
        """A line of data as it is."""
        self._write(text + "\n")

    def data(self, data: bytes) -> None:
        """Bytes as they are; ``flush`` brings them out."""
        sys.stdout.buffer.write(data)

    def flush(self) -> None:
        sys.stdout.buffer.flush()

    def csv_file(self, path: str, rows: Iterable[Row], columns: Sequence[Column]) -> None:
        """A table into a file, as CSV."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(csv_text(rows, columns))

    def _write(self, text: str) -> None:
        self.data(text.encode(errors="surrogateescape"))

    # --- talk

    def note(self, text: str) -> None:
        """What a person wants to know and a program does not."""
        if not self.quiet:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def error(self, lines: Sequence[str]) -> None:
        first, *rest = lines
        if self.stderr_tty and self.color and first.startswith("Error:"):
            first = f"{_RED}Error:{_PLAIN}{first.removeprefix('Error:')}"
        sys.stderr.write("\n".join((first, *rest)) + "\n")
        sys.stderr.flush()

    @contextmanager
    def progress(self, what: str, total: int | None, *, wanted: bool = True) -> Iterator[Callable[[int], None]]:
        """A bar on stderr while the block runs; call the function with how far it is. Nothing unless on a terminal."""
        if not (wanted and self.stderr_tty and not self.quiet):
            yield _ignore
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True, no_color=not self.color)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, refresh_per_second=5) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)


def _ignore(done: int) -> None:
    """Nobody watches."""


def _json(row: object) -> str:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"))


def csv_text(rows: Iterable[Row], columns: Sequence[Column]) -> str:
    """All columns, with a header; lists and maps as JSON."""
    import csv
    import io

    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow([column.name for column in columns])
    for row in rows:
        writer.writerow([_csv_cell(row.get(column.name)) for column in columns])
    return lines.getvalue()


def _csv_cell(value: object) -> object:
    return _json(value) if isinstance(value, (dict, list, tuple)) else value


def table(rows: Iterable[Row], columns: Sequence[Column], *, header: bool, bold: bool = False) -> str:
    """Columns aligned by spaces; numbers to the right, everything else to the left, nothing trailing."""
    found = list(rows)
    cells = [[column.show(row.get(column.name)) for column in columns] for row in found]
    numeric = [bool(found) and all(_is_number(row.get(column.name)) for row in found) for column in columns]
    titles = [column.title or column.name.upper().replace("_", " ") for column in columns]
    lines = [titles, *cells] if header else cells
    widths = [max((len(line[i]) for line in lines), default=0) for i in range(len(columns))]
    printed = ["  ".join(_padded(*cell) for cell in zip(line, widths, numeric, strict=True)).rstrip() for line in lines]
    if header and bold:
        printed[0] = f"{_BOLD}{printed[0]}{_PLAIN}"
    return "".join(line + "\n" for line in printed)


def _padded(text: str, width: int, numeric: bool) -> str:
    return text.rjust(width) if numeric else text.ljust(width)


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def yaml(value: object, indent: int = 0) -> str:
    """A small YAML writer for rows: maps, lists and scalars."""
    pad = "  " * indent
    match value:
        case dict() if value:
            return "".join(f"{pad}{_yaml_scalar(str(name))}:{_yaml_member(item, indent)}" for name, item in value.items())
        case list() | tuple() if value:
            return "".join(f"{pad}- {yaml(item, indent + 1).lstrip(' ')}" for item in value)
        case _:
            return f"{pad}{_yaml_scalar(value)}\n"


def _yaml_member(item: object, indent: int) -> str:
    if isinstance(item, (dict, list, tuple)) and item:
        return "\n" + yaml(item, indent + 1)
    return f" {_yaml_scalar(item)}\n"


def _yaml_scalar(value: object) -> str:
    if isinstance(value, str) and _YAML_PLAIN.fullmatch(value) and value.lower() not in _YAML_WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
