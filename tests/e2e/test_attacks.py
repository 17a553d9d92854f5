"""Floods and malformed handshakes against real servers."""

import asyncio
import json
from itertools import product
from pathlib import Path

import pytest
from websockets.asyncio.client import connect as websocket_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.client import Client, connect

pytestmark = pytest.mark.server
SERVERS = ["daphne", "uvicorn"]


@pytest.fixture
async def server(serve, api_key, request):
    server = await asyncio.to_thread(lambda: serve(request.param))
    yield server
    log = server.log.read_text()
    assert "Traceback" not in log, log


async def flood(url, frame, *first, seconds=10):
    """Send a frame repeatedly. Return the close code, or None if the server did not close."""
    async with websocket_connect(url, proxy=None, close_timeout=1) as socket:
        for opening in first:
            await socket.send(json.dumps(opening))

        async def read():
            async for _ in socket:
                pass

        reading = asyncio.create_task(read())
        try:
            async with asyncio.timeout(seconds):
                while True:
                    await socket.send(frame)
                    await asyncio.sleep(0)
        except ConnectionClosed:
            await socket.wait_closed()
            return socket.close_code
        except TimeoutError:
            return None
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


@pytest.mark.parametrize("server", SERVERS, indirect=True)
async def test_flooding_connection_is_closed(server, api_key):
    url, key = server.socket_url, {"type": "auth", "token": api_key}
    large = "x" * 70_000
    sdk = {"api_key": api_key, "action": "create"}
    assert await flood(url, "ping") == 4130
    assert await flood(url, large) == 4130
    assert await flood(url, large, key) == 4130
    assert await flood(url, '{"type":"leave","room":"r"}', key) == 4130
    assert await flood(url, '{"type":"subscribe","collection":"nothing"}', key, seconds=30) == 4130
    assert await flood(url, "nonsense", key) == 4503
    for path in ("/collections/posts", "/broadcast", "/rooms/r"):
        for frame in ("ping", '{"type":"ping"}', '{"some":"thing"}', '{"type":"message"}'):
            assert await flood(url + path, frame, sdk) == 4130, (path, frame)
        assert await flood(url + path, large, sdk) == 4503
    async with connect(url, api_key) as client:
        assert (await client.request({"type": "ping"}))["type"] == "pong"


def resident_mib(server):
    """Return the server's resident memory in MiB."""
    status = Path(f"/proc/{server.process.pid}/status")
    if not status.exists():
        pytest.skip("Memory is read from /proc.")
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize("server", SERVERS, indirect=True)
async def test_frames_sent_during_a_slow_request_are_not_queued(server, api_key):
    """Each request takes a while, and the flood continues during it."""
    request = {"type": "subscribe", "collection": "nothing", "filters": {"x": "y" * 60_000}}
    key = {"type": "auth", "token": api_key}
    before, highest = resident_mib(server), 0.0
    flooding = asyncio.create_task(flood(server.socket_url, json.dumps(request), key, seconds=4))
    while not flooding.done():
        await asyncio.wait({flooding}, timeout=0.1)
        highest = max(highest, resident_mib(server))
    await flooding
    assert highest - before < 200


NAMES = ["%00", "a%00b", "%ED%A0%80", "%FF", "%0A", "%20", "%F0%9F%98%80", "x" * 4000]


@pytest.mark.parametrize("server", SERVERS, indirect=True)
async def test_malformed_name_in_path_is_answered_without_internal_error(server, api_key):
    for kind, name in product(("rooms", "collections"), NAMES):
        async with websocket_connect(f"{server.socket_url}/{kind}/{name}", proxy=None) as socket:
            client = Client(socket)
            await client.send({"api_key": api_key, "action": "create"})
            reply = await client.receive()
            if reply.get("event") != "joined":
                assert reply["type"] == "error"
                assert "internal" not in reply["error"], name
                assert await client.closed() == 4505


HANDSHAKES = [
    ("", "http://["),
    ("", "http://127.0.0.1:port"),
    ("", "null"),
    ("", "http://127.0.0.1@evil.example"),
    ("/nowhere", None),
    ("/collections/", None),
    ("/../admin", None),
]


@pytest.mark.parametrize("server", SERVERS, indirect=True)
async def test_malformed_handshake_is_refused_without_traceback(server):
    for path, origin in HANDSHAKES:
        headers = {} if origin is None else {"Origin": origin}
        url = server.socket_url + path
        with pytest.raises(InvalidStatus) as refused:
            async with websocket_connect(url, proxy=None, additional_headers=headers):
                pass
        assert refused.value.response.status_code in (400, 403), (path, origin)
