"""The WebSocket side of a project's ``asgi.py``: the check of the Origin, and the routes.

It can be imported before ``get_asgi_application()`` is called: models and everything else that
needs the app registry are imported by the first connection.
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
from .types import ASGIApplication, Receive, Scope, Send

logger = logging.getLogger(__name__)


def realtime_application(prefix: str = "realtime") -> Any:
    """Return the ASGI application for the ``websocket`` protocol, under ``/prefix``.

    Use it in ``ProtocolTypeRouter({"http": ..., "websocket": realtime_application()})``. To serve
    other WebSockets as well, put `websocket_urlpatterns` into a router of your own, inside
    `RealtimeOriginValidator`.
    """
    return RealtimeOriginValidator(_Router(prefix))


def websocket_urlpatterns(prefix: str = "realtime") -> list[Any]:
    """Return routes for Channels' ``URLRouter``: of the native protocol and of the SDKs."""
    root = rf"^{prefix.strip('/')}"
    native: Any = _consumer
    sdk: Any = _sdk_consumer
    # first the routes of SDK clients, which reconnect every second if they are rejected
    return [
        re_path(rf"{root}/(?P<kind>collections|rooms)/(?P<name>.+?)/?$", sdk),
        re_path(rf"{root}/?$", native),
        re_path(rf"{root}/(?P<kind>broadcast)/?$", sdk),
    ]


class _Router:
    """Routes like `websocket_urlpatterns`, without Channels' router for the common paths.

    An SDK client that is rejected reconnects every second, and routing would be most of what that
    costs. Channels' router also keeps a copy of the scope and a waiting coroutine in memory for
    as long as a connection lives; this one returns the awaitable of the consumer.
    """

    def __init__(self, prefix: str) -> None:
        root = re.escape(prefix.strip("/"))
        self._native_path = re.compile(rf"/+{root}/?")
        self._sdk_path = re.compile(rf"/+{root}/(collections|rooms)/(.+?)/?", re.DOTALL)
        unknown_path: Any = _unknown_path
        self._router = URLRouter([*websocket_urlpatterns(prefix), re_path("", unknown_path)])

    def __call__(self, scope: Any, receive: Receive, send: Send) -> Awaitable[None]:
        # the validator has copied the scope, so it may be changed
        if not scope.get("root_path"):
            if self._native_path.fullmatch(scope["path"]):
                scope["url_route"] = _NATIVE_ROUTE
                return _consumer(scope, receive, send)
            match = self._sdk_path.fullmatch(scope["path"])
            if match is not None:
                scope["url_route"] = {"args": (), "kwargs": {"kind": match[1], "name": match[2]}}
                return _sdk_consumer(scope, receive, send)
        router: Any = self._router
        awaitable: Awaitable[None] = router(scope, receive, send)
        return awaitable


_NATIVE_ROUTE: dict[str, Any] = {"args": (), "kwargs": {}}


def _consumer(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    from .consumers.consumer import RealtimeConsumer

    return RealtimeConsumer()(scope, receive, send)


def _sdk_consumer(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    from .consumers.sdk_consumer import serve

    return serve(scope, receive, send)


async def _unknown_path(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse the connection. Not an exception, since scanners try many paths."""
    logger.warning("There is no WebSocket at %r.", scope["path"])
    await send({"type": "websocket.close"})


class RealtimeOriginValidator(OriginValidator):
    """Refuses pages of foreign origins, and accepts clients that send no Origin.

    Browsers always send an Origin. Phones, servers and the SDKs do not, and authenticate by a key
    or a token. The cookie of the handshake counts only if ``realtime_origin_checked`` is true in
    the scope: there was an Origin, and it is one of the site's own (RFC 6455, section 10.2).
    """

    def __init__(self, application: ASGIApplication) -> None:
        self.application: Any = application

    @property
    def allowed_origins(self) -> list[str]:  # type: ignore[override]  # settings are read live
        """``ALLOWED_ORIGINS``, by default the hosts of ALLOWED_HOSTS."""
        allowed = conf.allowed_origins
        if allowed is not None:
            return list(allowed)
        if settings.DEBUG and not settings.ALLOWED_HOSTS:
            return ["localhost", "127.0.0.1", "[::1]"]
        return list(settings.ALLOWED_HOSTS)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Check the Origin, note the result in the scope, and call the application."""
        if not any(name == b"origin" for name, _ in scope["headers"]):
            # not a browser, so there is no page that could misuse a visitor's cookie
            await self.application({**scope, "realtime_origin_checked": False}, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        try:
            _ = urlsplit(headers[b"origin"].decode("latin1")).port
        except ValueError:  # malformed: no browser sent it
            await send({"type": "websocket.close"})
            return
        scope = {**scope, "realtime_origin_checked": self._is_own_page(headers)}
        await super().__call__(scope, receive, send)

    def valid_origin(self, parsed_origin: Any) -> bool:
        """Return whether pages of an origin may connect, and log a warning if not."""
        valid: bool = super().valid_origin(parsed_origin)
        if not valid:
            origin = None if parsed_origin is None else parsed_origin.geturl()
            logger.warning("Pages of %r may not connect; see ALLOWED_ORIGINS.", origin)
        return valid

    def _is_own_page(self, headers: dict[bytes, bytes]) -> bool:
        """Return whether a page of an allowed origin may use the cookie of its visitor."""
        if "*" not in self.allowed_origins:
            return True
        # every page may connect, but only the site's own pages may act as the visitor
        origin = headers[b"origin"].decode("latin1")
        return urlsplit(origin).netloc.encode("latin1") == headers.get(b"host")
