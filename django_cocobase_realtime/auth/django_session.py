"""The visitor's own Django session, as the handshake's cookie carries it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.http import parse_cookie
from django.utils.crypto import constant_time_compare

from ..identity import Identity
from .base import Authenticator
from .users import find_invalid_users, session_auth_hash

KIND = "session"


class DjangoSessionAuthenticator(Authenticator):
    """Accepts the session that the page's visitor is logged in with; used where no token came.

    Only where the handshake's Origin was checked (see ``routing``): a cookie alone proves who the
    browser belongs to, not who wrote the page. A ``user`` that an outer middleware put into the
    scope counts like a session.
    """

    kind = KIND

    def authenticate(self, token: str | None, scope: Mapping[str, Any]) -> Identity | None:
        """The logged-in, active user's identity."""
        if token is not None or not scope.get("realtime_origin_checked"):
            return None
        user = scope.get("user")
        key = _session_key(scope)
        if user is not None and user.is_authenticated:
            if not user.is_active:
                return None
            if key is None:  # whoever vouched for the user keeps no session of ours
                return _identity(user, f"{KIND}:user:{user.pk}", None)
            return _identity(user, session_credential(key), None, {"session": key})
        if key is None:
            return None
        session = _engine().SessionStore(key)
        user = _user_of(session)
        if user is None:
            return None
        expires_at = datetime.now(UTC) + timedelta(seconds=session.get_expiry_age())
        return _identity(user, session_credential(key), expires_at, {"session": key})

    def revoked(self, identities: Collection[Identity]) -> set[str]:
        """Sessions that were logged out or expired, or whose user is gone or changed passwords."""
        found = find_invalid_users(identities)
        for identity in identities:
            key = identity.private.get("session")
            if key is not None and identity.credential not in found:
                user = _user_of(_engine().SessionStore(key))
                if user is None or user.pk != identity.user_id:
                    found.add(identity.credential)
        return found


def session_credential(key: str) -> str:
    """The name of a session as a credential: not its key, which would be a password."""
    return f"{KIND}:{hashlib.sha256(key.encode()).hexdigest()}"


def _identity(
    user: Any,
    credential: str,
    expires_at: datetime | None,
    private: Mapping[str, str] | None = None,
) -> Identity:
    return Identity(
        credential=credential,
        user=user,
        user_id=user.pk,
        name=user.get_username(),
        expires_at=expires_at,
        private={**session_auth_hash(user), **(private or {})},
    )


def _engine() -> Any:
    return import_module(settings.SESSION_ENGINE)


def _session_key(scope: Mapping[str, Any]) -> str | None:
    held: str | None = getattr(scope.get("session"), "session_key", None)
    if held:  # of Channels' own session middleware
        return held
    for name, value in scope.get("headers", ()):
        if name == b"cookie":
            cookies = parse_cookie(value.decode("latin1"))
            key: str | None = cookies.get(settings.SESSION_COOKIE_NAME)
            if key:
                return key
    return None


def _user_of(session: Any) -> Any:
    """The session's user, by the rules of ``django.contrib.auth.get_user`` but without writing.

    That one flushes a session whose hash is out of date; a socket has no business to.
    """
    try:
        pk = get_user_model()._meta.pk.to_python(session[SESSION_KEY])
    except KeyError:
        return None
    user = get_user_model()._default_manager.filter(pk=pk).first()
    if user is None or not user.is_active:
        return None
    held = session.get(HASH_SESSION_KEY)
    if not hasattr(user, "get_session_auth_hash"):
        return user
    hashes = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    return user if held and any(constant_time_compare(held, each) for each in hashes) else None
