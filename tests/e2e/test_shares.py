"""Shares of the worker threads: what one client asks for does not delay another."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from asgiref.sync import sync_to_async
from django.db import connection

from django_cocobase_realtime.models import ApiKey
from django_cocobase_realtime.permissions import Permission
from tests.app.models import Post
from tests.support.sockets import AsgiSocket, open_socket

pytestmark = pytest.mark.django_db(transaction=True)

MANY_ROWS = """
    INSERT INTO app_post (title, body, status, views, project, meta, created_at, updated_at)
    WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 80000)
    SELECT 'title ' || n, '', 'draft', n, 'default', '{}', '2024-01-01', '2024-01-01' FROM numbers
"""
SLOW_SECONDS = 0.15


class Slow(Permission):
    """Answer late, and count the answers and how many are being prepared."""

    running = 0
    most = 0
    answers = 0
    lock = threading.Lock()

    def can_subscribe(self, identity, filters):
        with self.lock:
            Slow.running += 1
            Slow.most = max(Slow.most, Slow.running)
        time.sleep(2 * SLOW_SECONDS)
        with self.lock:
            Slow.running -= 1
            Slow.answers += 1
        return True


class SlowRows(Permission):
    calls = 0

    def has_object_permission(self, identity, post):
        SlowRows.calls += 1
        time.sleep(SLOW_SECONDS)
        return True


class SlowRoom:
    def can_join(self, identity, room):
        time.sleep(SLOW_SECONDS)
        return True


async def insert_many_rows() -> None:
    def insert() -> None:
        with connection.cursor() as cursor:
            cursor.execute(MANY_ROWS)

    await sync_to_async(insert)()


async def measure_newcomer(token: str, collection: str) -> tuple[float, float]:
    """Return the seconds that a login and a subscription with a snapshot take."""
    started_at = time.monotonic()
    async with open_socket(token=token, address="10.0.0.2") as socket:
        login = time.monotonic() - started_at
        started_at = time.monotonic()
        await socket.send_frame(type="subscribe", collection=collection, snapshot=True)
        await socket.wait_for_frame("snapshot")
        return login, time.monotonic() - started_at


async def subscribe_often(
    socket: AsgiSocket, collection: str, times: int = 100, **options: object
) -> None:
    for n in range(times):
        name = f"{collection}-{n}"
        frame = {"type": "subscribe", "collection": collection, "subscription": name}
        await socket.send_frame(**frame, **options)


def forget_requests(socket: AsgiSocket) -> None:
    """Forget the requests that the application has not read, so that the socket can be closed."""
    while not socket.incoming.empty():
        socket.incoming.get_nowait()


async def test_login_and_subscription_beside_snapshots_that_match_nothing(api_key):
    await insert_many_rows()
    # as many conditions as a filter may have, none of which an index helps with
    filters = {"$or": [{"title": {"contains": f"{n} not there"}} for n in range(16)]}
    async with open_socket(token=api_key, address="10.0.0.1") as hostile:
        await subscribe_often(hostile, "posts", filters=filters, snapshot=True)
        await hostile.wait_until(lambda: len(hostile.frames_of_type("subscribed")) >= 4, 30)
        login, subscription = await measure_newcomer(api_key, "messages")
        assert len(hostile.frames_of_type("snapshot")) < 90  # otherwise the test shows nothing
        forget_requests(hostile)
    assert login <= 1
    assert subscription <= 1


async def test_login_and_subscription_beside_slow_row_permissions(api_key, settings):
    path = f"{__name__}.SlowRows"
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "posts": {"model": "app.Post", "permission": path},
            "messages": "app.Message",
        }
    }
    for n in range(10):
        await Post.objects.acreate(title=str(n))
    async with open_socket(token=api_key, address="10.0.0.1") as hostile:
        await subscribe_often(hostile, "posts", snapshot=True)
        await hostile.wait_until(lambda: len(hostile.frames_of_type("subscribed")) >= 4, 30)
        login, subscription = await measure_newcomer(api_key, "messages")
        assert len(hostile.frames_of_type("snapshot")) < 50
        forget_requests(hostile)
    assert login <= 1
    assert subscription <= 2 * SLOW_SECONDS + 0.3


async def test_slow_permission_of_one_collection_does_not_delay_others(settings):
    """Although each of its subscribers is another user."""
    Slow.most = Slow.answers = 0
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "slow": {"model": "app.Post", "permission": f"{__name__}.Slow"},
            "messages": "app.Message",
        },
    }
    keys = [(await sync_to_async(ApiKey.objects.create_key)(str(n)))[1] for n in range(20)]
    async with asyncio.timeout(60):
        async with asyncio.TaskGroup() as group:
            done = asyncio.Event()

            async def subscribe(n: int, key: str) -> None:
                async with open_socket(token=key, address=f"10.0.1.{n}") as socket:
                    await socket.send_frame(type="subscribe", collection="slow")
                    await socket.wait_for_frame("subscribed")
                    await done.wait()

            tasks = [group.create_task(subscribe(n, key)) for n, key in enumerate(keys)]
            while Slow.running < 2:
                await asyncio.sleep(0.01)
            await measure_newcomer(keys[0], "messages")
            assert Slow.answers <= 12  # otherwise the newcomer waited for the others
            done.set()
            del tasks
    assert Slow.most == 2  # of four threads


async def test_slow_room_permission_does_not_delay_collections(settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"messages": "app.Message"},
        "ROOMS": {"hall": {"permission": f"{__name__}.SlowRoom"}},
        "WORKERS": 2,
    }
    keys = [(await sync_to_async(ApiKey.objects.create_key)(str(n)))[1] for n in range(10)]
    sockets = [open_socket(token=key, address=f"10.0.1.{n}") for n, key in enumerate(keys)]
    async with asyncio.timeout(60):
        opened = [await socket.__aenter__() for socket in sockets]
        for socket in opened:
            await socket.send_frame(type="join", room="hall")
        await measure_newcomer(keys[0], "messages")
        joined = sum(bool(socket.frames_of_type("joined")) for socket in opened)
        for socket in sockets:
            await socket.__aexit__(None, None, None)
    assert joined <= 6


async def test_queued_snapshots_are_dropped_when_their_client_disconnects(api_key, settings):
    path = f"{__name__}.SlowRows"
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "permission": path}},
        "WORKERS": 1,
    }
    for n in range(5):
        await Post.objects.acreate(title=str(n))
    async with open_socket(token=api_key) as socket:
        await subscribe_often(socket, "posts", 10, snapshot=True)
        await socket.wait_until(lambda: len(socket.frames_of_type("subscribed")) == 10, 30)
        assert len(socket.frames_of_type("snapshot")) < 8
    await asyncio.sleep(5 * SLOW_SECONDS + 0.2)  # the part of a snapshot that was running
    calls = SlowRows.calls
    await asyncio.sleep(3 * SLOW_SECONDS)
    assert SlowRows.calls == calls
