"""Run all benchmarks, or the named ones, in small sizes; then write ``docs/benchmarks.md``.

    python -m benchmarks                     # about half an hour
    python -m benchmarks fanout filtered

Each can be run alone in larger sizes (``python -m benchmarks.fanout --help``). Exits with 1 if a
benchmark fails, for example because a delivery was lost, duplicated or misdirected.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from benchmarks.common import print_line

BENCHMARKS: dict[str, list[str]] = {
    "fanout": ["--rounds", "3", "--seconds", "0.4"],
    "filtered": ["--rounds", "3", "--seconds", "0.4"],
    "steady_rate": ["--rounds", "2", "--seconds", "4"],
    "write_path": ["--processes", "1", "4", "--seconds", "3"],
    "arrivals": ["--clients", "500", "--rounds", "3"],
    "storm": [],
    "growth": [
        *("--seconds", "2", "--events", "10000", "200000", "--backlog", "200000"),
        *("--connections", "1000"),
    ],
    "memory": ["--connections", "4000"],
    "stalled": [],
    "fair": [],
    "processes": [],
    "rolling_restart": [],
    "save_cost": [],
    "read_log": [],
}
TIMEOUT_SECONDS = 600  # for one benchmark


def main(names: list[str]) -> int:
    failed = []
    for name in names or list(BENCHMARKS):
        print_line(f"\n=== {name}")
        began = time.monotonic()
        command = [sys.executable, "-m", f"benchmarks.{name}", *BENCHMARKS[name]]
        with subprocess.Popen(command) as process:
            try:
                code = process.wait(TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                process.terminate()  # not kill: the benchmark must stop its servers
                code = -1
        print_line(f"=== {name} took {time.monotonic() - began:.0f} s")
        if code:
            failed.append(name)
    subprocess.run([sys.executable, "-m", "benchmarks.report"], check=True)
    if failed:
        print_line(f"failed: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", choices=[*BENCHMARKS, []], metavar="NAME", help=", ".join(BENCHMARKS)
    )
    sys.exit(main(parser.parse_args().names))
