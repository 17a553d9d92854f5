"""A long life in a few seconds: whoever comes and goes leaves nothing behind in the process.

REALTIME_SOAK=600 goes on for so many seconds.
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
OURS = "django_cocobase_realtime"
FILTERS = [{}, {"status": "published"}, {"views__gte": 3}, {"title_contains": "a"}]


def objects():
    """Live objects of the app's own classes, and what asyncio keeps for them."""
    gc.collect()
    found = Counter()
    for each in gc.get_objects():
        kind = type(each)
        if kind is Condition:
            continue  # of filters that were parsed, in caches that are bounded
        if str(kind.__module__).startswith(OURS) or kind is asyncio.Lock:
            found[kind.__qualname__] += 1
        elif kind is asyncio.TimerHandle and not each.cancelled():
            found["timers"] += 1
    found["tasks"] = len(asyncio.all_tasks())
    found["threads"] = threading.active_count()
    return found


def sizes(root):
    """How much every container holds that can be reached from here through our own objects."""
    found, seen, left = Counter(), set(), [(root, "")]
    while left:
        value, path = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            found[path] += len(value)
            left += [(each, f"{path}[]") for each in (*value.keys(), *value.values())]
        elif isinstance(value, list | tuple | set | frozenset | deque):
            found[path] += len(value)
            left += [(each, f"{path}[]") for each in value]
        elif str(type(value).__module__).startswith(OURS):
            names = set(getattr(value, "__dict__", ()))
            for kind in type(value).__mro__:
                slots = kind.__dict__.get("__slots__", ())
                names |= {slots} if isinstance(slots, str) else set(slots)
            for name in names:
                if hasattr(value, name):
                    left.append((getattr(value, name), f"{path}.{name}"))
    return found


async def visit(user, number, dice):
    """One connection's life."""
    async with open_socket(user=user) as socket:
        for turn in range(dice.randrange(1, 6)):
            room, name = f"r{dice.randrange(200)}", f"s{turn % 3}"
            match dice.randrange(9):
                case 0 | 1 | 2:
                    await socket.send_frame(
                        type="subscribe",
                        collection=dice.choice(["posts", "messages", "nonsense"]),
                        subscription=name,
                        filters=dice.choice([*FILTERS, {"views": number}]),
                        transitions=dice.random() < 0.3,
                        snapshot=dice.random() < 0.3,
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
                    if dice.random() < 0.3:
                        await sync_to_async(permissions_changed)(user)
            if dice.random() < 0.5:
                await asyncio.sleep(dice.random() / 50)
        if dice.random() < 0.05:
            await sync_to_async(disconnect)(user=user)
        elif dice.random() < 0.5:
            await asyncio.sleep(dice.random() / 20)


async def crowd(users, until, seed):
    dice, number = random.Random(seed), seed * 1_000_000
    while asyncio.get_running_loop().time() < until:
        number += 1
        await visit(dice.choice(users), number, dice)
    return number - seed * 1_000_000


async def writers(until):
    dice = random.Random(0)
    while asyncio.get_running_loop().time() < until:
        post = await Post.objects.acreate(title=dice.choice("abc"), views=dice.randrange(9))
        post.status = "published"
        await post.asave()
        await post.adelete()
        await abroadcast(f"r{dice.randrange(200)}", 1, idempotency_key=str(dice.random()))
        await asyncio.sleep(0.05)


async def settled(hub):
    async with asyncio.timeout(40):
        while (
            len(hub.connections) > 1
            or hub.rooms.rooms
            or hub.rooms.presence.pending_disconnects
            or hub.rooms.presence.pending_leaves
            or len(hub.groups) > 2
            or await PresenceConnection.objects.acount()
        ):
            await asyncio.sleep(0.2)


async def test_whoever_comes_and_goes_leaves_nothing_behind(
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

    async def live(seconds, seed):
        until = loop.time() + seconds
        crowds = [crowd(users, until, seed + n) for n in range(12)]
        *visits, _ = await asyncio.gather(*crowds, writers(until))
        await settled(Hub.current())
        return sum(visits)

    async with realtime(token=api_key) as anchor:  # the hub never rests
        await anchor.subscribe("posts")
        hub = Hub.current()
        await live(SECONDS / 3, 100)  # caches are warm
        before, held = objects(), sizes(hub)
        visits = await live(SECONDS, 200)
        assert Hub.current() is hub
        after, holds = objects(), sizes(hub)
        slack = 5 + visits // 100
        grown = {name: (before[name], n) for name, n in after.items() if n > before[name] + slack}
        assert grown == {}
        print(f"{visits} visits")
        more = {path: (held[path], n) for path, n in holds.items() if n > held[path] + slack}
        assert more == {}
        assert (connection_counters.total, len(connection_counters._counts)) == (1, 1)
        assert len(broker._outbox) == 0
        assert visits > 30 * SECONDS / 6
        assert await PresenceMember.objects.acount() == await PresenceRoom.objects.acount() == 0
    failures = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert failures == []
