"""Draws ``peers.jsonl`` as ``peers.svg``: python benchmarks/plot.py"""

from __future__ import annotations

import json
from pathlib import Path
from xml.sax.saxutils import escape

HERE = Path(__file__).parent
LABEL_PX, BAR_PX, ROW_PX, GAP_PX, TOP_PX = 270, 420, 15, 12, 40
WIDTH_PX = LABEL_PX + BAR_PX + 130
IN, OUT = "#2f6f9f", "#d9902f"


def main() -> None:
    rows = [json.loads(line) for line in (HERE / "peers.jsonl").read_text().splitlines()]
    most = max(value for row in rows for value in (row["in"], row["out"]) if value)
    height = TOP_PX + len(rows) * (2 * ROW_PX + GAP_PX)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH_PX}" height="{height}" fill="white"/>',
        f'<text x="{LABEL_PX}" y="20" fill="{IN}">records a second in</text>',
        f'<text x="{LABEL_PX + 160}" y="20" fill="{OUT}">and out, 100-byte values, one Python process each</text>',
    ]
    for number, row in enumerate(rows):
        top = TOP_PX + number * (2 * ROW_PX + GAP_PX)
        parts.append(f'<text x="{LABEL_PX - 8}" y="{top + ROW_PX + 4}" text-anchor="end">{escape(row["system"])}</text>')
        for line, (name, colour) in enumerate((("in", IN), ("out", OUT))):
            parts += _bar(row[name], most, top + line * ROW_PX, colour)
    (HERE / "peers.svg").write_text("\n".join([*parts, "</svg>", ""]))


def _bar(value: int | None, most: int, top: int, colour: str) -> list[str]:
    if value is None:
        return []
    width = max(1, round(value / most * BAR_PX))
    text = f"{value / 1e6:.2f} M" if value >= 1_000_000 else f"{value / 1e3:.0f} k"
    return [
        f'<rect x="{LABEL_PX}" y="{top}" width="{width}" height="{ROW_PX - 2}" fill="{colour}"/>',
        f'<text x="{LABEL_PX + width + 6}" y="{top + ROW_PX - 4}">{text}</text>',
    ]


if __name__ == "__main__":
    main()
