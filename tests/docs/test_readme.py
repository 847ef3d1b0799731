"""README tells the truth: every command is run against a live broker, every output compared.

Times, durations, ports and the cluster's name differ from run to run; ``masked`` takes them out of both sides.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
COMMAND_SECONDS_MAX = 30
DEFAULT_ADDRESS = "tcp://127.0.0.1:5570"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def steps(block: str) -> list[tuple[str, list[str]]]:
    """(command, expected lines) for every ``$`` line of a console block."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def masked(text: str) -> str:
    text = re.sub(r"\b\d+\.\d+ (ms|s)\b", r"# \1", text)
    text = re.sub(r"\b\d\d:\d\d:\d\d\.\d{3}\b", "<time>", text)
    text = re.sub(r"cluster \S+", "cluster <id>", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:<port>", text)
    return re.sub(r"data \S+", "data <dir>", text)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], Path, list[str]]]:
    """``zmqmq serve`` as README starts it, but on free ports; environment, folder, and what it printed."""
    folder = tmp_path_factory.mktemp("readme")
    environment = os.environ | {
        "PATH": sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"],
        "ZMQMQ_SERVE_LISTEN": "tcp://127.0.0.1:0",
        "ZMQMQ_SERVE_HTTP": "127.0.0.1:0",
        "TZ": "UTC",
    }
    serve = subprocess.Popen(["zmqmq", "serve"], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    assert serve.stdout is not None
    printed: list[str] = []
    for line in serve.stdout:
        printed.append(line.rstrip("\n"))
        if line.startswith("ready"):
            break
    address = re.search(r"tcp://\S+", "\n".join(printed))
    assert address is not None, printed
    yield environment | {"ZMQMQ_BROKERS": address[0]}, folder, printed
    serve.terminate()
    assert serve.wait(COMMAND_SECONDS_MAX) == 0
    serve.stdout.close()


def all_steps() -> list[tuple[str, list[str]]]:
    return [step for block in blocks("console") for step in steps(block)]


def test_the_two_commands_exist() -> None:
    named = [command.split("#")[0].split() for command, _ in all_steps() if command.startswith("make ")]
    assert named == [["make", "demo"], ["make", "test"]]
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for _, target in named)


def test_the_banner_of_serve_is_as_shown(live: tuple[dict[str, str], Path, list[str]]) -> None:
    (shown,) = [expected for command, expected in all_steps() if command == "zmqmq serve"]
    assert [masked(line) for line in live[2]] == [masked(line) for line in shown]


def test_every_command_prints_what_readme_shows(live: tuple[dict[str, str], Path, list[str]]) -> None:
    environment, folder, _ = live
    ran = 0
    for command, expected in all_steps():
        if command.startswith("make ") or command == "zmqmq serve":
            continue
        printed = follow(command, expected, environment, folder) if expected[-1:] == ["^C"] else run(command, environment, folder)
        assert masked(printed) == masked("".join(f"{line}\n" for line in expected if line != "^C")), command
        ran += 1
    assert ran >= 4


def run(command: str, environment: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=COMMAND_SECONDS_MAX, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (command, done.stdout)
    return done.stdout


def follow(command: str, expected: list[str], environment: dict[str, str], folder: Path) -> str:
    """A command that README ends with Ctrl-C: as many lines as are shown, then the signal."""
    process = subprocess.Popen(command.split(), cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        lines = [process.stdout.readline() for _ in expected[:-1]]
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.wait(COMMAND_SECONDS_MAX) == 0
    return "".join(lines) + rest


def test_the_python_of_readme_runs(live: tuple[dict[str, str], Path, list[str]]) -> None:
    environment, folder, _ = live
    service, tests = blocks("python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", service.replace(DEFAULT_ADDRESS, environment["ZMQMQ_BROKERS"])],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 1\n0 ann\n1 bob\n", "")
    (folder / "test_billing.py").write_text(tests)
    assert "1 passed" in run(f"{sys.executable} -m pytest -q test_billing.py", environment, folder)


def test_the_demo_loses_nothing() -> None:
    done = subprocess.run(
        ["sh", "examples/demo.sh"], cwd=ROOT, capture_output=True, text=True, timeout=2 * COMMAND_SECONDS_MAX, check=False,
        env=os.environ | {"PATH": sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same lines" in done.stdout
