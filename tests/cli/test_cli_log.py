"""``zmqmq log`` on directories that are in use, or not ours."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from live import Command, ServeProcess

from zmqmq_cli.main import run


def test_a_directory_in_use_is_verified_and_said_to_be_so(tmp_path: Path) -> None:
    process = ServeProcess(tmp_path / "data")
    command = Command(process.url)
    data = str(process.data)
    producing = command.start("produce", "busy", "--create=3", "-q", "--repeat", "100000000", "x" * 200)
    try:
        command("topic", "describe", "busy")
        for _ in range(2):
            done = command("log", "verify", data)
            assert (done.returncode, done.stdout) == (0, ""), (done.stdout, done.stderr)
            assert f"a running broker holds {data}" in done.stderr
            assert done.stderr.endswith(": ok\n")
        done = command("log", "verify", data, "--repair")
        assert done.returncode == 1
        what, where, then = done.stderr.splitlines()
        assert what == f"Error: {data} is held by a running broker, so its indexes cannot be built anew"
        assert where.startswith("  Where: zmqmq log verify")
        assert "stop the broker" in then
    finally:
        producing.kill()
        producing.communicate()
        process.end(signal.SIGTERM)
    done = command("log", "verify", data)
    assert (done.returncode, "running broker" in done.stderr) == (0, False)


@pytest.mark.parametrize("verb", [["ls"], ["verify"], ["verify", "--repair"], ["stats"]])
def test_a_directory_of_something_else_is_refused_in_three_lines(
    verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["log", verb[0], str(tmp_path), *verb[1:]]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    what, where, then = err.splitlines()
    assert what == f"Error: {tmp_path}: no zmqmq data directory there"
    assert where == f"  Where: zmqmq log {verb[0]}"
    assert "serve --data" in then
    assert list(tmp_path.iterdir()) == []
