"""All benchmarks, or those that are named, in sizes that end in time; then the page.

    python -m benchmarks                     # about ten minutes
    python -m benchmarks fanout filtered

The same as each by its own name (``python -m benchmarks.fanout --help``), with fewer rounds.
Exits 1 where one of them failed: a delivery lost, repeated or misdirected.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from benchmarks.common import say

ALL: dict[str, list[str]] = {
    "fanout": ["--rounds", "3", "--seconds", "0.4"],
    "filtered": ["--rounds", "3", "--seconds", "0.4"],
    "steady_rate": ["--rounds", "2", "--seconds", "4"],
    "memory": ["--connections", "4000"],
    "stalled": [],
    "processes": [],
    "save_cost": [],
}
LONGEST = 600  # seconds that one may take


def main(names: list[str]) -> int:
    failed = []
    for name in names or list(ALL):
        say(f"\n=== {name}")
        began = time.monotonic()
        command = [sys.executable, "-m", f"benchmarks.{name}", *ALL[name]]
        with subprocess.Popen(command) as process:
            try:
                code = process.wait(LONGEST)
            except subprocess.TimeoutExpired:
                process.terminate()  # not kill: it has servers to end
                code = -1
        say(f"=== {name} took {time.monotonic() - began:.0f} s")
        if code:
            failed.append(name)
    subprocess.run([sys.executable, "-m", "benchmarks.report"], check=True)
    if failed:
        say(f"failed: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*ALL, []], metavar="NAME", help=", ".join(ALL))
    sys.exit(main(parser.parse_args().names))
