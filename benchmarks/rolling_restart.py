"""Restart two servers behind nginx, one after the other, under clients and HTTP requests.

python -m benchmarks.rolling_restart                       # 200 clients, daphne and uvicorn
python -m benchmarks.rolling_restart --clients 60 --drain 2 --server uvicorn

nginx has the configuration of ``docs/how-to/production.md``. Each client watches a collection and
is a member of a durable room, as a user. All the time, rows are saved, GETs are sent, and POSTs of
which some take a second and others broadcast to the room. Each server is restarted as the guide
describes: SIGTERM, then the next one when it is ready.

Exits with 1 if a client missed an event or received one twice or in another order, if the members
of the room seemed to change, or if a request failed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import results
from benchmarks.common import percentile, print_line, set_up

if TYPE_CHECKING:
    import httpx

ROOM = "news"
PATHS = ("/live", "/realtime/health", "/realtime/ready")
SAVE_INTERVAL = 0.05  # seconds
SLOW_POST = 1.0  # seconds that a POST takes
SLOW_POSTS = 3  # at once, so that each server has one when it gets SIGTERM
WAIT_TIMEOUT = 60.0  # seconds


class Client:
    """A client with a subscription and a room; notes when it lost and got back its connection."""

    def __init__(self, url: str, token: str, tls: Any) -> None:
        from django_cocobase_realtime.client import Realtime

        self.saves: list[Any] = []
        self.broadcasts: list[Any] = []
        self.presence: list[str] = []
        self.lost_at = self.back_at = 0.0
        self.db = Realtime(url, token=token, proxy=None, ssl=tls, on_status=self._on_status)

    def _on_status(self, status: str, detail: Any) -> None:
        if status == "live":
            self.back_at = time.monotonic()
        elif status == "waiting" and not self.lost_at:
            self.lost_at, self.back_at = time.monotonic(), 0.0

    async def open(self, stack: AsyncExitStack) -> None:
        await stack.enter_async_context(self.db)
        watch = await self.db.watch("messages").ready()
        room = self.db.room(ROOM, on_resync=lambda reason: self.broadcasts.append("resync"))
        readers = self._read_saves(watch), self._read_room(room), self._read_presence(room)
        for reader in readers:
            task = asyncio.create_task(reader)
            stack.callback(task.cancel)
        await room.ready()

    async def _read_saves(self, watch: Any) -> None:
        async for event in watch:
            self.saves.append(event.data["text"] if event.event == "created" else event.event)

    async def _read_room(self, room: Any) -> None:
        async for message in room.messages():
            self.broadcasts.append(message.message["text"])

    async def _read_presence(self, room: Any) -> None:
        async for change in room.presence():
            self.presence.append(change.event)

    def begin(self) -> None:
        """Forget what was received before a restart."""
        self.saves, self.broadcasts, self.presence = [], [], []
        self.lost_at = 0.0


class Writer(threading.Thread):
    """Saves rows with consecutive numbers, until it is stopped."""

    def __init__(self, numbers: itertools.count[int]) -> None:
        super().__init__()
        self._numbers = numbers
        self._over = threading.Event()
        self.texts: list[str] = []

    def run(self) -> None:
        from django.db import connection

        from tests.app.models import Message

        while not self._over.wait(SAVE_INTERVAL):
            text = str(next(self._numbers))
            Message.objects.create(text=text)
            self.texts.append(text)
        connection.close()

    def stop(self) -> None:
        self._over.set()
        self.join()


class Requests:
    """GETs and POSTs that are sent until they are stopped, and their statuses."""

    def __init__(self, http: httpx.AsyncClient, numbers: itertools.count[int]) -> None:
        self._http = http
        self._numbers = numbers
        self._over = False
        # by method and status, or the name of an exception
        self.answers: Counter[tuple[str, Any]] = Counter()
        # POSTs that were sent before SIGTERM and not answered at that time, by status
        self.accepted: Counter[Any] = Counter()
        self.signalled = False
        # texts of the broadcasts that were answered
        self.broadcasts: set[str] = set()
        # rows that were created
        self.created = 0
        self._tasks = [
            *(asyncio.create_task(self._get(number)) for number in range(3)),
            *(asyncio.create_task(self._post_slowly(number)) for number in range(SLOW_POSTS)),
            asyncio.create_task(self._broadcast()),
        ]

    async def stop(self) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    async def _send(self, method: str, path: str, content: str = "") -> bool:
        import httpx

        before = not self.signalled
        try:
            response = await self._http.request(method, path, content=content)
            status: Any = response.status_code
        except httpx.HTTPError as error:
            status = type(error).__name__
        self.answers[method, status] += 1
        if method == "POST" and before and self.signalled:
            self.accepted[status] += 1
        return bool(status == 200)

    async def _get(self, number: int) -> None:
        for path in itertools.cycle(PATHS[number:] + PATHS[:number]):
            if self._over:
                break
            await self._send("GET", path)
            await asyncio.sleep(0.01)

    async def _post_slowly(self, number: int) -> None:
        await asyncio.sleep(number * SLOW_POST / SLOW_POSTS)
        while not self._over:
            created = await self._send("POST", "/slow-post", str(SLOW_POST))
            self.created += created

    async def _broadcast(self) -> None:
        while not self._over:
            text = str(next(self._numbers))
            if await self._send("POST", "/broadcast", text):
                self.broadcasts.add(text)
            await asyncio.sleep(0.05)


async def wait_until(condition: Any, timeout: float = WAIT_TIMEOUT) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


async def measure_restart(
    server: Any, clients: list[Client], http: httpx.AsyncClient, numbers: itertools.count[int]
) -> dict[str, Any]:
    """Restart one server under load, wait until all clients have everything; return a row."""
    from tests.app.models import Post
    from tests.support.threads import call

    rows_before = await Post.objects.acount()
    for client in clients:
        client.begin()
    writer, requests = Writer(numbers), Requests(http, numbers)
    writer.start()
    await asyncio.sleep(1)

    requests.signalled = True
    began = time.monotonic()
    server.signal(signal.SIGTERM)
    await call(server.process.wait, WAIT_TIMEOUT)
    stopped = time.monotonic() - began
    await call(server.start)
    await wait_until(lambda: all(client.back_at for client in clients))
    await asyncio.sleep(0.5)
    await call(writer.stop)
    await requests.stop()
    await wait_until(
        lambda: all(
            len(client.saves) >= len(writer.texts)
            and len(client.broadcasts) >= len(requests.broadcasts)
            for client in clients
        ),
        timeout=20,
    )
    await asyncio.sleep(0.3)  # duplicates would arrive now

    reconnected = [client for client in clients if client.lost_at]
    away = [client.back_at - client.lost_at for client in reconnected if client.back_at]
    back = sorted(client.back_at - began for client in reconnected if client.back_at)
    saves = [compare(writer.texts, client.saves) for client in clients]
    broadcasts = [compare(sorted(requests.broadcasts), client.broadcasts) for client in clients]
    return {
        "moved": len(reconnected),
        "not_back": len(reconnected) - len(away),
        "away_p50_ms": percentile(away, 0.5) * 1000,
        "away_p95_ms": percentile(away, 0.95) * 1000,
        "away_max_ms": max(away) * 1000,
        "first_back_s": back[0],
        "last_back_s": back[-1],
        "most_per_second": max(sum(at <= x < at + 1 for x in back) for at in back),
        "stopped_s": stopped,
        "saves": len(writer.texts),
        "broadcasts": len(requests.broadcasts),
        "lost": sum(lost for lost, _ in saves + broadcasts),
        "duplicates": sum(more for _, more in saves + broadcasts),
        "disordered": sum(sorted(c.saves, key=float) != c.saves for c in clients if all(c.saves)),
        "presence_changes": sum(len(client.presence) for client in clients),
        "gets": count(requests.answers, "GET"),
        "gets_failed": count(requests.answers, "GET", failed=True),
        "posts": count(requests.answers, "POST"),
        "posts_failed": count(requests.answers, "POST", failed=True),
        "posts_accepted": sum(requests.accepted.values()),
        "posts_accepted_failed": sum(requests.accepted.values()) - requests.accepted[200],
        "rows_missing": requests.created - (await Post.objects.acount() - rows_before),
        "failures": {f"{m} {s}": n for (m, s), n in requests.answers.items() if s != 200},
    }


def compare(expected: list[str], received: list[Any]) -> tuple[int, int]:
    """Return how many values are missing, and how many there are too many."""
    missing = Counter(expected) - Counter(received)
    extra = Counter(received) - Counter(expected)
    return missing.total(), extra.total()


def count(answers: Counter[tuple[str, Any]], method: str, *, failed: bool = False) -> int:
    return sum(n for (m, s), n in answers.items() if m == method and not (failed and s == 200))


FAULTS = (
    *("not_back", "lost", "duplicates", "disordered", "presence_changes"),
    *("gets_failed", "posts_failed", "rows_missing"),
)


def describe(row: dict[str, Any]) -> str:
    return (
        f"    restart {row['restart']}: {row['moved']} clients moved, away p50 "
        f"{row['away_p50_ms']:.0f} p95 {row['away_p95_ms']:.0f} max {row['away_max_ms']:.0f} ms; "
        f"back {row['first_back_s']:.1f} to {row['last_back_s']:.1f} s after SIGTERM, at most "
        f"{row['most_per_second']} in a second; stopped after {row['stopped_s']:.1f} s\n"
        f"      {row['saves']} saves, {row['broadcasts']} broadcasts: lost {row['lost']}, "
        f"duplicates {row['duplicates']}, presence changes {row['presence_changes']}\n"
        f"      {row['gets']} GETs, {row['gets_failed']} failed; {row['posts']} POSTs, "
        f"{row['posts_failed']} failed; {row['posts_accepted']} accepted before SIGTERM, "
        f"{row['posts_accepted_failed']} failed {row['failures'] or ''}"
    )


async def measure(kind: str, options: argparse.Namespace, redis: Any) -> list[dict[str, Any]]:
    """Restart both servers ``--rounds`` times; return a row for each restart."""
    import httpx

    from django_cocobase_realtime.client.backoff import STABLE_AFTER
    from tests.support.nginx import DocumentedNginx
    from tests.support.servers import AsgiServer
    from tests.support.threads import call
    from tests.support.tokens import create_token

    limit = 2 * options.clients + 10  # all clients have one address
    settings = {
        "DRAIN": options.drain,
        "TRUSTED_PROXIES": ["127.0.0.1"],
        "ROOMS": {ROOM: {"history": 1000, "durable": True}},
        "LIMITS": {"connections_per_address": limit, "unauthenticated_per_address": limit},
    }
    numbers = itertools.count()
    rows: list[dict[str, Any]] = []
    async with AsyncExitStack() as stack:
        servers = [AsgiServer(kind, layers=redis.layer("pubsub"), settings=settings) for _ in "12"]
        for server in servers:
            stack.push_async_callback(call, server.stop)
        await asyncio.gather(*(call(server.start) for server in servers))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="realtime-nginx-")))
        nginx = DocumentedNginx(folder, (servers[0].port, servers[1].port))
        stack.push_async_callback(call, nginx.stop)
        await call(nginx.start)
        url = f"wss://127.0.0.1:{nginx.port}/realtime/"
        users = await call(create_users, options.clients)
        clients = [Client(url, create_token(user), nginx.tls) for user in users]
        # closed after the requests, which are tasks of their own
        http = httpx.AsyncClient(base_url=nginx.url, verify=nginx.tls, trust_env=False, timeout=30)
        await stack.enter_async_context(http)
        for first in range(0, len(clients), 10):
            await asyncio.gather(*(client.open(stack) for client in clients[first : first + 10]))
        await asyncio.sleep(2)  # so that the last changes of the room's members have arrived
        print_line(f"\n{kind}: {len(clients)} clients, closed within {options.drain:g} s")
        for number, server in enumerate(servers * options.rounds, 1):
            if number > 1 and server is servers[0]:
                # clients back off from servers that end their connections again before this time
                await asyncio.sleep(STABLE_AFTER + 1)
            row = await measure_restart(server, clients, http, numbers)
            rows.append({"server": kind, "restart": number, **row})
            print_line(describe(rows[-1]))
        if "no live upstreams" in nginx.errors:
            print_line("      nginx had no live upstreams")
            rows[-1]["gets_failed"] += 1
    return rows


def create_users(number: int) -> list[Any]:
    from django.contrib.auth import get_user_model

    names = {f"rolling-{n}" for n in range(number)}
    model = get_user_model()
    model.objects.bulk_create([model(username=name) for name in names], ignore_conflicts=True)
    return list(model.objects.filter(username__in=names))


def main() -> int:
    from tests.support.servers import Redis

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--drain", type=float, default=8.0, help="the setting DRAIN")
    parser.add_argument("--server", nargs="+", default=["daphne", "uvicorn"])
    parser.add_argument("--rounds", type=int, default=1, help="restarts of each server")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--discard", action="store_true", help="do not store the results")
    options = parser.parse_args()
    logging.getLogger("django_cocobase_realtime.client").setLevel(logging.ERROR)
    redis = Redis()
    redis.start()
    try:
        os.environ["REALTIME_TEST_LAYERS"] = json.dumps(redis.layer("pubsub"))
        set_up(options.database)
        rows = [
            row for kind in options.server for row in asyncio.run(measure(kind, options, redis))
        ]
    finally:
        redis.stop()
    if not options.discard:
        about = {"clients": options.clients, "drain": options.drain, "database": options.database}
        print_line(f"\nwritten to {results.save('rolling_restart', rows, **about).name}")
    faults = {name: sum(row[name] for row in rows) for name in FAULTS}
    print_line(f"faults: {', '.join(f'{name} {number}' for name, number in faults.items())}")
    return int(any(faults.values()))


if __name__ == "__main__":
    sys.exit(main())
