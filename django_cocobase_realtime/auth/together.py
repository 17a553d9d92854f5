"""Authentication of several credentials in one call, with one query for all of them.

An authenticator supports it by a method ``authenticate_many``, which gets pairs of a token and a
scope, and returns for each what ``authenticate`` would return or raise. Only this app's own
authenticators have it. Those of a project are asked about one credential at a time, because nothing
is known about how long that takes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from django.utils.module_loading import import_string

from ..conf import conf
from ..identity import Identity
from ..utils.project_code import is_unavailable
from .anonymous import Anonymous
from .backends import Attempt, MustBeAlone, is_for_visitors, load_authenticator
from .base import Answer, Credential
from .users import fingerprints_of, is_django_user

logger = logging.getLogger(__name__)


def may_be_together() -> bool:
    """Return whether credentials can be checked together, with the current settings."""
    return conf.member is None and all(map(_supports_many, conf.authenticators))


@lru_cache(maxsize=32)
def _supports_many(path: str) -> bool:
    """Return whether an authenticator has a method for many that fits the one for one.

    A subclass that overrides only ``authenticate`` does not.
    """
    try:
        classes = import_string(path).__mro__
    except Exception:  # it cannot be imported, which is handled when it is asked
        return False
    for cls in classes:
        if "authenticate_many" in vars(cls) or cls is Anonymous:
            return True
        if "authenticate" in vars(cls):
            return False
    return False


def authenticate_many(credentials: Sequence[Credential]) -> list[Answer]:
    """Return for each credential what `backends.authenticate` would return or raise.

    The answer is `MustBeAlone` for those about which that function must be asked. Identities of
    Django users contain the fingerprint of the user's permissions.
    """
    attempts = [Attempt(token, scope) for token, scope in credentials]
    alone: set[Attempt] = set()
    for path in sorted(conf.authenticators, key=is_for_visitors):
        open_attempts = [a for a in attempts if not a.is_decided and a not in alone]
        if isinstance(load_authenticator(path), Anonymous):
            open_attempts = [a for a in open_attempts if not a.is_undecided]
        if not open_attempts:
            continue
        answers = _ask(path, [(a.token, a.scope) for a in open_attempts])
        for attempt, answer in zip(open_attempts, answers, strict=True):
            if isinstance(answer, MustBeAlone):
                alone.add(attempt)
            else:
                attempt.add(path, answer)
    return _with_fingerprints(
        credentials, [MustBeAlone() if a in alone else _result(a) for a in attempts]
    )


def _ask(path: str, credentials: Sequence[Credential]) -> Sequence[Answer]:
    authenticator: Any = load_authenticator(path)
    if isinstance(authenticator, Anonymous):
        return [authenticator.authenticate(token, scope) for token, scope in credentials]
    try:
        answers: Sequence[Answer] = authenticator.authenticate_many(credentials)
    except Exception as error:
        if is_unavailable(error):
            return [error] * len(credentials)
        # one of them is the cause
        logger.debug("Credentials are checked one by one: %s", type(error).__name__)
        return [MustBeAlone()] * len(credentials)
    return answers


def _result(attempt: Attempt) -> Answer:
    try:
        return attempt.result()
    except Exception as error:
        return error


def _with_fingerprints(credentials: Sequence[Credential], answers: list[Answer]) -> list[Answer]:
    """Add the fingerprints of the users' permissions to the identities of WebSockets.

    Not for a user that a middleware has read before.
    """
    users = {
        id(answer): answer.user
        for (_, scope), answer in zip(credentials, answers, strict=True)
        if isinstance(answer, Identity)
        and is_django_user(answer.user)
        and scope.get("type") != "http"
        and answer.user is not scope.get("user")
    }
    if not users:
        return answers
    try:
        fingerprints = fingerprints_of(users.values())
    except Exception as error:  # permissions are then evaluated a second time
        logger.warning("The permissions of users could not be read: %r", error)
        return answers
    return [
        replace(answer, fingerprint=fingerprints.get(answer.user.pk))
        if isinstance(answer, Identity) and id(answer) in users
        else answer
        for answer in answers
    ]
