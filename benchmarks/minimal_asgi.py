"""An ASGI application that accepts and closes each WebSocket at ``/minimal``.

At other paths it is the test project, so that both run in one process with the same heap.
"""

from __future__ import annotations

from typing import Any

from tests.asgi import application as project


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope.get("path") != "/minimal":
        await project(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 4500})
