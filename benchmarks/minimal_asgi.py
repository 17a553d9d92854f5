"""The least that an ASGI server can be asked, at ``/minimal``: accept a WebSocket, close it.

Beside it, in the same process, the test project: what a big heap costs, both pay.
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
