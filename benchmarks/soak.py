"""Faults and bad clients for a long time: does anything grow, and does everybody see the rows?

    python -m benchmarks.soak --minutes 30
    python -m benchmarks.soak --minutes 2 --database postgres     # a quick try

Two servers (uvicorn and daphne) with one Redis. Clients connect, subscribe, take snapshots, join
rooms, stall, send garbage and drop the connection; rows change all the time. Again and again the
database is locked (SQLite) or restarted (PostgreSQL), Redis is killed or suspended, or the second
server is killed. The first server is never killed: its memory, descriptors and threads are printed
every minute, with the latency from commit to arrival and the number of rows in the app's tables.

Exits with 1 if one of them grows after the warm-up, beyond its limit and its noise, or if a
well-behaved client does not have the database's rows in the end. Growth is judged from
``MIN_SAMPLES`` minutes on; short runs only print it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import random
import sys
import time
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.common import median, percentile, print_line, set_up
from benchmarks.raw_socket import RawSocket
from benchmarks.soak_faults import Faults, lock_or_restart_database

WARM_UP_SHARE = 0.3  # of the samples, which are not judged
MIN_SAMPLES = 8  # that are judged
USERS = 20
VISITORS = 10
LISTS_PER_SERVER = 4
ROOMS = 30
WRITES_PER_SECOND = 20
FAULT_INTERVAL = 15.0  # seconds, on average
SETTLE_SECONDS = 60.0
SETTINGS = {
    "COLLECTIONS": {"posts": "app.Post", "messages": {"model": "app.Message", "durable": False}},
    "ROOMS": {"kept-*": {"history": 20}, "durable-*": {"durable": True, "history": 20}, "*": {}},
    "PRESENCE": {"GRACE": 2, "LEASE": 6},
    "LOG": {"MAX_EVENTS": 2000, "MAX_AGE": 60},
    "LIMITS": {"connections_per_user": 1000},
}
# largest growth in ten minutes that is not reported
LIMITS = {"rss MiB": 1.0, "descriptors": 2.0, "threads": 1.0, "p50 ms": 5.0, "rows": 20.0}


class Latency:
    """Collects the delays of probes, which are rows with the time of their save."""

    def __init__(self) -> None:
        self.delays: list[float] = []

    def add(self, title: str) -> None:
        _, _, began = title.partition("@")
        if began:
            self.delays.append((time.monotonic_ns() - int(began)) / 1e6)

    def take(self) -> tuple[float, float]:
        """Return the median and the 99th percentile in ms since the last call."""
        delays, self.delays = self.delays, []
        return (median(delays), percentile(delays, 0.99)) if delays else (0.0, 0.0)


def change_rows(random_source: random.Random) -> None:
    """Create, change or delete a row. Some rows are probes."""
    from django.db import DatabaseError, InterfaceError, connection

    from tests.app.models import Message, Post

    try:
        roll = random_source.random()
        posts = list(Post.objects.order_by("pk")[:40])
        if roll < 0.1:
            Message.objects.create(text="passing").delete()
        elif len(posts) < 15 or (roll < 0.4 and len(posts) < 40):
            Post.objects.create(title=f"new@{time.monotonic_ns()}", body="x" * 500)
        elif roll < 0.7:
            random_source.choice(posts).delete()
        else:
            post = random_source.choice(posts)
            post.views = random_source.randrange(10)
            post.title = f"changed@{time.monotonic_ns()}"
            post.save()
    except (DatabaseError, InterfaceError):
        connection.close()


async def write_rows(over: asyncio.Event) -> None:
    random_source = random.Random(1)
    while not over.is_set():
        await asyncio.to_thread(change_rows, random_source)
        await asyncio.sleep(1 / WRITES_PER_SECOND)


GARBAGE = ["{", "ping", '{"type":"nothing"}', "[" * 500, '{"type":"ping","id":[]}', "\u0000"]


async def visit(url: tuple[str, int, str], token: str, random_source: random.Random) -> str:
    """Connect, do something at random, and disconnect in some way; return how it ended."""
    address = f"127.0.1.{random_source.randrange(1, 250)}"
    client = await RawSocket.open(url, source=address, receive_buffer=4096)
    try:
        if random_source.random() < 0.1:
            client.send({"type": "auth", "token": "crk_12345678_" + "x" * 43})
            return f"refused {await client.closed()}"
        await client.authenticate(token, batch=random_source.random() < 0.3)
        for number in range(random_source.randrange(1, 8)):
            room = random_source.choice(["kept", "durable", "open"])
            room = f"{room}-{random_source.randrange(ROOMS)}"
            match random_source.randrange(5):
                case 0 | 1:
                    more = {"snapshot": True} if random_source.random() < 0.5 else {}
                    filters = random_source.choice([{}, {"views_gte": 3}, {"title_contains": "c"}])
                    frame = {
                        "type": "subscribe",
                        "collection": "posts",
                        "subscription": f"{number}",
                    }
                    client.send({**frame, "filters": filters, **more})
                case 2 | 3:
                    client.send({"type": "join", "room": room, "history": 20, "state": {"a": 1}})
                    key = str(random_source.random())
                    frame = {"type": "broadcast", "room": room, "message": "x" * 500}
                    client.send({**frame, "idempotency_key": key})
                case 4:
                    client.send(random_source.choice(GARBAGE))
            await asyncio.sleep(random_source.random() / 10)
        match random_source.randrange(4):
            case 0:
                client.stall()
                await asyncio.sleep(3 * random_source.random())
                return "stalled"
            case 1:
                client.close()
                await client.closed(2)
                return "closed"
            case _:
                return "dropped"
    finally:
        client.abort()


async def visit_repeatedly(
    servers: list[Any], tokens: list[str], seed: int, over: asyncio.Event, tally: Counter[str]
) -> None:
    random_source = random.Random(seed)
    while not over.is_set():
        url = ("127.0.0.1", random_source.choice(servers).port, "/realtime")
        try:
            tally[await visit(url, random_source.choice(tokens), random_source)] += 1
        except (OSError, TimeoutError) as error:
            tally[f"failed {type(error).__name__}"] += 1
            await asyncio.sleep(0.5)


class Regulars:
    """Well-behaved clients with a live list and a room each."""

    def __init__(self, latency: Latency) -> None:
        self.latency = latency
        self.lists: list[Any] = []
        self.rooms: list[Any] = []
        self._stack = contextlib.AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, servers: list[Any], key: str) -> None:
        from django_cocobase_realtime.client import Realtime

        for server in servers * LISTS_PER_SERVER:
            options = {"proxy": None, "on_error": lambda error: None}
            client = Realtime(server.socket_url, token=key, **options)
            db = await self._stack.enter_async_context(client)
            self.lists.append(await db.live("posts").ready())
            self.rooms.append(await db.room("hall").ready())
            if server is servers[0]:
                watch = db.watch("posts", events=["created", "updated"])
                self._tasks.append(asyncio.create_task(self._measure(watch)))

    async def _measure(self, watch: Any) -> None:
        async for event in watch:
            if event.event in ("created", "updated") and event.data is not None:
                self.latency.add(event.data["title"])

    async def differences(self) -> list[str]:
        """Return what is wrong with the clients, once nothing changes any more."""
        from asgiref.sync import sync_to_async

        rows = await sync_to_async(read_posts)()
        wrong = []
        for number, live in enumerate(self.lists):
            documents = {document.id: document.data["title"] for document in live.documents}
            if documents != rows:
                different = len(set(documents.items()) ^ set(rows.items()))
                wrong.append(f"client {number}: {different} documents differ")
        for number, room in enumerate(self.rooms):
            if room.participants != len(self.rooms):
                wrong.append(f"client {number}: sees {room.participants} in the room")
        return wrong

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._stack.aclose()


def read_posts() -> dict[str, str]:
    """Return the titles by key, on a new connection."""
    from django.db import connection

    from tests.app.models import Post

    connection.close()  # which may have been cut
    return {str(pk): title for pk, title in Post.objects.values_list("pk", "title")}


def count_rows() -> dict[str, int]:
    """Return the number of rows in each table of the app."""
    from django.apps import apps
    from django.db import DatabaseError, connection

    counts = {}
    for model in apps.get_app_config("cocobase_realtime").get_models():
        try:
            counts[f"{model.__name__} rows"] = model._default_manager.count()
        except DatabaseError:
            connection.close()
    return counts


async def take_sample(server: Any, latency: Latency) -> dict[str, float]:
    """Measure the server that is never killed."""
    process = Path(f"/proc/{server.process.pid}")
    pages = int((process / "statm").read_text().split()[1])
    p50, p99 = latency.take()
    return {
        "rss MiB": pages * 4096 / 2**20,
        "descriptors": len(list((process / "fd").iterdir())),
        "threads": len(list((process / "task").iterdir())),
        "p50 ms": p50,
        "p99 ms": p99,
        **await asyncio.to_thread(count_rows),
    }


def trend(values: list[float]) -> tuple[float, float]:
    """Return the slope for each sample, and the noise around it.

    The slope is the median of the slopes between all pairs (Theil and Sen), so that single samples
    during a fault do not matter.
    """
    pairs = combinations(enumerate(values), 2)
    slope = median((b - a) / (j - i) for (i, a), (j, b) in pairs)
    level = median(value - slope * n for n, value in enumerate(values))
    noise = median(abs(value - slope * n - level) for n, value in enumerate(values))
    return slope, noise


def report(samples: list[dict[str, float]], interval: float) -> list[str]:
    """Print the growth of each figure; return those that grow too much."""
    judged = samples[int(len(samples) * WARM_UP_SHARE) :]
    grown = []
    print_line(f"\n  {'':26} {'first':>9} {'last':>9} {'in 10 min':>10} {'noise':>8}")
    for name in samples[0]:
        values = [sample[name] for sample in judged if name in sample]
        if len(values) < 2:
            continue
        slope, noise = trend(values)
        growth = slope * 600 / interval
        limit = LIMITS.get(name, LIMITS["rows"] if name.endswith("rows") else None)
        grows = (
            limit is not None
            and len(values) >= MIN_SAMPLES
            and growth > limit
            and slope * len(values) > 3 * noise
        )
        if grows:
            grown.append(name)
        mark = "  GROWS" if grows else ""
        print_line(
            f"  {name:26} {values[0]:9.1f} {values[-1]:9.1f} {growth:+10.2f} {noise:8.2f}{mark}"
        )
    if len(judged) < MIN_SAMPLES:
        print_line(f"  {len(judged)} samples after the warm-up: growth is not judged")
    return grown


async def main(arguments: argparse.Namespace) -> int:
    from asgiref.sync import sync_to_async
    from django.conf import settings
    from django.contrib.auth import get_user_model

    from django_cocobase_realtime.models import ApiKey
    from tests.support.servers import AsgiServer, Redis
    from tests.support.tokens import create_token

    redis = Redis()
    redis.start()
    layers = redis.layer(arguments.layer)
    settings.CHANNEL_LAYERS = layers  # of the writer in this process

    @sync_to_async
    def prepare() -> tuple[str, list[str]]:
        users = [get_user_model().objects.create_user(f"user {n}") for n in range(USERS)]
        _, key = ApiKey.objects.create_key("soak")
        return key, [key, *(create_token(user, seconds=1_000_000) for user in users)]

    key, tokens = await prepare()
    options = {"layers": layers, "settings": SETTINGS}
    servers = [AsgiServer("uvicorn", **options), AsgiServer("daphne", **options)]
    for server in servers:
        await asyncio.to_thread(server.start)
    latency = Latency()
    regulars = Regulars(latency)
    over = asyncio.Event()
    visits: Counter[str] = Counter()
    faults = Faults(servers[1], redis, lock_or_restart_database)
    samples: list[dict[str, float]] = []
    try:
        await regulars.open(servers, key)
        tasks = [
            *(write_rows(over) for _ in range(1)),
            *(visit_repeatedly(servers, tokens, n, over, visits) for n in range(VISITORS)),
            faults.inject(over, FAULT_INTERVAL),
        ]
        running = [asyncio.create_task(task) for task in tasks]
        minutes = max(1, int(arguments.minutes * 60 / arguments.interval))
        for number in range(minutes):
            await asyncio.sleep(arguments.interval)
            samples.append(await take_sample(servers[0], latency))
            figures = ", ".join(f"{name} {value:.0f}" for name, value in samples[-1].items())
            print_line(f"  {(number + 1) * arguments.interval / 60:5.1f} min: {figures}")
        over.set()
        await asyncio.wait(running, timeout=60)
        failed = [task.exception() for task in running if task.done() and task.exception()]
        print_line(f"\n  visits: {dict(visits)}\n  faults: {dict(faults.tally)}")
        deadline = time.monotonic() + SETTLE_SECONDS
        while (wrong := await regulars.differences()) and time.monotonic() < deadline:
            await asyncio.sleep(1)
        for line in wrong:
            print_line(f"  WRONG: {line}")
        for error in failed:
            print_line(f"  FAILED: {error!r}")
    finally:
        over.set()
        await regulars.close()
        for server in servers:
            server.kill()
        redis.resume()
        redis.stop()
    grown = report(samples, arguments.interval)
    # outages are logged, and their tracebacks are expected
    print_line(
        f"  tracebacks in the logs: {[s.log.read_text().count('Traceback') for s in servers]}"
    )
    print_line(f"  logs: {[str(server.log) for server in servers]}")
    return int(bool(grown or wrong or failed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--interval", type=float, default=60.0, help="seconds between two samples")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--layer", choices=["core", "pubsub"], default="core")
    chosen = parser.parse_args()
    logging.getLogger("django_cocobase_realtime").setLevel(logging.CRITICAL)  # of this process
    set_up(chosen.database)
    sys.exit(asyncio.run(main(chosen)))
