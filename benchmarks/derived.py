"""One renamed row that 1,000 documents show: the time to derive their events, for each of them.

    python -m benchmarks.derived                         # SQLite and PostgreSQL

The time is that of one call, which finds the documents, reads their rows and the values of related
fields, and appends and numbers the events. For comparison, the same rows are read by the ORM.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

from benchmarks import results
from benchmarks.common import print_line, run_for_each_database, set_up

SETTINGS = {
    "COLLECTIONS": {
        "tickets": {
            "model": "relations_app.Ticket",
            "fields": ["title", "status", "project", "project.organization.name"],
        }
    },
    "LIMITS": {"derived_events": 100_000},
}
GOAL = 60.0  # microseconds for each document


def measure(documents: int, rounds: int) -> dict[str, Any]:
    """Return the times for each document, in microseconds."""
    from django_cocobase_realtime.log.derived import derive
    from tests.relations_app.models import Organization, Project, Ticket

    organization = Organization.objects.create(name="0")
    project = Project.objects.create(name="p", organization=organization)
    Ticket.objects.bulk_create(
        [Ticket(title=f"t{number}", project=project) for number in range(documents)]
    )
    derive("default")
    times, reads = [], []
    for number in range(rounds):
        Organization.objects.update(name=str(number))
        began = time.perf_counter()
        derive("default")
        times.append(1e6 * (time.perf_counter() - began) / documents)
        began = time.perf_counter()
        list(Ticket.objects.filter(project__organization=organization))
        reads.append(1e6 * (time.perf_counter() - began) / documents)
    return {"median_us": statistics.median(times), "orm_us": statistics.median(reads)}


def measure_database(arguments: argparse.Namespace) -> None:
    """Measure one database; print the row on the last line."""
    import os

    os.environ["REALTIME_TEST_SETTINGS"] = json.dumps(SETTINGS)
    set_up(arguments.database)
    row = measure(arguments.documents, arguments.rounds)
    print_line(
        f"\n{arguments.database}: {arguments.documents} documents of one renamed row\n"
        f"  {row['median_us']:.0f} µs for each document (goal {GOAL:.0f}); "
        f"the ORM reads its row in {row['orm_us']:.0f} µs"
    )
    documents = {"database": arguments.database, "documents": arguments.documents}
    print_line(json.dumps([documents | row]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"])
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    if given.database:
        measure_database(given)
    else:
        results.save("derived", run_for_each_database("derived"))
