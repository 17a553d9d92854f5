"""Channel layers with several Redis hosts or with Sentinel, and two server processes.

While a Redis is down and after it, every change of a model arrives. Afterwards, messages to rooms
arrive again, and rooms have all of their members.
"""

import asyncio
import contextlib
import time

import pytest
from django.db import connection

from django_cocobase_realtime.client import Realtime
from tests.support.sentinel import RedisWithSentinels
from tests.support.servers import Redis
from tests.support.threads import call

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(connection.vendor != "sqlite", reason="Tests Redis, not the database."),
]
ROOMS = [f"room {number}" for number in range(6)]  # their groups are on both hosts
KINDS = ["uvicorn", "daphne"]


@pytest.fixture(params=["core", "pubsub"])
def layer(request):
    return request.param


def layers(kind, *hosts):
    """Return CHANNEL_LAYERS with several hosts."""
    configuration = Redis.layer(Redis(), kind)
    options = {"socket_timeout": None} if kind == "core" else {}
    configuration["default"]["CONFIG"]["hosts"] = [{**host, **options} for host in hosts]
    return configuration


class TwoServers:
    """Two servers, each with one client, which is in all rooms and has a list of posts."""

    def __init__(self, servers, clients, lists, rooms):
        self.servers, self.clients, self.lists, self.rooms = servers, clients, lists, rooms
        self.posts = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, serve, api_key, **options):
        servers = await asyncio.gather(
            *(call(lambda kind=kind: serve(kind, **options)) for kind in KINDS)
        )
        async with contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(
                    Realtime(server.socket_url, token=api_key, proxy=None)
                )
                for server in servers
            ]
            lists = [await client.live("posts").ready() for client in clients]
            rooms = {
                name: [await client.room(name).ready() for client in clients] for name in ROOMS
            }
            yield cls(servers, clients, lists, rooms)

    async def save(self, server):
        """Save a post in a server; return the seconds until both clients have it."""
        self.posts += 1
        started_at = time.monotonic()
        await call(server.post, "/posts", [{"title": f"{self.posts}"}])
        async with asyncio.timeout(15):
            while any(len(live.documents) < self.posts for live in self.lists):
                await asyncio.sleep(0.02)
        return time.monotonic() - started_at

    async def recover(self, seconds=20):
        """Wait until each room has both members and messages arrive from the other server."""
        started_at = time.monotonic()
        async with asyncio.timeout(seconds):
            await asyncio.gather(
                *(self._pass(*rooms, way) for rooms in self.rooms.values() for way in (1, -1))
            )
            while {room.participants for rooms in self.rooms.values() for room in rooms} != {2}:
                await asyncio.sleep(0.05)
        return time.monotonic() - started_at

    async def _pass(self, one, two, way):
        """Send messages to a room from one client until the other one receives one."""
        sender, receiver = (one, two)[::way]
        arrived = asyncio.Event()

        async def receive():
            async for message in receiver.messages():
                if message.message == way:
                    arrived.set()

        task = asyncio.create_task(receive())
        try:
            while not arrived.is_set():
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(sender.broadcast(way), 2)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(arrived.wait(), 0.5)
        finally:
            task.cancel()


async def test_each_of_two_hosts_may_be_killed(serve, api_key, layer):
    hosts = [Redis(), Redis()]
    with contextlib.ExitStack() as stack:
        for redis in hosts:
            await call(redis.start)
            stack.callback(redis.kill)
        options = {
            "layers": layers(layer, *({"address": redis.url} for redis in hosts)),
            "settings": {
                "PRESENCE": {"BACKEND": "redis", "URL": hosts[0].url},
                "LIMITS": {"broadcast_rate": [100, 100]},
            },
        }
        async with TwoServers.open(serve, api_key, **options) as both:
            await both.recover()
            for redis in hosts:
                await call(redis.kill)
                delays = [await both.save(server) for server in both.servers * 2]
                print(f"saves: {[f'{delay:.2f}' for delay in delays]}")
                await call(redis.start)
                print(f"recovered after {await both.recover():.2f} s")
            for server in both.servers:
                assert await both.save(server) < 5
            for server in both.servers:
                await call(server.kill)


async def test_sentinel_replaces_a_killed_master(serve, api_key, layer):
    redis = RedisWithSentinels()
    await call(redis.start)
    try:
        options = {
            "layers": layers(layer, redis.host),
            "settings": {
                "PRESENCE": {"BACKEND": "redis"},
                "LIMITS": {"broadcast_rate": [100, 100]},
            },
        }
        async with TwoServers.open(serve, api_key, **options) as both:
            await both.recover()
            started_at = time.monotonic()
            await call(redis.master.kill)
            delays = [await both.save(server) for server in both.servers * 2]
            print(f"saves: {[f'{delay:.2f}' for delay in delays]}")
            await call(redis.wait_for_failover)
            print(f"failover after {time.monotonic() - started_at:.2f} s")
            print(f"recovered after {await both.recover():.2f} s")
            for server in both.servers:
                assert await both.save(server) < 5
            for server in both.servers:
                await call(server.kill)
    finally:
        await call(redis.stop)
