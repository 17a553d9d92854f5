"""A WebSocket client for tests with real servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket_connect
from websockets.exceptions import ConnectionClosed

TIMEOUT = 10.0


class Client:
    """One connection. Frames are dictionaries."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, frame: dict[str, Any] | str | bytes) -> None:
        await self.socket.send(json.dumps(frame) if isinstance(frame, dict) else frame)

    async def receive(self, type: str | None = None, timeout: float = TIMEOUT) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(await asyncio.wait_for(self.socket.recv(), timeout))
        assert type is None or frame["type"] == type, frame
        return frame

    async def request(self, frame: dict[str, Any] | str | bytes) -> dict[str, Any]:
        await self.send(frame)
        return await self.receive()

    async def subscribe(self, collection: str, **options: Any) -> dict[str, Any]:
        await self.send({"type": "subscribe", "collection": collection, **options})
        return await self.receive("subscribed")

    async def receive_nothing(self, seconds: float = 0.3) -> bool:
        try:
            frame = await self.receive(timeout=seconds)
        except TimeoutError:
            return True
        raise AssertionError(frame)

    async def closed(self, timeout: float = TIMEOUT) -> int:
        """Wait for the connection to close and return its close code; drop the frames before it."""
        try:
            while True:
                await asyncio.wait_for(self.socket.recv(), timeout)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006


@asynccontextmanager
async def connect(
    url: str, token: str | None = None, *, authenticate: bool = True, **options: Any
) -> AsyncIterator[Client]:
    options.setdefault("proxy", None)
    async with websocket_connect(url, **options) as socket:
        client = Client(socket)
        if authenticate:
            await client.send({"type": "auth", **({"token": token} if token else {})})
            await client.receive("authenticated")
        yield client
