"""A pool of database connections that is smaller than the number of threads of a process."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from django.db import connection, connections

from tests.app.models import Post
from tests.support.client import Client, connect

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(connection.vendor != "postgresql", reason="Django has no other pools."),
]
pytest.importorskip("psycopg_pool")

SETTINGS = {
    "COLLECTIONS": {"posts": "app.Post", "messages": "app.Message"},
    "ROOMS": {"*": {"history": 10}},
    "LIMITS": {"unauthenticated_per_address": 100, "subscribe_rate": (100, 200)},
    "REVOCATION_POLL": 0.5,
}


@pytest.fixture(params=[1, 2, 4])
def server(request, serve, monkeypatch):
    options = {**connections["default"].settings_dict.get("OPTIONS", {})}
    options["pool"] = {"min_size": 1, "max_size": request.param, "timeout": 30}
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", options)
    server = serve("uvicorn", settings=SETTINGS)
    monkeypatch.undo()
    return server


async def wait_for(client: Client, type: str) -> dict[str, Any]:
    """Return the next frame of a type; drop those before it."""
    async with asyncio.timeout(20):
        while (frame := await client.receive(timeout=20))["type"] != type:
            pass
    return frame


async def use(url: str, key: str, number: int) -> float:
    """Log in, subscribe, join a room, broadcast; return how long it took."""
    started_at = time.monotonic()
    room = f"room {number}"
    async with connect(url, key) as client:
        await client.send({"type": "subscribe", "collection": "posts", "snapshot": {"limit": 1}})
        await wait_for(client, "snapshot")
        await client.send({"type": "join", "room": room})
        await wait_for(client, "joined")
        await client.send({"type": "broadcast", "room": room, "message": 1, "id": 1})
        await wait_for(client, "sent")
        seconds = time.monotonic() - started_at
        title = f"by {room}"
        await Post.objects.acreate(title=title)
        frame: dict[str, Any] = {}
        while frame.get("document", {}).get("data", {}).get("title") != title:
            frame = await wait_for(client, "event")
        return seconds


async def test_many_clients_are_served(server, api_key):
    async with asyncio.timeout(60):
        times = await asyncio.gather(*(use(server.socket_url, api_key, n) for n in range(20)))
    assert max(times) < 20
    log = server.log.read_text()
    assert "PoolTimeout" not in log
    assert "Traceback" not in log


async def test_clients_are_served_beside_slow_snapshots(server, api_key):
    await Post.objects.abulk_create(Post(title=f"{n}" * 20) for n in range(10_000))
    filters = {"$or": [{"title": {"contains": f"{n} not there"}} for n in range(16)]}
    async with connect(server.socket_url, api_key) as hostile:
        for n in range(60):
            frame = {"type": "subscribe", "collection": "posts", "subscription": f"s{n}"}
            await hostile.send({**frame, "filters": filters, "snapshot": True})
        assert await use(server.socket_url, api_key, 1) < 10
    assert "PoolTimeout" not in server.log.read_text()
