"""A connection lost at any byte of a replay: the client resumes from its cursor without a gap."""

import asyncio
import contextlib
import json
import os

import pytest
from websockets.exceptions import WebSocketException

from tests.app.models import Post
from tests.support.client import connect

pytestmark = pytest.mark.server
EVENTS = 12
STEP = int(os.environ.get("CUT_EVERY", "97"))  # bytes between two positions of the disconnect


class LimitedProxy:
    """A TCP proxy that closes the connection after ``remaining`` bytes from the server."""

    def __init__(self, port):
        self.port = port
        self.remaining = 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/realtime"
        return self

    async def __aexit__(self, *args):
        self.server.close()

    async def _serve(self, reader, writer):
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.port)
        copying = asyncio.create_task(self._copy(reader, server_writer))
        try:
            while self.remaining > 0 and (
                data := await server_reader.read(min(self.remaining, 65536))
            ):
                self.remaining -= len(data)
                writer.write(data)
                await writer.drain()
        finally:
            copying.cancel()
            for stream in (writer, server_writer):
                stream.transport.abort()

    async def _copy(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
async def test_replay_interrupted_at_any_byte_is_completed(serve, api_key, kind):
    server = await asyncio.to_thread(serve, kind)
    async with connect(server.socket_url, api_key) as client:
        start = (await client.subscribe("posts"))["cursor"]
    expected = [
        (await Post.objects.acreate(title=f"{n}", body="é" * 40)).title for n in range(EVENTS)
    ]
    async with LimitedProxy(server.port) as proxy:
        interrupted = 0
        for bytes in range(150, 20_000, STEP):
            cursor, received, attempts = start, {}, 0
            proxy.remaining = bytes
            while len(received) < EVENTS:
                attempts += 1
                try:
                    async with connect(
                        proxy.url, authenticate=False, compression=None, close_timeout=0.1
                    ) as client:
                        await client.send({"type": "auth", "token": api_key})
                        frame = {"type": "subscribe", "collection": "posts", "since": cursor}
                        await client.send(frame)
                        while len(received) < EVENTS:
                            frame = json.loads(await client.socket.recv())
                            assert frame.get("resumed", True) is True
                            if frame["type"] == "event":
                                assert frame["cursor"] not in received
                                received[frame["cursor"]] = frame["document"]["data"]["title"]
                                cursor = frame["cursor"]
                except (WebSocketException, OSError, EOFError):
                    proxy.remaining = (
                        10**9
                    )  # after the first disconnect, the next attempt is not limited
            assert list(received.values()) == expected
            interrupted += attempts > 1
            if attempts == 1:
                break
        assert interrupted > 20
