"""SIGTERM closes the WebSockets of a real server one after the other, before the server stops."""

import asyncio
import json
import signal
import time
import urllib.error
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest
from websockets.exceptions import InvalidStatus

from tests.app.models import Post
from tests.support.client import connect
from tests.support.threads import call

pytestmark = pytest.mark.server

SERVERS = ["daphne", "uvicorn"]


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


@pytest.mark.parametrize("kind", SERVERS)
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
        post = asyncio.create_task(call(server.post, "/slow-post", "2.5"))
        closed = [asyncio.create_task(closing(client)) for client in (*clients, quiet[0])]
        codes = [asyncio.create_task(client.closed(20)) for client in (sdk, quiet[1])]
        await asyncio.sleep(0.3)

        began = time.monotonic()
        server.signal(signal.SIGTERM)
        server.signal(signal.SIGTERM)
        while (await call(get, server, "/realtime/ready")) != (503, {"status": "draining"}):
            assert time.monotonic() - began < 0.5
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
        assert times[0] < 0.6
        assert all(0.1 < b - a < 1 for a, b in pairwise(times)), times
        assert times[-1] < 2.0
        assert await post
        assert await Post.objects.acount() == 1
        await call(server.process.wait, 5)
        assert time.monotonic() - began < 4
    log = server.log.read_text()
    assert "Traceback" not in log, log
    assert "destroyed" not in log, log
