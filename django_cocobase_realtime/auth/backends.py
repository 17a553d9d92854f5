"""Authentication by the authenticators that the ``AUTHENTICATORS`` setting lists."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import UTC, datetime
from functools import lru_cache

from django.db import InterfaceError, OperationalError
from django.utils.module_loading import import_string

from ..conf import conf
from ..identity import Identity
from ..types import Scope
from .base import Authenticator
from .members import with_member_name

logger = logging.getLogger(__name__)

MAX_TOKEN_LENGTH = 4096  # characters; longer tokens are refused without calling an authenticator


class AuthenticationUnavailable(Exception):
    """The credential could not be validated, because a database or server does not answer.

    The client is asked to reconnect later. A project's own authenticators may raise it.
    """


class AuthenticationPostponed(AuthenticationUnavailable):
    """The credential was not validated, because such requests are limited.

    The client is asked to reconnect later. It counts as a failure of the client's address.
    """


class NotYetValid(Exception):
    """The credential is refused now, but may be accepted in a moment.

    Examples are a token whose key is not published yet, and one that is not valid before a time.
    The client gets the same answer as for any other invalid credential, but the credential is not
    remembered as a wrong one. A project's own authenticators may raise it.
    """


@lru_cache(maxsize=32)
def _load(path: str) -> Authenticator:
    """Return an instance of the authenticator class with this dotted path."""
    authenticator: Authenticator = import_string(path)()
    return authenticator


def authenticate(token: str | None, scope: Scope) -> Identity | None:
    """Return the identity of the first authenticator that accepts the token, or None.

    If no authenticator accepts it, but one of them could not decide, raises
    `AuthenticationUnavailable`. The same happens if the database fails. If one of them raises
    `NotYetValid`, this is raised. Other exceptions of an authenticator are logged, without the
    token, and the next one is tried.
    """
    undecided: AuthenticationUnavailable | None = None
    not_yet_valid: NotYetValid | None = None
    if token is not None and (not 0 < len(token) <= MAX_TOKEN_LENGTH or not token.isprintable()):
        return None
    for path in conf.authenticators:
        try:
            identity = _load(path).authenticate(token, scope)
            if identity is not None and scope.get("type") != "http":
                identity = with_member_name(identity)
        except AuthenticationUnavailable as error:
            # the token may be one of another authenticator
            undecided = error
            continue
        except NotYetValid as error:
            not_yet_valid = error
            continue
        except (OperationalError, InterfaceError) as error:
            raise AuthenticationUnavailable(path) from error
        except Exception as error:
            # only the type, because the exception's message may contain the token
            logger.error("Authenticator %s failed: %s", path, type(error).__name__)
            continue
        if identity is not None:
            return None if _is_expired(identity) else identity
    if undecided is not None:
        raise undecided
    if not_yet_valid is not None:
        raise not_yet_valid
    return None


def _is_expired(identity: Identity) -> bool:
    """Return whether a credential has expired, although its authenticator accepted it.

    The connection would be closed at once, and its client would come back immediately.
    """
    return identity.expires_at is not None and identity.expires_at <= datetime.now(UTC)


def find_revoked(identities: Collection[Identity]) -> set[str]:
    """Return the credentials that are no longer valid. Each authenticator checks its own."""
    revoked: set[str] = set()
    for path in conf.authenticators:
        authenticator = _load(path)
        prefix = f"{authenticator.kind}:"
        own = [identity for identity in identities if identity.credential.startswith(prefix)]
        if own:
            revoked |= authenticator.revoked(own)
    return revoked
