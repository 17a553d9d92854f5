"""The cost of metrics in a fan-out: server CPU µs per delivery, with and without them.

    python -m benchmarks.metrics_cost
    python -m benchmarks.metrics_cost --server daphne --subscribers 100 --rounds 20

Two servers are measured in turn, of which one has loaded the package without the statements that
count. Few subscribers make the difference largest, since most counts are per event. Each row is the
median of the ratios of single rounds. Exits with 1 if it is above 1.03, or if a delivery was lost.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from benchmarks import targets
from benchmarks.common import median, print_line, set_up
from benchmarks.measure import Bench, count_faults, run

MAX_RATIO = 1.03
BURST = 50


def measure(kind: str, subscribers: int, burst: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Return the row of one comparison."""
    name = f"{kind}, {subscribers} subscribers" + (", burst" if burst > 1 else "")
    benches = [
        Bench(targets.realtime(kind, f"{name}, {label} metrics", burst=burst, **env), subscribers)
        for label, env in (("with", {}), ("without", {"BENCH_WITHOUT_METRICS": "1"}))
    ]
    rows = run(benches, rounds, seconds)
    faults = count_faults(rows)
    if any("refused" in row for row in rows):
        return {"name": name, "faults": 1}
    used, unused = (row["us_per_delivery_each_round"] for row in rows)
    ratio = median(one / other for one, other in zip(used, unused, strict=True))
    print_line(f"    {name:40} {median(used):7.2f} {median(unused):7.2f} µs  x{ratio:.3f}")
    return {"name": name, "ratio": ratio, "faults": faults}


def main(arguments: argparse.Namespace) -> int:
    set_up("sqlite", "benchmarks.site.settings")
    print_line(f"    {'':40} {'with':>7} {'without':>7}     ratio")
    rows = [
        measure(kind, subscribers, burst, arguments.rounds, arguments.seconds)
        for kind in arguments.server
        for subscribers in arguments.subscribers
        for burst in arguments.burst
    ]
    return int(any(row["faults"] or row["ratio"] > MAX_RATIO for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", nargs="+", choices=targets.KINDS, default=["uvicorn"])
    parser.add_argument("--subscribers", nargs="+", type=int, default=[100, 1000])
    parser.add_argument("--burst", nargs="+", type=int, default=[1, BURST])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a server in a round")
    sys.exit(main(parser.parse_args()))
