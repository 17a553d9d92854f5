"""Databases that go away or are busy, logs that are trimmed or begun anew, a Redis that stands
still: while it lasts clients may be told to come back, and afterwards they know what there is."""

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

pytestmark = pytest.mark.server
SERVERS = ["daphne", "uvicorn"]
POSTGRES = connection.vendor == "postgresql"


async def call(function, *args):
    return await asyncio.to_thread(function, *args)


class Work:
    """Calls functions in threads, again and again, until it is over; databases may fail them."""

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

    def __enter__(self) -> "Work":
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join(60)


def change_something() -> None:
    """Create, update or delete posts, several in one transaction, which begins with a write."""
    found = list(Post.objects.order_by("pk")[:20])
    if found and random.random() < 0.2:
        random.choice(found).delete()
        return
    with transaction.atomic():
        for _ in range(random.randrange(1, 4)):
            if len(found) < 10 or random.random() < 0.4:
                Post.objects.create(title="new", views=random.randrange(10))
            else:
                post = random.choice(found)
                post.views = random.randrange(10)
                post.save()  # anew where somebody deleted it


def truth() -> dict[str, int]:
    try:
        rows = Post.objects.filter(views__gte=3).values_list("pk", "views")
        return {str(pk): views for pk, views in rows}
    finally:
        connection.close()


async def agrees(live, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while True:
        expected = await call(truth)
        got = {each.id: each.data["views"] for each in live.documents}
        if got == expected:
            return
        assert time.monotonic() < until, (got, expected)
        await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def watching(url, api_key):
    """A client that keeps a list, and one that has a second one."""
    async with contextlib.AsyncExitStack() as stack:
        lists = []
        for _ in range(2):
            db = await stack.enter_async_context(
                Realtime(url, token=api_key, proxy=None, on_error=lambda error: None)
            )
            lists.append(await db.live("posts", views__gte=3).ready())
        yield lists


@pytest.mark.skipif(not POSTGRES, reason="Runs with PostgreSQL's part of the tests.")
@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("age", [0, 600])
async def test_connections_to_the_database_are_cut_all_the_time(
    serve, api_key, monkeypatch, kind, age
):
    named = {**connections["default"].settings_dict.get("OPTIONS", {}), "application_name": "cut"}
    with monkeypatch.context() as patched:
        patched.setitem(connections["default"].settings_dict, "CONN_MAX_AGE", age)
        patched.setitem(connections["default"].settings_dict, "OPTIONS", named)
        server = await call(lambda: serve(kind, settings={"LOG": {"POLL": 0.1}}))

    cuts: list[int] = []

    def cut() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'cut'"
            )
            cuts.append(cursor.rowcount)

    async with watching(server.socket_url, api_key) as lists:
        with Work() as work:
            work.start(change_something, 0.01)
            work.start(cut, 0.3)
            await asyncio.sleep(4)
            await call(work.over.set)
        assert sum(cuts) > 5
        for live in lists:
            await agrees(live)


@pytest.mark.skipif(POSTGRES, reason="A matter of SQLite.")
@pytest.mark.parametrize("kind", SERVERS)
async def test_another_program_holds_the_write_lock_for_seconds(
    serve, api_key, user, monkeypatch, kind
):
    """Below the busy timeout nobody is refused anything: no save, no subscription, no join."""
    options = {**connections["default"].settings_dict["OPTIONS"], "timeout": 15}
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", options)
    server = await call(lambda: serve(kind))

    def hold() -> None:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            time.sleep(3)
            cursor.execute("ROLLBACK")

    errors: list[RealtimeError] = []
    codes: list[str] = []
    async with watching(server.socket_url, api_key) as lists:
        with Work() as work:
            work.start(change_something, 0.02, may_fail=False)
            work.start(change_something, 0.02, may_fail=False)
            work.start(hold, 0.3)
            until = time.monotonic() + 7

            async def come_and_go(number: int) -> None:
                while time.monotonic() < until:
                    async with Realtime(
                        server.socket_url,
                        token=api_key,
                        proxy=None,
                        timeout=40,  # SQLite lets writers wait in no order
                        on_error=errors.append,
                        on_status=lambda status, detail: codes.append(status),
                    ) as db:
                        room = await db.room(f"r{number % 3}", state={"n": number}).ready()
                        await db.live("posts").ready()
                        await room.set_state({"n": -number})
                        await room.broadcast("hello")
                        room.leave()

            await asyncio.gather(*(come_and_go(number) for number in range(6)))
            await call(work.over.set)
        assert work.failures == []
        assert errors == []
        assert "waiting" not in codes  # nobody was sent away
        for live in lists:
            await agrees(live)


@pytest.mark.parametrize("kind", SERVERS)
async def test_the_log_is_trimmed_and_begun_anew_all_the_time(serve, api_key, kind):
    server = await call(lambda: serve(kind, settings={"LOG": {"POLL": 0.2}}))
    async with watching(server.socket_url, api_key) as lists:
        with Work() as work:
            work.start(change_something, 0.01)
            work.start(lambda: trim("default", max_age=None, max_events=3), 0.05)
            work.start(lambda: rotate_epoch("default", ["posts"]), 1.3)
            await asyncio.sleep(5)
            await call(work.over.set)
        for live in lists:
            await agrees(live)


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("layer", ["core", "pubsub"])
async def test_rooms_are_right_after_redis_stood_still(serve, api_key, redis, kind, layer):
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
            # by names, of which some are in one room and some come back to it
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
            while (seen := {room.participants for _, room in rooms}) != {6}:
                await asyncio.sleep(0.1)
                print(seen, [len(room.members) for _, room in rooms])
        inboxes = [room.messages() for _, room in rooms]
        for number, (_, room) in enumerate(rooms):
            await asyncio.wait_for(room.broadcast(number), 20)
        for inbox in inboxes:
            got = {(await asyncio.wait_for(anext(inbox), 20)).message for _ in rooms}
            assert got == set(range(6))
