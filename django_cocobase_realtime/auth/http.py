"""Authentication of HTTP requests, by ``X-API-Key`` or ``Authorization: Bearer``.

Cookies are not accepted, so the endpoints need no CSRF protection.
"""

from __future__ import annotations

from django.http import HttpRequest

from ..identity import Identity
from ..types import Scope
from .client_ip import client_ip
from .throttling import authenticate_throttled


def credential(request: HttpRequest) -> str | None:
    """Return the key or token of a request, or None."""
    key = request.headers.get("X-API-Key")
    if key:
        return key.strip()
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


async def identify(request: HttpRequest) -> Identity | None:
    """Return the identity of a request, or None if it has no valid credential."""
    token = credential(request)
    if token is None:
        return None
    scope = _scope(request)
    return await authenticate_throttled(token, scope, client_ip(scope))


def request_address(request: HttpRequest) -> str:
    """Return the IP address of the client that sent a request."""
    return client_ip(_scope(request))


def _scope(request: HttpRequest) -> Scope:
    """Return an ASGI scope with the items that authenticators need, also for a WSGI request."""
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR")
    return {
        "type": "http",
        "client": (request.META.get("REMOTE_ADDR", ""), 0),
        "headers": [] if forwarded is None else [(b"x-forwarded-for", forwarded.encode("latin1"))],
    }
