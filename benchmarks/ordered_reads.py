"""The first documents of an order, and a page in the middle, with the index of a check and without.

    python -m benchmarks.ordered_reads                     # SQLite and PostgreSQL
    python -m benchmarks.ordered_reads --database postgres --rows 1000000

The keys of 50 of 300,000 rows are read: by bare SQL, as they are now, and as of a position after
which ten rows have changed. "Always named" is the same SQL with ``NULLS`` and ``COLLATE``, which
no index of a plain field serves on PostgreSQL. Exits with 1 if an index saves less than half of the
time of bare SQL.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.common import median, print_line, run_for_each_database, set_up
from benchmarks.tables import markdown_table

LIMIT = 50
ROUNDS = 30
ORDERS = ("-views,created_at", "rating", "-rating,title", "-title")
FIGURES = ("bare", "now", "as_of", "page", "always_named", "without_index")


def fill(rows: int) -> None:
    """Create posts with many equal values, and ratings of which two thirds are null."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "WITH RECURSIVE numbers(n) AS (SELECT CAST(1 AS bigint) UNION ALL"
            f" SELECT n + 1 FROM numbers WHERE n < {rows})"
            " INSERT INTO app_post (title, body, status, views, rating, project, meta, created_at,"
            " updated_at) SELECT 't' || (n * 7919 % 100003), '', 'draft', n * 31 % 1009,"
            " CASE WHEN n % 3 = 0 THEN n * 17 % 7001 END, 'default', '{}',"
            " '2026-01-01', '2026-01-01' FROM numbers"
        )
        cursor.execute("ANALYZE")


@contextmanager
def index_of(source: str) -> Iterator[None]:
    """Create the index that the check names."""
    from django.db import connection, models
    from django.db.models import F
    from django.db.models.functions import Collate

    from tests.app.models import Post

    index = eval(source, {"models": models, "F": F, "Collate": Collate})
    with connection.schema_editor() as editor:
        editor.add_index(Post, index)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    yield
    with connection.schema_editor() as editor:
        editor.remove_index(Post, index)


def timed(function: Callable[[], Any]) -> float:
    """Return the median of the milliseconds that a function takes."""
    function()
    milliseconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        function()
        milliseconds.append((time.perf_counter() - began) * 1000)
    return median(milliseconds)


def measure(rows: int) -> list[dict[str, Any]]:
    """Return the figures of one database, one row per order."""
    from django.db import connection
    from django.test import override_settings

    from django_cocobase_realtime.declarations.registry import registry
    from django_cocobase_realtime.log.cursor import Position
    from django_cocobase_realtime.log.reader import stream_ranges
    from django_cocobase_realtime.log.sequencer import sequence
    from tests.app.models import Post

    options = {"COLLECTIONS": {"post": "app.Post"}}
    with override_settings(COCOBASE_REALTIME=options):
        Post.objects.create(title="first")
        sequence("default", "post")
        fill(rows)
        current = stream_ranges("default", ["post"])["post"]
        position = Position(current.epoch, current.head)
        for post in Post.objects.order_by("-pk")[:10]:
            post.save()
        collection = registry.get("post")
        return [
            {"database": connection.vendor, **measure_order(collection, position, rows, text)}
            for text in ORDERS
        ]


def measure_order(collection: Any, position: Any, rows: int, text: str) -> dict[str, Any]:
    from django.db import connection
    from django.db.models import F
    from django.db.models.functions import Collate

    from django_cocobase_realtime.checks.indexes import index_source
    from django_cocobase_realtime.filters import parse
    from django_cocobase_realtime.filters.order import parse_order
    from django_cocobase_realtime.filters.orm_order import ordering, sort_columns
    from django_cocobase_realtime.filters.sql import code_point_collation
    from django_cocobase_realtime.log.as_of import images_as_of, keys_as_of
    from django_cocobase_realtime.log.row_order import RowOrder
    from tests.app.models import Post

    order = parse_order(text, collection.schema, collection.sortable)
    everything = parse({}, collection.schema)
    columns = sort_columns(Post, order, "default")

    def bare_sql(by: list[Any]) -> Callable[[], Any]:
        query = Post.objects.order_by(*by).values_list("pk")[: LIMIT + 1]
        sql, parameters = query.query.sql_with_params()

        def read() -> Any:
            with connection.cursor() as cursor:
                cursor.execute(sql, parameters)
                return cursor.fetchall()

        return read

    bare = bare_sql(ordering(Post, order, "default"))
    always_named = []
    for column in columns:
        expression: Any = F(column.field.name)
        if column.field.name == "title":
            expression = Collate(expression, code_point_collation("default"))
        always_named.append(
            expression.desc(nulls_last=True)
            if column.descending
            else expression.asc(nulls_first=True)
        )
    middle = Post.objects.order_by("pk")[rows // 2].pk
    (image,) = images_as_of(collection, [middle], None).values()
    after = RowOrder(collection, order).values(image)

    def read(**options: Any) -> Callable[[], Any]:
        at = options.pop("position", None)
        return lambda: keys_as_of(collection, everything, at, limit=LIMIT, order=order, **options)

    without_index = timed(bare)
    with index_of(index_source(Post, columns)):
        return {
            "order": text,
            "bare": timed(bare),
            "now": timed(read()),
            "as_of": timed(read(position=position)),
            "page": timed(read(position=position, after=after)),
            "always_named": timed(bare_sql(always_named)),
            "without_index": without_index,
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"])
    parser.add_argument("--rows", type=int, default=300_000)
    arguments = parser.parse_args()
    if arguments.database:
        set_up(arguments.database)
        print_line(json.dumps(measure(arguments.rows)))
        return 0
    figures = run_for_each_database("ordered_reads")
    head = ["database", "order", "bare SQL", "now", "as of", "page", "always named", "no index"]
    print_line(
        markdown_table(
            head,
            [
                [row["database"], row["order"], *(f"{row[name]:.2f} ms" for name in FIGURES)]
                for row in figures
            ],
        )
    )
    slow = [row for row in figures if row["bare"] > row["without_index"] / 2]
    print_line("\n".join(f"{row['database']}: {row['order']} needs its index" for row in slow))
    return int(bool(slow))


if __name__ == "__main__":
    sys.exit(main())
