"""The cost of an arriving client: connect, authenticate, subscribe; with a snapshot or without.

    python -m benchmarks.arrivals                        # SQLite and PostgreSQL
    python -m benchmarks.arrivals --database postgres --clients 1000 --rounds 5

Clients arrive 64 at a time. Beside them in turn arrive the same clients at a raw ASGI application,
which sends the same answers and checks nothing. All ask for the same snapshot of 50 documents. The
queries for snapshots are counted in a run of their own. Exits with 1 if a client was refused.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import results, targets
from benchmarks.common import median, print_line, run_for_each_database, set_up
from benchmarks.load import Load, Step
from benchmarks.paths import database_process
from benchmarks.process import cpu_seconds
from benchmarks.raw_socket import RawSocket
from benchmarks.targets import MeasuredServer, asgi, token

SNAPSHOT_DOCUMENTS = 50
KEYS = 20  # API keys, which the clients share
GOALS = {
    False: 3.0,  # × the raw application, without a snapshot
    True: 3.5,  # with one
}
Row = dict[str, Any]
SUBSCRIBE = {"type": "subscribe", "collection": "posts", "subscription": "posts"}


def auth_text(credential: str) -> str:
    """Return the request that authenticates."""
    return json.dumps({"type": "auth", "token": credential})


def subscribe_text(snapshot: bool) -> str:
    """Return the request that subscribes."""
    options = {"snapshot": {"limit": SNAPSHOT_DOCUMENTS}} if snapshot else {}
    return json.dumps({**SUBSCRIBE, "filters": {"status": "s0"}, **options})


def steps(credential: str, snapshot: bool) -> list[Step]:
    """Return the requests of a client and their answers."""
    arrival: list[Step] = [
        (auth_text(credential), '"authenticated"'),
        (subscribe_text(snapshot), '"subscribed"'),
    ]
    if snapshot:
        arrival.append((None, '"type":"snapshot"'))
    return arrival


async def record_answers(server: MeasuredServer, credential: str) -> list[list[str]]:
    """Return the frames with which a server answers, for the raw application."""
    answers = []
    for snapshot in (False, True):
        texts: list[str] = []
        client = await RawSocket.open(
            server.url, on_text=lambda text, at, texts=texts: texts.append(text.decode())
        )
        await client.authenticate(credential)
        expected = '"type":"snapshot"' if snapshot else '"subscribed"'
        await client.request(json.loads(subscribe_text(snapshot)), expected)
        client.abort()
        if not answers:
            answers.append(texts[:1])
        answers.append(texts[1:])
    return answers


def prepare(clients: int) -> tuple[list[Any], list[str]]:
    """Create the documents, users and keys. Return the users' ids and the keys."""
    from django.contrib.auth import get_user_model

    from benchmarks.site import document
    from django_cocobase_realtime.models import ApiKey
    from tests.app.models import Post

    fields = document.data(0, 1)
    fields.update(owner=None, body=fields["body"].replace("#", ""))
    del fields["created_at"]
    Post.objects.bulk_create([Post(**fields) for _ in range(SNAPSHOT_DOCUMENTS)])
    users = get_user_model()._default_manager
    users.bulk_create([get_user_model()(username=f"user {n}") for n in range(clients)])
    ids = list(users.order_by("pk").values_list("pk", flat=True)[:clients])
    return ids, [ApiKey.objects.create_key(f"arrivals {n}")[1] for n in range(KEYS)]


class Arrivals:
    """The servers and clients of one database."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from tests.settings import COCOBASE_REALTIME

        self.arguments = arguments
        ids, keys = prepare(arguments.clients)
        jwt = {"JWT": {"KEY": COCOBASE_REALTIME["JWT"]["KEY"], "USER_LOOKUP": "pk"}}
        # (name, settings, credential of a client by its number)
        self.kinds: list[tuple[str, Any, Callable[[int], str]]] = [
            ("JWT without a user", None, token),
            ("JWT of a Django user", jwt, lambda number: token(ids[number])),
            ("API key", None, lambda number: keys[number % KEYS]),
        ]
        self.database = database_process()

    def server(self, settings: Any = None, **env: str) -> MeasuredServer:
        """Return a server of this project."""
        return asgi(self.arguments.server, "realtime", settings=settings, shared=True, **env)

    def measure(self) -> list[Row]:
        """Measure all kinds of clients."""
        rows = []
        probe = self.server()
        try:
            probe.start()
            answers = asyncio.run(record_answers(probe, token(0)))
        finally:
            probe.kill()
        raw = asgi(
            self.arguments.server, "raw_arrivals", shared=True, BENCH_ANSWERS=json.dumps(answers)
        )
        try:
            raw.start()
            for name, settings, credential in self.kinds:
                server = self.server(settings)
                try:
                    server.start()
                    for snapshot in (False, True):
                        row = self.compare(raw, server, credential, snapshot)
                        if snapshot and settings is None and credential is token:
                            row["queries"] = self.count_queries()
                        rows.append({"name": name, "snapshot": snapshot, **row})
                finally:
                    server.kill()
        finally:
            raw.kill()
        return rows

    def compare(
        self,
        raw: MeasuredServer,
        server: MeasuredServer,
        credential: Callable[[int], str],
        snapshot: bool,
    ) -> Row:
        """Measure the arrival of the same clients at both servers, in turn."""
        arrivals = [steps(credential(n), snapshot) for n in range(self.arguments.clients)]
        for warm in (raw, server):
            self.arrive(warm, arrivals[:100])
        pairs = [
            (self.arrive(raw, arrivals), self.arrive(server, arrivals))
            for _ in range(self.arguments.rounds)
        ]
        raw_us = median(pair[0]["us"] for pair in pairs)
        us = median(pair[1]["us"] for pair in pairs)
        return {
            "raw_us": raw_us,
            "us": us,
            "ratio": us / raw_us,
            "goal": GOALS[snapshot],
            "database_us": median(pair[1]["database_us"] for pair in pairs),
            "per_second": median(pair[1]["per_second"] for pair in pairs),
            "refused": next(
                (one["refused"] for pair in pairs for one in pair if one["refused"]), None
            ),
        }

    def arrive(self, server: MeasuredServer, arrivals: list[list[Step]]) -> Row:
        """Let clients arrive, then leave. Return the CPU of the server for each, in µs."""
        with Load() as load:
            cpu = server.cpu
            database = cpu_seconds(self.database) if self.database else 0.0
            result = load.open([(server.url, 0, arrival) for arrival in arrivals])
            spent = server.cpu - cpu
            if self.database:
                database = cpu_seconds(self.database) - database
        wait_idle(server)
        return {
            "us": spent / len(arrivals) * 1e6,
            "database_us": database / len(arrivals) * 1e6,
            "per_second": len(arrivals) / result["seconds"],
            "refused": result["refused"],
        }

    def count_queries(self) -> float:
        """Return the number of queries for documents per client that asks for a snapshot."""
        server = self.server(BENCH_COUNT_QUERIES="1")
        try:
            server.start()
            clients = self.arguments.clients
            self.arrive(server, [steps(token(n), True) for n in range(clients)])
            return ask(server, queries=True) / clients
        finally:
            server.kill()


def ask(server: MeasuredServer, **message: Any) -> int:
    """Send a message to the control port of a server and return the number that it answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        control.settimeout(10)
        control.sendto(json.dumps(message).encode(), ("127.0.0.1", server.control))
        number: int = json.loads(control.recv(1024))["at"]
        return number


def wait_idle(server: MeasuredServer, pause: float = 0.2) -> None:
    """Wait until a server has dealt with the clients that have left."""
    deadline = time.monotonic() + 10
    cpu = server.cpu
    while time.monotonic() < deadline:
        time.sleep(pause)
        if server.cpu - cpu <= 0.02:
            return
        cpu = server.cpu


def measure_database(arguments: argparse.Namespace) -> None:
    """Measure one database; print the rows on the last line."""
    set_up(arguments.database, "benchmarks.site.settings")
    print_line(f"\n{arguments.database}, {arguments.server}, {arguments.clients} clients")
    rows = Arrivals(arguments).measure()
    for row in rows:
        name = row["name"] + (f", snapshot of {SNAPSHOT_DOCUMENTS}" if row["snapshot"] else "")
        queries = f"  {row['queries']:.3f} queries per client" if "queries" in row else ""
        print_line(
            f"    {name:38} {row['us']:7.0f} µs CPU, raw {row['raw_us']:5.0f} µs: "
            f"{row['ratio']:5.2f}× (goal {row['goal']})  database {row['database_us']:.0f} µs  "
            f"{row['per_second']:.0f}/s{queries}  {row['refused'] or ''}"
        )
    rows = [{"database": arguments.database, "server": arguments.server, **row} for row in rows]
    print_line(json.dumps(rows))


def main() -> int:
    rows = run_for_each_database("arrivals")
    print_line(f"\nwritten to {results.save('arrivals', rows, documents=SNAPSHOT_DOCUMENTS).name}")
    return int(any(row["refused"] for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"], help="this one alone")
    parser.add_argument("--server", choices=targets.KINDS, default="uvicorn")
    parser.add_argument("--clients", type=int, default=1000, help="that arrive in a round")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    if chosen.database:
        measure_database(chosen)
    else:
        sys.exit(main())
