"""What authenticators ask of Django's users."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import FieldError, ValidationError
from django.db.models import DateField
from django.utils.crypto import constant_time_compare

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


def session_auth_hash(user: Any) -> dict[str, str]:
    """What an identity keeps to notice a changed password: a keyed hash, as sessions do."""
    make = getattr(user, "get_session_auth_hash", None)
    return {} if make is None else {"password": make()}


def find_invalid_users(identities: Collection[Identity]) -> set[str]:
    """Credentials whose Django user was deleted, is no longer active, or changed the password.

    The last for identities that keep a `password_mark`. One query.
    """
    holders = [identity for identity in identities if identity.user is not None]
    if not holders:
        return set()
    users = get_user_model()._default_manager
    found = users.filter(pk__in={identity.user.pk for identity in holders})
    active = {user.pk: user for user in found if user.is_active}
    return {each.credential for each in holders if not _holds(each, active.get(each.user.pk))}


def _holds(identity: Identity, user: Any) -> bool:
    mark = identity.private.get("password")
    if user is None or mark is None:
        return user is not None
    hashes = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    return any(constant_time_compare(mark, each) for each in hashes)


def same_user(one: Any, other: Any) -> bool:
    """Whether two loads of a user hold the same, moments (a last login) aside."""
    fields = (f for f in one.__class__._meta.concrete_fields if not isinstance(f, DateField))
    return all(getattr(one, f.attname) == getattr(other, f.attname) for f in fields)


def refresh_user(user: Any) -> Any:
    """The same user as the database has it now, with no cached permissions; None where gone."""
    model = user.__class__  # of Channels' lazy users, too
    fresh = model._default_manager.filter(pk=user.pk).first()
    return fresh if fresh is not None and fresh.is_active else None
