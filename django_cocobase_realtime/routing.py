"""The WebSocket side of ``asgi.py``: origin check, then the routes.

Importing this touches no model: what needs the app registry is imported at the first connection,
so it may stand above ``get_asgi_application()``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable
from typing import Any
from urllib.parse import urlsplit

from channels.routing import URLRouter
from channels.security.websocket import OriginValidator
from django.conf import settings
from django.urls import re_path

from .conf import conf

logger = logging.getLogger(__name__)


def realtime_application(prefix: str = "realtime") -> Any:
    """The ASGI application for the ``websocket`` protocol, under ``/prefix``.

    Use it in ``ProtocolTypeRouter({"http": ..., "websocket": realtime_application()})``. To serve
    other WebSockets beside it, put `websocket_urlpatterns` into a router of your own, behind
    `RealtimeOriginValidator`.
    """
    return RealtimeOriginValidator(_Routes(prefix))


def websocket_urlpatterns(prefix: str = "realtime") -> list[Any]:
    """Routes for Channels' ``URLRouter``: of the native dialect, and of the published SDKs."""
    under = rf"^{prefix.strip('/')}"
    native: Any = _consumer
    sdks: Any = _sdk_consumer
    # first those whose clients come again every second, whether they are let in or not
    return [
        re_path(rf"{under}/(?P<kind>collections|rooms)/(?P<name>.+?)/?$", sdks),
        re_path(rf"{under}/?$", native),
        re_path(rf"{under}/(?P<kind>broadcast)/?$", sdks),
    ]


class _Routes:
    """`websocket_urlpatterns` without Channels' router in between.

    SDK clients that are not let in come again every second: for them the way here is most of what
    they cost. And what waits here for the end of a connection is memory for as long as it lives:
    a copy of the scope, and a coroutine for each that hands over to the next instead of returning
    what there is to await.
    """

    def __init__(self, prefix: str) -> None:
        under = re.escape(prefix.strip("/"))
        self._native = re.compile(rf"/+{under}/?")
        self._named = re.compile(rf"/+{under}/(collections|rooms)/(.+?)/?", re.DOTALL)
        nowhere: Any = _nowhere
        self._router = URLRouter([*websocket_urlpatterns(prefix), re_path("", nowhere)])

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[Any]:
        if not scope.get("root_path"):
            if self._native.fullmatch(scope["path"]):
                scope["url_route"] = _NATIVE_ROUTE
                return _consumer(scope, receive, send)
            found = self._named.fullmatch(scope["path"])
            if found is not None:
                scope["url_route"] = {"args": (), "kwargs": {"kind": found[1], "name": found[2]}}
                return _sdk_consumer(scope, receive, send)
        return self._router(scope, receive, send)


_NATIVE_ROUTE: dict[str, Any] = {"args": (), "kwargs": {}}


def _consumer(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
    from .consumers.consumer import RealtimeConsumer

    return RealtimeConsumer()(scope, receive, send)


def _sdk_consumer(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
    from .consumers.sdk_consumer import serve

    return serve(scope, receive, send)


async def _nowhere(scope: Any, receive: Any, send: Any) -> None:
    """No such path: strangers ask for many, so it is refused without a fuss."""
    logger.warning("There is no WebSocket at %r.", scope["path"])
    await send({"type": "websocket.close"})


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
        """Check the Origin, note that it was checked, go on.

        No Origin is fine: no browser, so no page that could misuse a visitor's cookie.
        """
        if not any(name == b"origin" for name, _ in scope["headers"]):
            application: Any = self.application
            return await application({**scope, "realtime_origin_checked": False}, receive, send)
        headers: dict[bytes, bytes] = dict(scope["headers"])
        try:
            _ = urlsplit(headers[b"origin"].decode("latin1")).port
        except ValueError:  # no browser's: an address that is none
            await send({"type": "websocket.close"})
            return None
        scope = {**scope, "realtime_origin_checked": self._vouches(headers)}
        return await super().__call__(scope, receive, send)

    def valid_origin(self, parsed_origin: Any) -> bool:
        """Whether a page of this origin may connect; says so in the log where it may not."""
        valid: bool = super().valid_origin(parsed_origin)
        if not valid:
            origin = None if parsed_origin is None else parsed_origin.geturl()
            logger.warning("Pages of %r may not connect; see ALLOWED_ORIGINS.", origin)
        return valid

    def _vouches(self, headers: dict[bytes, bytes]) -> bool:
        origin = headers[b"origin"]
        if "*" in self.allowed_origins:
            # any page may connect, but only the site's own may act as its visitor
            return urlsplit(origin.decode("latin1")).netloc.encode("latin1") == headers.get(b"host")
        return True
