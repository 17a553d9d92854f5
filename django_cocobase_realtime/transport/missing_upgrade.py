"""Detection of WebSocket handshakes that reach Django as ordinary HTTP requests.

A handshake is a GET with ``Connection: Upgrade`` and ``Upgrade: websocket``. These two headers are
meant for the next hop alone, so a proxy drops them unless it is configured to pass WebSockets on.
The server then takes the rest for an ordinary request. Browsers do not let a page see what was
answered, so the reason must be found in the server's log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from django.core.signals import request_started

from ..types import Scope
from ..utils.repeated_log import omitted_text, repeated_log
from ..utils.site_path import path_in_site

logger = logging.getLogger(__name__)

GUIDE = '"Configure the proxy" in docs/how-to/deploy.md'
# headers of a handshake that proxies pass on; HTTP/2 has the second one alone (RFC 8441)
_HANDSHAKE_HEADERS = ("sec-websocket-key", "sec-websocket-version")
_RAW_HANDSHAKE_HEADERS = frozenset(name.encode() for name in _HANDSHAKE_HEADERS)
_ENVIRON_HANDSHAKE_HEADERS = ("HTTP_SEC_WEBSOCKET_KEY", "HTTP_SEC_WEBSOCKET_VERSION")
# headers that identify a proxy, or show what it has done with the request
_PROXY_HEADERS = (
    *("via", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-server"),
    *("x-forwarded-proto", "x-real-ip", "x-envoy-external-address", "cf-ray", "x-amzn-trace-id"),
    *("host", "connection", "upgrade"),
)
# characters of a header that are logged
_MAX_LOGGED = 100

# the prefixes of WebSockets in this process, without slashes at the ends
prefixes = {"realtime"}


def connect() -> None:
    """Look at all HTTP requests from now on, whatever answers them.

    A project need not include this app's URLs, and even if it does, a request without the
    documented proxy headers may be rejected or redirected before it reaches a view.
    """
    request_started.connect(_on_request, dispatch_uid="django_cocobase_realtime.missing_upgrade")


def is_handshake(headers: Mapping[str, str]) -> bool:
    """Return whether a request with these headers was sent as a WebSocket handshake."""
    return any(name in headers for name in _HANDSHAKE_HEADERS)


def explain(headers: Mapping[str, str]) -> str:
    """Return a sentence that says why a handshake with these headers was not recognized."""
    has_upgrade = headers.get("upgrade", "").strip().lower() == "websocket"
    has_connection = "upgrade" in headers.get("connection", "").lower()
    if has_upgrade and has_connection:
        return "This server does not accept WebSockets; start an ASGI server that does."
    missing = "Connection" if has_upgrade else "Upgrade and Connection"
    return f"A proxy has not passed on the client's {missing} header{'s' * (not has_upgrade)}."


def _on_request(
    sender: Any,
    scope: Scope | None = None,
    environ: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> None:
    """Handle the signal `request_started`, which has a scope under ASGI, else an environ."""
    if scope is not None:
        # most requests end here
        if scope["method"] != "GET" or _RAW_HANDSHAKE_HEADERS.isdisjoint(
            [name for name, _ in scope["headers"]]
        ):
            return
        path = path_in_site(scope)
        if _is_ours(path):
            headers = {name.decode("latin1"): v.decode("latin1") for name, v in scope["headers"]}
            peer = (scope.get("client") or ("unknown",))[0]
            _report(path, str(peer), f"HTTP/{scope.get('http_version', '?')}", headers)
            if isinstance(scope, dict) and path.strip("/") in prefixes:
                scope["path"] = _with_slash(scope["path"])
    elif environ is not None and any(name in environ for name in _ENVIRON_HANDSHAKE_HEADERS):
        if environ.get("REQUEST_METHOD") != "GET":
            return
        path = environ.get("PATH_INFO", "")
        if _is_ours(path):
            headers = {
                key.removeprefix("HTTP_").replace("_", "-").lower(): str(value)
                for key, value in environ.items()
                if key.startswith("HTTP_")
            }
            peer = environ.get("REMOTE_ADDR") or "unknown"
            _report(path, peer, environ.get("SERVER_PROTOCOL", "HTTP/?"), headers)
            if isinstance(environ, dict) and path.strip("/") in prefixes:
                environ["PATH_INFO"] = _with_slash(path)


def _with_slash(path: str) -> str:
    """Return the path with which the project's ``include`` finds the view that answers 426.

    Without the slash, Django would redirect to it, which WebSocket clients do not follow.
    """
    return f"{path.rstrip('/')}/"


def _is_ours(path: str) -> bool:
    path = path.strip("/")
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)


def _report(path: str, peer: str, version: str, headers: Mapping[str, str]) -> None:
    # by peer, because requests may be forged
    omitted = repeated_log.admit("handshake without upgrade headers", peer)
    if omitted is None:
        return
    details = [
        f"{name}: {headers[name][:_MAX_LOGGED]}" for name in _PROXY_HEADERS if name in headers
    ]
    logger.warning(
        "A WebSocket handshake for %r arrived as an ordinary HTTP request. %s See %s. "
        "The request came from %r with %r and %r.%s",
        path[:_MAX_LOGGED],
        explain(headers),
        GUIDE,
        peer,
        version,
        details,
        omitted_text(omitted),
    )
