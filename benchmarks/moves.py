"""100 rows that a membership shows and hides: the time from the commit until its user has them.

    python -m benchmarks.moves                           # SQLite and PostgreSQL

A uvicorn process serves the clients, this process writes. At the same time, events of tickets that
the memberships do not concern are sent to other clients, 20 per second; their times are compared
with those of the same events while no membership changes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from typing import Any

from benchmarks import results
from benchmarks.common import percentile, print_line, run_for_each_database, set_up

ROWS = 100
SAVES_PER_SECOND = 20.0
SETTINGS = {
    "COLLECTIONS": {
        "tickets": {
            "model": "relations_app.Ticket",
            "fields": ["title", "project"],
            "permission": "tests.support.tickets.MemberTickets",
            "depends_on": [f"relations_app.{m}" for m in ("Project", "Organization", "Membership")],
        }
    },
    "LIMITS": {"connections_per_address": 20_000, "unauthenticated_per_address": 20_000},
}
GOALS = {"p50_ms": 15.0, "p99_ms": 60.0}


async def measure(server: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the times of moves, and of the events of others, in milliseconds."""
    from asgiref.sync import sync_to_async

    from tests.support.client import connect

    data = await sync_to_async(_create)(arguments.users)
    times: list[float] = []
    async with (
        connect(server.socket_url, data["mover"]) as mover,
        connect(server.socket_url, data["other"]) as other,
    ):
        for client in (mover, other):
            await client.subscribe("tickets", transitions=True, snapshot=True)
            await client.receive("snapshot")
        idle = [connect(server.socket_url, token) for token in data["idle"]]
        clients = [await idler.__aenter__() for idler in idle]
        for client in clients:
            await client.subscribe("tickets", transitions=True)
        quiet = await _save_steadily(other, data["ticket"], arguments.seconds)
        saving = asyncio.create_task(_save_steadily(other, data["ticket"], arguments.seconds))
        while not saving.done():
            for write in (data["add"], data["remove"]):
                committed_at = await sync_to_async(write)()
                rows = 0
                while rows < ROWS:
                    frame = await mover.receive()
                    if frame["type"] == "moved":
                        rows += len(frame["entered"]) + len(frame["left"])
                times.append(1000 * (time.perf_counter() - committed_at))
        busy = await saving
        for idler in idle:
            await idler.__aexit__(None, None, None)
    return {
        "moves": len(times),
        "p50_ms": percentile(times, 0.5),
        "p99_ms": percentile(times, 0.99),
        "others_quiet_p99_ms": percentile(quiet, 0.99),
        "others_p50_ms": percentile(busy, 0.5),
        "others_p99_ms": percentile(busy, 0.99),
    }


def _create(users: int) -> dict[str, Any]:
    """Create users with keys, and their tickets; return what writes the memberships."""
    from django.contrib.auth import get_user_model

    from django_cocobase_realtime.models import ApiKey
    from tests.relations_app.models import Membership, Organization, Project, Ticket

    def create_key(name: str) -> tuple[Any, str]:
        user = get_user_model().objects.create_user(name)
        return user, ApiKey.objects.create_key(name, user=user)[1]

    organizations = [Organization.objects.create(name=n, slug=n) for n in ("many", "other")]
    many, others = (Project.objects.create(name="p", organization=o) for o in organizations)
    Ticket.objects.bulk_create([Ticket(title=f"t{n}", project=many) for n in range(ROWS)])
    ticket = Ticket.objects.create(title="0", project=others)
    mover, token = create_key("mover")
    other, other_token = create_key("other")
    Membership.objects.create(user=other, organization=organizations[1])
    idle = []
    for number in range(users):
        user, idle_token = create_key(f"idle{number}")
        organization = Organization.objects.create(name="i", slug=f"i{number}")
        Membership.objects.create(user=user, organization=organization)
        idle.append(idle_token)

    def add() -> float:
        Membership.objects.create(user=mover, organization=organizations[0])
        return time.perf_counter()

    def remove() -> float:
        Membership.objects.filter(user=mover).delete()
        return time.perf_counter()

    return {
        "mover": token,
        "other": other_token,
        "idle": idle,
        "ticket": ticket.pk,
        "add": add,
        "remove": remove,
    }


async def _save_steadily(client: Any, pk: int, seconds: float) -> list[float]:
    """Save a ticket at the rate, and return the times until the client has each event."""
    from asgiref.sync import sync_to_async

    from tests.relations_app.models import Ticket

    def save(title: str) -> float:
        Ticket.objects.filter(pk=pk).update(title=title)
        return time.perf_counter()

    times: list[float] = []
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    for number in range(int(seconds * SAVES_PER_SECOND)):
        await asyncio.sleep(max(0.0, began_at + number / SAVES_PER_SECOND - loop.time()))
        committed_at = await sync_to_async(save)(f"{time.time_ns()}")
        while (await client.receive())["type"] != "event":
            pass
        times.append(1000 * (time.perf_counter() - committed_at))
    return times


def measure_database(arguments: argparse.Namespace) -> None:
    """Measure one database; print the row on the last line."""
    from tests.support.servers import AsgiServer, Redis

    redis = Redis()
    redis.start()
    layers = redis.layer("pubsub")
    os.environ |= {
        "REALTIME_TEST_LAYERS": json.dumps(layers),
        "REALTIME_TEST_SETTINGS": json.dumps(SETTINGS),
    }
    set_up(arguments.database)
    server = AsgiServer("uvicorn", layers=layers, settings=SETTINGS)
    server.start()
    try:
        row = asyncio.run(measure(server, arguments))
    finally:
        server.stop()
        redis.stop()
    print_line(
        f"\n{arguments.database}: {row['moves']} moves of {ROWS} rows, "
        f"{arguments.users} other users connected\n"
        f"  p50 {row['p50_ms']:.1f} ms (goal {GOALS['p50_ms']:.0f}), "
        f"p99 {row['p99_ms']:.1f} ms (goal {GOALS['p99_ms']:.0f})\n"
        f"  events of others: p99 {row['others_p99_ms']:.1f} ms beside the moves, "
        f"{row['others_quiet_p99_ms']:.1f} ms without them"
    )
    print_line(json.dumps([{"database": arguments.database, "users": arguments.users, **row}]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"])
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    if given.database:
        measure_database(given)
    else:
        results.save("moves", run_for_each_database("moves"))
