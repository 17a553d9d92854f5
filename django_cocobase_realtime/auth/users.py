"""Queries about Django's users: whether they are still valid, and whether permissions changed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import DataError, models
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


def active_users(lookup: str, values: Collection[Any]) -> dict[Any, Any]:
    """Return what `active_user` returns for several values, without those that are None.

    Makes one query if the field is unique and one of Django's own types.
    """
    wanted = set(values)
    field = _unique_field(lookup)
    if field is None or len(wanted) < 2:
        users = ((value, active_user(lookup, value)) for value in wanted)
        return {value: user for value, user in users if user is not None}
    keys: dict[Any, Any] = {}
    for value in wanted:
        try:
            keys[value] = field.to_python(value)
        except (ValueError, TypeError, ValidationError, OverflowError):
            continue
    manager = get_user_model()._default_manager
    try:
        rows = list(manager.filter(**{f"{field.attname}__in": set(keys.values())}).order_by())
    except (ValueError, TypeError, ValidationError, OverflowError, DataError):
        rows = []  # one of the values is not possible
    by_key = {getattr(user, field.attname): user for user in rows}
    active = {}
    for value, key in keys.items():
        user = by_key.get(key)
        if user is None:
            # the database may compare in another way than Python
            user = active_user(lookup, value)
        elif not is_active(user) or not _is_written_as(value, user, lookup):
            user = None
        if user is not None:
            active[value] = user
    return active


def _unique_field(lookup: str) -> Any:
    """Return the unique field of the user model with this name; None if it is another lookup."""
    meta = get_user_model()._meta
    try:
        field: Any = meta.pk if lookup == "pk" else meta.get_field(lookup)
    except FieldDoesNotExist:
        return None
    is_plain = not field.is_relation and type(field).__module__.startswith("django.db.models.")
    return field if is_plain and field.unique else None


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
    active = {pk: user for pk, user in find_users(with_user).items() if is_active(user)}
    return {
        identity.credential
        for identity in with_user
        if not _is_valid(identity, active.get(identity.user.pk))
    }


def find_users(identities: Collection[Identity]) -> dict[Any, Any]:
    """Return the Django users of identities as they are in the database now, by primary key."""
    pks = {identity.user.pk for identity in identities if is_django_user(identity.user)}
    if not pks:
        return {}
    return {user.pk: user for user in get_user_model()._default_manager.filter(pk__in=pks)}


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
    rows = user_model._default_manager.filter(pk__in=pks).values_list("pk", *_flag_names())
    return _fingerprints({pk: tuple(values) for pk, *values in rows})


def fingerprints_of(users: Collection[Any]) -> dict[Any, Fingerprint]:
    """Return the `Fingerprint` of users that were just read, by primary key.

    Makes two queries, and a third one if some of them are in groups.
    """
    names = _flag_names()
    return _fingerprints({user.pk: tuple(getattr(user, n) for n in names) for user in users})


def _flag_names() -> list[str]:
    names = ("is_staff", "is_superuser")
    return [name for name in names if _has_column(get_user_model(), name)]


def _fingerprints(flags: dict[Any, tuple[Any, ...]]) -> dict[Any, Fingerprint]:
    """Return the fingerprints of users, given the values of their flags by primary key."""
    user_model, pks = get_user_model(), set(flags)
    parts: dict[Any, list[Any]] = {pk: [values] for pk, values in flags.items()}
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
