"""Authentication by JSON Web Tokens (RFC 7519).

Only the algorithms of the ``JWT`` setting are accepted, whatever a token names (RFC 8725).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import partial
from sys import intern
from types import MappingProxyType
from typing import Any

import jwt

from ..conf import conf
from ..identity import DEFAULT_PROJECT, EMPTY, Identity, display_name, public_name
from ..options import JwtSettings
from ..types import Scope
from ..wire.json import is_valid_text
from .backends import MustBeAlone, NotYetValid
from .base import Answer, Authenticator, Credential
from .jwks import key_set
from .users import active_user, active_users, find_invalid_users, session_auth_hash

logger = logging.getLogger(__name__)

KIND = "jwt"  # prefix of the credentials of these identities
MAX_PROJECT_LENGTH = 128  # characters, as in the tables of rooms
MAX_SUBJECT_LENGTH = 250  # characters; with the prefix, it is the id of members of rooms


class JwtAuthenticator(Authenticator):
    """Accepts tokens that the ``JWT`` setting can verify.

    If the keys cannot be fetched from their server, it is unknown whether a token is valid.
    ``AuthenticationUnavailable`` is then raised, and the client reconnects later.
    """

    kind = KIND

    def authenticate(self, token: str | None, scope: Scope) -> Identity | None:
        """Return the identity of the token's subject, or None if the token is not valid.

        With ``USER_LOOKUP`` the subject must be an active Django user. Without it, the identity has
        no user, even if there is one with this primary key.
        """
        settings = conf.jwt
        claims = _check(token, settings)
        if settings is None or claims is None:
            return None
        if settings.user_lookup is None:
            return _identity(claims, settings, None)
        user = active_user(settings.user_lookup, claims[settings.user_claim])
        return None if user is None else _identity(claims, settings, user)

    def authenticate_many(self, credentials: Sequence[Credential]) -> list[Answer]:
        """Return the identities of several tokens; see `together`."""
        settings = conf.jwt
        checked = [_check_alone(token, settings) for token, _ in credentials]
        if settings is None or settings.user_lookup is None:
            return [_answer(claims, settings, None) for claims in checked]
        subjects = [c[settings.user_claim] for c in checked if isinstance(c, dict)]
        users = active_users(settings.user_lookup, subjects)
        return [
            _answer(claims, settings, users.get(claims[settings.user_claim]))
            if isinstance(claims, dict)
            else claims
            for claims in checked
        ]

    def revoked(self, identities: Collection[Identity]) -> set[str]:
        """Return the tokens whose user was deleted, is not active, or has a new password.

        A token that expires is not reported: the connection watches its own expiry.
        """
        return find_invalid_users(identities)


def _check(token: str | None, settings: JwtSettings | None) -> dict[str, Any] | None:
    """Return the claims of a token, or None if it is not valid.

    Raises `NotYetValid` if it may be valid later.
    """
    if settings is None or token is None or token.count(".") != 2:
        return None
    try:
        claims = _verify(token, settings)
    except jwt.ImmatureSignatureError as error:  # the clocks may differ by some seconds
        raise NotYetValid("The token is not valid yet.") from error
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
        _expires_at(claims, settings)
    except (ValueError, OverflowError, OSError):
        return None  # too large for a date, for example
    return claims


def _check_alone(
    token: str | None, settings: JwtSettings | None
) -> dict[str, Any] | Exception | None:
    """Return the claims, or the exception; `MustBeAlone` if a request for the keys is needed."""
    try:
        url = None if settings is None else settings.jwks_url
        if url and token and token.count(".") == 2 and not key_set(url).has_key_for(token):
            return MustBeAlone()
        return _check(token, settings)
    except Exception as error:
        return error


def _answer(
    claims: dict[str, Any] | Exception | None, settings: JwtSettings | None, user: Any
) -> Answer:
    if not isinstance(claims, dict) or settings is None:
        return claims if isinstance(claims, Exception) else None
    if user is None and settings.user_lookup is not None:
        return None
    try:
        return _identity(claims, settings, user)
    except Exception as error:  # of the project's user model
        return error


def _expires_at(claims: dict[str, Any], settings: JwtSettings) -> datetime:
    # with the tolerance, since a connection that expires at once would be opened again
    return datetime.fromtimestamp(int(claims["exp"]) + settings.leeway, UTC)


def _identity(claims: dict[str, Any], settings: JwtSettings, user: Any) -> Identity:
    subject = claims[settings.user_claim]
    project = claims.get(settings.project_claim, DEFAULT_PROJECT)
    return Identity(
        credential=f"{KIND}:{project}:{subject}",
        user=user,
        user_id=None if user is None else user.pk,
        name=public_name(claims.get("name"), subject, default="User")
        if user is None
        else display_name(user),
        project=project,
        claims=MappingProxyType({intern(name): value for name, value in claims.items()}),
        expires_at=_expires_at(claims, settings),
        private=EMPTY if user is None else session_auth_hash(user),
        subject=None if user is not None else str(subject),
    )


def _is_storable(text: str, length: int) -> bool:
    """Return whether every database can store a text."""
    return len(text) <= length and is_valid_text(text)


def _verify(token: str, settings: JwtSettings) -> dict[str, Any]:
    """Return the claims of a token.

    Raises ``jwt.PyJWTError`` if it is not valid, and the exceptions of `jwks.KeySet.decode`. The
    signature is verified first, so that nothing is known about a forged token.
    """
    decode = partial(_decode, token, settings)
    return (
        key_set(settings.jwks_url).decode(token, decode)
        if settings.jwks_url
        else decode(settings.key)
    )


def _decode(token: str, settings: JwtSettings, key: Any) -> dict[str, Any]:
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
