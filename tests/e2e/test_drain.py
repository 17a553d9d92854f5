"""SIGTERM closes the WebSockets of a real server one after the other, before the server stops."""

import asyncio
import json
import signal
import time
import urllib.error
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import httpx
import jwt
import pytest
from django.db import connection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from django_cocobase_realtime.client import Realtime
from django_cocobase_realtime.models import ApiKey
from tests.app.models import Post
from tests.support.client import connect
from tests.support.forwarder import Forwarder
from tests.support.narrow_sockets import open_narrow_socket
from tests.support.servers import OTHER_SERVERS, SERVERS, other_servers
from tests.support.threads import call

pytestmark = pytest.mark.server


async def closing(client):
    """Return the time at which the connection was closed, and the last frame before it."""
    frame = await client.receive(timeout=20)
    code = await client.closed(5)
    return time.monotonic(), frame, code


def get(server, path):
    try:
        return 200, server.get(path)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.mark.parametrize("kind", other_servers(*SERVERS, *OTHER_SERVERS))
async def test_connections_are_closed_evenly_while_http_is_served(serve, api_key, kind):
    server = await call(lambda: serve(kind, settings={"DRAIN": 2.0}))
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connect(server.socket_url, api_key)) for _ in range(4)
        ]
        sdk = await stack.enter_async_context(
            connect(server.socket_url + "/collections/posts", authenticate=False)
        )
        assert (await sdk.request({"api_key": api_key}))["event"] == "connected"
        quiet = [
            await stack.enter_async_context(connect(server.socket_url + path, authenticate=False))
            for path in ("", "/rooms/r")
        ]
        post = asyncio.create_task(call(server.post, "/slow-post", "2.5"))  # longer than the drain
        closed = [asyncio.create_task(closing(client)) for client in (*clients, quiet[0])]
        codes = [asyncio.create_task(client.closed(20)) for client in (sdk, quiet[1])]
        await asyncio.sleep(0.3)

        began = time.monotonic()
        server.signal(signal.SIGTERM)
        server.signal(signal.SIGTERM)
        while (await call(get, server, "/realtime/ready")) != (503, {"status": "draining"}):
            assert time.monotonic() - began < 2
        assert await call(get, server, "/realtime/health") == (200, {"status": "ok"})
        for path in ("", "/rooms/r"):
            with pytest.raises(InvalidStatus) as refused:
                async with connect(server.socket_url + path, api_key):
                    pass
            assert refused.value.response.status_code == 503
            assert refused.value.response.headers["Retry-After"] == "1"

        times = []
        for ended in closed:
            at, frame, code = await ended
            times.append(at - began)
            assert (frame["type"], frame["code"], code) == ("closing", 4200, 4200)
            assert 0 < frame["retry_after_ms"] <= 1000
        assert [await code for code in codes] == [4200, 4200]
        times.sort()
        assert times[0] < 1
        assert 0.8 < times[-1] - times[0] < 2, times
        assert max(b - a for a, b in pairwise(times)) < 1, times
        assert await post
        assert await Post.objects.acount() == 1
        await call(server.process.wait, 5)
    log = server.log.read_text()
    assert "Traceback" not in log, log
    assert "destroyed" not in log, log


KEY = "a-shared-secret-of-more-than-32-bytes!"


def token(name):
    expires = datetime.now(UTC) + timedelta(hours=1)
    return jwt.encode({"sub": name, "exp": expires}, KEY, "HS256")


class Visitor:
    """A Python client with a subscription and a room, and what it received."""

    def __init__(self, url, name):
        self.numbers = []
        self.messages = []
        self.delays = []
        self.db = Realtime(url, token=token(name), proxy=None, on_status=self._on_status)

    def _on_status(self, status, detail):
        if status == "waiting":
            self.delays.append(detail["delay"])

    async def __aenter__(self):
        await self.db.__aenter__()
        self.watch = await self.db.watch("posts").ready()
        self.room = await self.db.room("hall").ready()
        self.tasks = [asyncio.create_task(read()) for read in (self._read, self._listen)]
        return self

    async def __aexit__(self, *error):
        await self.db.close()
        await asyncio.gather(*self.tasks)

    async def _read(self):
        async for event in self.watch:  # "resync" would mean that events were lost
            self.numbers.append(event.data["views"] if event.event == "created" else event.event)

    async def _listen(self):
        async for message in self.room:
            self.messages.append(message.message)


async def observe(client, changes):
    """Collect the changes of the members that an observer is sent, with their times."""
    with suppress(ConnectionClosed):
        while True:
            frame = await client.receive(timeout=60)
            if frame["type"] == "presence":
                id = frame["member"]["id"].removeprefix("jwt:")
                changes.append((frame["event"], id, time.monotonic()))


async def create_posts(posts, over):
    """Create posts with consecutive numbers until ``over`` is set."""

    def create():
        while not over.is_set():
            Post.objects.create(title="numbered", views=len(posts))
            posts.append(len(posts))
            time.sleep(0.02)
        connection.close()

    await call(create)


async def publish(servers, key, accepted, over):
    """Publish messages to the servers in turn, and collect those that were accepted."""
    number = 0
    async with httpx.AsyncClient(trust_env=False, headers={"X-API-Key": key}) as http:
        while not over.is_set():
            number += 1
            url = f"http://127.0.0.1:{servers[number % 2].port}/realtime/publish"
            with suppress(httpx.TransportError):
                answer = await http.post(url, json={"room": "hall", "message": number})
                assert answer.status_code == 202, answer.text
                accepted.append(number)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("kind", "backend"), [("uvicorn", "database"), *other_servers(("daphne", "redis"))]
)
async def test_clients_move_without_loss_and_without_leaving_rooms(serve, redis, kind, backend):
    """Also a member that comes back after the lease of the stopped server, but in its grace."""
    publish_key = await call(lambda: ApiKey.objects.create_key("server", can_publish=True)[1])
    settings = {
        "JWT": {"KEY": KEY, "USER_LOOKUP": None},
        "LOG": {"POLL": 0.5},
        "DRAIN": 1.5,
        "ROOMS": {"hall": {"durable": True}},
        "LIMITS": {"http_rate": [1000, 1000]},
        "PRESENCE": {"BACKEND": backend, "GRACE": 6, "LEASE": 3},
    }
    layers = redis.layer("pubsub")
    servers = await asyncio.gather(
        *(call(lambda: serve(kind, layers=layers, settings=settings)) for _ in "12")
    )
    old, new = servers
    changes, posts, accepted, over = [], [], [], asyncio.Event()
    async with AsyncExitStack() as stack:
        stack.callback(over.set)  # also if the test fails
        forwarder = await stack.enter_async_context(Forwarder(old.port))
        observer = await stack.enter_async_context(connect(new.socket_url, token("observer")))
        await observer.send({"type": "join", "room": "hall", "presence": False})
        await observer.receive("joined")
        visitors = [
            await stack.enter_async_context(Visitor(forwarder.url, f"v{n}")) for n in range(4)
        ]
        slow = await stack.enter_async_context(connect(forwarder.url, token("slow")))
        gone = await stack.enter_async_context(connect(forwarder.url, token("gone")))
        for client in (slow, gone):
            await client.send({"type": "join", "room": "hall"})
            await client.receive("joined")
        observing = asyncio.create_task(observe(observer, changes))
        working = [
            asyncio.create_task(create_posts(posts, over)),
            asyncio.create_task(publish(servers, publish_key, accepted, over)),
        ]
        async with asyncio.timeout(10):
            while len(changes) < 6 or len(posts) < 20:
                await asyncio.sleep(0.1)
        changes.clear()

        forwarder.target = new.port
        began = time.monotonic()
        old.signal(signal.SIGTERM)
        assert await slow.closed() == await gone.closed() == 4200
        closed_at = time.monotonic()
        await call(old.process.wait, 6)
        assert time.monotonic() - began < 4
        await asyncio.sleep(0.5)
        over.set()
        await asyncio.gather(*working)
        async with asyncio.timeout(10):
            for visitor in visitors:
                while len(visitor.numbers) < len(posts) or len(visitor.messages) < len(accepted):
                    await asyncio.sleep(0.05)
        for visitor in visitors:
            assert visitor.numbers == posts
            assert sorted(visitor.messages) == accepted
            assert len(visitor.delays) == 1
            assert visitor.delays[0] <= 0.5

        await asyncio.sleep(closed_at + 5 - time.monotonic())
        assert changes == []
        back = await stack.enter_async_context(connect(new.socket_url, token("slow")))
        await back.send({"type": "join", "room": "hall"})
        assert (await back.receive("joined"))["participants"] == 6
        async with asyncio.timeout(8):
            while not changes:
                await asyncio.sleep(0.1)
        ((event, member, at),) = changes
        assert (event, member) == ("left", "gone")
        assert at - closed_at > 4  # its close was up to `DRAIN` before that of the other one
        observing.cancel()


@pytest.mark.parametrize("kind", other_servers("uvicorn", "hypercorn"))
async def test_client_that_does_not_read_does_not_keep_the_server(serve, api_key, kind):
    """Servers other than these two drop such a client themselves."""
    limits = {"queue_bytes": 100_000_000, "event_bytes": 500_000}
    server = await call(lambda: serve(kind, settings={"DRAIN": 0.5, "LIMITS": limits}))
    narrow = {"compression": None, "max_queue": 1, "sock": open_narrow_socket(server.port)}
    async with (
        connect(server.socket_url, api_key) as reader,
        connect(server.socket_url, api_key, **narrow) as stalled,
    ):
        await stalled.subscribe("posts")
        for _ in range(6):
            await call(server.post, "/posts", [{"title": "large", "body": "x" * 400_000}] * 5)
        server.signal(signal.SIGTERM)
        assert await reader.closed() == 4200
        await call(server.process.wait, 8)
        stalled.socket.transport.abort()


async def test_sigint_stops_the_server_during_a_drain(serve, api_key):
    server = await call(lambda: serve("uvicorn", settings={"DRAIN": 60}))
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connect(server.socket_url, api_key)) for _ in range(50)
        ]
        server.signal(signal.SIGTERM)
        assert await clients[0].closed() == 4200
        began = time.monotonic()
        server.signal(signal.SIGINT)
        assert await clients[-1].closed() == 1012
        await call(server.process.wait, 5)
        assert time.monotonic() - began < 4
