"""20 saves per second to 1,000 subscribers: p50 and p99 of the time from commit to socket.

    python -m benchmarks.steady_rate                     # SQLite and PostgreSQL, each server

Real saves, in a thread of the server or in another process. The floors are measured in the same
run, in turn: the same save of an unwatched model, then the raw ASGI loop over as many sockets; from
another process by NOTIFY, or Redis on SQLite.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass, field
from typing import Any

from benchmarks import results, targets
from benchmarks.common import median, print_line, run_for_each_database, set_up
from benchmarks.measure import Bench, start_bench
from benchmarks.saver import Saver
from tests.support.servers import free_port

SAVES_PER_SECOND = 20.0
GOALS = {"postgres": 1.5, "sqlite": 2.0}  # p99 × that of the floor


@dataclass
class Measured:
    """A server with its subscribers, and the process that saves."""

    bench: Bench
    # name of the row with its floor
    floor: str
    # saves if it is not the server that does
    saver: Saver | None = None
    # where saves are triggered; 0 for the server
    port: int = 0
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def start(self) -> None:
        """Start the processes and make the first saves."""
        start_bench(self.bench)
        self.pace(10)

    def pace(self, events: int) -> dict[str, Any]:
        """Trigger saves at the rate, and return the measurement."""
        port = self.port or self.bench.target.server.control
        return self.bench.load.paced([port], SAVES_PER_SECOND, events, save=True)

    def stop(self) -> None:
        """End the processes."""
        self.bench.stop()
        if self.saver is not None:
            self.saver.stop()


def saved_in_server(kind: str, subscribers: int) -> list[Measured]:
    """Return the servers that save, the floor first."""
    unwatched: dict[str, Any] = {"COLLECTIONS": {}}
    floor = targets.raw_asgi(
        kind, "save, then the raw ASGI loop", settings=unwatched, BENCH_DJANGO="1"
    )
    realtime = targets.realtime(kind, "realtime")
    return [Measured(Bench(target, subscribers), floor.name) for target in (floor, realtime)]


def saved_elsewhere(kind: str, subscribers: int, redis: Any) -> list[Measured]:
    """Return the servers that another process notifies, the floor first."""
    url = "" if os.environ.get("TEST_DATABASE") == "postgres" else redis.url
    floor = targets.Target(
        f"save elsewhere, {'Redis' if url else 'NOTIFY'}, then the raw ASGI loop",
        targets.asgi(kind, "bare_bell", BENCH_REDIS=url),
        lambda number, klass: [("{}", "ok")],
    )
    layers = redis.layer("pubsub")
    realtime = targets.realtime(kind, "realtime, save elsewhere", layers=layers)
    rows = []
    for target, how in ((floor, "note"), (realtime, "watched")):
        port = free_port()
        saver = Saver(target.server.env, how, redis=url, control=port)
        saver.wait_ready()
        rows.append(Measured(Bench(target, subscribers), floor.name, saver, port))
    return rows


def measure(kind: str, arguments: argparse.Namespace, redis: Any) -> list[dict[str, Any]]:
    """Measure each server beside its floor."""
    rows = measure_in_turn(saved_in_server(kind, arguments.subscribers), arguments)
    # after the others have ended: on PostgreSQL, all servers receive all changes
    return rows + measure_in_turn(saved_elsewhere(kind, arguments.subscribers, redis), arguments)


def measure_in_turn(rows: list[Measured], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure servers in turn, and return their figures."""
    try:
        for row in rows:
            row.start()
        for _ in range(arguments.rounds):
            for row in rows:
                row.rounds.append(row.pace(int(arguments.seconds * SAVES_PER_SECOND)))
    finally:
        for row in rows:
            row.stop()
    results_by_name = {row.bench.target.name: row.rounds for row in rows}
    floors = {row.bench.target.name: row.floor for row in rows}
    return [
        {
            "name": name,
            "floor": floors[name],
            "subscribers": arguments.subscribers,
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
    from tests.support.servers import Redis

    set_up(arguments.database, "benchmarks.site.settings")
    redis = Redis()
    redis.start()
    rows = []
    for kind in arguments.server:
        print_line(
            f"\n{arguments.database}, {kind}, {arguments.subscribers} subscribers, "
            f"{SAVES_PER_SECOND:.0f} saves per second"
        )
        measured = measure(kind, arguments, redis)
        by_name = {row["name"]: row for row in measured}
        for row in measured:
            floor = by_name[row["floor"]]
            row["ms_over_floor"] = row["p99_ms"] - floor["p99_ms"]
            row["ratio_to_floor"] = row["p99_ms"] / floor["p99_ms"]
            row["goal"] = GOALS[arguments.database] if row is not floor else None
            print_line(
                f"    {row['name']:46} p50 {row['p50_ms']:6.1f} ms  p99 {row['p99_ms']:6.1f} ms "
                f"({row['ms_over_floor']:+.1f}, {row['ratio_to_floor']:.2f}×, "
                f"goal {row['goal'] or 1.0}×)  lost {row['lost']}  duplicates {row['duplicates']}"
            )
        about = {"database": arguments.database, "server": kind}
        rows += [{**about, **row} for row in measured]
    redis.kill()
    print_line(json.dumps(rows))


def main() -> int:
    rows = run_for_each_database("steady_rate")
    print_line(f"\nwritten to {results.save('steady_rate', rows, rate=SAVES_PER_SECOND).name}")
    return int(
        any(row["lost"] + row["duplicates"] for row in rows if row["name"].startswith("realtime"))
    )


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
