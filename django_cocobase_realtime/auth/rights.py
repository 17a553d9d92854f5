"""Tells live connections at once that what their user may see may have changed.

Signals make it fast: groups, permissions, staff status. The hub's look at the rights of all live
users every ``REVOCATION_POLL`` seconds makes it certain. Rights that come from elsewhere (another
model, another service) are announced by ``permissions_changed(user)``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.db import models, transaction
from django.db.models.signals import m2m_changed, post_save, pre_delete

from ..events import PermissionsChanged
from ..identity import Identity
from ..pubsub.broker import broker

UID = "django_cocobase_realtime.rights"
MAX_NAMED_USERS = 1000  # users beyond which everyone is meant
Fingerprint = tuple[Any, ...]


def connect() -> None:
    """Listen to users, their groups and permissions, and those of groups."""
    user = get_user_model()
    post_save.connect(_user_saved, sender=user, dispatch_uid=UID)
    for name in ("groups", "user_permissions"):
        through = _through(user, name)
        if through is not None:
            m2m_changed.connect(_of_user_changed, sender=through, dispatch_uid=UID)
    group = _group(user)
    if group is not None:
        pre_delete.connect(_group_deleted, sender=group, dispatch_uid=UID)
        through = _through(group, "permissions")
        if through is not None:
            m2m_changed.connect(_of_group_changed, sender=through, dispatch_uid=UID)


def announce_permissions_changed(users: Iterable[Any] | None, using: str | None = None) -> None:
    """On commit, have the connections of these users (keys; None: everyone) looked at anew."""
    keys = None if users is None else tuple(str(user) for user in users)
    if keys == ():
        return
    event = PermissionsChanged(None if keys is None or len(keys) > MAX_NAMED_USERS else keys)
    transaction.on_commit(lambda: broker.publish(event), using=using, robust=True)


def permission_fingerprints(identities: Collection[Identity]) -> dict[Any, Fingerprint]:
    """What the rights of each identity's user rest on, by the user's key: a query for each kind."""
    user = get_user_model()
    pks = {i.user.pk for i in identities if isinstance(i.user, user)}
    if not pks:
        return {}
    rows = user._default_manager.filter(pk__in=pks).values_list("pk", *_flags(user))
    found: dict[Any, list[Any]] = {pk: [tuple(values)] for pk, *values in rows}
    groups = _pairs(user, "groups", pks)
    of_groups = _pairs(_group(user), "permissions", {group for _, group in groups})
    granted: dict[Any, list[Any]] = {}
    for group, permission in of_groups:
        granted.setdefault(group, []).append(permission)
    for pk, group in groups:
        if pk in found:
            found[pk].append(("group", group, tuple(sorted(granted.get(group, ())))))
    for pk, permission in _pairs(user, "user_permissions", pks):
        if pk in found:
            found[pk].append(("permission", permission))
    return {pk: tuple(sorted(parts, key=repr)) for pk, parts in found.items()}


def _flags(user: type[models.Model]) -> list[str]:
    return [name for name in ("is_staff", "is_superuser") if _has_column(user, name)]


def _user_saved(
    instance: Any, created: bool, using: str, update_fields: frozenset[str] | None, **kwargs: Any
) -> None:
    if not created and not (update_fields and _only_moments(instance, update_fields)):
        announce_permissions_changed([instance.pk], using)


def _only_moments(instance: Any, names: frozenset[str]) -> bool:
    """Whether only times were written: a last login, a last visit, with every request perhaps."""
    fields = (instance._meta.get_field(name) for name in names)
    return all(isinstance(field, models.DateField) for field in fields)


def _of_user_changed(
    instance: Any, action: str, reverse: bool, pk_set: set[Any] | None, using: str, **kwargs: Any
) -> None:
    if action in ("post_add", "post_remove"):
        announce_permissions_changed(pk_set or () if reverse else [instance.pk], using)
    elif action == "post_clear":
        announce_permissions_changed(None if reverse else [instance.pk], using)


def _of_group_changed(instance: Any, action: str, reverse: bool, using: str, **kwargs: Any) -> None:
    if action in ("post_add", "post_remove", "post_clear"):
        announce_permissions_changed(None if reverse else _members(instance), using)


def _group_deleted(instance: Any, using: str, **kwargs: Any) -> None:
    announce_permissions_changed(_members(instance), using)


def _members(group: Any) -> list[Any]:
    through = _through(get_user_model(), "groups")
    if through is None:
        return []
    user, held = _ends(get_user_model(), "groups")
    members = through._default_manager.filter(**{held: group.pk})
    return list(members.values_list(user, flat=True)[: MAX_NAMED_USERS + 1])


def _pairs(model: Any, name: str, pks: set[Any]) -> list[tuple[Any, Any]]:
    through = None if model is None else _through(model, name)
    if through is None or not pks:
        return []
    source, target = _ends(model, name)
    rows = through._default_manager.filter(**{f"{source}__in": pks})
    return list(rows.values_list(source, target))


def _ends(model: Any, name: str) -> tuple[str, str]:
    """Columns of a through model: the one that holds, the one that is held."""
    field = model._meta.get_field(name)
    return f"{field.m2m_field_name()}_id", f"{field.m2m_reverse_field_name()}_id"


def _through(model: Any, name: str) -> Any:
    if not any(field.name == name for field in model._meta.many_to_many):
        return None
    return model._meta.get_field(name).remote_field.through


def _group(user: Any) -> Any:
    through = _through(user, "groups")
    return None if through is None else user._meta.get_field("groups").related_model


def _has_column(model: type[models.Model], name: str) -> bool:
    return any(field.name == name for field in model._meta.concrete_fields)
