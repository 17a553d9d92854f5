"""Authentication by the Django session whose cookie the handshake carries."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.http import parse_cookie

from ..identity import Identity, is_active, username
from ..types import Scope
from .base import Authenticator
from .users import find_invalid_users, matches_session_hash, session_auth_hash

KIND = "session"


class DjangoSessionAuthenticator(Authenticator):
    """Accepts the session of a logged-in visitor, if the client sent no token.

    Only if the Origin of the handshake was checked (see ``routing``): a cookie proves whose
    browser it is, but not which site the page in it comes from. A ``user`` that an outer
    middleware put into the scope counts like a session.
    """

    kind = KIND

    def authenticate(self, token: str | None, scope: Scope) -> Identity | None:
        """Return the identity of the logged-in user, or None if the user is not active."""
        if token is not None or not scope.get("realtime_origin_checked"):
            return None
        user = scope.get("user")
        key = _session_key(scope)
        if user is not None and user.is_authenticated:
            if not is_active(user):
                return None
            if key is None:  # the middleware authenticates without Django's sessions
                return _identity(user, f"{KIND}:user:{user.pk}", None)
            return _identity(user, session_credential(key), None, {"session": key})
        if key is None:
            return None
        session = _load_session(key)
        user = _session_user(session)
        if user is None:
            return None
        expires_at = datetime.now(UTC) + timedelta(seconds=session.get_expiry_age())
        return _identity(user, session_credential(key), expires_at, {"session": key})

    def revoked(self, identities: Collection[Identity]) -> set[str]:
        """Return the sessions that ended, and those of users who are no longer valid."""
        revoked = find_invalid_users(identities)
        for identity in identities:
            key = identity.private.get("session")
            if key is not None and identity.credential not in revoked:
                user = _session_user(_load_session(key))
                if user is None or user.pk != identity.user_id:
                    revoked.add(identity.credential)
        return revoked


def session_credential(key: str) -> str:
    """Return the credential of a session. It has a hash, since the key works like a password."""
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
        name=username(user),
        expires_at=expires_at,
        private={**session_auth_hash(user), **(private or {})},
    )


def _load_session(key: str) -> Any:
    return import_module(settings.SESSION_ENGINE).SessionStore(key)


def _session_key(scope: Scope) -> str | None:
    """Return the key from Channels' session middleware, or else from the cookie."""
    loaded_key: str | None = getattr(scope.get("session"), "session_key", None)
    if loaded_key:
        return loaded_key
    for name, value in scope.get("headers", ()):
        if name == b"cookie":
            cookies = parse_cookie(value.decode("latin1"))
            key: str | None = cookies.get(settings.SESSION_COOKIE_NAME)
            if key:
                return key
    return None


def _session_user(session: Any) -> Any:
    """Return the active user of a session, or None.

    Follows the rules of ``django.contrib.auth.get_user``, which however deletes a session whose
    hash is out of date; this function does not write.
    """
    try:
        pk = get_user_model()._meta.pk.to_python(session[SESSION_KEY])
    except KeyError:
        return None
    user = get_user_model()._default_manager.filter(pk=pk).first()
    if user is None or not is_active(user):
        return None
    if not hasattr(user, "get_session_auth_hash"):
        return user
    session_hash = session.get(HASH_SESSION_KEY)
    return user if session_hash and matches_session_hash(user, session_hash) else None
