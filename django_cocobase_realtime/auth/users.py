"""Queries about Django's users: whether they are still valid, and whether permissions changed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import models
from django.utils.crypto import constant_time_compare

from ..identity import Identity, is_active

# a value that changes if the groups, permissions or staff status of a user change
Fingerprint = tuple[Any, ...]


def is_django_user(user: Any) -> bool:
    """Return whether an object is an instance of the user model, or a lazy one."""
    return isinstance(user, get_user_model())


def active_user(lookup: str, value: Any) -> Any:
    """Return the active user whose ``lookup`` field has this value, or None.

    The value must be written as the field's value is: " 1" and "01" are not the user 1, because for
    the issuer of tokens they may be other users.
    """
    users = get_user_model()._default_manager
    try:
        user = users.filter(**{lookup: value}).first()
    except (ValueError, TypeError, ValidationError, OverflowError):
        return None  # the field cannot have this value: "abc" for an integer key
    if user is None or not is_active(user) or not _is_written_as(value, user, lookup):
        return None
    return user


def _is_written_as(value: Any, user: Any, lookup: str) -> bool:
    """Return whether a value is the usual text of a number or UUID that a field has."""
    current = getattr(user, lookup, None)
    if isinstance(current, int):
        return str(current) == str(value)
    if isinstance(current, UUID):
        return str(value).lower() in (str(current), current.hex)
    return True


def session_auth_hash(user: Any) -> dict[str, str]:
    """Return items for `Identity.private` by which a changed password is noticed.

    They contain the keyed hash of the password that Django's sessions contain as well.
    """
    get_hash = getattr(user, "get_session_auth_hash", None)
    return {} if get_hash is None else {"password": get_hash()}


def find_invalid_users(identities: Collection[Identity]) -> set[str]:
    """Return the credentials whose user was deleted, is not active, or has another password.

    Passwords are compared for identities with a `session_auth_hash`. Makes one query.
    """
    with_user = [identity for identity in identities if is_django_user(identity.user)]
    if not with_user:
        return set()
    users = get_user_model()._default_manager
    rows = users.filter(pk__in={identity.user.pk for identity in with_user})
    active = {user.pk: user for user in rows if is_active(user)}
    return {
        identity.credential
        for identity in with_user
        if not _is_valid(identity, active.get(identity.user.pk))
    }


def _is_valid(identity: Identity, user: Any) -> bool:
    known_hash = identity.private.get("password")
    if user is None or known_hash is None:
        return user is not None
    return matches_session_hash(user, known_hash)


def matches_session_hash(user: Any, known_hash: str) -> bool:
    """Return whether a hash of the user's password, as sessions keep it, is up to date."""
    hashes = [user.get_session_auth_hash()]
    fallback = getattr(user, "get_session_auth_fallback_hash", None)
    if fallback is not None:
        hashes += fallback()
    return any(constant_time_compare(known_hash, user_hash) for user_hash in hashes)


def same_user(one: Any, other: Any) -> bool:
    """Return whether two copies of a user have the same values, except for times."""
    if not is_django_user(one) or not is_django_user(other):
        return bool(one == other)
    fields = (f for f in one.__class__._meta.concrete_fields if not is_time_field(f))
    return all(getattr(one, f.attname) == getattr(other, f.attname) for f in fields)


def refresh_user(user: Any) -> Any:
    """Return the user from the database, without cached permissions, or None if not active.

    An object that is not an instance of the user model is returned as it is: an authenticator of
    the project may use one.
    """
    if not is_django_user(user):
        return user
    model = user.__class__  # type() would be another class for the lazy user of Channels
    fresh = model._default_manager.filter(pk=user.pk).first()
    return fresh if fresh is not None and is_active(fresh) else None


def is_time_field(field: Any) -> bool:
    """Return whether a field contains dates or times."""
    return isinstance(field, models.DateField)


# permissions


def permission_fingerprints(identities: Collection[Identity]) -> dict[Any, Fingerprint]:
    """Return the `Fingerprint` of each user, by primary key.

    Makes four queries: for users, groups, permissions of groups, and permissions of users.
    """
    user_model = get_user_model()
    pks = {identity.user.pk for identity in identities if is_django_user(identity.user)}
    if not pks:
        return {}
    flags = [name for name in ("is_staff", "is_superuser") if _has_column(user_model, name)]
    rows = user_model._default_manager.filter(pk__in=pks).values_list("pk", *flags)
    parts: dict[Any, list[Any]] = {pk: [tuple(values)] for pk, *values in rows}
    groups = _related_pairs(user_model, "groups", pks)
    group_permissions: dict[Any, list[Any]] = {}
    for group, permission in _related_pairs(
        group_model(), "permissions", {group for _, group in groups}
    ):
        group_permissions.setdefault(group, []).append(permission)
    for pk, group in groups:
        if pk in parts:
            permissions = tuple(sorted(group_permissions.get(group, ())))
            parts[pk].append(("group", group, permissions))
    for pk, permission in _related_pairs(user_model, "user_permissions", pks):
        if pk in parts:
            parts[pk].append(("permission", permission))
    return {pk: tuple(sorted(user_parts, key=repr)) for pk, user_parts in parts.items()}


def group_model() -> Any:
    """Return the model to which the user model's ``groups`` field points, or None."""
    user_model = get_user_model()
    if through_model(user_model, "groups") is None:
        return None
    return user_model._meta.get_field("groups").related_model


def group_members(group: Any, limit: int) -> list[Any]:
    """Return the primary keys of up to ``limit`` users in a group."""
    through = through_model(get_user_model(), "groups")
    if through is None:
        return []
    user_column, group_column = _through_columns(get_user_model(), "groups")
    members = through._default_manager.filter(**{group_column: group.pk})
    return list(members.values_list(user_column, flat=True)[:limit])


def through_model(model: Any, name: str) -> Any:
    """Return the through model of a many-to-many field, or None if there is no such field."""
    if not any(field.name == name for field in model._meta.many_to_many):
        return None
    return model._meta.get_field(name).remote_field.through


def _through_columns(model: Any, name: str) -> tuple[str, str]:
    """Return the columns of a through model: that of ``model``, and that of the related model."""
    field = model._meta.get_field(name)
    return f"{field.m2m_field_name()}_id", f"{field.m2m_reverse_field_name()}_id"


def _related_pairs(model: Any, name: str, pks: set[Any]) -> list[tuple[Any, Any]]:
    """Return pairs (primary key, related primary key) of a many-to-many field.

    ``pks`` are the primary keys of the rows of ``model``.
    """
    through = None if model is None else through_model(model, name)
    if through is None or not pks:
        return []
    column, related_column = _through_columns(model, name)
    rows = through._default_manager.filter(**{f"{column}__in": pks})
    return list(rows.values_list(column, related_column))


def _has_column(model: type[models.Model], name: str) -> bool:
    return any(field.name == name for field in model._meta.concrete_fields)
