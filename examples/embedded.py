"""The real broker inside this process: no server to start, the same files and the same promises.

    python examples/embedded.py [DIRECTORY]

Run it twice with one directory: the second run finds what the first one wrote.
"""

from __future__ import annotations

import sys
import tempfile

import zmqmq


def main(directory: str) -> None:
    with zmqmq.open(directory) as mq:
        mq.admin.create_topic("visits", exist_ok=True)
        mq.produce("visits", b"another visit")
        with mq.reader("visits", stop=zmqmq.Offset.END) as visits:
            print(f"{sum(1 for _ in visits)} visits so far")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(scratch)
