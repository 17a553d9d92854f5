"""Growth of the costs with servers, Redis hosts, collections, events in the log, and connections.

    python -m benchmarks.growth                          # SQLite and PostgreSQL, all parts
    python -m benchmarks.growth --database postgres --part log --events 10000 1000000 10000000

Each part has a first row that is the unit of the others. `servers` and `hosts`: 100 saves per
second, one client per server. `collections`: the same saves, spread over all of them, with one
client that is subscribed to all. `log`: trimming, subscribing and resuming with many events in the
log, and the first numbering of a backlog. `idle`: memory and CPU of connections without events.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import memory, results, targets
from benchmarks.common import median, percentile, print_line, run_for_each_database, set_up
from benchmarks.fill_log import COLLECTION, fill
from benchmarks.paths import Listener, add_faults, database_process, measure_run
from benchmarks.raw_socket import RawSocket
from benchmarks.saver import Saver
from benchmarks.targets import asgi, token
from benchmarks.write_path import RATE, WritePath

PARTS = ("servers", "hosts", "collections", "log", "idle")
IDLE_SECONDS = 4.0
TRIMMED = 5000  # events that a measured trim deletes
REQUESTS = 30  # of which the median is taken
RESUMED = 100  # events that a client has missed
Row = dict[str, Any]


class TwoHosts:
    """The layers of two Redis servers."""

    def __init__(self, first: Any, second: Any) -> None:
        self.first, self.second = first, second
        self.url = first.url

    def layer(self, kind: str) -> dict[str, Any]:
        """Return CHANNEL_LAYERS with both hosts."""
        layers: dict[str, Any] = self.first.layer(kind)
        hosts = layers["default"]["CONFIG"]["hosts"]
        hosts += self.second.layer(kind)["default"]["CONFIG"]["hosts"]
        return layers


class Growth:
    """The parts of one database. Each returns rows, the first of which is the unit."""

    def __init__(self, arguments: argparse.Namespace, redis: Any) -> None:
        self.arguments = arguments
        self.redis = redis
        self.database = database_process()

    async def servers(self) -> list[Row]:
        """Measure an event with several servers."""
        path = WritePath(self.arguments, self.redis, self.database)
        rows = []
        for count in self.arguments.processes:
            row = await path.processes("pubsub", count)
            row |= {"name": f"{count} servers", "value": row["together_us"]}
            rows.append({**row, "unit": "µs CPU per event, all servers"})
        return rows

    async def hosts(self) -> list[Row]:
        """Measure an event with two servers and one or two Redis hosts."""
        from tests.support.servers import Redis

        second = Redis()
        second.start()
        rows = []
        try:
            for name, redis in (
                ("1 Redis host", self.redis),
                ("2 Redis hosts", TwoHosts(self.redis, second)),
            ):
                path = WritePath(self.arguments, redis, self.database)
                for layer in ("pubsub", "core"):
                    row = await path.processes(layer, 2)
                    unit = "µs CPU per event, 2 servers"
                    row |= {"name": f"{name}, {layer}", "value": row["together_us"], "unit": unit}
                    rows.append(row)
        finally:
            second.kill()
        return rows

    async def collections(self) -> list[Row]:
        """Measure an event, and polls without events, with several collections."""
        rows = []
        for count in self.arguments.collections:
            names = [f"c{number}" for number in range(count)]
            settings = {
                "COLLECTIONS": {name: f"many.Row{n}" for n, name in enumerate(names)},
                "LIMITS": {**WritePath.limits(), "subscriptions": count},
            }
            server = asgi(
                self.arguments.server,
                "realtime",
                layers=self.redis.layer("pubsub"),
                settings=settings,
                shared=True,
            )
            listener = Listener()
            try:
                await asyncio.to_thread(server.start)
                await listener.open(server, 1, names)
                await asyncio.sleep(1)
                cpu = server.cpu
                await asyncio.sleep(IDLE_SECONDS)
                idle = (server.cpu - cpu) / IDLE_SECONDS
                events = int(self.arguments.seconds * RATE)
                saver = Saver(server.env, "watched", rate=RATE, count=events, models=count)
                row = await measure_run([server], [listener], [saver])
            finally:
                listener.close()
                server.kill()
            row["idle_cpu_percent"] = 100 * idle
            row |= {"name": f"{count:,} collections", "value": row["server_us"]}
            rows.append({**row, "unit": "µs CPU per event"})
        return rows

    async def log(self) -> list[Row]:
        """Measure the log with many events, and the numbering of a backlog."""
        rows = []
        have = 0
        for events in self.arguments.events:
            await asyncio.to_thread(fill, events - have, numbered=True)
            have = events
            rows += await self.with_log_of(events)
        rows.sort(key=lambda row: str(row["of"]))
        seconds, calls = await number_backlog(self.arguments.backlog)
        rows.append(
            {
                "name": f"first numbering of {self.arguments.backlog:,} events",
                "value": seconds / self.arguments.backlog * 1e6,
                "unit": "µs per event",
                "is_unit": True,
                "longest_ms": max(calls) * 1000,
            }
        )
        return rows

    async def with_log_of(self, events: int) -> list[Row]:
        """Measure requests to a server with this many events in the log, then trim it."""
        from django_cocobase_realtime.log.cursor import encode
        from django_cocobase_realtime.models import Stream

        settings = {
            "LIMITS": WritePath.limits(),
            "LOG": {"MAX_EVENTS": None, "MAX_AGE": None},
        }
        server = asgi(self.arguments.server, "realtime", settings=settings, shared=True)
        subscribe = {"type": "subscribe", "collection": COLLECTION, "subscription": "posts"}
        stream = await Stream.objects.aget(collection=COLLECTION)
        since = encode(COLLECTION, stream.epoch, stream.head - RESUMED)
        rows = []
        try:
            await asyncio.to_thread(server.start)
            first = time.monotonic()
            client = await RawSocket.open(server.url)
            await client.authenticate(token(1))
            await client.request(subscribe, '"subscribed"', 120)
            first = time.monotonic() - first
            for name, expected, options in (
                ("subscribe", '"subscribed"', {}),
                (f"resume after {RESUMED} events", f".{stream.head}", {"since": since}),
            ):
                times = []
                for number in range(REQUESTS):
                    subscription = f"{name[0]}{number}"
                    request = {**subscribe, **options, "subscription": subscription}
                    began = time.monotonic()
                    await client.request(request, expected, 120)
                    times.append((time.monotonic() - began) * 1000)
                    end = {"type": "unsubscribe", "subscription": subscription}
                    await client.request(end, '"unsubscribed"')
                rows.append(ms_row(name, events, median(times), p99_ms=percentile(times, 0.99)))
            client.abort()
        finally:
            server.kill()
        rows.append(ms_row("first subscribe of a server", events, first * 1000))
        await asyncio.to_thread(trim, events)  # opens a connection
        took = await asyncio.to_thread(time_of, lambda: trim(events))
        rows.append(ms_row("trim that deletes nothing", events, took))
        took = await asyncio.to_thread(time_of, lambda: trim(events - TRIMMED))
        rows.append(ms_row(f"trim of {TRIMMED:,} events", events, took))
        await asyncio.to_thread(fill, TRIMMED, numbered=True)
        return rows

    async def idle(self) -> list[Row]:
        """Measure the memory and CPU of connections that receive nothing."""
        kind, count = self.arguments.server, self.arguments.connections
        rows = []
        for make_target in (targets.raw_asgi, targets.realtime):
            target = await asyncio.to_thread(make_target, kind)
            row = await asyncio.to_thread(memory.connections, target, count)
            row |= {"name": f"{count:,} connections, {target.name}", "unit": "KiB each"}
            rows.append({**row, "value": row["bytes_each"] / 1024})
        return rows


def ms_row(name: str, events: int, value: float, **more: Any) -> Row:
    """Return a row whose unit is that of the same name with the fewest events."""
    return {"name": f"{name}, {events:,} events in the log", "value": value, "unit": "ms"} | {
        "of": name,
        **more,
    }


def time_of(call: Callable[[], object]) -> float:
    """Return how many milliseconds a function takes."""
    began = time.monotonic()
    call()
    return (time.monotonic() - began) * 1000


def trim(events: int) -> dict[str, int]:
    """Delete all but the last events of the log."""
    from django_cocobase_realtime.log import retention

    return retention.trim("default", max_age=None, max_events=events)


async def number_backlog(events: int) -> tuple[float, list[float]]:
    """Return the seconds in which events without a number get theirs, and those of each call."""
    from django_cocobase_realtime.log.log_reader import create_reader

    await asyncio.to_thread(fill, events, numbered=False)
    reader = create_reader("default")
    await reader.find_behind({})  # opens a connection
    calls = []
    more = True
    while more:
        began = time.monotonic()
        more = (await reader.fetch_new(COLLECTION, None, notified=True)).more
        calls.append(time.monotonic() - began)
    reader.close()
    return sum(calls), calls


def add_ratios(rows: list[Row]) -> None:
    """Add to each row its ratio to the first row of the same kind."""
    firsts: dict[Any, float] = {}
    for row in rows:
        unit = firsts.setdefault((row["part"], row.get("of"), row["unit"]), row["value"])
        row["ratio"] = row["value"] / unit if unit else None


def describe(row: Row) -> str:
    """Return a row as text."""
    ratio = f"{row['ratio']:6.2f}×" if row["ratio"] else "      –"
    parts = [f"    {row['name']:52} {row['value']:9.1f} {row['unit']:30} {ratio}"]
    if row.get("further_us"):
        parts.append(f"numbering {row['server_us']:.0f}, each further {row['further_us']:.0f}")
    if row.get("idle_cpu_percent") is not None:
        parts.append(f"idle CPU {row['idle_cpu_percent']:.1f}%")
    if row.get("p99_ms"):
        parts.append(f"p99 {row['p99_ms']:.1f} ms")
    if row.get("longest_ms"):
        parts.append(f"longest call {row['longest_ms']:.0f} ms")
    return "  ".join(parts)


def measure_database(arguments: argparse.Namespace) -> None:
    """Measure one database; print the rows on the last line."""
    from tests.support.servers import Redis

    if "collections" in arguments.part:
        os.environ["BENCH_APPS"] = '["benchmarks.site.many"]'
        os.environ["BENCH_MODELS"] = str(max(arguments.collections))
    set_up(arguments.database, "benchmarks.site.settings")
    from django.core.management import call_command

    call_command("migrate", run_syncdb=True, verbosity=0)
    redis = Redis()
    redis.start()
    growth = Growth(arguments, redis)
    rows: list[Row] = []
    try:
        for part in arguments.part:
            print_line(f"\n{arguments.database}, {part}")
            measured = asyncio.run(getattr(growth, part)())
            measured = [{"database": arguments.database, "part": part, **row} for row in measured]
            add_ratios(measured)
            for row in measured:
                print_line(describe(row))
            rows += measured
    finally:
        redis.kill()
    print_line(json.dumps(rows))


def main() -> int:
    rows = run_for_each_database("growth")
    print_line(f"\nwritten to {results.save('growth', rows, rate=RATE).name}")
    return int(bool(add_faults(rows)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"], help="this one alone")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--server", choices=targets.KINDS, default="uvicorn")
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--collections", nargs="+", type=int, default=[1, 100, 1000])
    parser.add_argument("--events", nargs="+", type=int, default=[10_000, 1_000_000])
    parser.add_argument("--backlog", type=int, default=1_000_000)
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=4.0, help="of saves")
    chosen = parser.parse_args()
    if chosen.database:
        measure_database(chosen)
    else:
        sys.exit(main())
