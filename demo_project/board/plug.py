"""The plug: a visitor's sockets are dropped and for a while not let in again.

For this demo alone. A server that goes down does the same to everybody.
"""

import time
from http.cookies import SimpleCookie

from django.conf import settings

from django_cocobase_realtime.events import DisconnectRequested
from django_cocobase_realtime.pubsub.broker import broker
from django_cocobase_realtime.wire.codes import CloseCode

OUTAGE = 2.0  # seconds
_out: dict[str, float] = {}  # session key → end of its outage; of this process


def pull(user_id, session_key):
    """Close the user's connections with a code that asks clients to come back."""
    now = time.monotonic()
    for key in [key for key, end in _out.items() if end < now]:
        del _out[key]
    _out[session_key] = now + OUTAGE
    broker.publish(DisconnectRequested(code=int(CloseCode.DRAINING), user=str(user_id)))


class Plug:
    """ASGI: refuses the handshakes of those whose plug is pulled."""

    def __init__(self, application):
        self.application = application

    async def __call__(self, scope, receive, send):
        if _out and _out.get(_session_key(scope), 0) > time.monotonic():
            await receive()
            return await send({"type": "websocket.close"})
        return await self.application(scope, receive, send)


def _session_key(scope):
    cookies = SimpleCookie()
    for name, value in scope["headers"]:
        if name == b"cookie":
            cookies.load(value.decode("latin1"))
    found = cookies.get(settings.SESSION_COOKIE_NAME)
    return found.value if found else ""
