"""What authenticators ask of Django's users."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import FieldError, ValidationError

from ..identity import Identity


def active_user(lookup: str, value: Any) -> Any:
    """The active user whose ``lookup`` field is ``value``; None for none, or for nonsense."""
    users = get_user_model()._default_manager
    try:
        user = users.filter(**{lookup: value}).first()
    except (ValueError, TypeError, ValidationError, OverflowError):
        return None  # "abc" for an integer key
    except FieldError:
        raise
    return user if user is not None and user.is_active else None


def gone(identities: Collection[Identity]) -> set[str]:
    """Credentials whose Django user was deleted or is no longer active. One query."""
    holders = [identity for identity in identities if identity.user is not None]
    if not holders:
        return set()
    users = get_user_model()._default_manager
    pks = {identity.user.pk for identity in holders}
    active = {user.pk for user in users.filter(pk__in=pks) if user.is_active}
    return {identity.credential for identity in holders if identity.user.pk not in active}
