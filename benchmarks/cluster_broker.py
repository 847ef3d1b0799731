"""One broker of ``cluster.py``: ``python benchmarks/cluster_broker.py CONFIG [--lose SHARE] [--profile FILE]``.

``--lose``: so much of what the other brokers publish is dropped when it arrives, by chance; nothing else is lost. ``--profile``: what the
broker's own thread did, for ``pstats``, written when it ends by SIGTERM.
"""

from __future__ import annotations

import argparse
import cProfile
import random
import signal
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from zmqmq.broker.config import load_config
from zmqmq.broker.loop import Surroundings
from zmqmq.broker.server import Broker
from zmqmq.ports import Buffer, Stream


class LossyStream:
    """A stream that loses some of what it receives."""

    def __init__(self, stream: Stream, share: float) -> None:
        self._stream = stream
        self._share = share
        self._chance = random.Random(1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def receive(self, count_max: int, bytes_max: int) -> list[list[Buffer]]:
        return [found for found in self._stream.receive(count_max, bytes_max) if self._chance.random() >= self._share]


class LossyBroker(Broker):
    """A broker behind a ``LossyStream``."""

    lose = 0.0

    def _surroundings(self) -> Surroundings:
        found = super()._surroundings()
        if found.ways is None or not self.lose:
            return found
        lossy: Any = LossyStream(found.ways.stream, self.lose)
        return msgspec.structs.replace(found, ways=msgspec.structs.replace(found.ways, stream=lossy))


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--lose", type=float, default=0.0)
    parser.add_argument("--profile", default="")
    options = parser.parse_args(arguments)
    broker = LossyBroker(load_config(options.config))
    broker.lose = options.lose
    signal.signal(signal.SIGTERM, lambda _number, _frame: broker.stop())
    profile = cProfile.Profile()
    if options.profile:
        profile.enable()
    broker.open()
    print("started", *broker.endpoints, flush=True)
    try:
        broker.run()
    finally:
        if options.profile:
            profile.disable()
            profile.dump_stats(options.profile)


if __name__ == "__main__":
    main(sys.argv[1:])
