"""Typed topics are checked by mypy in a user's project: right code passes, wrong code does not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

USER_CODE = Path(__file__).parent / "typed_topics.py"


def test_mypy_accepts_right_user_code_and_refuses_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file=", f"--cache-dir={tmp_path}", str(USER_CODE)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    refused = {(int(line), code) for line, code in re.findall(r"typed_topics\.py:(\d+): error: .*\[([\w-]+)\]", found.stdout)}
    marked = {
        (number, mark[1])
        for number, line in enumerate(USER_CODE.read_text().splitlines(), 1)
        if (mark := re.search(r"# error: ([\w-]+)$", line))
    }
    assert refused == marked, found.stdout + found.stderr
