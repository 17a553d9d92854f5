"""The WebSocket side of ``asgi.py``: origin check, then the routes.

Importing this touches no model: what needs the app registry is imported at the first connection,
so it may stand above ``get_asgi_application()``.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from channels.routing import URLRouter
from channels.security.websocket import OriginValidator
from django.conf import settings
from django.urls import re_path

from .conf import conf


def realtime_application(prefix: str = "realtime") -> Any:
    """The ASGI application for the ``websocket`` protocol, under ``/prefix``.

    Use it in ``ProtocolTypeRouter({"http": ..., "websocket": realtime_application()})``. To serve
    other WebSockets beside it, put `websocket_urlpatterns` into a router of your own, behind
    `RealtimeOriginValidator`.
    """
    return RealtimeOriginValidator(URLRouter(websocket_urlpatterns(prefix)))


def websocket_urlpatterns(prefix: str = "realtime") -> list[Any]:
    """Routes for Channels' ``URLRouter``: of the native dialect, and of the published SDKs."""
    under = rf"^{prefix.strip('/')}"
    native: Any = _consumer
    sdks: Any = _sdk_consumer
    return [
        re_path(rf"{under}/?$", native),
        re_path(rf"{under}/collections/(?P<name>.+?)/?$", sdks, {"dialect": "sdk.collections"}),
        re_path(rf"{under}/broadcast/?$", sdks, {"dialect": "sdk.broadcast"}),
        re_path(rf"{under}/rooms/(?P<name>.+?)/?$", sdks, {"dialect": "sdk.rooms"}),
    ]


async def _consumer(scope: Any, receive: Any, send: Any) -> None:
    from .consumers import RealtimeConsumer

    await RealtimeConsumer()(scope, receive, send)


async def _sdk_consumer(scope: Any, receive: Any, send: Any) -> None:
    from .sdk_consumer import SdkConsumer

    await SdkConsumer()(scope, receive, send)


class RealtimeOriginValidator(OriginValidator):
    """Refuses pages of foreign origins; lets clients without an Origin in.

    Browsers always send an Origin; phones, servers and the SDKs do not, and prove themselves by a
    key or a token. The handshake's cookie counts only where ``realtime_origin_checked`` is set in
    the scope: an Origin was there and is one of ours (RFC 6455, 10.2).
    """

    def __init__(self, application: Any) -> None:
        self.application = application

    @property
    def allowed_origins(self) -> list[str]:  # type: ignore[override]  # settings are read live
        """``ALLOWED_ORIGINS``, by default the hosts of ALLOWED_HOSTS."""
        allowed = conf.allowed_origins
        if allowed is not None:
            return list(allowed)
        if settings.DEBUG and not settings.ALLOWED_HOSTS:
            return ["localhost", "127.0.0.1", "[::1]"]
        return list(settings.ALLOWED_HOSTS)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        """Check the Origin, note that it was checked, go on."""
        scope = {**scope, "realtime_origin_checked": self._vouches(scope)}
        return await super().__call__(scope, receive, send)

    def valid_origin(self, parsed_origin: Any) -> bool:
        """No Origin is fine: no browser, so no page that could misuse a visitor's cookie."""
        return parsed_origin is None or bool(self.validate_origin(parsed_origin))

    def _vouches(self, scope: Any) -> bool:
        headers: dict[bytes, bytes] = dict(scope.get("headers", ()))
        origin = headers.get(b"origin")
        if origin is None:
            return False
        if "*" in self.allowed_origins:
            # any page may connect, but only the site's own may act as its visitor
            return urlsplit(origin.decode("latin1")).netloc.encode("latin1") == headers.get(b"host")
        return True
