"""Authentication by the Django session whose cookie the WebSocket handshake contains."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.backends.cache import SessionStore as CacheSessionStore
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessionStore
from django.core.cache import InvalidCacheKey
from django.http import parse_cookie
from django.utils import timezone

from ..identity import Identity, display_name, is_active
from ..types import Scope
from .backends import AuthenticationUnavailable, MustBeAlone
from .base import Answer, Authenticator, Credential
from .users import (
    find_invalid_users,
    is_django_user,
    matches_session_hash,
    session_auth_hash,
)

KIND = "session"  # prefix of the credentials of these identities
# key and value that are written into the cache of the sessions, and read from it
PROBE = "django_cocobase_realtime.probe"
PROBE_SECONDS = 60


class DjangoSessionAuthenticator(Authenticator):
    """Accepts the session of a visitor who is logged in, if the client sent no token.

    The Origin of the handshake must have been checked (see ``routing``), because a browser sends
    the cookie even if a page of another site opens the connection. A ``user`` that a middleware
    has put into the scope is accepted like a session.
    """

    kind = KIND

    def authenticate(self, token: str | None, scope: Scope) -> Identity | None:
        """Return the identity of the logged-in user, or None if there is no active one.

        Raises `AuthenticationUnavailable` if the cache of the sessions does not answer.
        """
        if token is not None or not scope.get("realtime_origin_checked"):
            return None
        user: Any = scope.get("user")
        key = _session_key(scope)
        # other objects, such as anonymous users and those that stand for a token, are no users
        if is_django_user(user):
            if not is_active(user):
                return None
            if key is None:  # the user comes from a middleware that does not use sessions
                return _identity(user, f"{KIND}:user:{user.pk}", None)
            return _identity(user, session_credential(key), None, {"session": key})
        if key is None:
            return None
        session = _load_session(key)
        return _session_identity(key, session, _session_user(session))

    def authenticate_many(self, credentials: Sequence[Credential]) -> list[Answer]:
        """Return the identities of several sessions; see `together`.

        Only sessions in the database are loaded together.
        """
        answers: list[Answer] = [None] * len(credentials)
        keys: dict[int, str] = {}
        store = import_module(settings.SESSION_ENGINE).SessionStore
        for number, (token, scope) in enumerate(credentials):
            if token is not None or not scope.get("realtime_origin_checked"):
                continue
            if scope.get("user") is not None:
                answers[number] = MustBeAlone()
            elif (key := _session_key(scope)) is not None:
                keys[number] = key
                if store is not DatabaseSessionStore:
                    answers[number] = MustBeAlone()
        if keys and store is DatabaseSessionStore:
            sessions = _load_sessions(store, set(keys.values()))
            users = _read_users(sessions.values())
            for number, key in keys.items():
                if (session := sessions.get(key)) is not None:
                    answers[number] = _answer(key, session, users)
        return answers

    def revoked(self, identities: Collection[Identity]) -> set[str]:
        """Return the sessions that ended, or whose user is no longer valid."""
        revoked = find_invalid_users(identities)
        for identity in identities:
            key = identity.private.get("session")
            if key is not None and identity.credential not in revoked:
                user = _session_user(_load_session(key))
                if user is None or user.pk != identity.user_id:
                    revoked.add(identity.credential)
        return revoked


def session_credential(key: str) -> str:
    """Return `Identity.credential` for a session.

    It contains a hash of the session key, because the key itself is as secret as a password.
    """
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
        name=display_name(user),
        expires_at=expires_at,
        private={**session_auth_hash(user), **(private or {})},
    )


def _session_identity(key: str, session: Any, user: Any) -> Identity | None:
    if user is None:
        return None
    expires_at = datetime.now(UTC) + timedelta(seconds=session.get_expiry_age())
    return _identity(user, session_credential(key), expires_at, {"session": key})


def _answer(key: str, session: Any, users: Mapping[Any, Any]) -> Answer:
    try:
        user = users.get(_session_pk(session))
        return _session_identity(key, session, user if _is_valid(session, user) else None)
    except Exception as error:  # of the project's user model, or an invalid session
        return error


def _load_sessions(store: Any, keys: Collection[str]) -> dict[str, Any]:
    """Return the sessions in the database that have not expired, by key. Makes one query."""
    rows = store.get_model_class().objects.filter(
        session_key__in=keys, expire_date__gt=timezone.now()
    )
    sessions = {}
    for row in rows:
        session = sessions[row.session_key] = store()
        session.update(session.decode(row.session_data))
    return sessions


def _read_users(sessions: Iterable[Any]) -> dict[Any, Any]:
    """Return the users of sessions, by primary key. Makes one query."""
    pks = set()
    for session in sessions:
        with suppress(Exception):  # which is the answer for this session
            pks.add(_session_pk(session))
    pks.discard(None)
    rows = get_user_model()._default_manager.filter(pk__in=pks).order_by() if pks else ()
    return {user.pk: user for user in rows}


def _load_session(key: str) -> Any:
    """Return the session, which is empty if there is none with this key.

    Raises `AuthenticationUnavailable` if it may be in a cache that does not answer: Django treats
    this like a session that does not exist.
    """
    store = import_module(settings.SESSION_ENGINE).SessionStore
    session = store(key)
    if isinstance(session, CacheSessionStore) and not session.keys():
        _check_cache(session, key)
        session = store(key)  # the cache may not have answered then, but answers now
    return session


def _check_cache(session: Any, key: str) -> None:
    cache = session._cache
    try:
        cache.get(session.cache_key_prefix + key)  # it may be on another server than the probe
        cache.set(PROBE, PROBE, PROBE_SECONDS)
        answers = cache.get(PROBE) == PROBE  # some caches ignore that they have no connection
    except InvalidCacheKey:
        return
    except Exception as error:
        raise AuthenticationUnavailable("The cache of sessions does not answer.") from error
    if not answers:
        raise AuthenticationUnavailable("The cache of sessions does not answer.")


def _session_key(scope: Scope) -> str | None:
    """Return the session key: from Channels' session middleware, if used, or from the cookie."""
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

    Applies the rules of ``django.contrib.auth.get_user``, but unlike that function does not delete
    a session whose password hash is out of date.
    """
    pk = _session_pk(session)
    if pk is None:
        return None
    user = get_user_model()._default_manager.filter(pk=pk).first()
    return user if _is_valid(session, user) else None


def _session_pk(session: Any) -> Any:
    """Return the primary key of the user of a session; None if no user is logged in."""
    try:
        return get_user_model()._meta.pk.to_python(session[SESSION_KEY])
    except KeyError:
        return None


def _is_valid(session: Any, user: Any) -> bool:
    """Return whether the user of a session is active, and has the same password as then."""
    if user is None or not is_active(user):
        return False
    if not hasattr(user, "get_session_auth_hash"):
        return True
    session_hash = session.get(HASH_SESSION_KEY)
    return bool(session_hash and matches_session_hash(user, session_hash))
