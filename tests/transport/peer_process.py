"""A real process that holds the other end of a mesh or a stream, to be killed or stopped."""

from __future__ import annotations

import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

WAIT_MS = 20_000
_PROGRAM = """
import select, sys
from zmqmq.transport.mesh import ZmqMesh
from zmqmq.transport.stream import ZmqStream
what, *arguments = sys.argv[1:]
if what == "mesh":
    end = ZmqMesh()
    print(end.bind(arguments[0]), flush=True)
else:
    end = ZmqStream()
    end.subscribe(1, bytes.fromhex(arguments[1]))
    end.follow({1: arguments[0]})
    print("following", flush=True)
poller = select.poll()
poller.register(end.fileno(), select.POLLIN)
count = 0
while True:
    if messages := end.receive(100, 1 << 20):
        if count == 0 or messages[-1][-1] == b"tell":
            print("received", flush=True)
        count += len(messages)
    else:
        poller.poll(end.before_wait())
"""


class PeerProcess:
    """``line``: the first that it printed. It prints ``received`` at its first message, and when it got ``tell``."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", _PROGRAM, *arguments], stdout=subprocess.PIPE, bufsize=0)
        assert self._process.stdout is not None
        self.output = self._process.stdout
        self.line = self.read()

    def read(self) -> str:
        poller = select.poll()
        poller.register(self.output, select.POLLIN)
        assert poller.poll(WAIT_MS), "the peer says nothing"
        return self.output.readline().decode().strip()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self.kill()
        self._process.wait()
        self.output.close()


@contextmanager
def peer_process(*arguments: str) -> Iterator[PeerProcess]:
    made = PeerProcess(*arguments)
    try:
        yield made
    finally:
        made.close()
