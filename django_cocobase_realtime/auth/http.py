"""Who sends an HTTP request: by ``X-API-Key`` or ``Authorization: Bearer``, never by a cookie."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from ..identity import Identity
from .attempt import authenticate_throttled
from .client_ip import client_ip


def credential(request: HttpRequest) -> str | None:
    """The key or token that the request carries."""
    key = request.headers.get("X-API-Key")
    if key:
        return key.strip()
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


async def identify(request: HttpRequest) -> Identity | None:
    """The identity of the request's credential; None where it has none that holds."""
    token = credential(request)
    if token is None:
        return None
    scope = _scope(request)
    return await authenticate_throttled(token, scope, client_ip(scope))


def _scope(request: HttpRequest) -> dict[str, Any]:
    """As much of an ASGI scope as authenticators need, under WSGI too."""
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR")
    return {
        "type": "http",
        "client": (request.META.get("REMOTE_ADDR", ""), 0),
        "headers": [] if forwarded is None else [(b"x-forwarded-for", forwarded.encode("latin1"))],
    }
