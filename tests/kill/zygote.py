"""Broker lives, one after the other: ``zmqmq serve`` in a fresh fork of a process that has everything imported.

    python zygote.py [--plant <a bug of too_early.py>]

A life begins in 50 ms instead of 500, so the kills come in dense succession. Orders come as JSON lines; events go out as lines,
among what the broker itself prints: ``started <pid>``, ``ready …``, ``burned …``, ``ended <status>``. A dead child is reaped only by
the next order: until then its pid is nobody else's.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading

import msgspec
from fuse import Fuse, FusedDisk

import zmqmq.broker.server as server
import zmqmq_cli.main
import zmqmq_cli.serve

BUG = 70
"""Exit code of a life that ended by an exception."""


class Order(msgspec.Struct):
    """One life: the command line behind ``zmqmq``, its data directory, and when it dies by itself."""

    arguments: list[str]
    data: str
    fuse: Fuse | None = None


def say(words: str) -> None:
    os.write(sys.stdout.fileno(), f"{words}\n".encode())


def die_with_runner() -> None:
    """Standard input hangs up when the runner is gone."""

    def wait() -> None:
        poll = select.poll()
        poll.register(sys.stdin.fileno(), 0)
        poll.poll()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def live(order: Order) -> int:
    die_with_runner()
    fuse = order.fuse
    if fuse is not None:
        disk = FusedDisk(order.data, fuse)
        run = server.Broker.run

        def armed_run(broker: server.Broker) -> None:
            assert fuse is not None
            fuse.is_armed = True
            run(broker)

        server.RealDisk = lambda: disk  # type: ignore[misc,assignment]
        server.Broker.run = armed_run  # type: ignore[method-assign]
    return zmqmq_cli.main.run(order.arguments)


def end(order: Order) -> None:
    """The whole life of a forked child."""
    code = BUG
    try:
        code = live(order)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--plant"]:
        import too_early

        {**too_early.PLANTS, **too_early.POWER_PLANTS}[arguments[1]]()
    dead = 0
    for line in sys.stdin:
        if dead:
            os.waitpid(dead, 0)
        order = msgspec.json.decode(line, type=Order)
        dead = os.fork()
        if dead == 0:
            end(order)
        say(f"started {dead}")
        found = os.waitid(os.P_PID, dead, os.WEXITED | os.WNOWAIT)
        assert found is not None
        say(f"ended {found.si_status if found.si_code == os.CLD_EXITED else -found.si_status}")


if __name__ == "__main__":
    main(sys.argv[1:])
