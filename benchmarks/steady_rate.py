"""20 saves per second to 1,000 subscribers: p50 and p99 of the time from commit to socket.

    python -m benchmarks.steady_rate                     # SQLite and PostgreSQL, each server

Real saves in a thread of the server. The floor is measured in the same run, in turn: the same save
of an unwatched model, then the raw ASGI loop over the same number of sockets.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from benchmarks import results, targets
from benchmarks.common import median, print_line, run_for_each_database, set_up
from benchmarks.measure import Bench, start_bench

SAVES_PER_SECOND = 20.0


def measure(kind: str, subscribers: int, seconds: float, rounds: int) -> list[dict[str, Any]]:
    """Measure the row of the floor and that of realtime."""
    unwatched: dict[str, Any] = {"COLLECTIONS": {}}
    floor = targets.raw_asgi(
        kind, "save, then the raw ASGI loop", settings=unwatched, BENCH_DJANGO="1"
    )
    benches = [Bench(floor, subscribers), Bench(targets.realtime(kind, "realtime"), subscribers)]
    results_by_name: dict[str, list[dict[str, Any]]] = {bench.target.name: [] for bench in benches}
    try:
        for bench in benches:
            start_bench(bench)
            bench.load.paced([bench.target.server.control], SAVES_PER_SECOND, 10, save=True)
        for _ in range(rounds):
            for bench in benches:
                ports = [bench.target.server.control]
                events = int(seconds * SAVES_PER_SECOND)
                results_by_name[bench.target.name].append(
                    bench.load.paced(ports, SAVES_PER_SECOND, events, save=True)
                )
    finally:
        for bench in benches:
            bench.stop()
    return [
        {
            "server": kind,
            "name": name,
            "subscribers": subscribers,
            "deliveries": sum(r["deliveries"] for r in results),
            "p50_ms": median(r["p50_ms"] for r in results),
            "p99_ms": median(r["p99_ms"] for r in results),
            "max_ms": max(r["max_ms"] for r in results),
            "lost": sum(r["lost"] for r in results),
            "duplicates": sum(r["duplicates"] for r in results),
            "misdirected": sum(r["misdirected"] for r in results),
        }
        for name, results in results_by_name.items()
    ]


def measure_database(arguments: argparse.Namespace) -> None:
    """Measure one database; print the rows on the last line."""
    set_up(arguments.database, "benchmarks.site.settings")
    rows = []
    for kind in arguments.server:
        print_line(
            f"\n{arguments.database}, {kind}, {arguments.subscribers} subscribers, "
            f"{SAVES_PER_SECOND:.0f} saves per second"
        )
        measured = measure(kind, arguments.subscribers, arguments.seconds, arguments.rounds)
        for row in measured:
            row["ms_over_floor"] = row["p99_ms"] - measured[0]["p99_ms"]
            print_line(
                f"    {row['name']:30} p50 {row['p50_ms']:6.1f} ms  p99 {row['p99_ms']:6.1f} ms "
                f"({row['ms_over_floor']:+.1f})  lost {row['lost']}  duplicates {row['duplicates']}"
            )
        rows += [{"database": arguments.database, **row} for row in measured]
    print_line(json.dumps(rows))


def main() -> int:
    rows = run_for_each_database("steady_rate")
    print_line(f"\nwritten to {results.save('steady_rate', rows, rate=SAVES_PER_SECOND).name}")
    return int(any(row["lost"] + row["duplicates"] for row in rows if row["name"] == "realtime"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"], help="this one alone")
    parser.add_argument("--server", nargs="+", choices=targets.KINDS, default=targets.KINDS)
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a row in a round")
    chosen = parser.parse_args()
    if chosen.database:
        os.environ.setdefault("REALTIME_TEST_SETTINGS", "")
        measure_database(chosen)
    else:
        sys.exit(main())
