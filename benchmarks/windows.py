"""A window of 50 over a million rows: how often its changes ask the database, and for how long.

    python -m benchmarks.windows                         # SQLite and PostgreSQL
    python -m benchmarks.windows --quick                 # few rows and events

The rows are sorted by a number, and there is an index of the filter and the order. Half of all
writes change a row in the window: a third of these edit it, a third move it within the window, and
a third make it leave, while no row enters. The other writes edit a row somewhere. Server, client
and writer are in one process. The times are those from a commit until the client has the frame, for
events that had to read further rows and for the others. Beside them is the time of a bare query for
the 50 rows.

Then 1,000 clients subscribe to one window. Reads and encoded frames are counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import time
from contextlib import AsyncExitStack
from typing import Any

from benchmarks import results
from benchmarks.common import percentile, print_line, run_for_each_database, set_up

LIMIT = 50
QUICK = {"rows": 5000, "events": 200, "clients": 20, "changes": 5}
GOAL_SHARE = 0.02  # of the events that ask the database
GOALS_MS = {"sqlite": 40.0, "postgres": 20.0}  # p99 of the events that ask
MANY = (10**6, 10**6)
SETTINGS = {
    "COLLECTIONS": {
        "tasks": {
            "model": "app.Task",
            "fields": ["title", "state", "weight"],
            "filters": ["state"],
            "orders": ["-weight"],
            "capture": "signals",
        }
    },
    "LIMITS": {
        "connections_per_user": 20_000,
        "connections_per_address": 20_000,
        "unauthenticated_per_address": 20_000,
        "subscribe_rate": MANY,
        "messages_rate": MANY,
        "filter_cost": 10**6,
    },
}
SUBSCRIBE = {"filters": {"state": "open"}, "window": {"limit": LIMIT, "order": "-weight"}}


class Counts:
    """The reads of the database, with their times, and the encoded changes of windows."""

    def __init__(self) -> None:
        from django_cocobase_realtime.delivery import window_query

        # milliseconds of each read
        self.reads: list[float] = []
        self.encoded = 0
        rows_as_of, window_parts = window_query.rows_as_of, window_query.window_parts

        def read(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            result = rows_as_of(*args, **options)
            self.reads.append(1000 * (time.perf_counter() - began))
            return result

        def encode(*args: Any, **options: Any) -> Any:
            self.encoded += 1
            return window_parts(*args, **options)

        window_query.rows_as_of = read
        window_query.window_parts = encode


FILL_SQLITE = """
    WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers LIMIT %s)
    INSERT INTO app_task (title, state, weight, size, deleted)
    SELECT 'task ' || n, CASE WHEN n %% 10 = 0 THEN 'done' ELSE 'open' END,
           abs(random() %% 2000000000), 0, false
    FROM numbers
"""
FILL_POSTGRES = """
    INSERT INTO app_task (title, state, weight, size, deleted)
    SELECT 'task ' || n, CASE WHEN n %% 10 = 0 THEN 'done' ELSE 'open' END,
           (random() * 2000000000)::integer, 0, false
    FROM generate_series(1, %s) AS n
"""


def fill(rows: int) -> None:
    """Create the rows, of which nine in ten match, and the index."""
    from django.db import connection

    is_postgres = connection.vendor == "postgresql"
    with connection.cursor() as cursor:
        cursor.execute(FILL_POSTGRES if is_postgres else FILL_SQLITE, [rows])
        cursor.execute("CREATE INDEX window_order ON app_task (state, weight DESC, id)")
        cursor.execute("VACUUM ANALYZE app_task" if is_postgres else "ANALYZE")


class Writer:
    """Writes rows at random; half of the writes change a row of the window."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._random = random.Random(1)
        self._number = 0

    def write(self, shown: list[tuple[int, int]]) -> tuple[float, bool]:
        """Write once; return the time of the commit, and whether the client gets a frame.

        ``shown`` are the ids and weights of the window.
        """
        from tests.app.models import Task

        choose, self._number = self._random, self._number + 1
        values: dict[str, Any] = {"title": f"title {self._number}"}
        key, weight = choose.choice(shown)
        kind = choose.randrange(6)
        if kind == 0:
            # between those of the window
            values = {"weight": choose.randint(shown[-1][1], shown[0][1])}
        elif kind == 1:
            values = {"state": "done"}
        elif kind > 2:
            key = choose.randint(1, self._rows)
        is_shown = key in [id for id, _ in shown] and values != {"weight": weight}
        Task.objects.filter(pk=key).update(**values)
        return time.perf_counter(), is_shown


class Window:
    """The ids and weights of a client, spliced by frames."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int]] = []

    def apply(self, frame: dict[str, Any]) -> bool:
        """Apply a frame, and return whether it changes the window."""
        if frame["type"] != "window":
            return False
        if frame.get("reset"):
            self.rows = []
        removed = set(map(int, frame["remove"]))
        self.rows = [row for row in self.rows if row[0] not in removed]
        for index, document in frame["insert"]:
            self.rows.insert(index, (int(document["id"]), document["data"]["weight"]))
        return not frame.get("partial", False)


async def measure_events(arguments: argparse.Namespace, counts: Counts) -> dict[str, Any]:
    """Return the share of the events that ask the database, and the times of both kinds."""
    from asgiref.sync import sync_to_async

    from django_cocobase_realtime.testing import connect

    user = await sync_to_async(_create_user)("reader")
    writer, window = Writer(arguments.rows), Window()
    asking: list[float] = []
    others: list[float] = []
    async with connect(user=user) as client:
        await client.subscribe("tasks", **SUBSCRIBE)
        while not window.apply(await client.receive(timeout=60)):
            pass
        loads = len(counts.reads)
        for _ in range(arguments.events):
            reads = len(counts.reads)
            committed_at, is_shown = await sync_to_async(writer.write)(window.rows)
            if not is_shown:
                continue
            while not window.apply(await client.receive(timeout=60)):
                pass
            waited = 1000 * (time.perf_counter() - committed_at)
            (asking if len(counts.reads) > reads else others).append(waited)
    queries, expected = await sync_to_async(_query_bare)(100)
    assert window.rows == expected, "The client has other rows than the table."
    return {
        "events": arguments.events,
        "loads": loads,
        "reads": len(counts.reads) - loads,
        "share": (len(counts.reads) - loads) / arguments.events,
        "asking_p50_ms": percentile(asking, 0.5) if asking else None,
        "asking_p99_ms": percentile(asking, 0.99) if asking else None,
        "read_p50_ms": percentile(counts.reads[loads:], 0.5) if asking else None,
        "read_p99_ms": percentile(counts.reads[loads:], 0.99) if asking else None,
        "others_p50_ms": percentile(others, 0.5),
        "others_p99_ms": percentile(others, 0.99),
        "query_p50_ms": percentile(queries, 0.5),
        "query_p99_ms": percentile(queries, 0.99),
    }


def _create_user(name: str) -> Any:
    from django.contrib.auth import get_user_model

    return get_user_model().objects.create_user(name)


def _query_bare(count: int) -> tuple[list[float], list[tuple[int, int]]]:
    """Return the milliseconds of a query for the first rows, and their ids and weights."""
    from tests.app.models import Task

    times = []
    for _ in range(count):
        began = time.perf_counter()
        tasks = list(Task.objects.filter(state="open").order_by("-weight", "pk")[:LIMIT])
        times.append(1000 * (time.perf_counter() - began))
    return times, [(task.pk, task.weight) for task in tasks]


async def measure_clients(arguments: argparse.Namespace, counts: Counts) -> dict[str, Any]:
    """Return the numbers of reads and of encoded frames for many clients of one window."""
    from asgiref.sync import sync_to_async

    from django_cocobase_realtime.testing import connect
    from tests.app.models import Task

    user = await sync_to_async(_create_user)("many")
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connect(user=user)) for _ in range(arguments.clients)
        ]
        reads, encoded = len(counts.reads), counts.encoded

        async def subscribe(client: Any) -> Window:
            await client.subscribe("tasks", **SUBSCRIBE)
            window = Window()
            while not window.apply(await client.receive(timeout=60)):
                pass
            return window

        windows = await asyncio.gather(*map(subscribe, clients))
        start = {"reads": len(counts.reads) - reads, "encoded": counts.encoded - encoded}
        encoded = counts.encoded
        began_cpu = time.process_time()

        async def receive(client: Any, window: Window) -> None:
            while not window.apply(await client.receive(timeout=60)):
                pass

        for number in range(arguments.changes):
            key = windows[0].rows[number % LIMIT][0]
            await sync_to_async(Task.objects.filter(pk=key).update)(title=f"new {number}")
            await asyncio.gather(*map(receive, clients, windows))
        cpu = time.process_time() - began_cpu
        assert all(window.rows == windows[0].rows for window in windows)
    return {
        "clients": arguments.clients,
        "changes": arguments.changes,
        "reads_to_start": start["reads"],
        "encoded_to_start": start["encoded"],
        "encoded_per_change": (counts.encoded - encoded) / arguments.changes,
        # with the client of the test, which parses each frame
        "us_per_delivery": 1e6 * cpu / arguments.changes / arguments.clients,
    }


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return all figures of a database."""
    counts = Counts()
    row = await measure_events(arguments, counts)
    return {**row, **await measure_clients(arguments, counts)}


def measure_database(arguments: argparse.Namespace) -> None:
    """Measure one database; print the row on the last line."""
    os.environ["REALTIME_TEST_SETTINGS"] = json.dumps(SETTINGS)
    set_up(arguments.database)
    fill(arguments.rows)
    row = asyncio.run(measure(arguments))
    goal = GOALS_MS[arguments.database]
    print_line(
        f"\n{arguments.database}: window of {LIMIT} over {arguments.rows:,} rows, "
        f"{row['events']:,} events\n"
        f"  {row['reads']} events ask the database: {100 * row['share']:.2f} % "
        f"(goal {100 * GOAL_SHARE:.0f} %)"
    )
    if row["reads"]:
        print_line(
            f"  these take {row['asking_p50_ms']:.1f} ms, p99 {row['asking_p99_ms']:.1f} ms "
            f"(goal {goal:.0f}); of it the read {row['read_p50_ms']:.1f} ms, p99 "
            f"{row['read_p99_ms']:.1f} ms"
        )
    print_line(
        f"  the others take {row['others_p50_ms']:.1f} ms, p99 {row['others_p99_ms']:.1f} ms; "
        f"the bare query {row['query_p50_ms']:.2f} ms, p99 {row['query_p99_ms']:.2f} ms\n"
        f"  {row['clients']:,} clients: {row['reads_to_start']} reads and "
        f"{row['encoded_to_start']} encoded lists to start, "
        f"{row['encoded_per_change']:.2f} encoded frames for each change"
    )
    print_line(json.dumps([{"database": arguments.database, "rows": arguments.rows, **row}]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--changes", type=int, default=50)
    parser.add_argument("--quick", action="store_true", help="measure little")
    given = parser.parse_args()
    if given.quick:
        parser.set_defaults(**QUICK)
        given = parser.parse_args()
    if given.database:
        measure_database(given)
    elif given.quick:
        run_for_each_database("windows")
    else:
        results.save("windows", run_for_each_database("windows"))
