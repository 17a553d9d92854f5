"""Inject faults while rows change, and compare the received events with the committed changes.

Two servers (daphne and uvicorn), one database, Redis, several writers with rollbacks and
savepoints. Redis is killed, restarted, flushed and suspended, servers are killed, and on PostgreSQL
their connections to the database are terminated. Without Redis, servers find out about changes of
other processes only as the database allows. Clients reconnect with their cursor. Exits with 1 if an
event was lost, invented, duplicated or out of order, or if a client's rows differ from the table in
the end.

    python -m benchmarks.fault_injection --changes 100000
    python -m benchmarks.fault_injection --changes 100000 --database sqlite --no-redis
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common import print_line, set_up

CATCH_UP_SECONDS = 120.0  # in which clients receive the rest after the last change
SERVER_NAME = "realtime-server"  # application_name of the servers' connections to PostgreSQL


def write(number: int, changes: int, path: str) -> None:
    """Run one writer: commit changes, and record each change once it is committed."""
    import django

    django.setup()
    from django.db import transaction

    from tests.app.models import Item

    random_source = random.Random(number)
    own: list[int] = []
    done = 0

    class Undo(Exception):
        pass

    with Path(path).open("w") as file:
        while done < changes:
            recorded: list[tuple[str, int, int]] = []
            undo = random_source.random() < 0.1
            shared = random_source.randint(1, 20)  # one per transaction: several could deadlock
            try:
                with transaction.atomic():
                    for _ in range(random_source.randint(1, 6)):
                        try:
                            with transaction.atomic():
                                change = _change(random_source, own, number, shared)
                                if random_source.random() < 0.1:
                                    Item.objects.create(name=f"never {number} {time.time_ns()}")
                                    raise Undo
                            recorded.append(change)
                        except Undo:
                            pass
                    if undo:
                        raise Undo
            except Undo:
                continue
            for op, key, size in recorded:
                if op == "created":
                    own.append(key)
                elif op == "deleted" and key in own:
                    own.remove(key)
                file.write(json.dumps([op, key, size]) + "\n")
            file.flush()
            done += len(recorded)


def _change(random_source: random.Random, own: list[int], number: int, shared: int) -> Any:
    from tests.app.models import Item

    # every writer updates the first rows, which are never deleted
    roll = random_source.random()
    if roll < 0.6 or not own:
        item = Item.objects.select_for_update().get(pk=shared)
        item.size = item.size + 1
        item.save()
        return ("updated", item.pk, item.size)
    if roll < 0.85:
        item = Item.objects.create(name=f"{number}-{time.time_ns()}-{random_source.random()}")
        return ("created", item.pk, 0)
    key = random_source.choice(own)
    item = Item.objects.filter(pk=key).first()
    if item is None:
        item = Item.objects.create(name=f"{number}-{time.time_ns()}-{random_source.random()}")
        return ("created", item.pk, 0)
    item.delete()
    return ("deleted", key, 0)


def writer_environment(env: dict[str, str]) -> dict[str, str]:
    """Return the environment of the writers, from that of a server.

    On SQLite their transactions begin as writing ones: those that read first could not wait.
    """
    databases = json.loads(env["REALTIME_TEST_DATABASES"])
    for database in databases.values():
        if database["ENGINE"].endswith("sqlite3"):
            database["OPTIONS"] = {**database["OPTIONS"], "transaction_mode": "IMMEDIATE"}
    writers_env = {**env, "REALTIME_TEST_DATABASES": json.dumps(databases, default=str)}
    writers_env.pop("PGAPPNAME", None)
    return writers_env


class Listener:
    """A client that reconnects forever, and resumes unless the server asks for a resync."""

    def __init__(self, urls: list[str], key: str) -> None:
        self.urls = urls
        self.key = key
        self.cursor: str | None = None
        self.scope: str | None = None
        self.seen: set[str] = set()
        self.events: list[tuple[str, int, int]] = []
        self.repeats = self.reconnects = 0
        self.resyncs: Counter[str] = Counter()
        self.ready = asyncio.Event()

    async def run(self) -> None:
        from websockets.exceptions import WebSocketException

        turn = 0
        while True:
            turn += 1
            try:
                await self._listen(self.urls[turn % len(self.urls)])
            except (OSError, WebSocketException, TimeoutError, AssertionError):
                self.reconnects += 1
                await asyncio.sleep(random.random())

    async def _listen(self, url: str) -> None:
        from tests.support.client import connect

        async with connect(url, self.key, open_timeout=5) as client:
            options = {} if self.cursor is None else {"since": self.cursor, "scope": self.scope}
            reply = await client.subscribe("items", **options)
            self.cursor, self.scope = reply["cursor"], reply["scope"]
            if reply.get("resumed") is False:
                self.resyncs[reply["resync"]["reason"]] += 1
            self.ready.set()
            while True:
                frame = json.loads(await client.socket.recv())
                if "cursor" in frame:
                    self.cursor = frame["cursor"]
                if frame["type"] != "event":
                    continue
                if frame["cursor"] in self.seen:
                    self.repeats += 1
                    continue
                self.seen.add(frame["cursor"])
                document = frame["document"]
                size = 0 if frame["event"] == "deleted" else document["data"]["size"]
                self.events.append((frame["event"], int(document["id"]), size))

    def faults(self, committed: list[tuple[str, int, int]], rows: dict[int, int]) -> dict[str, int]:
        received, committed = Counter(self.events), Counter(committed)
        sizes: dict[int, int] = {}
        inverted = 0
        state = dict.fromkeys(range(1, 21), 0)
        for op, key, size in self.events:
            if op == "updated":
                inverted += size <= sizes.get(key, 0)
                sizes[key] = size
            if op == "deleted":
                state.pop(key, None)
            else:
                state[key] = size
        return {
            "lost": (committed - received).total(),
            "phantoms or doubles": (received - committed).total(),
            "inverted": inverted,
            "rows that differ in the end": len(set(state.items()) ^ set(rows.items())),
            "resyncs": self.resyncs.total(),
        }


def terminate_backends() -> None:
    """End the connections of the servers to PostgreSQL, but not those of the writers."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
            [SERVER_NAME],
        )
    connection.close()


async def inject_faults(
    servers: list[Any], redis: Any, database: str, seconds: float, tally: Counter[str]
) -> None:
    random_source = random.Random(7)
    faults = ["kill server"]
    if redis is not None:
        faults += ["kill redis", "flush redis", "suspend redis"]
    if database == "postgres":
        faults.append("terminate backends")
    while True:
        await asyncio.sleep(seconds * (0.5 + random_source.random()))
        fault = random_source.choice(faults)
        tally[fault] += 1
        if fault == "terminate backends":
            await asyncio.to_thread(terminate_backends)
        elif fault == "kill redis":
            await asyncio.to_thread(redis.kill)
            await asyncio.sleep(random_source.random())
            await asyncio.to_thread(redis.start)
        elif fault == "flush redis":
            command = ["python", "-c", f"import redis; redis.Redis(port={redis.port}).flushall()"]
            command[0] = sys.executable
            await asyncio.to_thread(subprocess.run, command, check=True)
        elif fault == "suspend redis":
            redis.suspend()
            await asyncio.sleep(2 * random_source.random())
            redis.resume()
        else:
            server = random_source.choice(servers)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)


async def main(arguments: argparse.Namespace) -> int:
    from asgiref.sync import sync_to_async

    from django_cocobase_realtime.models import ApiKey
    from tests.app.models import Item
    from tests.support.servers import AsgiServer, Redis

    @sync_to_async
    def prepare() -> str:
        Item.objects.all()._raw_delete("default")
        for key in range(1, 21):
            Item.objects.create(pk=key, name=f"shared {key}")
        from django.core.management import call_command
        from django.core.management.color import no_style
        from django.db import connection

        for sql in connection.ops.sequence_reset_sql(no_style(), [Item]):
            connection.cursor().execute(sql)
        if arguments.triggers:
            call_command("realtime_triggers", "install")
        return ApiKey.objects.create_key("fault injection")[1]

    key = await prepare()
    redis = Redis() if arguments.redis else None
    layers = None
    if redis is not None:
        redis.start()
        layers = redis.layer(arguments.layer)
    options = {"layers": layers, "settings": arguments.setting}
    servers = [AsgiServer("daphne", **options), AsgiServer("uvicorn", **options)]
    for server in servers:
        server.env["PGAPPNAME"] = SERVER_NAME
        await asyncio.to_thread(server.start)
    urls = [server.socket_url for server in servers]
    listeners = [Listener(urls[n % 2 :] + urls[: n % 2], key) for n in range(arguments.clients)]
    tasks = [asyncio.create_task(listener.run()) for listener in listeners]
    await asyncio.gather(*(listener.ready.wait() for listener in listeners))
    folder = tempfile.mkdtemp()
    changes_per_writer = arguments.changes // arguments.writers
    paths = [f"{folder}/{n}" for n in range(arguments.writers)]
    command = [sys.executable, "-m", "benchmarks.fault_injection", "--write"]
    env = writer_environment(servers[0].env)
    began = time.monotonic()
    writers = [
        await asyncio.create_subprocess_exec(
            *command, str(n), str(changes_per_writer), path, env=env
        )
        for n, path in enumerate(paths)
    ]
    tally: Counter[str] = Counter()
    faults_task = asyncio.create_task(
        inject_faults(servers, redis, arguments.database, arguments.every, tally)
    )
    codes = [await writer.wait() for writer in writers]
    if faults_task.done():
        faults_task.result()  # raises what has ended it, for example a server that did not start
    faults_task.cancel()
    took = time.monotonic() - began
    if redis is not None:
        redis.resume()
        if not redis.is_ready():
            await asyncio.to_thread(redis.start)
    for server in servers:
        if not server.is_ready():
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
    committed = [tuple(json.loads(line)) for path in paths for line in Path(path).open()]
    rows = await sync_to_async(lambda: dict(Item.objects.values_list("pk", "size")))()
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while time.monotonic() < deadline and any(len(s.events) < len(committed) for s in listeners):
        await asyncio.sleep(0.2)
    await asyncio.sleep(1)
    for task in tasks:
        task.cancel()
    for server in servers:
        server.stop()
    if redis is not None:
        redis.stop()
    writers_words = f"{arguments.writers} writers in {took:.0f} s"
    print_line(f"{len(committed)} changes committed by {writers_words}; {dict(tally)}")
    bad = any(codes)
    for listener in listeners:
        faults = listener.faults(committed, rows)
        bad = bad or any(faults.values())
        print_line(
            f"client: {len(listener.events)} events, {listener.reconnects} reconnects, "
            f"{listener.repeats} repeats dropped by cursor; {faults}"
        )
    print_line("FAULTY" if bad else "nothing lost, invented, out of order or duplicated")
    return int(bad)


if __name__ == "__main__":
    if "--write" in sys.argv:
        number, changes, path = sys.argv[2:]
        write(int(number), int(changes), path)
        sys.exit(0)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=5000)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--every", type=float, default=3.0, help="seconds between faults")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="postgres")
    parser.add_argument("--no-redis", dest="redis", action="store_false")
    parser.add_argument("--layer", choices=["core", "pubsub"], default="pubsub")
    parser.add_argument("--triggers", action="store_true", help="capture by triggers")
    chosen = parser.parse_args()
    items = {"model": "app.Item", "capture": "triggers" if chosen.triggers else "signals"}
    chosen.setting = {"COLLECTIONS": {"items": items}}
    os.environ["REALTIME_TEST_SETTINGS"] = json.dumps(chosen.setting)
    set_up(chosen.database)
    sys.exit(asyncio.run(main(chosen)))
