"""Every truncation and every flipped bit: of a 64 KiB segment through the scanner, of 4 KiB of every kind of file through a full open."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor

import pytest
from scanning import SEGMENT_BYTES, scanned, segment, sweep_scanner
from sweeping import FILE_BYTES, KINDS, made, sweep

from zmqmq import batch

PROCESSES = 2
PARTS = 4
SCANNER = "scanner"


@pytest.fixture(scope="module")
def started() -> Iterator[dict[str, list[Future[tuple[int, list[str]]]]]]:
    """All sweeps, in two processes."""
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = {kind: [pool.submit(sweep, kind, part, PARTS) for part in range(PARTS)] for kind in KINDS}
        yield {SCANNER: [pool.submit(sweep_scanner, part, PARTS) for part in range(PARTS)], **jobs}


def outcome(futures: list[Future[tuple[int, list[str]]]]) -> tuple[int, list[str]]:
    found = [future.result() for future in futures]
    return sum(tried for tried, _ in found), [words for _, wrong in found for words in wrong]


def test_the_scanner_notices_every_damage_of_a_segment(started: dict[str, list[Future[tuple[int, list[str]]]]]) -> None:
    tried, wrong = outcome(started[SCANNER])
    assert wrong == []
    assert tried == SEGMENT_BYTES * 9


def test_the_scanner_takes_the_whole_segment() -> None:
    content, starts = segment()
    assert len(content) == SEGMENT_BYTES
    assert scanned(content, 0, 1_001, len(content)) == (len(starts) - 1, False)


@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_of_a_file_gives_other_data(started: dict[str, list[Future[tuple[int, list[str]]]]], kind: str) -> None:
    tried, wrong = outcome(started[kind])
    assert wrong == []
    files, path, _ = made(kind)
    assert tried == len(files[path]) * 9
    assert len(files[path]) > FILE_BYTES * 9 // 10


def test_a_damage_that_goes_unnoticed_would_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "check_body", lambda *_: None)
    assert sweep("segment", 0, 16)[1]
