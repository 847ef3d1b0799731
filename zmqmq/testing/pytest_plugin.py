"""Fixtures for tests of programs that use zmqmq. Loaded by pytest; imports nothing heavy before a fixture is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from zmqmq.testing.broker import TestBroker


@pytest.fixture
def zmqmq_broker(tmp_path: Path) -> Iterator[TestBroker]:
    """A real broker in this process, on its own directory: ``.url`` for clients, ``.messages(topic)``, ``.restart()``."""
    from zmqmq.testing.broker import TestBroker

    broker = TestBroker(tmp_path / "zmqmq")
    try:
        yield broker
    finally:
        broker.close()
