"""Authentication by JSON Web Tokens (RFC 7519).

Only the algorithms of the ``JWT`` setting are accepted, whatever a token names (RFC 8725).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import lru_cache, partial
from sys import intern
from types import MappingProxyType
from typing import Any

import jwt
from jwt import PyJWK, PyJWKClient

from ..conf import JwtSettings, conf
from ..identity import DEFAULT_PROJECT, EMPTY, Identity, username
from ..types import Scope
from ..wire.json import is_valid_text
from .backends import AuthenticationUnavailable
from .base import Authenticator
from .users import active_user, find_invalid_users, session_auth_hash

logger = logging.getLogger(__name__)

KIND = "jwt"  # prefix of the credentials of these identities
MAX_PROJECT_LENGTH = 128  # characters, as in the tables of rooms
MAX_SUBJECT_LENGTH = 255  # characters
MAX_NAME_LENGTH = 255  # characters
JWKS_LIFETIME = 300  # seconds that fetched keys are cached
JWKS_TIMEOUT = 5  # seconds that a fetch of the keys may take
JWKS_MIN_FETCH_INTERVAL = 10.0  # seconds between a fetch that did not help and the next one


class JwtAuthenticator(Authenticator):
    """Accepts tokens that the ``JWT`` setting can verify.

    If the keys cannot be fetched from their server, it is unknown whether a token is valid.
    `AuthenticationUnavailable` is then raised, and the client reconnects later.
    """

    kind = KIND

    def authenticate(self, token: str | None, scope: Scope) -> Identity | None:
        """Return the identity of the token's subject, or None if the token is not valid.

        With ``USER_LOOKUP`` the subject must be an active Django user.
        """
        settings = conf.jwt
        if settings is None or token is None or token.count(".") != 2:
            return None
        try:
            claims = _verify(token, settings)
        except jwt.PyJWTError as error:
            logger.debug("A token was refused: %s", type(error).__name__)
            return None
        subject = claims.get(settings.user_claim)
        project = claims.get(settings.project_claim, DEFAULT_PROJECT)
        if isinstance(subject, bool) or not isinstance(subject, str | int) or subject == "":
            return None
        if not isinstance(project, str) or not project:
            return None
        if not _is_storable(project, MAX_PROJECT_LENGTH) or not _is_storable(
            str(subject), MAX_SUBJECT_LENGTH
        ):
            return None
        try:
            expires_at = datetime.fromtimestamp(int(claims["exp"]), UTC)
        except (ValueError, OverflowError, OSError):
            return None  # too large for a date, for example
        user = None
        if settings.user_lookup is not None:
            user = active_user(settings.user_lookup, subject)
            if user is None:
                return None
        name = claims.get("name")
        return Identity(
            credential=f"{KIND}:{project}:{subject}",
            user=user,
            user_id=subject if user is None else user.pk,
            name=username(user) if user is not None else _display_name(name, subject),
            project=project,
            claims=MappingProxyType({intern(name): value for name, value in claims.items()}),
            expires_at=expires_at,
            private=EMPTY if user is None else session_auth_hash(user),
        )

    def revoked(self, identities: Collection[Identity]) -> set[str]:
        """Return the tokens whose user was deleted, is not active, or has a new password.

        A token that expires is not reported: the connection watches its own expiry.
        """
        return find_invalid_users(identities)


def _is_storable(text: str, length: int) -> bool:
    """Return whether every database can store a text."""
    return len(text) <= length and is_valid_text(text)


def _display_name(name: Any, subject: str | int) -> str:
    """Return the name in a token, without characters that databases refuse, or the subject."""
    text = name if isinstance(name, str) else ""
    text = text.replace("\0", "").encode(errors="replace").decode()[:MAX_NAME_LENGTH]
    return text or str(subject)


def _verify(token: str, settings: JwtSettings) -> dict[str, Any]:
    """Return the claims of a token. Raises ``jwt.PyJWTError`` if it is not valid."""
    key: Any = settings.key
    if settings.jwks_url:
        key = _keys(settings.jwks_url).find(token)
    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        algorithms=list(settings.algorithms),
        audience=settings.audience,
        issuer=settings.issuer,
        leeway=settings.leeway,
        options={
            "require": ["exp", settings.user_claim],
            "verify_aud": settings.audience is not None,
            "verify_sub": False,  # also accept integers, such as Django's primary keys
        },
    )
    return claims


class _KeySet:
    """The keys that a URL provides (RFC 7517), cached.

    A token with an unknown key id makes it fetch the keys again, but at most once in
    `JWKS_MIN_FETCH_INTERVAL`, so that invented key ids do not cause a request each.
    """

    def __init__(self, url: str) -> None:
        self._client = PyJWKClient(
            url, cache_jwk_set=True, lifespan=JWKS_LIFETIME, timeout=JWKS_TIMEOUT
        )
        self._lock = threading.Lock()
        # monotonic time of the last fetch that failed or did not contain the wanted key
        self._last_failed_fetch = -JWKS_MIN_FETCH_INTERVAL
        # whether the last fetch failed
        self._is_unavailable = False

    def find(self, token: str) -> Any:
        """Return the key that a token names as the one that signed it.

        Raises ``jwt.PyJWTError`` if it is unknown, and ``AuthenticationUnavailable`` if the keys
        cannot be fetched.
        """
        kid = jwt.get_unverified_header(token).get("kid")
        key = self._find_in(self._client.get_signing_keys, kid)
        if key is None:  # the keys were rotated, or the key id is invented
            key = self._find_in(partial(self._client.get_signing_keys, refresh=True), kid)
        if key is None:
            self._last_failed_fetch = time.monotonic()
            raise jwt.InvalidKeyError("There is no key with this id.")
        return key

    def _find_in(self, fetch: Callable[[], list[PyJWK]], kid: Any) -> Any:
        """Return the key with this id among those that ``fetch`` returns, or None."""
        with self._lock:
            cache = self._client.jwk_set_cache
            cached = fetch == self._client.get_signing_keys and cache and cache.get() is not None
            if not cached and time.monotonic() - self._last_failed_fetch < JWKS_MIN_FETCH_INTERVAL:
                # a fetch a moment ago failed, or did not contain the key
                if self._is_unavailable:
                    raise AuthenticationUnavailable(self._client.uri)
                return None
            try:
                keys = fetch()
            except jwt.PyJWTError as error:
                self._last_failed_fetch, self._is_unavailable = time.monotonic(), True
                logger.warning("The keys that verify tokens could not be fetched: %r", error)
                raise AuthenticationUnavailable(self._client.uri) from error
            self._is_unavailable = False
        return next((key for key in keys if kid is None or key.key_id == kid), None)


@lru_cache(maxsize=8)
def _keys(url: str) -> _KeySet:
    return _KeySet(url)
