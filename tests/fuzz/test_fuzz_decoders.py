"""Every decoder against 200,000 damaged inputs, every input that ever failed, and the proof that the fuzzer notices.

``make fuzz`` is the long run. ``python tests/fuzz/fuzz_run.py --target NAME --seed 1 --executions 200000`` repeats a failure of
this one and keeps the input.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_run import run_all
from fuzzing import CORPUS, Result, Target, fuzz, outcome
from targets import TARGETS

from zmqmq.wire.framing import PROTOCOL, decode_request

EXECUTIONS = 200_000
"""Of each target."""
SEED = 1
"""Fixed: a run that suddenly fails was failed by the change, not by luck. ``make fuzz`` tries other seeds."""


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    return {result.target: result for result in run_all(list(TARGETS), EXECUTIONS, SEED)}


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_is_decoded_or_refused_by_name(results: dict[str, Result], name: str) -> None:
    result = results[name]
    assert result.failures == [], "\n".join(map(str, result.failures))
    assert result.executions == EXECUTIONS
    assert 0 < result.taken < EXECUTIONS, "the inputs are all broken, or not at all"


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*.bin")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_an_input_that_failed_once_does_not_fail_again(path: Path) -> None:
    assert outcome(TARGETS[path.parent.name], path.read_bytes()) == ""


def test_valid_input_is_taken_by_every_target() -> None:
    for target in TARGETS.values():
        for seed in (*target.seeds[:1], *target.seeds[-1:]):
            if target.name != "frames":  # its seeds are requests and replies, and each decoder refuses the others'
                target.check(seed)


def test_an_error_that_is_not_documented_is_found_and_made_small() -> None:
    def check(data: bytes) -> None:
        if b"\xff" in data[4:]:
            raise KeyError("deep inside")
        raise ValueError

    found = fuzz(Target("planted", check, (ValueError,), (bytes(64),)), 5_000, 1).failures
    assert [failure.what.split()[0] for failure in found] == ["KeyError"]
    assert len(found[0].data) == 5


def test_an_error_below_a_documented_one_is_not_documented() -> None:
    assert outcome(Target("planted", lambda data: data.decode() and None, (ValueError,), ()), b"\xff").startswith("UnicodeDecodeError")


def test_a_length_that_is_believed_is_found() -> None:
    def check(data: bytes) -> None:
        bytearray(1 << 40 if data[0] == 0 else 0)

    found = fuzz(Target("planted", check, (IndexError,), (b"\x01\x02",)), 5_000, 1).failures
    assert [failure.what.split()[0] for failure in found] == ["MemoryError"]


def test_a_value_that_changes_on_its_way_back_is_found() -> None:
    def check(data: bytes) -> None:
        request, _ = decode_request([PROTOCOL, data])
        assert request.timeout_ms != 501

    target = TARGETS["request"]._replace(check=check)
    assert [failure.what.split()[0] for failure in fuzz(target, 20_000, 1).failures][:1] == ["AssertionError"]
