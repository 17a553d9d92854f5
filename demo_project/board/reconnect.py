"""Simulated outages: close a visitor's connections and refuse new ones for two seconds.

For this demo only. To the client it looks the same as a server that goes down.
"""

import time
from http.cookies import SimpleCookie

from django.conf import settings

from django_cocobase_realtime import disconnect

OUTAGE_SECONDS = 2.0
# session key -> monotonic time at which its outage ends, for the sessions of this process
_outage_ends: dict[str, float] = {}


def start_outage(user, session_key):
    """Close the user's connections, and refuse the session's new ones for two seconds."""
    now = time.monotonic()
    for key in [key for key, end in _outage_ends.items() if end < now]:
        del _outage_ends[key]
    _outage_ends[session_key] = now + OUTAGE_SECONDS
    disconnect(user=user, reconnect=True)


class OutageMiddleware:
    """ASGI middleware that refuses the WebSocket handshakes of sessions with an outage."""

    def __init__(self, application):
        self.application = application

    async def __call__(self, scope, receive, send):
        if _outage_ends and _outage_ends.get(_session_key(scope), 0) > time.monotonic():
            await receive()
            return await send({"type": "websocket.close"})
        return await self.application(scope, receive, send)


def _session_key(scope):
    cookies = SimpleCookie()
    for name, value in scope["headers"]:
        if name == b"cookie":
            cookies.load(value.decode("latin1"))
    cookie = cookies.get(settings.SESSION_COOKIE_NAME)
    return cookie.value if cookie else ""
