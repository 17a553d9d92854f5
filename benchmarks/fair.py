"""Well-behaved clients beside a hostile one: how late are their logins and their events?

    python -m benchmarks.fair                                   # every kind, SQLite, daphne
    python -m benchmarks.fair --kinds snapshots joins --server uvicorn --database postgres

50 subscribers stay connected, and 50 clients log in (connect, authenticate, subscribe) one after
the other, while 10 rows a second are saved. Each round is measured twice: without a hostile client,
and with it. It is in another process and has another address. All limits are the defaults. Prints
the medians of the rounds' 99th percentiles; their ratio should be 2.0 at most. "after" is how long
the server still works once the hostile client is gone; the next round begins after that.

Exits with 1 if an event was lost, if a login failed, or with ``--strict`` if a ratio is above 2.0.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import socket
import subprocess
import sys
import time
from typing import Any

from benchmarks import results, targets
from benchmarks.common import median, percentile, print_line, set_up
from benchmarks.hostile import KINDS
from benchmarks.loader import MARK
from benchmarks.raw_socket import RawSocket

GOAL = 2.0
ROWS = 80_000
HISTORY_EVENTS = 20_000
KEPT_MESSAGES = 1000
LOGINS = 50
SUBSCRIBERS = 50
EVENTS_PER_SECOND = 10
SECONDS_PER_ROUND = 2.0
TIMEOUT = 10.0  # seconds for a login or an event, which count as so late if they do not arrive
# the server counts as idle when it uses less than this share of a core
IDLE_SHARE = 0.15
IDLE_TIMEOUT = 60.0
SETTINGS = {
    "COLLECTIONS": {
        "posts": {
            "model": "app.Post",
            "fields": ["title", "body", "status", "views", "owner", "project", "created_at"],
            "permission": "benchmarks.site.permissions.OfProject",
        },
        "slow": {"model": "app.Message", "permission": "benchmarks.site.slow_permission.Slow"},
    },
    "ROOMS": {"kept-*": {"history": KEPT_MESSAGES}, "*": {}},
    "LIMITS": {},
}
SUBSCRIBE = {"type": "subscribe", "collection": "posts", "filters": {"status": "s0"}}


def fill_tables(rows: int) -> None:
    """Create rows that match nothing, without logging them, and messages of a room."""
    from django.db import connection

    from django_cocobase_realtime import broadcast
    from tests.app.models import Post

    post = Post.objects.create(title="a row", body="lorem ipsum " * 20, status="draft")
    names = [f.column for f in Post._meta.concrete_fields if not f.primary_key]
    columns = ", ".join(connection.ops.quote_name(name) for name in names)
    with connection.cursor() as cursor:
        copied = 1
        while copied < rows:  # doubles the rows
            number = min(copied, rows - copied)
            cursor.execute(
                f"INSERT INTO app_post ({columns}) SELECT {columns} FROM app_post "
                f"WHERE id >= {post.pk} LIMIT {number}"
            )
            copied += number
        cursor.execute("ANALYZE")
    for number in range(KEPT_MESSAGES):
        broadcast("kept-1", {"n": number, "text": "x" * 1000})


def add_history() -> None:
    """Log many changes of the collection."""
    from tests.app.models import Post

    for _ in range(HISTORY_EVENTS // 1000):
        Post.objects.bulk_create([Post(title="history", status="draft") for _ in range(1000)])


class Hostile:
    """The process of the hostile client."""

    def __init__(self, name: str, victim: dict[str, Any]) -> None:
        command = [sys.executable, "-m", "benchmarks.hostile", name, json.dumps(victim)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def start(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("start\n")

    def stop(self) -> dict[str, int]:
        """Disconnect; return what the client did."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("stop\n")
        counts: dict[str, int] = json.loads(self._process.stdout.readline())
        return counts

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


class Clients:
    """The well-behaved clients, each with its own user and address."""

    def __init__(self, target: targets.Target) -> None:
        self.url = target.server.url
        self.control = target.server.control
        self.subscribers: list[RawSocket] = []
        # arrivals of each event in ns, and the time of its commit
        self.arrivals: dict[int, list[int]] = {}
        self.committed: dict[int, int] = {}
        self.failed: list[str] = []
        self._number = 0
        self._sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sender.bind(("127.0.0.1", 0))
        self._sender.setblocking(False)

    def _receive(self, payload: bytes, now: int) -> None:
        for number, _ in MARK.findall(payload):
            self.arrivals.setdefault(int(number), []).append(now)

    def _receive_commits(self) -> None:
        try:
            while True:
                reply = json.loads(self._sender.recv(4096))
                self.committed[reply["n"]] = reply["at"]
        except BlockingIOError:
            return

    async def open(self) -> None:
        """Connect the subscribers."""
        asyncio.get_running_loop().add_reader(self._sender.fileno(), self._receive_commits)
        for number in range(SUBSCRIBERS):
            client = await RawSocket.open(
                self.url, source=f"127.1.0.{number + 1}", on_text=self._receive
            )
            await client.authenticate(targets.token(1000 + number))
            await client.request(SUBSCRIBE, '"subscribed"')
            self.subscribers.append(client)

    async def login(self, number: int) -> float:
        """Log in, and disconnect. Return the seconds until everything was answered."""
        began = time.monotonic()
        client = None
        try:
            async with asyncio.timeout(TIMEOUT):
                client = await RawSocket.open(self.url, source=f"127.1.1.{number + 1}")
                await client.authenticate(targets.token(2000 + number))
                await client.request(SUBSCRIBE, '"subscribed"')
        except (OSError, TimeoutError) as error:
            self.failed.append(repr(error))
            return TIMEOUT
        finally:
            if client is not None:
                client.abort()
        return time.monotonic() - began

    async def _save_rows(self, seconds: float) -> list[int]:
        numbers = []
        for _ in range(int(seconds * EVENTS_PER_SECOND)):
            self._number += 1
            numbers.append(self._number)
            message = {"first": self._number, "count": 1, "classes": 1, "save": True}
            self._sender.sendto(json.dumps(message).encode(), ("127.0.0.1", self.control))
            await asyncio.sleep(1 / EVENTS_PER_SECOND)
        return numbers

    async def measure(self, seconds: float) -> dict[str, Any]:
        """Measure one round; return the 99th percentiles in ms, and the number of lost events."""
        self.failed.clear()
        saving = asyncio.create_task(self._save_rows(seconds))
        logins = []
        for number in range(LOGINS):
            logins.append(asyncio.create_task(self.login(number)))
            await asyncio.sleep(seconds / LOGINS)
        times = await asyncio.gather(*logins)
        numbers = await saving
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline and any(
            n not in self.committed or len(self.arrivals.get(n, ())) < SUBSCRIBERS for n in numbers
        ):
            await asyncio.sleep(0.02)
        delays, lost = [], 0
        for number in numbers:
            arrived = self.arrivals.pop(number, [])
            at = self.committed.pop(number, 0)
            delays += [(arrival - at) / 1e6 for arrival in arrived] if at else []
            missing = SUBSCRIBERS - len(arrived) if at else SUBSCRIBERS
            delays += [TIMEOUT * 1000] * missing
            lost += missing
        return {
            "login": percentile(times, 0.99) * 1000,
            "event": percentile(delays, 0.99),
            "lost": lost,
            "failed": len(self.failed),
            "why": self.failed[:1],
        }

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._sender.fileno())
        self._sender.close()
        for client in self.subscribers:
            client.abort()


async def wait_until_idle(server: targets.MeasuredServer) -> float:
    """Wait until the server does next to nothing; return the seconds that this took."""
    began = time.monotonic()
    while time.monotonic() - began < IDLE_TIMEOUT:
        before, at = server.cpu, time.monotonic()
        await asyncio.sleep(0.3)
        if server.cpu - before < IDLE_SHARE * (time.monotonic() - at):
            return at - began
    return IDLE_TIMEOUT


async def measure(kind: str, server_kind: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one kind of hostile client."""
    target = targets.realtime(server_kind, kind, settings=SETTINGS, shared=True)
    server = target.server
    await asyncio.to_thread(server.start)
    clients = Clients(target)
    hostile: Hostile | None = None
    rounds: list[dict[str, dict[str, Any]]] = []
    after: list[float] = []
    counts: dict[str, int] = {}
    try:
        first = await RawSocket.open(server.url, source="127.0.0.2")
        await first.authenticate(targets.token(1))
        request = {"type": "subscribe", "collection": "posts", "transitions": True}
        reply = json.loads(await first.request(request, '"subscribed"'))
        first.abort()
        if kind == "replay":
            await asyncio.to_thread(add_history)
        victim = {"url": server.url, "token": targets.token(1)}
        victim |= {"cursor": reply["cursor"], "scope": reply["scope"]}
        hostile = Hostile(kind, victim)
        await clients.open()
        await clients.measure(0.5)  # warms up
        for _ in range(arguments.rounds):
            await wait_until_idle(server)
            quiet = await clients.measure(arguments.seconds)
            hostile.start()
            await asyncio.sleep(0.3)
            beside = await clients.measure(arguments.seconds)
            counts = await asyncio.to_thread(hostile.stop)
            after.append(await wait_until_idle(server))
            rounds.append({"quiet": quiet, "hostile": beside})
    finally:
        clients.close()
        if hostile is not None:
            hostile.end()
        await asyncio.to_thread(server.kill)
    row: dict[str, Any] = {"server": server_kind, "kind": kind, "about": KINDS[kind][1]}
    for name in ("login", "event"):
        for when in ("quiet", "hostile"):
            row[f"{name}_{when}_ms"] = median(part[when][name] for part in rounds)
        row[f"{name}_ratio"] = row[f"{name}_hostile_ms"] / row[f"{name}_quiet_ms"]
    both = [part for parts in rounds for part in parts.values()]
    why = [reason for part in both for reason in part["why"]]
    return {
        **row,
        "lost": sum(part["lost"] for part in both),
        "failed": sum(part["failed"] for part in both),
        "why": why[:1],
        "after_s": median(after),
        "answers": counts,
    }


def print_row(row: dict[str, Any]) -> None:
    """Print one line of the table."""
    cells = [f"  {row['kind']:16}"]
    for name in ("login", "event"):
        quiet, beside, ratio = (row[f"{name}_{k}"] for k in ("quiet_ms", "hostile_ms", "ratio"))
        mark = " " if ratio <= GOAL else "!"
        cells.append(f"{quiet:8.1f} {beside:8.1f} {ratio:6.2f}{mark}")
    cells.append(f"{row['failed']:6} {row['lost']:5} {row['after_s']:6.1f}  {row['answers']}")
    print_line(" ".join(cells), *row["why"])


def main(arguments: argparse.Namespace) -> int:
    set_up(arguments.database, "benchmarks.site.settings")
    os.environ["REALTIME_TEST_SETTINGS"] = json.dumps(SETTINGS)
    fill_tables(arguments.rows)
    gc.disable()
    rows = []
    for server_kind in arguments.server:
        print_line(
            f"\n{arguments.database}, {server_kind}: p99 in ms without and with a hostile client; "
            f"the goal is a ratio of {GOAL}\n"
            f"  {'kind':16} {'login':>8} {'with':>8} {'ratio':>6}  {'event':>8} {'with':>8} "
            f"{'ratio':>6}  failed  lost  after  what the hostile client received"
        )
        for kind in arguments.kinds:
            row = asyncio.run(measure(kind, server_kind, arguments))
            rows.append({"database": arguments.database, **row})
            print_row(row)
            gc.collect()
    path = results.save("fair", rows, goal=GOAL, rounds=arguments.rounds)
    print_line(f"\nwritten to {path.name}")
    ratios = [row[name] for row in rows for name in ("login_ratio", "event_ratio")]
    late = arguments.strict and max(ratios) > GOAL
    return int(late or any(row["lost"] or row["failed"] for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--server", nargs="+", choices=targets.KINDS, default=["daphne"])
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=SECONDS_PER_ROUND, help="of a round")
    parser.add_argument("--rows", type=int, default=ROWS, help="in the scanned table")
    parser.add_argument("--strict", action="store_true", help="fail if a ratio is above the goal")
    sys.exit(main(parser.parse_args()))
