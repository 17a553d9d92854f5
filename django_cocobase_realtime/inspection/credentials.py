"""The identities that an explanation is about: those that authenticators would return now."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError

from ..auth.anonymous import Anonymous
from ..auth.api_key import KEY_PREFIX, ApiKeyAuthenticator, key_identity
from ..auth.backends import is_for_visitors, load_authenticator
from ..conf import conf
from ..identity import Identity, display_name, is_active
from ..models import ApiKey
from .findings import Finding

# `Identity.credential` of a user whose credential is not known
USER_CREDENTIAL = "session:explained"


def find_user(text: str) -> Any:
    """Return the Django user with this username or id, or None."""
    model = get_user_model()
    users = model._default_manager
    user = users.filter(**{model.USERNAME_FIELD: text}).first()
    if user is not None:
        return user
    try:
        return users.filter(pk=text).first()
    except (ValueError, TypeError, ValidationError, OverflowError):
        return None


def user_identity(text: str, project: str | None = None) -> tuple[Identity | None, Finding]:
    """Return the identity of a user who has logged in, or None, and a finding about it."""
    user = find_user(text)
    if user is None:
        return None, Finding(False, f"there is no user with the username or id {text!r}")
    name = f"user {user.pk}"
    if not is_active(user):
        return None, Finding(False, f"{name} is not active, so no credential of it is accepted")
    identity = Identity(
        credential=USER_CREDENTIAL, user=user, user_id=user.pk, name=display_name(user)
    )
    if project is not None:
        identity = replace(identity, project=project)
    text = f"{name} is active; project {identity.project!r}, without claims of a token"
    return identity, Finding(True, text)


def api_key_identity(text: str) -> tuple[Identity | None, Finding]:
    """Return the identity of an API key with a prefix, or None, and a finding about it.

    A whole key is accepted as well. Its secret is not looked at, and is not in the finding.
    """
    if not any(map(_is_for_keys, conf.authenticators)):
        return None, Finding(
            False, "API keys are not accepted: AUTHENTICATORS has nothing for them"
        )
    prefix = text.removeprefix(KEY_PREFIX).partition("_")[0]
    key = ApiKey.objects.select_related("user").filter(prefix=prefix).first()
    if key is None:
        return None, Finding(False, "there is no API key with this prefix")
    name = f"key {key.prefix}"
    if key.revoked_at is not None:
        return None, Finding(False, f"{name} was revoked at {key.revoked_at.isoformat()}")
    if not key.is_live():
        if key.user is not None and not is_active(key.user):
            return None, Finding(False, f"{name} belongs to user {key.user_id}, who is not active")
        assert key.expires_at is not None
        return None, Finding(False, f"{name} expired at {key.expires_at.isoformat()}")
    owner = "no user" if key.user is None else f"user {key.user_id}"
    text = f"{name} is live, acts for {owner} in project {key.project!r}; scope: {key.scope}"
    return key_identity(key), Finding(True, text)


def _is_for_keys(path: str) -> bool:
    """Return whether an authenticator accepts API keys."""
    try:
        return isinstance(load_authenticator(path), ApiKeyAuthenticator)
    except Exception:  # it cannot be imported, which a system check reports
        return False


def visitor_identity(project: str | None = None) -> tuple[Identity | None, Finding]:
    """Return the identity of anonymous visitors, or None, and a finding about it."""
    path = next(filter(is_for_visitors, conf.authenticators), None)
    if path is None:
        text = "anonymous visitors are not accepted: no authenticator in AUTHENTICATORS is for them"
        return None, Finding(False, text)
    authenticator = load_authenticator(path)
    assert isinstance(authenticator, Anonymous)
    identity = authenticator.authenticate(None, {"type": "websocket"})
    if identity is None:
        return None, Finding(False, f"{path} refuses a visitor")
    if project is not None:
        identity = replace(identity, project=project)
    return identity, Finding(True, f"an anonymous visitor in project {identity.project!r}")
