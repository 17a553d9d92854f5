"""Refusal and closing of WebSockets while the server is draining, see `hub.drain`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from ..hub.drain import RETRY_AFTER_MS, drain
from ..transport.daphne import deny_handshake
from ..transport.tcp_connection import drop, find_transport
from ..types import Scope, Send
from ..utils.concurrency import spawn_task
from ..wire import frames
from ..wire.codes import CloseCode
from .message_reader import MessageReader

# HTTP status with which proxies pass the handshake on to another server
STATUS = 503
REASON = "Service Unavailable"
HEADERS = {"Retry-After": "1", "Content-Length": "0", "Connection": "close"}
# seconds that a request may take to end before its connection is closed
REQUEST_TIMEOUT = 0.5
# the last frame of a WebSocket that could not be refused
_CLOSING = frames.encode(frames.closing(CloseCode.DRAINING, RETRY_AFTER_MS))


def refuse_if_draining(scope: Scope, send: Send) -> Awaitable[None] | None:
    """Return an awaitable that refuses a new WebSocket; None if the server is not draining.

    The handshake is answered with the HTTP status 503. If the server cannot do that, the WebSocket
    is accepted, and closed with the code 4200.
    """
    return _refuse(scope, send) if drain.is_draining else None


async def _refuse(scope: Scope, send: Send) -> None:
    if "websocket.http.response" in (scope.get("extensions") or {}):
        headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
        start = {"type": "websocket.http.response.start", "status": STATUS, "headers": headers}
        await send(start)
        await send({"type": "websocket.http.response.body", "body": b""})
    elif not deny_handshake(send, STATUS, REASON, HEADERS):
        await send({"type": "websocket.accept"})
        if not scope["url_route"]["kwargs"]:  # the SDKs do not know this frame
            await send({"type": "websocket.send", "text": _CLOSING})
        code = CloseCode.DRAINING
        await send({"type": "websocket.close", "code": int(code), "reason": code.reason})


def close_or_drop(
    reader: MessageReader, send: Send, close: Callable[..., None], retry_after_ms: int | None
) -> None:
    """Call ``close`` with the code 4200 when the request in progress has ended.

    With None for ``retry_after_ms``, drop the connection at once, because its client does not read.
    """
    if retry_after_ms is None:
        drop(find_transport(send))
        return
    call = partial(close, CloseCode.DRAINING, retry_after_ms)
    spawn_task(reader.call_when_idle(call, REQUEST_TIMEOUT))
