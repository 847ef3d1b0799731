"""The nemesis of ``make faults`` against a real cluster, as far as it needs no rights: processes are killed and stopped under load."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent / "kill")]

from besieged import BROKERS, Siege  # noqa: E402 - the path comes first
from cluster_actions import Grip, stop_and_go  # noqa: E402
from members import Seat  # noqa: E402
from nemesis import Action, Nemesis  # noqa: E402

from zmqmq.testing.history import Operation, Poll, Send, check  # noqa: E402
from zmqmq.testing.processes import HOST, free_ports  # noqa: E402

CLIENTS = 2
STOPPED_SECONDS = (1.5, 2.0)


def local_seats(scratch: Path) -> list[Seat]:
    ports = free_ports(2 * BROKERS)
    return [
        Seat(HOST, scratch / f"node-{node}", scratch / f"node-{node}" / "data", (), ports[node], ports[BROKERS + node])
        for node in range(BROKERS)
    ]


def scenarios(grip: Grip) -> list[Action]:
    """A leader killed, the controller killed, a leader stopped for longer than its lease and the fence, all killed at once."""
    members = grip.members
    return [
        grip.on("leader", "kill -9", members.kill, members.start, (0.5, 1.0)),
        grip.on("controller", "kill -9", members.kill, members.start, (0.5, 1.0)),
        stop_and_go(grip, "leader", STOPPED_SECONDS),
        next(action for action in grip.several() if action.name == "kill -9: all"),
    ]


def test_a_history_stays_valid_while_brokers_are_killed_and_stopped(tmp_path: Path) -> None:
    siege = Siege(tmp_path, local_seats(tmp_path), seed=5)
    try:
        siege.begin(CLIENTS)
        actions = scenarios(siege.grip)
        nemesis = Nemesis(actions, siege.chance)
        for _ in actions:
            siege.strike(nemesis)
        report = siege.end()
    finally:
        siege.close()
    assert siege.wrong == []
    assert report.metrics.sends_ok > 100
    assert siege.done.total() == len(actions)


def test_a_lost_record_of_two_clients_is_found_in_their_common_history(tmp_path: Path) -> None:
    siege = Siege(tmp_path, local_seats(tmp_path), seed=1)
    try:
        for number, process in enumerate(("a", "b")):
            send = Send("t-0", process, number)
            siege.operations += [Operation(0, process, kind, "send", 10 - number, [send]) for kind in ("invoke", "ok")]
        siege._write_final(Poll({"t-0": [(1, "b")]}))
        report = check(siege._history())
    finally:
        siege.close()
    assert {"unseen"} <= {anomaly.name for anomaly in report.anomalies}
