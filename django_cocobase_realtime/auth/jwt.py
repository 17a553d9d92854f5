"""JSON Web Tokens (RFC 7519), verified with fixed algorithms (RFC 8725)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from functools import lru_cache, partial
from sys import intern
from types import MappingProxyType
from typing import Any

import jwt
from jwt import PyJWK, PyJWKClient

from ..conf import JwtSettings, conf
from ..identity import DEFAULT_PROJECT, NOTHING, Identity
from ..wire.json import is_valid_text
from .backends import AuthenticationUnavailable
from .base import Authenticator
from .users import active_user, find_invalid_users, session_auth_hash

logger = logging.getLogger(__name__)

KIND = "jwt"
PROJECT_LENGTH = 128  # characters, as rooms keep it
SUBJECT_LENGTH = NAME_LENGTH = 255
JWKS_LIFETIME = 300  # seconds that fetched keys are believed
JWKS_TIMEOUT = 5  # seconds a fetch may take
JWKS_MIN_FETCH_INTERVAL = 10.0  # seconds between fetches for key ids that nobody knows


class JwtAuthenticator(Authenticator):
    """Accepts tokens that the ``JWT`` setting can verify.

    Where the server of the keys does not answer nothing is known about a token, which may well
    hold: ``AuthenticationUnavailable``, and the client comes back.
    """

    kind = KIND

    def authenticate(self, token: str | None, scope: Mapping[str, Any]) -> Identity | None:
        """The subject's identity; with ``USER_LOOKUP`` the user must exist and be active."""
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
        if not _is_storable(project, PROJECT_LENGTH) or not _is_storable(
            str(subject), SUBJECT_LENGTH
        ):
            return None
        try:
            expires_at = datetime.fromtimestamp(int(claims["exp"]), UTC)
        except (ValueError, OverflowError, OSError):
            return None  # beyond the calendar
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
            name=user.get_username() if user is not None else _name(name, subject),
            project=project,
            claims=MappingProxyType({intern(name): value for name, value in claims.items()}),
            expires_at=expires_at,
            private=NOTHING if user is None else session_auth_hash(user),
        )

    def revoked(self, identities: Collection[Identity]) -> set[str]:
        """Tokens whose user is gone, inactive, or has a new password since.

        Expiry is watched by the connection itself.
        """
        return find_invalid_users(identities)


def _is_storable(text: str, length: int) -> bool:
    """Whether every database can hold it."""
    return len(text) <= length and is_valid_text(text)


def _name(name: Any, subject: str | int) -> str:
    """What people see; where they may call themselves as they like, made fit to be shown."""
    text = name if isinstance(name, str) else ""
    text = text.replace("\0", "").encode(errors="replace").decode()[:NAME_LENGTH]
    return text or str(subject)


def _verify(token: str, settings: JwtSettings) -> dict[str, Any]:
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
            "verify_sub": False,  # subjects may be integers: Django's keys are
        },
    )
    return claims


class _KeySet:
    """Keys behind a URL (RFC 7517), cached; strangers cannot make it fetch at will."""

    def __init__(self, url: str) -> None:
        self._client = PyJWKClient(
            url, cache_jwk_set=True, lifespan=JWKS_LIFETIME, timeout=JWKS_TIMEOUT
        )
        self._lock = threading.Lock()
        self._last_failed_fetch = -JWKS_MIN_FETCH_INTERVAL
        self._is_unavailable = False  # nobody answered at the last try

    def find(self, token: str) -> Any:
        """The key that signed the token. Raises ``jwt.PyJWTError`` where there is none.

        Raises ``AuthenticationUnavailable`` where the keys cannot be had.
        """
        kid = jwt.get_unverified_header(token).get("kid")
        key = self._find_in(self._client.get_signing_keys, kid)
        if key is None:  # rotated, or made up
            key = self._find_in(partial(self._client.get_signing_keys, refresh=True), kid)
        if key is None:
            self._last_failed_fetch = time.monotonic()
            raise jwt.InvalidKeyError("No such key.")
        return key

    def _find_in(self, fetch: Callable[[], list[PyJWK]], kid: Any) -> Any:
        with self._lock:
            cache = self._client.jwk_set_cache
            fresh = fetch == self._client.get_signing_keys and cache and cache.get() is not None
            if not fresh and time.monotonic() - self._last_failed_fetch < JWKS_MIN_FETCH_INTERVAL:
                # a fetch brought nothing a moment ago: not again for everybody
                if self._is_unavailable:
                    raise AuthenticationUnavailable(self._client.uri)
                return None
            try:
                keys = fetch()
            except jwt.PyJWTError as error:
                self._last_failed_fetch, self._is_unavailable = time.monotonic(), True
                logger.warning("The keys of tokens could not be fetched: %r", error)
                raise AuthenticationUnavailable(self._client.uri) from error
            self._is_unavailable = False
        return next((key for key in keys if kid is None or key.key_id == kid), None)


@lru_cache(maxsize=8)
def _keys(url: str) -> _KeySet:
    return _KeySet(url)
