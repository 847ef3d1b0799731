"""One broker of ``zmqmq_cluster``: ``python -m zmqmq.testing.broker_process broker.toml``.

Obeys the lines of its standard input, ``NUMBER NODE,NODE…``: it cannot reach these nodes from now on; it answers ``cut NUMBER``. The
first line comes before it opens anything. It ends when its standard input does, so that no broker outlives its tests.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from typing import TYPE_CHECKING

import msgspec

from zmqmq.broker.config import load_config
from zmqmq.broker.server import Broker
from zmqmq.errors import ZmqmqError
from zmqmq.testing.cut import Cut, CutMesh, CutStream

if TYPE_CHECKING:
    from zmqmq.broker.config import BrokerConfig
    from zmqmq.broker.loop import Surroundings


class CutBroker(Broker):
    """The broker itself, but for what it hears of the others."""

    def __init__(self, config: BrokerConfig, cut: Cut) -> None:
        super().__init__(config)
        self._cut = cut

    def _surroundings(self) -> Surroundings:
        found = super()._surroundings()
        ways = found.ways
        if ways is None:
            return found
        cut = self._cut
        made = type(ways)(CutMesh(ways.control, cut), CutMesh(ways.data, cut), CutStream(ways.stream, cut))
        return msgspec.structs.replace(found, ways=made)


def main(config_file: str) -> int:
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    cut = Cut()
    _obey(cut, sys.stdin.readline())
    broker = CutBroker(load_config(config_file), cut)
    signal.signal(signal.SIGTERM, lambda _number, _frame: broker.stop())
    try:
        broker.open()
        threading.Thread(target=_listen, args=(cut, broker), name="zmqmq-orders", daemon=True).start()
        _say(f"started {', '.join(broker.endpoints)}")
        broker.run()
    except ZmqmqError as error:
        _say(f"Error: {error}\n{error.hint}")
        return 1
    return 0


def _listen(cut: Cut, broker: Broker) -> None:
    for line in sys.stdin:
        _obey(cut, line)
    broker.stop()


def _obey(cut: Cut, line: str) -> None:
    number, _, nodes = line.strip().partition(" ")
    cut.nodes = frozenset(int(node) for node in nodes.split(",") if node)
    _say(f"cut {number}.")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
