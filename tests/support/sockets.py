"""The application on an ASGI socket whose client may stop reading."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from django_cocobase_realtime.routing import realtime_application


class Socket:
    """Sends wait while ``reading`` is clear; ``stop`` tells from which frame on it is."""

    def __init__(self) -> None:
        self.reading = asyncio.Event()
        self.reading.set()
        self.stop: Callable[[dict[str, Any]], bool] | None = None
        self.sent: list[dict[str, Any]] = []
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        if self.stop is not None and "text" in message and self.stop(json.loads(message["text"])):
            self.stop = None
            self.reading.clear()
        await self.reading.wait()

    async def say(self, **frame: Any) -> None:
        await self.incoming.put({"type": "websocket.receive", "text": json.dumps(frame)})

    @property
    def frames(self) -> list[dict[str, Any]]:
        return [json.loads(m["text"]) for m in self.sent if m["type"] == "websocket.send"]

    def of(self, *types: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["type"] in types]

    @property
    def code(self) -> int | None:
        return next((m["code"] for m in self.sent if m["type"] == "websocket.close"), None)

    async def until(self, condition: Callable[[], Any], seconds: float = 5) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)

    async def told(self, type: str) -> None:
        await self.until(lambda: self.of(type))


@asynccontextmanager
async def open_socket(*, token: str | None = None, user: Any = None) -> AsyncIterator[Socket]:
    """An authenticated one."""
    socket = Socket()
    headers: list[Any] = []
    scope: dict[str, Any] = {"type": "websocket", "path": "/realtime", "subprotocols": []}
    if user is not None:
        headers = [(b"origin", b"http://testserver"), (b"host", b"testserver")]
        scope["user"] = user
    scope |= {"query_string": b"", "client": ("127.0.0.1", 1), "headers": headers}
    task = asyncio.create_task(realtime_application()(scope, socket.incoming.get, socket.send))
    await socket.incoming.put({"type": "websocket.connect"})
    await socket.say(type="auth", **({} if token is None else {"token": token}))
    await socket.told("authenticated")
    try:
        yield socket
    finally:
        socket.reading.set()
        await socket.incoming.put({"type": "websocket.disconnect", "code": 1005})
        await asyncio.wait_for(task, 5)
