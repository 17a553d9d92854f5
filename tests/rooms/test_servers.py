"""Presence on real servers that are killed, with many clients that come and go."""

import asyncio
import random
import time
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.client import connect

pytestmark = pytest.mark.server
KEY = "a-shared-secret-of-more-than-32-bytes!"
JWT = {"KEY": KEY, "USER_LOOKUP": None}
LIMITS = {
    "connections_per_address": 5000,
    "unauthenticated_per_address": 5000,
    "failed_auths_per_minute": 1000,
}
MEMBERS = 500


def token(name):
    expires = datetime.now(UTC) + timedelta(hours=1)
    return jwt.encode({"sub": name, "exp": expires}, KEY, "HS256")


def subject(member):
    return member["id"].removeprefix("jwt:")  # of a token without a Django user


async def call(function, *args):
    return await asyncio.to_thread(function, *args)


class Watcher:
    """A client that keeps the list of members up to date from presence frames."""

    def __init__(self, client):
        self.client = client
        self.ids = set()
        self.left = []
        self.participants = 0

    async def run(self):
        with suppress(ConnectionClosed):
            while True:
                frame = await self.client.receive(timeout=120)
                assert frame["type"] != "error", frame
                if frame["type"] == "joined":
                    self.ids = {subject(m) for m in frame["members"]}
                elif frame["type"] == "presence":
                    id = subject(frame["member"])
                    if frame["event"] == "left":
                        self.left.append(id)
                        self.ids.discard(id)
                    else:
                        self.ids.add(id)
                else:
                    continue
                self.participants = frame["participants"]

    async def wait_until_members_are(self, expected, within):
        until = time.monotonic() + within
        while self.ids != expected or self.participants != len(expected):
            assert not self.task.done(), self.task.exception() or "The connection was lost."
            assert time.monotonic() < until, (
                f"missing {sorted(expected - self.ids)}, too many {sorted(self.ids - expected)}, "
                f"{self.participants} participants, {len(expected)} expected"
            )
            await asyncio.sleep(0.1)


async def watch(stack, url, name):
    client = await stack.enter_async_context(connect(url, token(name)))
    watcher = Watcher(client)
    watcher.task = asyncio.create_task(watcher.run())
    stack.callback(watcher.task.cancel)
    await client.send({"type": "join", "room": "hall", "presence": False})
    return watcher


async def member(stack, url, name):
    client = await stack.enter_async_context(connect(url, token(name), compression=None))
    await client.send({"type": "join", "room": "hall"})
    await client.receive("joined", timeout=60)
    return client


@pytest.mark.timeout(240)
@pytest.mark.parametrize("backend", ["database", "redis"])
async def test_members_of_killed_server_leave_and_others_stay(serve, redis, backend):
    settings = {
        "JWT": JWT,
        "LIMITS": LIMITS,
        "ROOMS": {"hall": {"permission": "tests.app.rooms.MembersForWatchers"}},
        "PRESENCE": {"BACKEND": backend},
    }
    start = lambda: serve("uvicorn", layers=redis.layer("pubsub"), settings=settings)  # noqa: E731
    killed_server, other_server = await call(start), await call(start)
    async with AsyncExitStack() as stack, AsyncExitStack() as killed_stack:
        watcher = await watch(stack, other_server.socket_url, "watcher")
        names = [f"u{n}" for n in range(MEMBERS)]
        for first in range(0, MEMBERS, 25):
            part = names[first : first + 25]
            await asyncio.gather(
                *(
                    member(stack, other_server.socket_url, name)
                    if index % 2
                    else member(killed_stack, killed_server.socket_url, name)
                    for index, name in enumerate(part, first)
                )
            )
        await watcher.wait_until_members_are(set(names), within=30)
        assert watcher.left == []
        await call(killed_server.kill)
        killed_at = time.monotonic()
        # every fourth of them reconnects to the other server
        returning = [name for index, name in enumerate(names) if index % 8 == 0]
        await asyncio.sleep(3)
        await asyncio.gather(*(member(stack, other_server.socket_url, name) for name in returning))
        remaining = {name for index, name in enumerate(names) if index % 2} | set(returning)
        await watcher.wait_until_members_are(remaining, within=30 - (time.monotonic() - killed_at))
        assert not set(watcher.left) & remaining
        # a client that joins now receives the same list
        newcomer = await watch(stack, other_server.socket_url, "watcher2")
        await newcomer.wait_until_members_are(remaining, within=10)


class Tab:
    """A browser tab that connects and disconnects at random."""

    def __init__(self, urls, user, seed):
        self.urls, self.user = urls, user
        self.random = random.Random(seed)
        self.stack = None

    async def open(self):
        self.stack = AsyncExitStack()
        await member(self.stack, self.random.choice(self.urls), self.user)

    async def close(self):
        stack, self.stack = self.stack, None
        if stack is not None:
            await stack.aclose()

    async def run(self, turns):
        for _ in range(turns):
            await asyncio.sleep(self.random.random() * 0.5)
            await (self.open() if self.stack is None else self.close())


@pytest.mark.timeout(180)
@pytest.mark.parametrize("backend", ["database", "redis"])
async def test_members_are_correct_after_many_tabs_open_and_close(serve, redis, backend):
    settings = {
        "JWT": JWT,
        "LIMITS": {**LIMITS, "connections_per_user": 50},
        "PRESENCE": {"BACKEND": backend, "GRACE": 1, "LEASE": 6},
    }
    start = lambda kind: serve(kind, layers=redis.layer("core"), settings=settings)  # noqa: E731
    servers = [await call(start, "uvicorn"), await call(start, "daphne")]
    urls = [server.socket_url for server in servers]
    async with AsyncExitStack() as stack:
        watchers = [await watch(stack, url, "watcher") for url in urls]
        tabs = [Tab(urls, f"u{n % 10}", seed=n) for n in range(50)]
        for tab in tabs:
            stack.push_async_callback(tab.close)
        await asyncio.gather(*(tab.run(tab.random.randrange(3, 8)) for tab in tabs))
        expected = {tab.user for tab in tabs if tab.stack is not None}
        # all tabs of one user are closed
        for tab in tabs:
            if tab.user == "u3":
                await tab.close()
        expected.discard("u3")
        for watcher in watchers:
            await watcher.wait_until_members_are(expected, within=20)
        newcomer = await watch(stack, urls[0], "another watcher")
        await newcomer.wait_until_members_are(expected, within=10)
        await asyncio.gather(*(tab.close() for tab in tabs))
        for watcher in (*watchers, newcomer):
            await watcher.wait_until_members_are(set(), within=20)


async def test_members_are_correct_while_channel_layer_is_unavailable(serve, redis):
    """Announcements do not arrive, but versions differ, and the list is read again."""
    settings = {"JWT": JWT, "LIMITS": LIMITS, "PRESENCE": {"GRACE": 1, "LEASE": 6}}
    start = lambda: serve("uvicorn", layers=redis.layer("pubsub"), settings=settings)  # noqa: E731
    one, two = await call(start), await call(start)
    async with AsyncExitStack() as stack:
        watcher = await watch(stack, one.socket_url, "watcher")
        await member(stack, two.socket_url, "before")
        await watcher.wait_until_members_are({"before"}, within=20)
        await call(redis.kill)
        async with AsyncExitStack() as leaving:
            await member(stack, two.socket_url, "during the outage")
            await member(leaving, two.socket_url, "temporary")
            await watcher.wait_until_members_are(
                {"before", "during the outage", "temporary"}, within=20
            )
        await watcher.wait_until_members_are({"before", "during the outage"}, within=20)
        assert watcher.left == ["temporary"]


async def test_unavailable_presence_refuses_joins_and_keeps_connections(serve, api_key, redis):
    settings = {"PRESENCE": {"BACKEND": "redis", "URL": redis.url}}
    server = await call(lambda: serve("uvicorn", settings=settings))
    async with connect(server.socket_url, api_key) as client:
        join = {"type": "join", "room": "r", "id": 1}
        assert (await client.request(join))["type"] == "joined"
        await call(redis.kill)
        answer = await client.request({**join, "room": "s"})
        assert (answer["code"], answer["id"]) == ("internal_error", 1)
        assert answer["retry_after_ms"] > 0
        broadcast = {"type": "broadcast", "room": "r", "message": "still delivered"}
        assert (await client.request(broadcast))["message"] == "still delivered"
        await call(redis.start)
        async with asyncio.timeout(30):
            while (await client.request({**join, "room": "s"}))["type"] != "joined":
                await asyncio.sleep(0.2)
        # members that Redis has lost are entered again
        async with connect(server.socket_url, api_key) as other, asyncio.timeout(30):
            while (await other.request(join))["participants"] < 2:
                await asyncio.sleep(0.5)
