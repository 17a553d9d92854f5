"""Asks each authenticator in turn."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from django.db import InterfaceError, OperationalError
from django.utils.module_loading import import_string

from ..conf import conf
from ..identity import Identity
from .base import Authenticator

logger = logging.getLogger(__name__)

MAX_TOKEN_LENGTH = 4096


class AuthenticationUnavailable(Exception):
    """The database, or another server, that knows the credentials does not answer.

    Its client is asked to come back. Authenticators of a project's own may raise it.
    """


@lru_cache(maxsize=32)
def _load(path: str) -> Authenticator:
    authenticator: Authenticator = import_string(path)()
    return authenticator


def authenticate(token: str | None, scope: Mapping[str, Any]) -> Identity | None:
    """The first identity that an authenticator vouches for, None where none does.

    Raises `AuthenticationUnavailable` where the database fails or an authenticator says so; any
    other failure of an authenticator is logged, without the token, and counts as "not mine".
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
            logger.error("Authenticator %s failed: %s", path, type(error).__name__)
            continue
        if identity is not None:
            return identity
    return None


def find_revoked(identities: Collection[Identity]) -> set[str]:
    """Credentials that no longer hold, asked of those who issued them."""
    found: set[str] = set()
    for path in conf.authenticators:
        authenticator = _load(path)
        own = [i for i in identities if i.credential.startswith(f"{authenticator.kind}:")]
        if own:
            found |= authenticator.revoked(own)
    return found
