"""Many short connections: none of them leaves objects or entries in the process.

REALTIME_SOAK sets the duration in seconds.
"""

import asyncio
import gc
import os
import random
import threading
from collections import Counter, deque

import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime import abroadcast, disconnect, permissions_changed
from django_cocobase_realtime.filters.nodes import Condition
from django_cocobase_realtime.hub.hub import Hub
from django_cocobase_realtime.models import PresenceConnection, PresenceMember, PresenceRoom
from django_cocobase_realtime.pubsub.broker import broker
from django_cocobase_realtime.utils.limits import connection_counters
from tests.app.models import Post
from tests.support.sockets import open_socket

SECONDS = float(os.environ.get("REALTIME_SOAK", "6"))
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(SECONDS * 2 + 120)]
PACKAGE = "django_cocobase_realtime"
FILTERS = [{}, {"status": "published"}, {"views__gte": 3}, {"title_contains": "a"}]


def count_objects():
    """Count live instances of the package's classes, and tasks, timers and threads."""
    gc.collect()
    counts = Counter()
    for value in gc.get_objects():
        kind = type(value)
        if kind is Condition:
            continue  # parsed filters are in bounded caches
        if str(kind.__module__).startswith(PACKAGE) or kind is asyncio.Lock:
            counts[kind.__qualname__] += 1
        elif kind is asyncio.TimerHandle and not value.cancelled():
            counts["timers"] += 1
    counts["tasks"] = len(asyncio.all_tasks())
    counts["threads"] = threading.active_count()
    return counts


def container_sizes(root):
    """Return the length of each container that is reachable through the package's objects."""
    counts, seen, pending = Counter(), set(), [(root, "")]
    while pending:
        value, path = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            counts[path] += len(value)
            pending += [(item, f"{path}[]") for item in (*value.keys(), *value.values())]
        elif isinstance(value, list | tuple | set | frozenset | deque):
            counts[path] += len(value)
            pending += [(item, f"{path}[]") for item in value]
        elif str(type(value).__module__).startswith(PACKAGE):
            names = set(getattr(value, "__dict__", ()))
            for kind in type(value).__mro__:
                slots = kind.__dict__.get("__slots__", ())
                names |= {slots} if isinstance(slots, str) else set(slots)
            for name in names:
                if hasattr(value, name):
                    pending.append((getattr(value, name), f"{path}.{name}"))
    return counts


async def visit(user, number, random_source):
    """Open a connection, send some random requests, and close it."""
    async with open_socket(user=user) as socket:
        for turn in range(random_source.randrange(1, 6)):
            room, name = f"r{random_source.randrange(200)}", f"s{turn % 3}"
            match random_source.randrange(9):
                case 0 | 1 | 2:
                    await socket.send_frame(
                        type="subscribe",
                        collection=random_source.choice(["posts", "messages", "nonsense"]),
                        subscription=name,
                        filters=random_source.choice([*FILTERS, {"views": number}]),
                        transitions=random_source.random() < 0.3,
                        snapshot=random_source.random() < 0.3,
                    )
                case 3 | 4:
                    await socket.send_frame(type="join", room=room, state={"n": number}, history=2)
                case 5:
                    await socket.send_frame(type="leave", room=room)
                case 6:
                    await socket.send_frame(type="unsubscribe", subscription=name)
                case 7:
                    await socket.send_frame(type="broadcast", room=room, message=number)
                case 8:
                    if random_source.random() < 0.3:
                        await sync_to_async(permissions_changed)(user)
            if random_source.random() < 0.5:
                await asyncio.sleep(random_source.random() / 50)
        if random_source.random() < 0.05:
            await sync_to_async(disconnect)(user=user)
        elif random_source.random() < 0.5:
            await asyncio.sleep(random_source.random() / 20)


async def visit_repeatedly(users, until, seed):
    random_source, number = random.Random(seed), seed * 1_000_000
    while asyncio.get_running_loop().time() < until:
        number += 1
        await visit(random_source.choice(users), number, random_source)
    return number - seed * 1_000_000


async def write_repeatedly(until):
    random_source = random.Random(0)
    while asyncio.get_running_loop().time() < until:
        post = await Post.objects.acreate(
            title=random_source.choice("abc"), views=random_source.randrange(9)
        )
        post.status = "published"
        await post.asave()
        await post.adelete()
        await abroadcast(
            f"r{random_source.randrange(200)}", 1, idempotency_key=str(random_source.random())
        )
        await asyncio.sleep(0.05)


async def wait_until_settled(hub):
    async with asyncio.timeout(40):
        while (
            len(hub.connections) > 1
            or hub.rooms.rooms
            or hub.rooms.presence.pending_disconnects
            or hub.rooms.presence.pending_leaves
            or len(hub.groups) > 2
            or any(topic.shared_replays._kept for topic in hub.topics.topics.values())
            or await PresenceConnection.objects.acount()
        ):
            await asyncio.sleep(0.2)


async def test_short_connections_leave_no_objects_behind(
    realtime, api_key, django_user_model, settings, caplog
):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "posts": "app.Post",
            "messages": {"model": "app.Message", "durable": False},
        },
        "ROOMS": {"r?": {"durable": True, "history": 5}, "r1*": {"history": 5}, "r*": {}},
        "PRESENCE": {"GRACE": 1.0, "LEASE": 10.0},
        "LIMITS": {"connections_per_address": 10_000, "unauthenticated_per_address": 10_000},
        "REVOCATION_POLL": 0.5,
        "LOG": {"POLL": 0.2},
    }
    users = [await django_user_model.objects.acreate(username=f"u{n}") for n in range(10)]
    loop = asyncio.get_running_loop()

    async def run(seconds, seed):
        until = loop.time() + seconds
        visitors = [visit_repeatedly(users, until, seed + n) for n in range(12)]
        *visits, _ = await asyncio.gather(*visitors, write_repeatedly(until))
        await wait_until_settled(Hub.current())
        return sum(visits)

    async with realtime(token=api_key) as anchor:  # keeps the hub running
        await anchor.subscribe("posts")
        hub = Hub.current()
        await run(SECONDS / 3, 100)  # fill the caches
        before, sizes_before = count_objects(), container_sizes(hub)
        visits = await run(SECONDS, 200)
        assert Hub.current() is hub
        after, sizes_after = count_objects(), container_sizes(hub)
        slack = 5 + visits // 100
        grown = {name: (before[name], n) for name, n in after.items() if n > before[name] + slack}
        assert grown == {}
        print(f"{visits} visits")
        grown_containers = {
            path: (sizes_before[path], n)
            for path, n in sizes_after.items()
            if n > sizes_before[path] + slack
        }
        assert grown_containers == {}
        assert (connection_counters.total, len(connection_counters._counts)) == (1, 1)
        assert len(broker._outbox) == 0
        assert visits > 30 * SECONDS / 6
        assert await PresenceMember.objects.acount() == await PresenceRoom.objects.acount() == 0
    failures = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert failures == []
