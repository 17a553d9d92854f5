"""Subscribe with a snapshot repeatedly while rows change, and compare with the table.

    python -m benchmarks.snapshots --times 1000 --rate 1000

Uses PostgreSQL and Redis. Exits with 1 if a subscription does not converge to the table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from typing import Any

from benchmarks.common import print_line, set_up

ROWS = 50
CONCURRENT_SUBSCRIPTIONS = 20


def write(rate: float, seconds: float) -> None:
    """Change rows at about ``rate`` per second, in transactions of ten."""
    import django

    django.setup()
    from django.db import transaction

    from tests.app.models import Item

    began, done = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        with transaction.atomic():
            for _ in range(9):
                done += 1
                item = Item(pk=done % ROWS + 1, name=f"row {done % ROWS + 1}", size=done)
                item.save(force_update=True)
            fresh = Item.objects.create(name=f"fresh {done}", size=done)
        fresh.delete()
        done += 2
        ahead = done / rate - (time.monotonic() - began)
        if ahead > 0:
            time.sleep(ahead)
    print_line(json.dumps({"changes": done, "seconds": time.monotonic() - began}))


class Replica:
    """The rows that one subscription has received."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}

    def apply(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "snapshot":
            self.rows |= {d["id"]: d["data"]["size"] for d in frame["documents"]}
        elif frame["type"] == "event":
            id = frame["document"]["id"]
            if frame["event"] == "deleted":
                self.rows.pop(id, None)
            else:
                self.rows[id] = frame["document"]["data"]["size"]


async def main(arguments: argparse.Namespace) -> int:
    from asgiref.sync import sync_to_async

    from django_cocobase_realtime.models import ApiKey
    from tests.app.models import Item
    from tests.support.client import connect
    from tests.support.servers import AsgiServer, Redis

    @sync_to_async
    def prepare() -> str:
        Item.objects.bulk_create([Item(name=f"row {n + 1}") for n in range(ROWS)])
        return ApiKey.objects.create_key("snapshots")[1]

    key = await prepare()
    redis = Redis()
    redis.start()
    settings = {"LIMITS": {"subscribe_rate": (10_000, 10_000), "queue_messages": 100_000}}
    server = AsgiServer("uvicorn", layers=redis.layer("pubsub"), settings=settings)
    await asyncio.to_thread(server.start)
    bad = started = changes = 0
    rates = []
    while started < arguments.times:
        writer = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.snapshots", "--write", str(arguments.rate), "3"),
            env=server.env,
            stdout=asyncio.subprocess.PIPE,
        )
        replicas: dict[str, Replica] = {}
        async with connect(server.socket_url, key) as client:

            async def read(client: Any, replicas: dict[str, Replica]) -> None:
                while True:
                    frame = json.loads(await client.socket.recv())
                    for name in frame.get("subscriptions") or [frame.get("subscription")]:
                        if name in replicas:
                            replicas[name].apply(frame)

            reader = asyncio.create_task(read(client, replicas))
            await asyncio.sleep(0.6)  # the writer has to start up
            for _ in range(CONCURRENT_SUBSCRIPTIONS):
                name = f"s{started}"
                started += 1
                replicas[name] = Replica()
                request = {"type": "subscribe", "collection": "items", "subscription": name}
                await client.send({**request, "snapshot": True})
                await asyncio.sleep(0.05)
            out, _ = await writer.communicate()
            result = json.loads(out)
            changes += result["changes"]
            rates.append(result["changes"] / result["seconds"])
            rows = await sync_to_async(lambda: dict(Item.objects.values_list("pk", "size")))()
            expected = {str(pk): size for pk, size in rows.items()}
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline and any(
                r.rows != expected for r in replicas.values()
            ):
                await asyncio.sleep(0.1)
            bad += sum(replica.rows != expected for replica in replicas.values())
            reader.cancel()
    server.stop()
    redis.stop()
    rate = sum(rates) / len(rates)
    print_line(
        f"{started} subscriptions with a snapshot, {changes} changes at {rate:.0f} per second"
    )
    print_line(f"{bad} did not converge to the table")
    return int(bool(bad))


if __name__ == "__main__":
    if "--write" in sys.argv:
        write(float(sys.argv[2]), float(sys.argv[3]))
        sys.exit(0)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--rate", type=float, default=1000)
    chosen = parser.parse_args()
    items = {"COLLECTIONS": {"items": "app.Item"}}
    os.environ["REALTIME_TEST_SETTINGS"] = json.dumps(items)
    set_up("postgres")
    sys.exit(asyncio.run(main(chosen)))
