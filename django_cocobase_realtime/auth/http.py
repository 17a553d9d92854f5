"""Authentication of HTTP requests, by ``X-API-Key`` or ``Authorization: Bearer``.

Cookies are not accepted, so the endpoints need no CSRF protection.
"""

from __future__ import annotations

from django.http import HttpRequest

from ..identity import Identity
from ..types import Scope
from . import throttling
from .client_ip import client_ip


def credential(request: HttpRequest) -> str | None:
    """Return the key or token of a request, or None."""
    key = request.headers.get("X-API-Key")
    if key:
        return key.strip()
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


class TooManyAttempts(Exception):
    """Authentication from an address failed often, and many of its requests wait already."""


async def identify(request: HttpRequest) -> Identity | None:
    """Return the identity of a request, or None if it has no valid credential.

    Raises `TooManyAttempts`.
    """
    token = credential(request)
    if token is None:
        return None
    scope = _scope(request)
    address = client_ip(scope)
    if throttling.auth_throttle.delayed.are_many(address):
        raise TooManyAttempts(address)
    return await throttling.authenticate_throttled(token, scope, address)


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
