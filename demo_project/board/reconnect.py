"""Simulated outages: close a visitor's connections and refuse new ones for two seconds.

For this demo only. To the client it looks the same as a server that goes down.
"""

import asyncio
import time
from collections import defaultdict
from http.cookies import SimpleCookie

from django.conf import settings

OUTAGE_SECONDS = 2.0
SERVER_GOES_DOWN = 4200  # close code
# session key -> monotonic time at which its outage ends, for the sessions of this process
_outage_ends: dict[str, float] = {}
# session key -> its open WebSockets: functions that send, with their event loops
_sockets = defaultdict(dict)


def start_outage(session_key):
    """Close the session's connections, and refuse new ones for two seconds."""
    now = time.monotonic()
    for key in [key for key, end in _outage_ends.items() if end < now]:
        del _outage_ends[key]
    _outage_ends[session_key] = now + OUTAGE_SECONDS
    for send, loop in list(_sockets.get(session_key, {}).items()):
        asyncio.run_coroutine_threadsafe(_close(send), loop)


async def _close(send):
    await send({"type": "websocket.close", "code": SERVER_GOES_DOWN})


class OutageMiddleware:
    """ASGI middleware that closes the WebSockets of sessions with an outage, and refuses others."""

    def __init__(self, application):
        self.application = application

    async def __call__(self, scope, receive, send):
        key = _session_key(scope)
        if _outage_ends.get(key, 0) > time.monotonic():
            await receive()
            return await send({"type": "websocket.close"})
        _sockets[key][send] = asyncio.get_running_loop()
        try:
            return await self.application(scope, receive, send)
        finally:
            del _sockets[key][send]
            if not _sockets[key]:
                del _sockets[key]


def _session_key(scope):
    cookies = SimpleCookie()
    for name, value in scope["headers"]:
        if name == b"cookie":
            cookies.load(value.decode("latin1"))
    cookie = cookies.get(settings.SESSION_COOKIE_NAME)
    return cookie.value if cookie else ""
