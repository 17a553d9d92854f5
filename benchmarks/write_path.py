"""The cost of an event for a server, from the commit to the socket, beside a save and a bare path.

    python -m benchmarks.write_path                      # SQLite and PostgreSQL
    python -m benchmarks.write_path --database postgres --layer core --processes 1 4

Another process saves 100 rows per second, and one client of each server receives each event. The
unit is the CPU of the same saves of a model that is not watched, in the process that makes them.
The bare path is such a save, then NOTIFY (Redis pub/sub on SQLite), then one write to one socket by
a raw ASGI application. Then follow saves as fast as possible, and a log that is filled by bulk
inserts. Exits with 1 if an event was lost, duplicated or invented.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import results, targets
from benchmarks.common import median, print_line, run_for_each_database, set_up
from benchmarks.paths import (
    PLENTY,
    Listener,
    add_faults,
    change_databases,
    database_process,
    measure_run,
)
from benchmarks.saver import Saver
from benchmarks.targets import MeasuredServer, asgi

RATE = 100.0  # saves per second
LAYERS = ("pubsub", "core")
GOALS = {
    "server": 0.7,  # × a bare save, the process that numbers the events
    "further": 0.6,  # × a bare save, each other process
    "bell": 0.3,  # × a bare save, added to it
    "p99_ms": 40.0,  # over the core layer and behind PgBouncer
    "p99": 2.0,  # the same, × the pub/sub layer
    "events_per_second": 3000.0,  # from a log that is filled fast enough
    "flat_us": 160.0,  # CPU of an event then
}
Row = dict[str, Any]


class WritePath:
    """The servers, clients and saves of one database."""

    def __init__(self, arguments: argparse.Namespace, redis: Any, database: int | None) -> None:
        self.arguments = arguments
        self.redis = redis
        # id of the database's first process; None on SQLite
        self.database = database
        self.bare: list[float] = []

    def servers(self, count: int, layer: str, **database: Any) -> list[MeasuredServer]:
        """Return servers that share the database; ``database`` are changes to its settings."""
        settings = {"LIMITS": self.limits()}
        servers = [
            asgi(
                self.arguments.server,
                "realtime",
                layers=self.redis.layer(layer),
                settings=settings,
                shared=True,
            )
            for _ in range(count)
        ]
        for server in servers:
            change_databases(server, **database)
        return servers

    @staticmethod
    def limits() -> dict[str, Any]:
        """Return limits under which all clients can connect and receive everything."""
        from benchmarks.site.settings import COCOBASE_REALTIME

        return {**COCOBASE_REALTIME["LIMITS"], **PLENTY}

    async def run(self, servers: list[MeasuredServer], *runs: list[dict[str, Any]]) -> list[Row]:
        """Start servers with one client each; measure each run, a list of options of `Saver`."""
        listeners = [Listener() for _ in servers]
        rows = []
        try:
            for number, (server, listener) in enumerate(zip(servers, listeners, strict=True)):
                await asyncio.to_thread(server.start)
                await listener.open(server, number)
            await asyncio.sleep(1)
            for options in runs:
                savers = [
                    Saver(servers[0].env, first=number * 10_000_000, **option)
                    for number, option in enumerate(options)
                ]
                rows.append(await measure_run(servers, listeners, savers, self.database))
        finally:
            for listener in listeners:
                listener.close()
            for server in servers:
                server.kill()
        return rows

    def paced(self, how: str) -> list[dict[str, Any]]:
        """Return the options of one saver at the fixed rate."""
        return [{"how": how, "rate": RATE, "count": int(self.arguments.seconds * RATE)}]

    async def bare_save(self) -> Row:
        """Measure the save that is the unit."""
        env = self.servers(1, "pubsub")[0].env
        row = await measure_run([], [], [Saver(env, **self.paced("bare")[0])], self.database)
        self.bare.append(row["save_us"])
        return {**row, "name": "bare save", "layer": ""}

    async def bare_path(self) -> list[Row]:
        """Measure a save, a message, and one write to one socket; also without pauses."""
        on_redis = self.database is None
        url = self.redis.url
        server = asgi(self.arguments.server, "bare_bell", shared=True)
        server.env["BENCH_REDIS"] = url if on_redis else ""
        listener = Listener()
        name = f"bare save → {'Redis' if on_redis else 'NOTIFY'} → one socket"
        rows = []
        try:
            await asyncio.to_thread(server.start)
            await listener.open_bare(server)
            flat = [{"how": "note", "seconds": self.arguments.seconds}] * 2
            for about, options in (("", self.paced("note")), (", flat out", flat)):
                is_flat = bool(about)
                savers = [
                    Saver(server.env, redis=url, first=number * 10_000_000, **option)
                    for number, option in enumerate(options)
                ]
                row = await measure_run([server], [listener], savers, self.database)
                rows.append({**row, "name": name + about, "layer": "", "flat_out": is_flat})
        finally:
            listener.close()
            server.kill()
        return rows

    async def processes(self, layer: str, count: int) -> Row:
        """Measure a number of processes on one layer, and nothing else."""
        (row,) = await self.run(self.servers(count, layer), self.paced("watched"))
        return row

    async def layer(self, layer: str, title: str, **database: Any) -> list[Row]:
        """Measure each number of processes on one layer, and what is compared with them."""
        rows = []
        for count in self.arguments.processes:
            await self.bare_save()
            servers = self.servers(count, layer, **database)
            silent = [self.paced("silent")] if count == 1 and layer == LAYERS[0] else []
            row, *others = await self.run(servers, self.paced("watched"), *silent)
            rows.append({**row, "name": "realtime", "layer": title, "processes": count})
            for other in others:
                row["bell_us"] = rows[-1]["bell_us"] = row["save_us"] - other["save_us"]
                rows.append({**other, "name": "realtime, servers not notified", "layer": title})
        return rows

    async def flat_out(self) -> list[Row]:
        """Measure saves as fast as possible, and bulk inserts, on one server."""
        flat = [{"how": "watched", "seconds": self.arguments.seconds}] * 2
        bulk = [{"how": "bulk", "rate": self.arguments.fill, "seconds": self.arguments.seconds}]
        rows = await self.run(self.servers(1, "pubsub"), flat, bulk)
        names = ("realtime, flat out by two savers", f"realtime, {self.arguments.fill:,.0f}/s")
        return [
            {**row, "name": name, "layer": "pubsub", "processes": 1, "flat_out": True}
            for name, row in zip(names, rows, strict=True)
        ]

    async def measure(self) -> list[Row]:
        """Measure everything on this database."""
        rows = [await self.bare_save(), *await self.bare_path()]
        for layer in self.arguments.layer:
            rows += await self.layer(layer, layer)
        if self.database and shutil.which("pgbouncer") and self.arguments.pgbouncer:
            with ExitStack() as stack:
                rows += await self.layer("core", "core, PgBouncer", **start_pgbouncer(stack))
        rows += await self.flat_out()
        return add_ratios(rows, median(self.bare))


def start_pgbouncer(stack: ExitStack) -> dict[str, Any]:
    """Start PgBouncer, until the stack ends; return the settings of a database behind it."""
    from django.db import connection

    from tests.support.pgbouncer import PgBouncer

    folder = Path(tempfile.mkdtemp(prefix="realtime-pgbouncer-"))
    folder.chmod(0o755)  # PgBouncer has another user
    pgbouncer = PgBouncer(folder, connection.settings_dict)
    pgbouncer.start()
    stack.callback(pgbouncer.stop)
    return {**pgbouncer.address, "DISABLE_SERVER_SIDE_CURSORS": True}


def add_ratios(rows: list[Row], bare: float) -> list[Row]:
    """Add the ratios to a bare save, and of the p99 to that of the pub/sub layer."""
    pubsub = {
        row["processes"]: row["p99_ms"]
        for row in rows
        if row.get("processes") and row["layer"] == LAYERS[0] and not row.get("flat_out")
    }
    path, flat = (row for row in rows if "one socket" in row["name"])
    for row in rows:
        row["bare_us"] = bare
        for name in ("server", "further", "together", "save", "bell", "database"):
            if row.get(f"{name}_us") is not None:
                row[f"{name}_ratio"] = row[f"{name}_us"] / bare
        if row.get("server_us"):
            base = flat if row.get("flat_out") else path
            row["path_ratio"] = row["server_us"] / base["server_us"]
        if row.get("processes") in pubsub and row["layer"] != LAYERS[0] and row["p99_ms"]:
            row["p99_ratio"] = row["p99_ms"] / pubsub[row["processes"]]
    return rows


def describe(row: Row) -> str:
    """Return a row as text, with the goals beside the figures."""
    parts = [f"{row['layer']:15} {row['name']:44}"]
    if row.get("processes"):
        parts.append(f"{row['processes']} proc.")
    for name in ("server", "further", "together", "save", "bell"):
        if row.get(f"{name}_ratio") and (name != "together" or row.get("further_ratio")):
            goal = GOALS.get(name) if "realtime" in row["name"] else None
            text = f"{name} {row[f'{name}_us']:.0f} µs = {row[f'{name}_ratio']:.2f}×"
            parts.append(text + (f" (goal {goal})" if goal and not row.get("flat_out") else ""))
    if row.get("path_ratio"):
        parts.append(f"{row['path_ratio']:.1f}× bare path")
    if row.get("events_per_second"):
        parts.append(f"{row['events_per_second']:,.0f}/s")
        parts.append(f"p50 {row['p50_ms']:.1f} p99 {row['p99_ms']:.1f} ms")
    if row.get("p99_ratio"):
        parts.append(f"p99 {row['p99_ratio']:.1f}× pub/sub (goal {GOALS['p99']})")
    if row.get("flat_out") and row.get("processes"):
        parts.append(f"(goal {GOALS['events_per_second']:,.0f}/s, {GOALS['flat_us']:.0f} µs)")
    return "  ".join(parts) + f"  lost {row['lost']} twice {row['duplicates']}"


def measure_database(arguments: argparse.Namespace) -> None:
    """Measure one database; print the rows on the last line."""
    from tests.support.servers import Redis

    set_up(arguments.database, "benchmarks.site.settings")
    redis = Redis()
    redis.start()
    print_line(f"\n{arguments.database}, {arguments.server}; × is a multiple of a bare save")
    try:
        rows = asyncio.run(WritePath(arguments, redis, database_process()).measure())
    finally:
        redis.kill()
    rows = [{"database": arguments.database, **row} for row in rows]
    for row in rows:
        print_line(f"  {describe(row)}")
    print_line(json.dumps(rows))


def main() -> int:
    rows = run_for_each_database("write_path")
    path = results.save("write_path", rows, rate=RATE, goals=GOALS)
    print_line(f"\nwritten to {path.name}")
    return int(bool(add_faults(rows)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"], help="this one alone")
    parser.add_argument("--server", choices=targets.KINDS, default="uvicorn")
    parser.add_argument("--layer", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run")
    parser.add_argument("--fill", type=float, default=5000.0, help="bulk-inserted rows per second")
    parser.add_argument("--no-pgbouncer", dest="pgbouncer", action="store_false")
    chosen = parser.parse_args()
    if chosen.database:
        measure_database(chosen)
    else:
        sys.exit(main())
