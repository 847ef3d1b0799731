"""What every scenario needs: commands with a deadline, and why one cannot run here."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Final

CALL_SECONDS_MAX: Final = 20.0
"""Of any command but the ones under test."""


def run(*command: object) -> str:
    """What it printed. Raises CalledProcessError with its words as a note."""
    found = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=CALL_SECONDS_MAX, check=False)
    if found.returncode != 0:
        error = subprocess.CalledProcessError(found.returncode, found.args, found.stdout, found.stderr)
        error.add_note(found.stderr.strip())
        raise error
    return found.stdout


def missing(*programs: str, root: bool = True) -> str:
    """Why it cannot run: empty if it can, as far as one can tell without trying."""
    if root and os.geteuid() != 0:
        return "not root"
    absent = [program for program in programs if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def refused(error: Exception) -> str:
    """In one line, why the system did not let us."""
    notes = [*getattr(error, "__notes__", []), str(error)]
    return " ".join(notes[0].split())[:200]
