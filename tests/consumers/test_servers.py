"""Real servers notice that a client has disconnected while its request is being handled."""

import asyncio
import time

import pytest

from django_cocobase_realtime.permissions import Permission
from tests.support.client import connect
from tests.support.servers import SERVERS, other_servers
from tests.support.tokens import create_token

pytestmark = pytest.mark.server
SECONDS = 8


class Slow(Permission):
    def can_subscribe(self, identity, filters):
        time.sleep(SECONDS)
        return True


@pytest.mark.parametrize(
    ("kind", "pings"),
    [
        *((kind, pings) for kind in SERVERS for pings in (0, 5, 2000)),
        *other_servers(("gunicorn", 5), ("hypercorn", 5), ("granian", 5)),
    ],
)
async def test_disconnect_during_a_request(serve, user, kind, pings):
    """The connection no longer counts, except behind frames that the server does not read."""
    server = await asyncio.to_thread(
        serve,
        kind,
        settings={
            "COLLECTIONS": {
                "posts": {"model": "app.Post", "permission": f"{__name__}.Slow"},
            },
            "LIMITS": {"connections_per_user": 1, "messages_rate": [10_000, 10_000]},
        },
    )
    token = create_token(user)
    async with connect(server.socket_url, token, close_timeout=0.1) as client:
        await client.send({"type": "subscribe", "collection": "posts"})
        await asyncio.sleep(0.5)
        for _ in range(pings):
            await client.send({"type": "ping"})
        await asyncio.sleep(0.3)
        client.socket.transport.abort()
    began = time.monotonic()
    while True:
        async with connect(server.socket_url, authenticate=False) as client:
            await client.send({"type": "auth", "token": token})
            if (await client.receive())["type"] == "authenticated":
                break
        assert time.monotonic() - began < 2 * SECONDS
        await asyncio.sleep(0.2)
    waited = time.monotonic() - began
    assert waited < SECONDS / 2 or pings > 1000, waited
    server.kill()  # which would wait for the request if it was stopped
