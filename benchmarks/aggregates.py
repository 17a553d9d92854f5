"""Aggregates: the cost of a change, of frames for many clients, and of counting a large table.

    python -m benchmarks.aggregates                      # SQLite and PostgreSQL
    python -m benchmarks.aggregates --database sqlite --rows 100000

Measures 10,000 different counts, of which an index proposes those that a change concerns; one count
that 1,000 clients watch, with writers that only collect frames; and how long the aggregates of a
table take to be read as of a position, beside the same SQL alone: nothing has changed since the
position, or 100 rows have. Exits with 1 if a figure misses its goal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.common import median, print_line, run_for_each_database, set_up

FILTERS = 10_000
CLIENTS = 1000
HITS = 10  # filters that match a row
EVENTS = 2000
ROUNDS = 7
GOALS = {
    "count_us": 1.0,  # a fold and event
    "frame_bytes": 120,  # a frame without groups
    "group_bytes": 35,  # more for a group
    "ratio": 1.5,  # time to count a table, to that of the same SQL alone
}


# without a database


def folds() -> dict[str, float]:
    """Return the µs of one change in one fold, by query."""
    from django_cocobase_realtime.filters import FieldSpec, FilterIndex, Kind, Row, parse
    from django_cocobase_realtime.live_queries.fold import Fold
    from django_cocobase_realtime.live_queries.queries import AggregateQuery

    kinds = {"project": Kind.INTEGER, "status": Kind.TEXT, "hours": Kind.DECIMAL}
    schema = {name: FieldSpec(name, kind) for name, kind in kinds.items()}
    queries = {
        "count_us": AggregateQuery(),
        "group_us": AggregateQuery(group_by=("status",)),
        "sum_us": AggregateQuery(sum=("hours",), group_by=("status",)),
        "extremes_us": AggregateQuery(min=("hours",), max=("hours",), group_by=("status",)),
    }
    chance = random.Random(1)
    projects = FILTERS // HITS
    figures = {}
    for name, query in queries.items():
        index: FilterIndex[Fold] = FilterIndex()
        for number in range(FILTERS):
            filter = parse({"project__in": [number % projects, number + FILTERS]}, schema)
            index.add(Fold(query, schema), filter)
        times = []
        for _ in range(ROUNDS):
            images = [
                {
                    "project": chance.randrange(projects),
                    "status": chance.choice("abc"),
                    "hours": f"{chance.randrange(1000) / 100:.2f}",
                }
                for _ in range(EVENTS)
            ]
            rows = [Row(image, schema) for image in images]
            matching = [(row, index.matching(row)) for row in rows]
            calls = sum(len(hits) for _, hits in matching)
            began = time.thread_time()
            for row, hits in matching:
                for fold in hits:
                    fold.apply(None, row)
            times.append((time.thread_time() - began) * 1e6 / calls)
        figures[name] = median(times)
    return figures


class Watcher:
    """A connection, and its writer, that collects the frames of one subscription."""

    can_send_inline = False

    def __init__(self) -> None:
        self.frames: list[str] = []

    @property
    def writer(self) -> Watcher:
        return self

    @property
    def owner(self) -> Any:
        from django_cocobase_realtime.utils.fair_queue import SERVER

        return SERVER

    def push_event(self, text: str, cursor: str | None) -> None:
        self.frames.append(text)


async def watchers() -> dict[str, float]:
    """Return the µs of a change of a count that many clients watch, and the bytes of frames."""
    from django_cocobase_realtime.declarations.registry import registry
    from django_cocobase_realtime.delivery.aggregate_query import AggregateState
    from django_cocobase_realtime.delivery.live_query import LiveQuery, ResultForm, RowChange
    from django_cocobase_realtime.events import Change
    from django_cocobase_realtime.filters import Filter, Row
    from django_cocobase_realtime.live_queries.queries import AggregateQuery
    from django_cocobase_realtime.log.cursor import Position
    from django_cocobase_realtime.models import new_epoch

    posts, epoch = registry.get("posts"), new_epoch()
    figures = {}
    for name, query in (
        ("frame", AggregateQuery()),
        ("group", AggregateQuery(group_by=("views",))),
    ):
        state = AggregateState(posts, query)
        live: LiveQuery[Any] = LiveQuery(
            "posts",
            Filter.everything(),
            state,
            get_position=lambda: Position(epoch, 100_000),
            catch_up=lambda: asyncio.sleep(0),
            end=lambda subscription, error: None,
        )
        state.complete(await asyncio.to_thread(state._read, Filter.everything(), None, None))
        form = ResultForm("count")
        clients = [Watcher() for _ in range(CLIENTS)]
        for client in clients:
            subscription: Any = type("Subscribed", (), {"connection": client})()
            live.join(subscription, form)
            live.attach(subscription)
        times = []
        for number in range(50):
            change = Change("", "posts", "created", "1", "", "", epoch=epoch, seq=100_000 + number)
            row = Row({"views": 7}, posts.schema)
            began = time.perf_counter()
            live.receive(RowChange(change, None, row))
            times.append((time.perf_counter() - began) * 1e6)
        texts = {text for client in clients for text in client.frames}
        assert all(len(client.frames) == 50 for client in clients)
        assert len(texts) == 50
        figures[f"{name}_bytes"] = max(map(len, texts))
        figures[f"{name}_change_us"] = median(times)
    figures["group_bytes"] -= figures["frame_bytes"]
    return figures


# with a database


def fill(rows: int) -> None:
    """Create posts by one statement."""
    from django.db import connection

    numbers = {
        "sqlite": "WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < %s)",
        "postgresql": "WITH g(n) AS (SELECT generate_series(1, %s))",
    }[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO app_post (title, body, status, views, rating, project, meta, created_at, "
            f"updated_at) {numbers} SELECT 'post', '', CASE WHEN n %% 3 = 0 THEN 'published' ELSE "
            "'draft' END, n %% 1000, (n %% 500) / 100.0, 'default', '{}', CURRENT_TIMESTAMP, "
            "CURRENT_TIMESTAMP FROM g",
            [rows],
        )
        cursor.execute(
            "VACUUM ANALYZE app_post" if connection.vendor == "postgresql" else "ANALYZE"
        )


def load(rows: int) -> dict[str, float]:
    """Return the milliseconds in which aggregates of all rows are read, and of bare SQL."""
    from django.db import connection

    from django_cocobase_realtime.declarations.registry import registry
    from django_cocobase_realtime.filters import Filter
    from django_cocobase_realtime.live_queries.aggregates import aggregates_as_of
    from django_cocobase_realtime.live_queries.queries import AggregateQuery
    from django_cocobase_realtime.log.cursor import Position
    from django_cocobase_realtime.log.reader import stream_ranges
    from django_cocobase_realtime.log.sequencer import sequence
    from tests.app.models import Post

    fill(rows)
    posts = registry.get("posts")
    Post.objects.filter(pk__in=range(1, 11)).update(views=1)
    sequence("default", posts.stream)
    range_ = stream_ranges("default", [posts.stream])[posts.stream]
    position = Position(range_.epoch, range_.head)

    def bare(sql: str) -> Callable[[], object]:
        def run() -> None:
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT {sql}")
                cursor.fetchall()

        return run

    def live(**query: Any) -> Callable[[], object]:
        return lambda: aggregates_as_of(
            posts, Filter.everything(), AggregateQuery(**query), position, max_groups=1000
        )

    measured = {
        "bare_count_ms": bare("COUNT(*) FROM app_post"),
        "count_ms": live(),
        "bare_sums_ms": bare("status, COUNT(*), SUM(rating) FROM app_post GROUP BY status"),
        "sums_ms": live(sum=("rating",), group_by=("status",)),
        "bare_groups_ms": bare("views, COUNT(*), MAX(rating) FROM app_post GROUP BY views"),
        "groups_ms": live(max=("rating",), group_by=("views",)),
    }
    figures = in_turn(measured)
    Post.objects.filter(pk__in=range(11, 111)).update(views=1)
    undone = {"undone_count_ms": live(), "undone_sums_ms": measured["sums_ms"]}
    return figures | in_turn(undone)


def in_turn(measured: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median milliseconds of functions, which are called in turn."""
    times: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(ROUNDS):
        for name, read in measured.items():
            began = time.perf_counter()
            read()
            times[name].append((time.perf_counter() - began) * 1e3)
    return {name: median(values) for name, values in times.items()}


def measure(database: str, rows: int) -> int:
    set_up(database)
    row: dict[str, Any] = {"database": database, "rows": rows}
    row |= folds() | asyncio.run(watchers()) | load(rows)
    for name, value in row.items():
        print_line(f"{name:20} {value if isinstance(value, str) else f'{value:,.2f}'}")
    print_line(json.dumps([row]))
    row["ratio"] = row["count_ms"] / row["bare_count_ms"]
    missed = [name for name, goal in GOALS.items() if row[name] > goal]
    if missed:
        print_line(f"missed: {', '.join(missed)}")
    return int(bool(missed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"])
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    if arguments.database is None:
        run_for_each_database("aggregates")
    else:
        sys.exit(measure(arguments.database, arguments.rows))
