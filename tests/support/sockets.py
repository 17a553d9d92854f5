"""Run the application on an ASGI socket whose client can stop reading."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from django_cocobase_realtime.routing import realtime_application


class AsgiSocket:
    """The server's side of one connection.

    The application's sends wait while ``reading`` is clear. ``stops_reading_at`` selects the
    frame at which it is cleared. ``fails_at`` returns the exception with which the server refuses
    to send a frame, or None.
    """

    def __init__(self) -> None:
        self.reading = asyncio.Event()
        self.reading.set()
        self.stops_reading_at: Callable[[dict[str, Any]], bool] | None = None
        self.fails_at: Callable[[dict[str, Any]], Exception | None] = lambda frame: None
        self.sent: list[dict[str, Any]] = []
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def send(self, message: dict[str, Any]) -> None:
        """Receive a message from the application. This is the ``send`` of ASGI."""
        error = self.fails_at(json.loads(message["text"])) if "text" in message else None
        if error is not None:
            raise error
        self.sent.append(message)
        stops = self.stops_reading_at
        if stops is not None and "text" in message and stops(json.loads(message["text"])):
            self.stops_reading_at = None
            self.reading.clear()
        await self.reading.wait()

    async def send_frame(self, **frame: Any) -> None:
        """Send a frame to the application, as a client does."""
        await self.incoming.put({"type": "websocket.receive", "text": json.dumps(frame)})

    @property
    def frames(self) -> list[dict[str, Any]]:
        return [json.loads(m["text"]) for m in self.sent if m["type"] == "websocket.send"]

    def frames_of_type(self, *types: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["type"] in types]

    @property
    def close_code(self) -> int | None:
        return next((m["code"] for m in self.sent if m["type"] == "websocket.close"), None)

    async def wait_until(self, condition: Callable[[], Any], seconds: float = 5) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)

    async def wait_for_frame(self, type: str) -> None:
        await self.wait_until(lambda: self.frames_of_type(type))


@asynccontextmanager
async def open_socket(
    *, token: str | None = None, user: Any = None, address: str = "127.0.0.1"
) -> AsyncIterator[AsgiSocket]:
    """Open an authenticated connection."""
    socket = AsgiSocket()
    headers: list[Any] = []
    scope: dict[str, Any] = {"type": "websocket", "path": "/realtime", "subprotocols": []}
    if user is not None:
        headers = [(b"origin", b"http://testserver"), (b"host", b"testserver")]
        scope["user"] = user
    scope |= {"query_string": b"", "client": (address, 1), "headers": headers}
    task = asyncio.create_task(realtime_application()(scope, socket.incoming.get, socket.send))
    await socket.incoming.put({"type": "websocket.connect"})
    await socket.send_frame(type="auth", **({} if token is None else {"token": token}))
    await socket.wait_for_frame("authenticated")
    try:
        yield socket
    finally:
        socket.reading.set()
        await socket.incoming.put({"type": "websocket.disconnect", "code": 1005})
        await asyncio.wait_for(task, 5)
