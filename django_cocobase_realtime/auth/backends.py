"""Authentication by the authenticators that the ``AUTHENTICATORS`` setting lists."""

from __future__ import annotations

import logging
from collections.abc import Collection
from functools import lru_cache

from django.db import InterfaceError, OperationalError
from django.utils.module_loading import import_string

from ..conf import conf
from ..identity import Identity
from ..types import Scope
from .base import Authenticator

logger = logging.getLogger(__name__)

MAX_TOKEN_LENGTH = 4096  # characters; longer tokens are refused without calling an authenticator


class AuthenticationUnavailable(Exception):
    """The credential could not be validated, because a database or server does not answer.

    The client is asked to reconnect later. A project's own authenticators may raise it.
    """


@lru_cache(maxsize=32)
def _load(path: str) -> Authenticator:
    """Return an instance of the authenticator class with this dotted path."""
    authenticator: Authenticator = import_string(path)()
    return authenticator


def authenticate(token: str | None, scope: Scope) -> Identity | None:
    """Return the identity of the first authenticator that accepts the token, or None.

    Raises `AuthenticationUnavailable` if an authenticator raises it or the database fails. Other
    exceptions of an authenticator are logged, without the token, and the next one is tried.
    """
    if token is not None and (not 0 < len(token) <= MAX_TOKEN_LENGTH or not token.isprintable()):
        return None
    for path in conf.authenticators:
        try:
            identity = _load(path).authenticate(token, scope)
        except AuthenticationUnavailable:
            raise
        except (OperationalError, InterfaceError) as error:
            raise AuthenticationUnavailable(path) from error
        except Exception as error:
            # only the type, because the exception's message may contain the token
            logger.error("Authenticator %s failed: %s", path, type(error).__name__)
            continue
        if identity is not None:
            return identity
    return None


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
