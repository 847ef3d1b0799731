"""The kill test from the command line: ``python tests/kill/run.py --kills 300``. Exit code 1 when a promise was broken."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from campaign import Campaign


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seconds-max", type=float, default=1_800.0)
    parser.add_argument("--seed", type=int, default=None, help="of the order of kills; the moments themselves are never twice the same")
    parser.add_argument("--audit-every", type=int, default=20)
    parser.add_argument("--plant", default="", help="a bug of too_early.py, which has to be found")
    parser.add_argument("--keep", action="store_true", help="keep the directory, also when all is well")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    directory = Path(tempfile.mkdtemp(prefix="zmqmq-kill-"))
    campaign = Campaign(directory, seed, plant=options.plant, audit_every=options.audit_every)
    report = campaign.run(options.kills, options.seconds_max)
    print(report.text())
    if report.wrong or options.keep:
        print(f"kept: {directory}")
    else:
        shutil.rmtree(directory)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
