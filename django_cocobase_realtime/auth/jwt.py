"""Authentication by JSON Web Tokens (RFC 7519).

Only the algorithms of the ``JWT`` setting are accepted, whatever a token names (RFC 8725).
"""

from __future__ import annotations

import logging
from collections.abc import Collection
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
from .backends import NotYetValid
from .base import Authenticator
from .jwks import key_set
from .users import active_user, find_invalid_users, session_auth_hash

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
            # with the tolerance, since a connection that expires at once would be opened again
            expires_at = datetime.fromtimestamp(int(claims["exp"]) + settings.leeway, UTC)
        except (ValueError, OverflowError, OSError):
            return None  # too large for a date, for example
        user = None
        if settings.user_lookup is not None:
            user = active_user(settings.user_lookup, subject)
            if user is None:
                return None
        return Identity(
            credential=f"{KIND}:{project}:{subject}",
            user=user,
            user_id=None if user is None else user.pk,
            name=public_name(claims.get("name"), subject, default="User")
            if user is None
            else display_name(user),
            project=project,
            claims=MappingProxyType({intern(name): value for name, value in claims.items()}),
            expires_at=expires_at,
            private=EMPTY if user is None else session_auth_hash(user),
            subject=None if user is not None else str(subject),
        )

    def revoked(self, identities: Collection[Identity]) -> set[str]:
        """Return the tokens whose user was deleted, is not active, or has a new password.

        A token that expires is not reported: the connection watches its own expiry.
        """
        return find_invalid_users(identities)


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
