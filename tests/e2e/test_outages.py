"""Outages of the database, the log and Redis: clients have the current state afterwards.

During an outage clients may be disconnected and asked to reconnect.
"""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable

import pytest
from django.db import DatabaseError, InterfaceError, connection, connections, transaction

from django_cocobase_realtime.client import Realtime, RealtimeError
from django_cocobase_realtime.log.retention import rotate_epoch, trim
from tests.app.models import Post
from tests.support.threads import call

pytestmark = pytest.mark.server
SERVERS = ["daphne", "uvicorn"]
POSTGRES = connection.vendor == "postgresql"


class BackgroundWork:
    """Call functions repeatedly in threads until ``over`` is set; ignore database errors."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.failures: list[Exception] = []
        self._threads: list[threading.Thread] = []

    def start(self, function: Callable[[], object], pause: float, *, may_fail: bool = True) -> None:
        def run() -> None:
            while not self.over.is_set():
                try:
                    function()
                except (DatabaseError, InterfaceError) as error:
                    connection.close()
                    if not may_fail:
                        self.failures.append(error)
                self.over.wait(pause)
            connections.close_all()

        thread = threading.Thread(target=run)
        thread.start()
        self._threads.append(thread)

    def __enter__(self) -> "BackgroundWork":
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join(60)


def change_posts() -> None:
    """Create, update or delete posts, several in one transaction that starts with a write."""
    posts = list(Post.objects.order_by("pk")[:20])
    if posts and random.random() < 0.2:
        random.choice(posts).delete()
        return
    with transaction.atomic():
        for _ in range(random.randrange(1, 4)):
            if len(posts) < 10 or random.random() < 0.4:
                Post.objects.create(title="new", views=random.randrange(10))
            else:
                post = random.choice(posts)
                post.views = random.randrange(10)
                post.save()  # creates the post again if it was deleted


def current_rows() -> dict[str, int]:
    try:
        rows = Post.objects.filter(views__gte=3).values_list("pk", "views")
        return {str(pk): views for pk, views in rows}
    finally:
        connection.close()


async def wait_until_equal(live, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while True:
        expected = await call(current_rows)
        documents = {document.id: document.data["views"] for document in live.documents}
        if documents == expected:
            return
        assert time.monotonic() < until, (documents, expected)
        await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def open_live_lists(url, api_key):
    """Open two clients, each with a live list of posts."""
    async with contextlib.AsyncExitStack() as stack:
        lists = []
        for _ in range(2):
            db = await stack.enter_async_context(
                Realtime(url, token=api_key, proxy=None, on_error=lambda error: None)
            )
            lists.append(await db.live("posts", views__gte=3).ready())
        yield lists


@pytest.mark.skipif(not POSTGRES, reason="Needs PostgreSQL.")
@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("age", [0, 600])
async def test_live_lists_recover_from_lost_database_connections(
    serve, api_key, monkeypatch, kind, age
):
    options = {
        **connections["default"].settings_dict.get("OPTIONS", {}),
        "application_name": "terminated",
    }
    with monkeypatch.context() as patched:
        patched.setitem(connections["default"].settings_dict, "CONN_MAX_AGE", age)
        patched.setitem(connections["default"].settings_dict, "OPTIONS", options)
        server = await call(lambda: serve(kind, settings={"LOG": {"POLL": 0.1}}))

    terminated: list[int] = []

    def terminate_connections() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'terminated'"
            )
            terminated.append(cursor.rowcount)

    async with open_live_lists(server.socket_url, api_key) as lists:
        with BackgroundWork() as work:
            work.start(change_posts, 0.01)
            work.start(terminate_connections, 0.3)
            await asyncio.sleep(4)
            await call(work.over.set)
        assert sum(terminated) > 5
        for live in lists:
            await wait_until_equal(live)


@pytest.mark.skipif(POSTGRES, reason="Needs SQLite.")
@pytest.mark.parametrize("kind", SERVERS)
async def test_requests_wait_while_another_program_holds_the_write_lock(
    serve, api_key, user, monkeypatch, kind
):
    """No save, subscription or join fails if the lock is released before the busy timeout."""
    options = {**connections["default"].settings_dict["OPTIONS"], "timeout": 15}
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", options)
    server = await call(lambda: serve(kind))

    def hold_lock() -> None:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            time.sleep(3)
            cursor.execute("ROLLBACK")

    errors: list[RealtimeError] = []
    codes: list[str] = []
    async with open_live_lists(server.socket_url, api_key) as lists:
        with BackgroundWork() as work:
            work.start(change_posts, 0.02, may_fail=False)
            work.start(change_posts, 0.02, may_fail=False)
            work.start(hold_lock, 0.3)
            until = time.monotonic() + 7

            async def connect_repeatedly(number: int) -> None:
                while time.monotonic() < until:
                    async with Realtime(
                        server.socket_url,
                        token=api_key,
                        proxy=None,
                        timeout=40,  # waiting writers of SQLite have no order
                        on_error=errors.append,
                        on_status=lambda status, detail: codes.append(status),
                    ) as db:
                        room = await db.room(f"r{number % 3}", state={"n": number}).ready()
                        await db.live("posts").ready()
                        await room.set_state({"n": -number})
                        await room.broadcast("hello")
                        room.leave()

            await asyncio.gather(*(connect_repeatedly(number) for number in range(6)))
            await call(work.over.set)
        assert work.failures == []
        assert errors == []
        assert "waiting" not in codes  # no client was disconnected
        for live in lists:
            await wait_until_equal(live)


@pytest.mark.parametrize("kind", SERVERS)
async def test_live_lists_recover_from_trimmed_log_and_new_epochs(serve, api_key, kind):
    server = await call(lambda: serve(kind, settings={"LOG": {"POLL": 0.2}}))
    async with open_live_lists(server.socket_url, api_key) as lists:
        with BackgroundWork() as work:
            work.start(change_posts, 0.01)
            work.start(lambda: trim("default", max_age=None, max_events=3), 0.05)
            work.start(lambda: rotate_epoch("default", ["posts"]), 1.3)
            await asyncio.sleep(5)
            await call(work.over.set)
        for live in lists:
            await wait_until_equal(live)


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("layer", ["core", "pubsub"])
async def test_rooms_recover_after_redis_was_suspended(serve, api_key, redis, kind, layer):
    settings = {"PRESENCE": {"BACKEND": "redis", "URL": redis.url, "GRACE": 2, "LEASE": 6}}
    servers = [
        await call(lambda: serve(kind, layers=redis.layer(layer), settings=settings))
        for _ in range(2)
    ]
    async with contextlib.AsyncExitStack() as stack:
        rooms = []
        for number in range(6):
            db = await stack.enter_async_context(
                Realtime(servers[number % 2].socket_url, token=api_key, proxy=None)
            )
            # some of these clients leave the room and join it again
            rooms.append((db, await db.room("hall").ready()))
        await call(redis.suspend)
        for db, room in rooms[:3]:
            room.leave()
            assert db.room("hall") is not room
        await asyncio.sleep(7)
        await call(redis.resume)
        rooms = [(db, db.room("hall")) for db, _ in rooms]
        async with asyncio.timeout(40):
            for _, room in rooms:
                await room.ready()
            while (participants := {room.participants for _, room in rooms}) != {6}:
                await asyncio.sleep(0.1)
                print(participants, [len(room.members) for _, room in rooms])
        inboxes = [room.messages() for _, room in rooms]
        for number, (_, room) in enumerate(rooms):
            await asyncio.wait_for(room.broadcast(number), 20)
        for inbox in inboxes:
            messages = {(await asyncio.wait_for(anext(inbox), 20)).message for _ in rooms}
            assert messages == set(range(6))
