"""A connection cut anywhere in a replay leaves no gap: the client's cursor is enough."""

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
STEP = int(os.environ.get("CUT_EVERY", "97"))  # bytes between cuts


class Cutter:
    """A TCP proxy that passes so many bytes from the server, then cuts."""

    def __init__(self, port):
        self.port = port
        self.left = 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/realtime"
        return self

    async def __aexit__(self, *args):
        self.server.close()

    async def _serve(self, reader, writer):
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        up = asyncio.create_task(self._copy(reader, back))
        try:
            while self.left > 0 and (data := await there.read(min(self.left, 65536))):
                self.left -= len(data)
                writer.write(data)
                await writer.drain()
        finally:
            up.cancel()
            for each in (writer, back):
                each.transport.abort()

    async def _copy(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
async def test_a_replay_cut_at_any_byte(serve, api_key, kind):
    server = await asyncio.to_thread(serve, kind)
    async with connect(server.socket_url, api_key) as client:
        start = (await client.subscribe("posts"))["cursor"]
    expected = [
        (await Post.objects.acreate(title=f"{n}", body="é" * 40)).title for n in range(EVENTS)
    ]
    async with Cutter(server.port) as cutter:
        cuts = 0
        for bytes in range(150, 20_000, STEP):
            cursor, heard, tries = start, {}, 0
            cutter.left = bytes
            while len(heard) < EVENTS:
                tries += 1
                try:
                    async with connect(
                        cutter.url, authenticate=False, compression=None, close_timeout=0.1
                    ) as client:
                        await client.send({"type": "auth", "token": api_key})
                        frame = {"type": "subscribe", "collection": "posts", "since": cursor}
                        await client.send(frame)
                        while len(heard) < EVENTS:
                            frame = json.loads(await client.socket.recv())
                            assert frame.get("resumed", True) is True
                            if frame["type"] == "event":
                                assert frame["cursor"] not in heard
                                heard[frame["cursor"]] = frame["document"]["data"]["title"]
                                cursor = frame["cursor"]
                except (WebSocketException, OSError, EOFError):
                    cutter.left = 10**9  # once cut, the next try goes through
            assert list(heard.values()) == expected
            cuts += tries > 1
            if tries == 1:
                break
        assert cuts > 20
