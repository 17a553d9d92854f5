"""The cost of key queries: resolve them, read their keys, and find those that a change touches.

    python -m benchmarks.key_queries                     # SQLite and PostgreSQL
    python -m benchmarks.key_queries --database sqlite --users 1000

The users have three memberships each, in organizations with five projects each. Each user has the
key query ``Project.objects.filter(organization__memberships__user=user)``. Changed are a project,
of an organization with 24 members, and a membership. Exits with 1 if a figure misses its goal.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from benchmarks.common import median, print_line, run_for_each_database, set_up
from benchmarks.tables import markdown_table

MEMBERS = 24
LIMIT = 10_000
GOALS = {
    "resolve_us": 1000.0,  # one query whose shape is known
    "probe_ms": 1.5,  # a new project
    "index_us": 100.0,  # a new membership
    "read_ms": {"sqlite": 100.0, "postgresql": 25.0},  # the keys of 1,000 queries
}


def fill(users: int) -> None:
    """Create users, organizations, memberships and projects."""
    from django.contrib.auth import get_user_model
    from django.db import connection

    from tests.relations_app.models import Membership, Organization, Project

    user_model = get_user_model()
    chance = random.Random(1)
    user_model.objects.bulk_create(
        [user_model(username=f"user{n}") for n in range(users)], batch_size=500
    )
    Organization.objects.bulk_create(
        [Organization(name=str(n)) for n in range(users // 10)], batch_size=500
    )
    user_keys = list(user_model.objects.values_list("pk", flat=True))
    first, *others = Organization.objects.order_by("pk").values_list("pk", flat=True)
    pairs = [(key, first) for key in user_keys[:MEMBERS]]
    pairs += [(key, other) for key in user_keys for other in chance.sample(others, 3)]
    Membership.objects.bulk_create(
        [Membership(user_id=user, organization_id=other) for user, other in pairs], batch_size=500
    )
    Project.objects.bulk_create(
        [Project(name="x", organization_id=o) for o in (first, *others) for _ in range(5)],
        batch_size=500,
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def timed(function: Callable[[], Any], times: int) -> float:
    """Return the median of the seconds that a function takes."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def measure(users: int) -> dict[str, Any]:
    """Return the figures of one database."""
    from django.contrib.auth import get_user_model
    from django.db import connection

    from django_cocobase_realtime.relations import KeyQuery, KeyQueryIndex, RowChange, read_many
    from tests.relations_app.models import Membership, Organization, Project, Ticket

    fill(users)
    keys = list(get_user_model().objects.values_list("pk", flat=True))

    def resolve(user: int) -> KeyQuery:
        projects = Project.objects.filter(organization__memberships__user=user)
        return KeyQuery.resolve(Ticket, "project", projects, "default")

    resolve(keys[0])
    began = time.perf_counter()
    queries = [resolve(key) for key in keys]
    resolved = (time.perf_counter() - began) / len(keys)
    index = KeyQueryIndex()
    tracemalloc.start()
    for query in queries:
        index.add(query)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    first = Organization.objects.order_by("pk").first()
    assert first is not None
    project = Project.objects.create(name="new", organization=first)
    image = {"id": project.pk, "name": "new", "public": False, "organization_id": first.pk}
    of_project = [RowChange(Project._meta.label, project.pk, None, image)]
    image = {"id": 1, "user_id": keys[0], "organization_id": first.pk}
    of_membership = [RowChange(Membership._meta.label, 1, None, image)]
    batch = queries[:1000]
    return {
        "database": connection.vendor,
        "touched": len(index.find_touched(of_project)),
        "resolve_us": resolved * 1e6,
        "probe_ms": timed(lambda: index.find_touched(of_project), 50) * 1e3,
        "index_us": timed(lambda: index.find_touched(of_membership), 50) * 1e6,
        "read_ms": timed(lambda: read_many(batch, LIMIT), 5) * 1e3,
        "index_bytes": size / len(queries),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"])
    parser.add_argument("--users", type=int, default=10_000)
    arguments = parser.parse_args()
    if arguments.database:
        set_up(arguments.database)
        print_line(json.dumps([measure(arguments.users)]))
        return 0
    rows = run_for_each_database("key_queries")
    head = ["database", "found", "resolve", "new project", "new membership", "read 1,000", "bytes"]
    print_line(
        markdown_table(
            head,
            [
                [
                    row["database"],
                    row["touched"],
                    f"{row['resolve_us']:.0f} µs",
                    f"{row['probe_ms']:.2f} ms",
                    f"{row['index_us']:.0f} µs",
                    f"{row['read_ms']:.1f} ms",
                    f"{row['index_bytes']:.0f}",
                ]
                for row in rows
            ],
        )
    )
    missed = [
        f"{row['database']}: {name} is {row[name]:.1f}"
        for row in rows
        for name, goal in GOALS.items()
        if row[name] > (goal[row["database"]] if isinstance(goal, dict) else goal)
    ]
    missed += [f"{row['database']}: found {row['touched']}" for row in rows if row["touched"] != 24]
    print_line("\n".join(missed))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
