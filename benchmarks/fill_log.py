"""Fill the log by SQL, much faster than by saves, for `benchmarks.growth`."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.site import document

COLLECTION = "posts"
EVENTS_PER_TRANSACTION = 5
NUMBERS = {
    "postgresql": "SELECT n FROM generate_series({first}, {last}) AS numbers(n)",
    "sqlite": (
        "WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers "
        "WHERE n < {last}) SELECT n FROM numbers"
    ),
}


def fill(count: int, *, numbered: bool) -> None:
    """Append events to the log of the collection, with their numbers or without."""
    from django.db import connection
    from django.utils import timezone

    from django_cocobase_realtime.models import LogEvent, Stream

    stream, _ = Stream.objects.get_or_create(collection=COLLECTION)
    first, last = stream.head + 1, stream.head + count
    image = json.dumps({"id": "1", **document.data(0, 1), "body": document.FILLER})
    columns = "collection, seq, transaction_id, op, document_id, after, created_at"
    numbers = NUMBERS[connection.vendor].format(first=first, last=last)
    values: list[Any] = [COLLECTION, EVENTS_PER_TRANSACTION, image]
    values.append(connection.ops.adapt_datetimefield_value(timezone.now()))
    image_type = "::text" if connection.vendor == "postgresql" else ""
    time_type = "::timestamptz" if connection.vendor == "postgresql" else ""
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {LogEvent._meta.db_table} ({columns}) "
            f"SELECT %s, {'n' if numbered else 'NULL'}, 'fill' || (n / %s), 'created', n, "
            f"%s{image_type}, %s{time_type} FROM ({numbers}) AS numbers ORDER BY n",
            values,
        )
    if numbered:
        Stream.objects.filter(pk=stream.pk).update(head=last)
    analyze()


def analyze() -> None:
    """Update the statistics of the log, as the database does by itself after a while."""
    from django.db import connection

    from django_cocobase_realtime.models import LogEvent

    with connection.cursor() as cursor:
        command = "VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE"
        cursor.execute(f"{command} {LogEvent._meta.db_table}")
