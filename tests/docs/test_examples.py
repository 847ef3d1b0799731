"""The examples run as their docstrings say, with warnings as errors, and print what they promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_produce_and_tail(zmqmq_broker: Any) -> None:
    lines = run("produce_and_tail.py", zmqmq_broker.url).splitlines()
    assert len(lines) == 5
    assert sum("hello ann" in line for line in lines) == 2


def test_embedded_finds_what_an_earlier_run_wrote(tmp_path: Path) -> None:
    assert run("embedded.py", str(tmp_path / "data")) == "1 visits so far\n"
    assert run("embedded.py", str(tmp_path / "data")) == "2 visits so far\n"


def test_typed_topic() -> None:
    assert run("typed_topic.py") == "{'ann': 36.0, 'bob': 39.0}\n"


def test_async_service(zmqmq_broker: Any) -> None:
    lines = run("async_service.py", zmqmq_broker.url).splitlines()
    assert [line.split(":")[0] for line in lines] == [f"order {i} of {('ann', 'bob')[i % 2]}" for i in range(6)]


def test_simulated_service() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(EXAMPLES / "simulated")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "20 passed" in done.stdout
