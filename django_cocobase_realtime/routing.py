"""The ASGI application for a project's ``asgi.py``: checks the Origin and routes WebSockets.

This module can be imported before ``get_asgi_application()`` is called. Models, and all modules
that need the app registry, are imported when the first client connects.
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
from .transport import missing_upgrade
from .types import ASGIApplication, Receive, Scope, Send
from .utils.site_path import path_in_site

logger = logging.getLogger(__name__)


def realtime_application(prefix: str = "realtime") -> Any:
    """Return the ASGI application for the ``websocket`` protocol, under ``/prefix``.

    Use it in ``ProtocolTypeRouter({"http": ..., "websocket": realtime_application()})``. To serve
    other WebSockets as well, put `websocket_urlpatterns` into a router of your own, inside
    `RealtimeOriginValidator`.
    """
    return RealtimeOriginValidator(_Router(prefix))


def websocket_urlpatterns(prefix: str = "realtime") -> list[Any]:
    """Return routes for Channels' ``URLRouter``: for the native protocol and for the SDKs."""
    missing_upgrade.prefixes.add(prefix.strip("/"))
    root = rf"^{prefix.strip('/')}"
    native: Any = _consumer
    sdk: Any = _sdk_consumer
    # routes are tried in order; the first is used most, by SDK clients that are rejected, which
    # reconnect every second
    return [
        re_path(rf"{root}/(?P<kind>collections|rooms)/(?P<name>.+?)/?$", sdk),
        re_path(rf"{root}/?$", native),
        re_path(rf"{root}/(?P<kind>broadcast)/?$", sdk),
    ]


class _Router:
    """A router with the routes of `websocket_urlpatterns` that uses less time and memory.

    An SDK client that is rejected reconnects every second, and Channels' router would take most
    of the time of a rejection. It would also keep a copy of the scope and a coroutine in memory
    for each open connection; this router returns the awaitable of the consumer.
    """

    def __init__(self, prefix: str) -> None:
        root = re.escape(prefix.strip("/"))
        self._native_path = re.compile(rf"/+{root}/?")
        self._sdk_path = re.compile(
            rf"/+{root}/(?:(collections|rooms)/(.+?)|broadcast)/?", re.DOTALL
        )
        unknown_path: Any = _unknown_path
        self._router = URLRouter([*websocket_urlpatterns(prefix), re_path("", unknown_path)])

    def __call__(self, scope: Any, receive: Receive, send: Send) -> Awaitable[None]:
        # the validator has copied the scope, so it may be changed; the second path is needed if the
        # routes begin like the prefix of the site
        for path in dict.fromkeys((path_in_site(scope), scope["path"])):
            if self._native_path.fullmatch(path):
                scope["url_route"] = _NATIVE_ROUTE
                return _consumer(scope, receive, send)
            match = self._sdk_path.fullmatch(path)
            if match is not None:
                kind, name = match.groups()
                kwargs = {"kind": "broadcast"} if kind is None else {"kind": kind, "name": name}
                scope["url_route"] = {"args": (), "kwargs": kwargs}
                return _sdk_consumer(scope, receive, send)
        if "path_remaining" not in scope:
            return _unknown_path(scope, receive, send)
        # a router of Channels has matched the beginning of the path
        router: Any = self._router
        awaitable: Awaitable[None] = router(scope, receive, send)
        return awaitable


_NATIVE_ROUTE: dict[str, Any] = {"args": (), "kwargs": {}}


def _consumer(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    from .consumers.consumer import RealtimeConsumer
    from .consumers.draining import refuse_if_draining

    return refuse_if_draining(scope, send) or RealtimeConsumer()(scope, receive, send)


def _sdk_consumer(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    from .consumers.draining import refuse_if_draining
    from .consumers.sdk_consumer import serve

    return refuse_if_draining(scope, send) or serve(scope, receive, send)


async def _unknown_path(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse the connection.

    An exception would write a traceback to the log each time a scanner tries a path.
    """
    logger.warning("There is no WebSocket at %r.", scope["path"])
    await send({"type": "websocket.close"})


class RealtimeOriginValidator(OriginValidator):
    """Refuses pages of other sites, and accepts clients that send no Origin.

    Browsers always send an Origin. Mobile apps, servers and the SDKs do not, and authenticate with
    a key or a token. The session cookie of the handshake is used only if the Origin was sent and
    is one of the site's own (RFC 6455, section 10.2); ``realtime_origin_checked`` in the scope is
    then True.
    """

    def __init__(self, application: ASGIApplication) -> None:
        self.application: Any = application

    @property
    def allowed_origins(self) -> list[str]:  # type: ignore[override]  # settings are read live
        """The setting ``ALLOWED_ORIGINS``, which defaults to the hosts of ALLOWED_HOSTS."""
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
        except ValueError:  # malformed, so it was not sent by a browser
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
        """Return whether the page that opens the connection may use the visitor's session."""
        if "*" not in self.allowed_origins:
            return True
        # pages of all sites may connect, but only those of this site may use the session
        origin = headers[b"origin"].decode("latin1")
        return urlsplit(origin).netloc.encode("latin1") == headers.get(b"host")
